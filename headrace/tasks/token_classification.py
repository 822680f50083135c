"""Token classification: the entities of a text, such as names of persons and places."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput, nearest
from headrace.records import Input
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray, Outputs, TokenLogits
from headrace.tasks.spans import OUTSIDE, Span, entities, is_tag, to_tags
from headrace.tasks.sums import share
from headrace.tasks.text_classification import softmax
from headrace.tasks.viterbi import best_path, marginals

_NEXT_STEP = 'A label is a list of [start, end, "type"], or of {"start", "end", "label"}; [] for none'
_N_SUMS = 3  # of a type: entities hit, in the truth, in the answers


class TokenClassification:
    """The entities of a text, judged by the F1 of whole entities.

    Targets are [[start, end, type], ...]: characters of the text, in order and without overlap. Outputs are TokenLogits
    of W words over K = 2 * types + 1 tags: O, then B and I of each type in the order of the settings.
    """

    name = "token-classification"
    problem = "token_classification"
    auto_class = "AutoModelForTokenClassification"
    fields: tuple[str, ...] = ("text",)
    main_metric = "f1"

    def __init__(self, settings: TaskTable) -> None:
        types = list(settings.labels)
        if not types or len(set(types)) != len(types) or not all(kind.strip() for kind in types):
            raise BadConfig(
                "a token-classification task needs one or more different entity types",
                value=types,
                next_step='Set labels = ["PER", "ORG"] in the task\'s table of headrace.toml',
            )
        if settings.input == "turns":
            raise BadConfig(
                "entities are marked in one text, not in the turns of a conversation",
                value=settings.input,
                next_step="Remove `input` from the task's table of headrace.toml",
            )
        if tags := [kind for kind in types if is_tag(kind)]:
            raise BadConfig("these are tags, not entity types", value=tags, next_step="Name types without B- and I-")
        self.types = types
        self.output_names = [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
        self._tag_index = {tag: i for i, tag in enumerate(self.output_names)}
        self._type_index = {kind: i for i, kind in enumerate(types)}

    @property
    def n_outputs(self) -> int:
        return len(self.output_names)

    def parse_label(self, raw: object, given: Input | None = None) -> list[Span]:
        items = _from_json(raw) if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple):
            raise BadInput("not a list of entities", value=raw, next_step=_NEXT_STEP)
        text = given if isinstance(given, str) else None
        spans = sorted((self._span(item, text) for item in items), key=lambda span: (span[0], span[1]))
        for one, other in pairwise(spans):
            if other[0] < one[1]:
                raise BadInput("entities overlap", value=[one, other], next_step="A character belongs to one at most")
        return spans

    def _span(self, item: object, text: str | None) -> Span:
        start, end, label, shown = _parts(item)
        if label not in self._type_index:
            raise BadInput("unknown entity type", value=label, next_step=nearest(str(label), self.types))
        if not _is_place(start) or not _is_place(end) or not 0 <= start < end:
            raise BadInput(
                "not the start and end of a span", value=item, next_step="Give 0 <= start < end, as integers"
            )
        if text is None:
            return [start, end, str(label)]
        if end > len(text):
            raise BadInput(f"a span beyond the text's {len(text)} characters", value=item, next_step="Check its end")
        found = text[start:end]
        if shown is not None and shown != found:
            raise BadInput(f"the text at {start}:{end} is {found!r}, not {shown!r}", value=item, next_step=_NEXT_STEP)
        if not found.strip():
            raise BadInput("a span of spaces only", value=item, next_step="Check its start and end")
        lead = len(found) - len(found.lstrip())
        return [start + lead, start + lead + len(found.strip()), str(label)]

    def combine(self, targets: Sequence[list[Span]]) -> list[Span]:
        """The spans that more than half of the labellers gave; two of them cannot overlap."""
        votes = Counter(tuple(span) for target in targets for span in target)
        return sorted(list(span) for span, n in votes.items() if 2 * n > len(targets))

    def encode_targets(self, targets: Sequence[list[Span]]) -> NDArray[Any]:
        encoded = np.empty(len(targets), dtype=object)
        for i, target in enumerate(targets):  # numpy would take equal lengths for dimensions
            encoded[i] = target
        return encoded

    def tags_of(self, target: Sequence[Span], spans: NDArray[Any]) -> NDArray[np.int64]:
        """Tags (W,) of words from a target; a word belongs to the first entity that it overlaps.

        Args:
            spans: (W, 2) characters of the words, in order.
        """
        found, free = [], 0
        for start, end, kind in target:
            inside = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
            inside = inside[inside >= free]
            if len(inside):
                free = int(inside[-1]) + 1
                found.append((int(inside[0]), free, kind))
        return np.asarray([self._tag_index[tag] for tag in to_tags(found, len(spans))], dtype=np.int64)

    def calibrate(self, targets: Sequence[list[Span]], outputs: Outputs) -> dict[str, Any]:
        return {}

    def decode(self, outputs: Outputs, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        """The confidence of an entity is that of its least sure word."""
        return [{"entities": self._entities(one, calibration.get("crf"))} for one in outputs]

    def _entities(self, output: TokenLogits, crf: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        path, probs = _tagged(output.logits, crf)
        sure = np.take_along_axis(probs, path[:, None], axis=1)[:, 0]
        answers = []
        for first, after, kind in entities([self.output_names[tag] for tag in path]):
            start, end = int(output.spans[first, 0]), int(output.spans[after - 1, 1])
            confidence = round(float(sure[first:after].min()), 6)
            answers.append(
                {"start": start, "end": end, "label": kind, "text": output.text[start:end], "confidence": confidence}
            )
        return answers

    def answer_of(self, output: Mapping[str, Any]) -> list[Span]:
        return [[entity["start"], entity["end"], entity["label"]] for entity in output["entities"]]

    def answers_match(self, output: Mapping[str, Any], correction: Sequence[Span]) -> bool:
        return {tuple(span) for span in self.answer_of(output)} == {tuple(span) for span in correction}

    def metrics(
        self, targets: Sequence[list[Span]], outputs: Outputs, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        sums = self.row_counts(targets, outputs, calibration).sum(axis=0)
        found = {name: None if np.isnan(value) else float(value) for name, value in self.figures(sums).items()}
        asked = sums.reshape(len(self.types), _N_SUMS)[:, 1]
        per_class = {
            kind: {"n": int(asked[k]), **{name: found[f"{name}:{kind}"] for name in ("precision", "recall", "f1")}}
            for k, kind in enumerate(self.types)
        }
        whole = {name: found[name] for name in ("precision", "recall", "f1", "macro_f1")}
        return {"n": len(targets), **whole, "per_class": per_class, "labels": self.types}

    def row_counts(
        self,
        targets: Sequence[list[Span]],
        outputs: Outputs,
        calibration: Calibration = UNCALIBRATED,
    ) -> NDArray[np.float64]:
        """(N, 3 * types): entities hit, in the truth and in the answers, for each type; a hit has the same span."""
        counts = np.zeros((len(targets), len(self.types), _N_SUMS))
        for row, target, answer in zip(counts, targets, self.decode(outputs, calibration), strict=True):
            asked = {tuple(span) for span in target}
            answered = {tuple(span) for span in self.answer_of(answer)}
            for place, spans in enumerate((asked & answered, asked, answered)):
                for span in spans:
                    row[self._type_index[span[2]], place] += 1
        return counts.reshape(len(targets), len(self.types) * _N_SUMS)

    def figures(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Micro precision, recall and F1; macro-F1 over the types in the truth; and each type's own."""
        by_type = sums.reshape(*sums.shape[:-1], len(self.types), _N_SUMS)
        found = _scores(by_type.sum(axis=-2))
        each = _scores(by_type)
        present = by_type[..., 1] > 0
        total = np.where(present, each["f1"], 0.0).sum(axis=-1)
        found["macro_f1"] = share(total, present.sum(axis=-1))
        for k, kind in enumerate(self.types):
            found |= {f"{name}:{kind}": scores[..., k] for name, scores in each.items()}
        return found


