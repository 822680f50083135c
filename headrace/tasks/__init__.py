"""Task types: what a label is, what the model's outputs mean, which metrics count. One file each.

To add one: copy text_regression.py; give it the attributes of `TaskType`; add its line to TASK_TYPES; write
docs/tasks/NAME.md. The conformance tests find it through the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.records import Input
from headrace.registry import Registry

FloatArray = NDArray[np.floating[Any]]
Calibration = Mapping[str, Any]
"""What was fitted on the validation side besides the weights, as JSON: a temperature, thresholds, a half-width."""
UNCALIBRATED: Calibration = MappingProxyType({})

TASK_TYPES = Registry(
    "tasks",
    {
        "text-classification": "headrace.tasks.text_classification:TextClassification",
        "text-regression": "headrace.tasks.text_regression:TextRegression",
        "text-pair": "headrace.tasks.text_pair:TextPair",
        "multi-label": "headrace.tasks.multi_label:MultiLabel",
        "token-classification": "headrace.tasks.token_classification:TokenClassification",
        "extractive-qa": "headrace.tasks.extractive_qa:ExtractiveQA",
        "retrieval": "headrace.tasks.retrieval:Retrieval",
    },
)


@dataclass(frozen=True, eq=False)
class TokenLogits:
    """What a model says of the T tokens of one input; one element of the outputs of a task on tokens."""

    text: str
    """What `spans` point into: the text, or the pair of a pair."""
    spans: NDArray[np.int32]
    """(T, 2) first character and the one after the last; (-1, -1) is the token that stands for "nothing here"."""
    logits: FloatArray
    """(T, K) float32."""
    windows: NDArray[np.int32]
    """(T,) number of the window that the token was read in; an answer lies within one."""


Outputs = NDArray[Any]
"""What a predictor gives for N inputs: float32 (N, K), or (N,) objects `TokenLogits` for tasks on tokens."""


class Predictor(Protocol):
    """Anything that turns inputs into logits: an exported artifact, a checkpoint, a baseline."""

    def logits(self, inputs: Sequence[Input]) -> Outputs:
        """Raw outputs in the order of `inputs`; K = `n_outputs` of the task type."""
        ...


class Adapter(Protocol):
    """A channel adapter that a bank holds: while this object lives, its weights stay."""

    @property
    def digest(self) -> str:
        """Of the weights as they lie in memory (see headrace/checkpoints/low_rank.py)."""
        ...


@runtime_checkable
class Bank(Protocol):
    """A predictor that answers each input by the adapter of its channel, all in one batch."""

    adapters: Sequence[str]
    """Digests of the adapters at hand."""

    def logits(self, inputs: Sequence[Input], adapters: Sequence[Adapter | None] = ()) -> Outputs:
        """Raw outputs in the order of `inputs`, each by the adapter at its place; none: by the shared weights."""
        ...

    def adapter(self, digest: str) -> Adapter:
        """The adapter with these weights.

        Raises:
            NotFound: it is not at hand.
        """
        ...

    def add_adapter(self, folder: Path) -> str:
        """Hold the adapter of a PEFT directory; the digest of its weights as they lie in memory.

        Raises:
            Damaged: it cannot be read, or does not fit the model.
        """
        ...

    def remove_adapter(self, digest: str) -> None:
        """Let go of an adapter; who holds it can still use it."""
        ...


class TaskType(Protocol):
    """One kind of task, bound to a task's settings. Targets are JSON values; numpy only, no torch.

    Dimensions: N examples, K outputs of the model.
    """

    name: str
    problem: str
    """Decides loss and model: single_label_classification | multi_label_classification | regression (`problem_type` of
    a Hugging Face config), token_classification | question_answering | retrieval."""
    auto_class: str
    """Class of transformers that loads a checkpoint, such as AutoModelForSequenceClassification."""
    fields: tuple[str, ...]
    """Names of an input's one or two parts as users write them: ("text",) or ("question", "context")."""
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

    def parse_label(self, raw: object, given: Input | None = None) -> Any:
        """The target that a label as written stands for.

        Args:
            given: the input it belongs to, where it is known; labels that point into a text are checked against it.

        Raises:
            BadInput: not a label of this task; the message says which are.
        """
        ...

    def combine(self, targets: Sequence[Any]) -> Any:
        """One target from several labellers' targets: majority or mean; ties fall to the first of the settings."""
        ...

    def encode_targets(self, targets: Sequence[Any]) -> NDArray[Any]:
        """Targets (N,) as the loss wants them: int64 in [0, K), float32, or float32 (N, K) of zeros and ones.

        Tasks on tokens have no such form, since it hangs on the tokens: they give the targets as objects (N,).
        """
        ...

    def calibrate(self, targets: Sequence[Any], outputs: Outputs) -> dict[str, Any]:
        """What to fit on the validation side besides the weights; empty where there is nothing, or no rows."""
        ...

    def decode(self, outputs: Outputs, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        """N answers as served, such as `{"label", "confidence", "scores"}` or `{"value"}`."""
        ...

    def answer_of(self, output: Mapping[str, Any]) -> Any:
        """The target that an answer as served stands for."""
        ...

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        """Whether an answer as served counts as right under a correction."""
        ...

    def metrics(
        self, targets: Sequence[Any], outputs: Outputs, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        """Figures as JSON, without intervals; has `main_metric` and `n`."""
        ...


@runtime_checkable
class Additive(Protocol):
    """A task type whose figures follow from sums over rows, so that their intervals come from redrawing rows."""

    def row_counts(
        self, targets: Sequence[Any], outputs: Outputs, calibration: Calibration = UNCALIBRATED
    ) -> NDArray[np.float64]:
        """(N, M) what each row adds."""
        ...

    def figures(self, sums: FloatArray) -> dict[str, FloatArray]:
        """Figures (...,) by name, from sums (..., M); nan where a figure has no value. Has the main metric."""
        ...
