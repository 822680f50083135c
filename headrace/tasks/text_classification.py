"""Text classification: one class of a fixed list for a text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput, nearest
from headrace.records import Input
from headrace.stats.calibration import fit_temperature
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray

_LEVEL_MARK = "/"
_N_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 5


class TextClassification:
    """One class for a text, judged by macro-F1.

    Targets are class names. Outputs (N, K) are in the order of the settings' labels. Names may be paths, `card/lost`:
    the figures then tell each level apart.
    """

    name = "text-classification"
    problem = "single_label_classification"
    auto_class = "AutoModelForSequenceClassification"
    fields: tuple[str, ...] = ("text",)
    main_metric = "macro_f1"

    def __init__(self, settings: TaskTable) -> None:
        check_labels(settings.labels, at_least=2)
        self.output_names = list(settings.labels)
        self._index = {label: i for i, label in enumerate(settings.labels)}

    @property
    def n_outputs(self) -> int:
        return len(self.output_names)

    def parse_label(self, raw: object, given: Input | None = None) -> str:
        return known_label(raw, self._index)

    def combine(self, targets: Sequence[str]) -> str:
        counts = Counter(targets)
        return max(counts, key=lambda label: (counts[label], -self._index[label]))

    def encode_targets(self, targets: Sequence[str]) -> NDArray[Any]:
        return np.asarray([self._index[target] for target in targets], dtype=np.int64)

    def calibrate(self, targets: Sequence[str], outputs: FloatArray) -> dict[str, Any]:
        """A temperature, which divides the logits; none without rows."""
        return {"temperature": fit_temperature(outputs, self.encode_targets(targets))} if len(targets) else {}

    def decode(self, outputs: FloatArray, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        return [
            {
                "label": self.output_names[int(row.argmax())],
                "confidence": round(float(row.max()), 6),
                "scores": {name: round(float(p), 6) for name, p in zip(self.output_names, row, strict=True)},
            }
            for row in softmax(outputs, calibration.get("temperature", 1.0))
        ]

    def answer_of(self, output: Mapping[str, Any]) -> str:
        return str(output["label"])

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        return bool(output["label"] == correction)

    def metrics(
        self, targets: Sequence[str], outputs: FloatArray, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        truth = self.encode_targets(targets)
        probs = softmax(outputs, calibration.get("temperature", 1.0))
        confusion = confusion_of(truth, probs.argmax(axis=1), self.n_outputs)
        found = {
            "n": len(truth),
            **figures(confusion),
            **reliability(truth, probs),
            "per_class": per_class(*sums_of(confusion), self.output_names),
            "confusion": confusion.tolist(),
            "labels": self.output_names,
        }
        levels = by_level(confusion, self.output_names)
        return found | ({"by_level": levels} if levels else {})


def check_labels(labels: Sequence[str], *, at_least: int) -> None:
    """Check the labels of a task's settings.

    Raises:
        BadConfig: too few, or one twice.
    """
    if len(labels) < at_least or len(set(labels)) != len(labels):
        needed = "two or more different labels" if at_least == 2 else "one or more different labels"
        raise BadConfig(
            f"the task needs {needed}",
            value=list(labels),
            next_step='Set labels = ["a", "b"] in the task\'s table of headrace.toml',
        )


def known_label(raw: object, known: Mapping[str, int]) -> str:
    """The one of `known` that a label as written names.

    Raises:
        BadInput: none of them.
    """
    label = str(raw).strip() if isinstance(raw, str | int) and not isinstance(raw, bool) else None
    if label is None or label not in known:
        raise BadInput("unknown label", value=raw, next_step=nearest(str(raw), list(known)))
    return label


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Probabilities (N, K) from logits (N, K), in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exp = np.exp(scaled)
    probs: FloatArray = exp / exp.sum(axis=1, keepdims=True)
    return probs


def confusion_of(truth: NDArray[Any], guess: NDArray[Any], n_classes: int) -> NDArray[Any]:
    """Counts (K, K): rows are the truth, columns the answer."""
    return np.bincount(truth * n_classes + guess, minlength=n_classes**2).reshape(n_classes, n_classes)


def f1_scores(confusion: NDArray[Any]) -> FloatArray:
    """F1 per class (..., K) from counts (..., K, K); 0 for a class that is neither asked for nor answered."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    scores: FloatArray = np.divide(2 * hits, total, out=np.zeros(total.shape), where=total > 0)
    return scores


def macro_f1(confusion: NDArray[Any]) -> FloatArray:
    """Mean F1 over the classes that occur in the truth (...,) from counts (..., K, K).

    A class without rows is left out, because its F1 would be 0 for one wrong answer and unknown for none; answers with
    it still cost the others their recall. scikit-learn gives the same with `labels` = the classes in the truth.
    """
    present = confusion.sum(axis=-1) > 0
    scores = np.where(present, f1_scores(confusion), 0.0)
    means: FloatArray = scores.sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)
    return means


def figures(confusion: NDArray[Any]) -> dict[str, float | None]:
    """Whole-table figures, None without rows. Micro precision, recall and F1 of single labels all equal accuracy."""
    if not confusion.sum():
        return {"accuracy": None, "macro_f1": None, "micro_f1": None}
    accuracy = float(np.trace(confusion) / confusion.sum())
    return {"accuracy": accuracy, "macro_f1": float(macro_f1(confusion)), "micro_f1": accuracy}


def sums_of(confusion: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each class (K): rows answered rightly, rows that have it, rows answered with it."""
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def per_class(
    hits: NDArray[Any], asked: NDArray[Any], answered: NDArray[Any], names: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """Figures of each class. None where there is nothing to divide by: precision of a class never answered, recall of a
    class without rows, F1 of a class that is both."""
    return {
        name: {
            "n": int(asked[k]),
            "n_answered": int(answered[k]),
            "n_right": int(hits[k]),
            "precision": float(hits[k] / answered[k]) if answered[k] else None,
            "recall": float(hits[k] / asked[k]) if asked[k] else None,
            "f1": float(2 * hits[k] / (asked[k] + answered[k])) if asked[k] + answered[k] else None,
        }
        for k, name in enumerate(names)
    }


def by_level(confusion: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy when only the first parts of a path count, one part more at each level; empty where no name is a path.

    A shorter path than the level asks for counts whole.
    """
    paths = [name.split(_LEVEL_MARK) for name in names]
    depth = max(map(len, paths))
    if depth == 1:
        return []
    levels: list[dict[str, Any]] = []
    for level in range(1, depth + 1):
        places = {place: k for k, place in enumerate(dict.fromkeys(tuple(path[:level]) for path in paths))}
        own = np.array([places[tuple(path[:level])] for path in paths])
        right = confusion[own[:, None] == own[None, :]].sum()
        n = confusion.sum()
        levels.append({"level": level, "n_classes": len(places), "accuracy": float(right / n) if n else None})
    return levels


def reliability(truth: NDArray[Any], probs: FloatArray) -> dict[str, Any]:
    """Expected calibration error over 15 equal bins of confidence, with the bins for the reliability diagram."""
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == truth
    place = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    bins: list[dict[str, float]] = []
    for b in range(_N_BINS):
        mine = place == b
        if mine.any():
            bins.append(
                {
                    "n": int(mine.sum()),
                    "confidence": float(confidence[mine].mean()),
                    "accuracy": float(right[mine].mean()),
                }
            )
    if not bins:
        return {"ece": None, "reliability": []}
    ece = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(truth)
    return {"ece": ece, "reliability": bins}