def _tagged(logits: FloatArray, crf: Mapping[str, Any] | None) -> tuple[NDArray[np.int64], FloatArray]:
    """The tag (W,) of each word and the probabilities (W, K) of all, from logits (W, K)."""
    if crf is None:
        return logits.argmax(axis=1), softmax(logits)
    weights = [np.asarray(crf[name], dtype=np.float64) for name in ("transitions", "start", "end")]
    return best_path(logits, *weights), marginals(logits, *weights)


def _scores(counts: FloatArray) -> dict[str, FloatArray]:
    """Figures (...,) from counts (..., 3); nan where there is nothing to divide by."""
    hits, asked, answered = np.moveaxis(counts, -1, 0)
    return {
        "precision": share(hits, answered),
        "recall": share(hits, asked),
        "f1": share(2 * hits, asked + answered),
    }


def _from_json(raw: str) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BadInput("not a list of entities", value=raw, next_step=_NEXT_STEP) from None


def _parts(item: object) -> tuple[Any, Any, Any, str | None]:
    """(start, end, label, text where it is told) of one entity as written."""
    if isinstance(item, Mapping):
        label = item.get("label", item.get("labels"))
        if isinstance(label, list) and len(label) == 1:
            label = label[0]
        text = item.get("text")
        parts = item.get("start"), item.get("end"), label, text if isinstance(text, str) else None
    elif isinstance(item, list | tuple) and len(item) == 3:
        parts = *item, None
    else:
        raise BadInput("not an entity", value=item, next_step=_NEXT_STEP)
    if not isinstance(parts[2], str):
        raise BadInput("an entity without one type", value=item, next_step=_NEXT_STEP)
    return parts


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
