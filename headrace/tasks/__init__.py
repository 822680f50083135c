"""Task types: what a label is, what the model's outputs mean, which metrics count. One file each.

To add one: copy text_regression.py; give it the attributes of `TaskType`; add its line to TASK_TYPES; write
docs/tasks/NAME.md. The conformance tests find it through the table.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.registry import Registry

FloatArray = NDArray[np.floating[Any]]

TASK_TYPES = Registry(
    "tasks",
    {
        "text-classification": "headrace.tasks.text_classification:TextClassification",
        "text-regression": "headrace.tasks.text_regression:TextRegression",
    },
)


class Predictor(Protocol):
    """Anything that turns texts into logits: an exported artifact, a checkpoint, a baseline."""

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Raw outputs (N, K) float32 in the order of `texts`; K = `n_outputs` of the task type."""
        ...


class TaskType(Protocol):
    """One kind of task, bound to a task's settings. Targets are JSON values; numpy only, no torch.

    Dimensions: N examples, K outputs of the model.
    """

    name: str
    problem: str
    """`problem_type` of a Hugging Face config: single_label_classification | regression."""
    main_metric: str
    """Key of `metrics()` that decides; larger is better."""

    def __init__(self, settings: TaskTable) -> None: ...

    @property
    def n_outputs(self) -> int:
        """K, the width of the model's head."""
        ...

    @property
    def output_names(self) -> list[str]:
        """K names: classes, or one name for a number."""
        ...

    def parse_label(self, raw: object) -> Any:
        """The target that a label as written stands for.

        Raises:
            BadInput: not a label of this task; the message says which are.
        """
        ...

    def combine(self, targets: Sequence[Any]) -> Any:
        """One target from several labellers' targets: majority or mean; ties fall to the first of the settings."""
        ...

    def encode_targets(self, targets: Sequence[Any]) -> NDArray[Any]:
        """Targets (N,) as the loss wants them: int64 in [0, K) or float32."""
        ...

    def decode(self, logits: FloatArray, *, temperature: float = 1.0) -> list[dict[str, Any]]:
        """N answers as served: `{"label", "confidence", "scores"}` or `{"value"}`."""
        ...

    def answers_match(self, output: dict[str, Any], correction: Any) -> bool:
        """Whether an answer as served counts as right under a correction."""
        ...

    def metrics(self, targets: Sequence[Any], logits: FloatArray, *, temperature: float = 1.0) -> dict[str, Any]:
        """Figures as JSON, without intervals; has `main_metric` and `n`."""
        ...
