"""Text pair: one class of a fixed list for two texts, such as whether they ask the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.records import Input
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray
from headrace.tasks.text_classification import TextClassification


class TextPair:
    """One class for two texts, judged by macro-F1. Labels, answers and figures are those of text-classification."""

    name = "text-pair"
    problem = TextClassification.problem
    auto_class = TextClassification.auto_class
    fields: tuple[str, ...] = ("text", "text_pair")
    main_metric = TextClassification.main_metric

    def __init__(self, settings: TaskTable) -> None:
        self._classes = TextClassification(settings)
        self.output_names = self._classes.output_names

    @property
    def n_outputs(self) -> int:
        return self._classes.n_outputs

    def parse_label(self, raw: object, given: Input | None = None) -> str:
        return self._classes.parse_label(raw, given)

    def combine(self, targets: Sequence[str]) -> str:
        return self._classes.combine(targets)

    def encode_targets(self, targets: Sequence[str]) -> NDArray[Any]:
        return self._classes.encode_targets(targets)

    def calibrate(self, targets: Sequence[str], outputs: FloatArray) -> dict[str, Any]:
        return self._classes.calibrate(targets, outputs)

    def decode(self, outputs: FloatArray, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        return self._classes.decode(outputs, calibration)

    def answer_of(self, output: Mapping[str, Any]) -> str:
        return self._classes.answer_of(output)

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        return self._classes.answers_match(output, correction)

    def metrics(
        self, targets: Sequence[str], outputs: FloatArray, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        return self._classes.metrics(targets, outputs, calibration)
