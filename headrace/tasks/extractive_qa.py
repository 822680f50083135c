"""Extractive question answering: the words of a context that answer a question, or that none do.

Exact match and F1 are those of SQuAD (Rajpurkar et al. 2016, section 6.1); questions without an answer are treated as
in SQuAD 2.0 (Rajpurkar, Jia and Liang 2018, section 5.1 and appendix).
"""

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.records import Input
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray, Outputs, TokenLogits
from headrace.tasks.sums import share
from headrace.tasks.text_classification import softmax

MAX_PIECES = 30
"""The longest answer, in word pieces; BERT's own for SQuAD."""
_ALWAYS = 1e9  # a null_threshold that no logits reach
_NEXT_STEP = 'A label is {"text": "...", "start": 0}, a list of them, or [] where the context has no answer'
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")

Target = dict[str, list[dict[str, Any]]]


class _Best(NamedTuple):
    """What the logits of one input say. Scores are sums of a start and an end logit."""

    start: int
    """First character of the best answer; -1 where there is none to choose."""
    end: int
    score: float
    confidence: float
    null_score: float
    null_confidence: float

    @property
    def margin(self) -> float:
        """By how much "no answer" beats the best answer."""
        return self.null_score - self.score if self.start >= 0 else np.inf


class ExtractiveQA:
    """Words of a context that answer a question, judged by SQuAD's F1.

    Targets are {"answers": [{"text", "start"}, ...]}; without answers, the context has none. Outputs are TokenLogits of
    the context's word pieces in each window, with one entry for "no answer"; K = 2: start and end.
    """

    name = "extractive-qa"
    problem = "question_answering"
    auto_class = "AutoModelForQuestionAnswering"
    fields: tuple[str, ...] = ("question", "context")
    main_metric = "f1"
    n_outputs = 2

    def __init__(self, settings: TaskTable) -> None:
        if settings.labels:
            raise BadConfig("an extractive-qa task has no labels", value=list(settings.labels), next_step="Remove them")
        self.output_names = ["start", "end"]

    def parse_label(self, raw: object, given: Input | None = None) -> Target:
        context = given[1] if isinstance(given, tuple) else given
        answers = [_checked(answer, context) for answer in _answers_in(raw, context)]
        return {"answers": [one for i, one in enumerate(answers) if one not in answers[:i]]}

    def combine(self, targets: Sequence[Target]) -> Target:
        """No answer where most say so; else every answer that was given, the most frequent first."""
        given = [target["answers"] for target in targets if target["answers"]]
        if 2 * len(given) < len(targets):
            return {"answers": []}
        votes = Counter((answer["start"], answer["text"]) for answers in given for answer in answers)
        return {"answers": [{"text": text, "start": start} for (start, text), _ in votes.most_common()]}

    def encode_targets(self, targets: Sequence[Target]) -> NDArray[Any]:
        return np.asarray(targets, dtype=object)

    def positions_of(self, target: Target, spans: NDArray[Any], windows: NDArray[Any]) -> NDArray[np.int64]:
        """First and last entry of the first answer in each window, (windows, 2), counted from the window's own first.

        A window that does not hold the answer whole has its entry for "no answer" twice: the first without a span.

        Args:
            spans: (T, 2) as of TokenLogits. windows: (T,) the window of each, rising from 0.
        """
        positions = [_place(target["answers"], spans[windows == window]) for window in np.unique(windows)]
        return np.asarray(positions, dtype=np.int64).reshape(-1, 2)

    def calibrate(self, targets: Sequence[Target], outputs: Outputs) -> dict[str, Any]:
        """The margin up to which an answer is given: that of the best F1, nearest to 0 where several have it."""
        if not len(targets):
            return {}
        if all(target["answers"] for target in targets):
            return {"null_threshold": _ALWAYS}
        found = [_best(one) for one in outputs]
        margins = np.asarray([best.margin for best in found])
        gains = [
            scores_of(one.text[best.start : best.end], target)[1] - scores_of("", target)[1] if best.start >= 0 else 0.0
            for one, best, target in zip(outputs, found, targets, strict=True)
        ]
        return {"null_threshold": _threshold(margins, np.asarray(gains))}

    def decode(self, outputs: Outputs, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        threshold = calibration.get("null_threshold", 0.0)
        return [_answer(one.text, _best(one), threshold) for one in outputs]

    def answer_of(self, output: Mapping[str, Any]) -> Target:
        if not output["answer"]:
            return {"answers": []}
        return {"answers": [{"text": output["answer"], "start": output["start"]}]}

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        return scores_of(output["answer"], correction)[0] == 1

    def metrics(
        self, targets: Sequence[Target], outputs: Outputs, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        sums = self.row_counts(targets, outputs, calibration).sum(axis=0)
        found = {name: None if np.isnan(value) else float(value) for name, value in self.figures(sums).items()}
        return {"n": len(targets), "n_answerable": int(sums[3]), **found}

    def row_counts(
        self, targets: Sequence[Target], outputs: Outputs, calibration: Calibration = UNCALIBRATED
    ) -> NDArray[np.float64]:
        """(N, 6): exact match, F1 and 1; then 1, exact match and F1 where there is an answer."""
        counts = np.zeros((len(targets), 6))
        for row, target, output in zip(counts, targets, self.decode(outputs, calibration), strict=True):
            exact, f1 = scores_of(output["answer"], target)
            row[:3] = exact, f1, 1
            if target["answers"]:
                row[3:] = 1, exact, f1
        return counts

    def figures(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Shares of 0..1: of all questions, of those with an answer, and of those without (where both are the same)."""
        exact, f1, n, n_with, exact_with, f1_with = np.moveaxis(sums, -1, 0)
        return {
            "exact_match": share(exact, n),
            "f1": share(f1, n),
            "answerable_exact_match": share(exact_with, n_with),
            "answerable_f1": share(f1_with, n_with),
            "unanswerable_accuracy": share(exact - exact_with, n - n_with),
        }


def normalized(text: str) -> str:
    """SQuAD's form of an answer: lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def scores_of(answer: str, target: Target) -> tuple[float, float]:
    """(exact match, F1 over words) of an answer, each the best over the right answers.

    Without right answers, or with ones of articles and punctuation only, the empty answer is right.
    """
    golds = [gold for one in target["answers"] if (gold := normalized(one["text"]))] or [""]
    mine = normalized(answer)
    return float(mine in golds), max(_word_f1(mine.split(), gold.split()) for gold in golds)


def _word_f1(mine: list[str], gold: list[str]) -> float:
    if not mine or not gold:
        return float(mine == gold)
    return 2 * (Counter(mine) & Counter(gold)).total() / (len(mine) + len(gold))


def _best(output: TokenLogits) -> _Best:
    best = _Best(-1, -1, -np.inf, 0.0, np.inf, 1.0)
    for window in np.unique(output.windows):
        mine = output.windows == window
        spans, logits = output.spans[mine], output.logits[mine].astype(np.float64)
        probs = softmax(logits.T).T
        is_null = spans[:, 0] < 0
        if is_null.any():
            null = int(is_null.argmax())
            score = float(logits[null].sum())
            if score < best.null_score:
                best = best._replace(null_score=score, null_confidence=float(probs[null].prod()))
        pieces = np.flatnonzero(~is_null)
        if len(pieces):
            first, last, score = _best_span(logits[pieces])
            i, j = pieces[first], pieces[last]
            if score > best.score:
                sure = float(probs[i, 0] * probs[j, 1])
                best = best._replace(start=int(spans[i, 0]), end=int(spans[j, 1]), score=score, confidence=sure)
    return best


def _best_span(logits: FloatArray) -> tuple[int, int, float]:
    """First and last piece, and score, of the best span in the pieces of a window (P, 2)."""
    ends = np.concatenate([logits[:, 1], np.full(MAX_PIECES - 1, -np.inf)])
    scores = logits[:, :1] + sliding_window_view(ends, MAX_PIECES)
    first, length = divmod(int(scores.argmax()), MAX_PIECES)
    return first, first + length, float(scores[first, length])


def _answer(text: str, best: _Best, threshold: float) -> dict[str, Any]:
    if best.margin > threshold:
        return {"answer": "", "start": None, "end": None, "confidence": round(best.null_confidence, 6)}
    shown = text[best.start : best.end]
    return {"answer": shown, "start": best.start, "end": best.end, "confidence": round(best.confidence, 6)}


def _threshold(margins: FloatArray, gains: FloatArray) -> float:
    """The cut of margins (N,) below which the gains (N,) of answering sum to the most.

    Cuts lie between different margins, and 1 beyond the least and the largest.
    """
    real = np.isfinite(margins)
    if not real.any():
        return 0.0
    values, place = np.unique(margins[real], return_inverse=True)
    totals = np.concatenate([[0.0], np.cumsum(np.bincount(place, weights=gains[real]))])
    cuts = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    best = cuts[np.isclose(totals, totals.max())]
    return float(best[np.abs(best).argmin()])


def _place(answers: Sequence[Mapping[str, Any]], spans: NDArray[Any]) -> tuple[int, int]:
    """First and last entry of the first answer in one window's spans."""
    null = int((spans[:, 0] < 0).argmax())
    if not answers:
        return null, null
    text, start = answers[0]["text"], answers[0]["start"]
    start += len(text) - len(text.lstrip())
    end = start + len(text.strip())
    real = spans[:, 1] > np.maximum(spans[:, 0], 0)
    inside = np.flatnonzero(real & (spans[:, 0] < end) & (spans[:, 1] > start))
    if not len(inside) or spans[real, 0].min() > start or spans[real, 1].max() < end:
        return null, null
    return int(inside[0]), int(inside[-1])


def _answers_in(raw: object, context: str | None) -> list[Any]:
    """The answers of a label as written, one by one."""
    if isinstance(raw, str):
        raw = _from_text(raw, context)
    if isinstance(raw, Mapping) and "answers" in raw:
        raw = raw["answers"]
    if isinstance(raw, str):
        return [raw] if raw.strip() else []
    if isinstance(raw, list | tuple):
        return list(raw)
    if not isinstance(raw, Mapping) or "text" not in raw:
        raise BadInput("not an answer", value=raw, next_step=_NEXT_STEP)
    texts, starts = raw["text"], raw.get("start", raw.get("answer_start"))
    if not isinstance(texts, list):
        return [raw]
    if not isinstance(starts, list) or len(texts) != len(starts):
        raise BadInput("texts and starts of different number", value=raw, next_step=_NEXT_STEP)
    return [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]


def _from_text(raw: str, context: str | None) -> object:
    """The JSON value that a string holds, or the string itself."""
    if raw.lstrip()[:1] not in ("{", "[") or (context is not None and raw in context):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BadInput("an answer that is neither JSON nor in the context", value=raw, next_step=_NEXT_STEP) from None


def _checked(answer: object, context: str | None) -> dict[str, Any]:
    """One answer with its place, looked up in the context or compared with it."""
    if isinstance(answer, str) and answer.strip():
        return {"text": answer.strip(), "start": _found(answer.strip(), context)}
    if not isinstance(answer, Mapping | str):
        raise BadInput("not an answer", value=answer, next_step=_NEXT_STEP)
    answer = answer if isinstance(answer, Mapping) else {"text": answer}
    text, start = answer.get("text"), answer.get("start", answer.get("answer_start"))
    if not isinstance(text, str) or not text.strip():
        raise BadInput("an answer without a text", value=answer, next_step=_NEXT_STEP)
    if start is None:
        return _checked(text, context)
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise BadInput("not the first character of an answer", value=answer, next_step=_NEXT_STEP)
    if context is not None and (there := context[start : start + len(text)]) != text:
        raise BadInput(f"the context has {there!r} at {start}", value=text, next_step="Check `start`, from 0")
    return {"text": text, "start": start}


def _found(text: str, context: str | None) -> int:
    if context is None:
        raise BadInput("an answer without `start`, and no context to find it in", value=text, next_step=_NEXT_STEP)
    start = context.find(text)
    if start < 0:
        raise BadInput("the context does not have this answer", value=text, next_step="Copy it from the context")
    if context.find(text, start + 1) >= 0:
        raise BadInput("the context has this answer more than once", value=text, next_step="Say which, with `start`")
    return start
