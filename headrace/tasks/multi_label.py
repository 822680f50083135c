"""Multi-label: any number of labels of a fixed list for a text, none included."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.records import Input
from headrace.stats.calibration import DEFAULT_THRESHOLD, fit_thresholds
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray
from headrace.tasks.sums import as_json, share
from headrace.tasks.text_classification import check_labels, known_label, per_class

_BETWEEN = "|"


class MultiLabel:
    """Labels for a text, each a question of its own, judged by macro-F1.

    Targets are lists of label names in the order of the settings, [] for none of them. Outputs (N, K) are the log odds
    of each label.
    """

    name = "multi-label"
    problem = "multi_label_classification"
    auto_class = "AutoModelForSequenceClassification"
    fields: tuple[str, ...] = ("text",)
    main_metric = "macro_f1"

    def __init__(self, settings: TaskTable) -> None:
        check_labels(settings.labels, at_least=1)
        self.output_names = list(settings.labels)
        self._index = {label: i for i, label in enumerate(settings.labels)}

    @property
    def n_outputs(self) -> int:
        return len(self.output_names)

    def parse_label(self, raw: object, given: Input | None = None) -> list[str]:
        """From a list of names, that list as JSON in a string, or names with | between them."""
        found = {known_label(part, self._index) for part in self._parts(raw)}
        return sorted(found, key=self._index.__getitem__)

    def _parts(self, raw: object) -> Sequence[object]:
        if isinstance(raw, list | tuple):
            return raw
        if not isinstance(raw, str) or not raw.strip():
            raise BadInput("not a list of labels", value=raw, next_step='Write ["a", "b"] or a|b; [] for none of them')
        text = raw.strip()
        if text in self._index:
            return [text]
        if not text.startswith("["):
            return text.split(_BETWEEN)
        try:
            parts = json.loads(text)
        except ValueError:
            parts = None
        if not isinstance(parts, list):
            raise BadInput("not a JSON list of labels", value=raw, next_step='Write ["a", "b"]')
        return parts

    def combine(self, targets: Sequence[Sequence[str]]) -> list[str]:
        """The labels that more than half of the labellers gave."""
        return [label for label in self.output_names if 2 * sum(label in target for target in targets) > len(targets)]

    def encode_targets(self, targets: Sequence[Sequence[str]]) -> NDArray[Any]:
        encoded = np.zeros((len(targets), self.n_outputs), dtype=np.float32)
        for i, target in enumerate(targets):
            encoded[i, [self._index[label] for label in target]] = 1
        return encoded

    def calibrate(self, targets: Sequence[Sequence[str]], outputs: FloatArray) -> dict[str, Any]:
        """The probability from which each label is answered (K); none without rows."""
        if not len(targets):
            return {}
        return {"thresholds": fit_thresholds(sigmoid(outputs), self.encode_targets(targets))}

    def decode(self, outputs: FloatArray, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        probs = sigmoid(outputs)
        return [
            {
                "labels": [name for name, yes in zip(self.output_names, chosen, strict=True) if yes],
                "scores": {name: round(float(p), 6) for name, p in zip(self.output_names, row, strict=True)},
            }
            for row, chosen in zip(probs, self._chosen(probs, calibration), strict=True)
        ]

    def _chosen(self, probs: FloatArray, calibration: Calibration) -> NDArray[np.bool_]:
        thresholds = calibration.get("thresholds", [DEFAULT_THRESHOLD] * self.n_outputs)
        chosen: NDArray[np.bool_] = probs >= np.asarray(thresholds, dtype=np.float64)
        return chosen

    def answer_of(self, output: Mapping[str, Any]) -> list[str]:
        return list(output["labels"])

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        return set(output["labels"]) == set(correction)

    def metrics(
        self,
        targets: Sequence[Sequence[str]],
        outputs: FloatArray,
        calibration: Calibration = UNCALIBRATED,
    ) -> dict[str, Any]:
        sums = self.row_counts(targets, outputs, calibration).sum(axis=0)
        hits, asked, answered = np.split(sums[:-2], 3)
        return {
            "n": len(targets),
            **as_json(self.figures(sums)),
            "per_class": per_class(hits, asked, answered, self.output_names),
            "labels": self.output_names,
        }

    def row_counts(
        self,
        targets: Sequence[Sequence[str]],
        outputs: FloatArray,
        calibration: Calibration = UNCALIBRATED,
    ) -> NDArray[np.float64]:
        """(N, 3 K + 2): of each label hit, asked and answered; whether the whole row is right; 1."""
        truth = self.encode_targets(targets) > 0
        chosen = self._chosen(sigmoid(outputs), calibration)
        exact = (truth == chosen).all(axis=1, keepdims=True)
        columns = [truth & chosen, truth, chosen, exact, np.ones((len(truth), 1))]
        return np.hstack(columns).astype(np.float64)

    def figures(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Macro-F1 is over the labels that occur in the targets, like that of text-classification."""
        hits, asked, answered = np.split(sums[..., :-2], 3, axis=-1)
        total, present = asked + answered, asked > 0
        scores = np.divide(2 * hits, total, out=np.zeros_like(hits), where=present)
        return {
            "macro_f1": share(scores.sum(axis=-1), present.sum(axis=-1)),
            "micro_f1": share(2 * hits.sum(axis=-1), total.sum(axis=-1)),
            "subset_accuracy": share(sums[..., -2], sums[..., -1]),
        }


def sigmoid(logits: FloatArray) -> FloatArray:
    """Probabilities from log odds, in float64."""
    probs: FloatArray = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # 1 / (1 + exp(-x)) without overflow
    return probs
