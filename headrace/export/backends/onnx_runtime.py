"""ONNX Runtime: an ONNX file for CPU serving, int8 or fp32. Loading needs onnxruntime, tokenizers and numpy only.

For machines that OpenVINO does not run on, and for other people's runtimes: model.onnx is a plain ONNX file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from headrace.checkpoints.encoding import TOKENIZER, Encoder, like_length_batches
from headrace.checkpoints.windows import outputs_of
from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export.artifact import ArtifactFacts
from headrace.files import onnx_file
from headrace.records import Input
from headrace.registry import resolve
from headrace.tasks import TASK_TYPES, Outputs, TaskType

MODEL = "model.onnx"
_BATCH_TOKENS = 1024
_ERRORS_ONLY = 3  # onnxruntime's scale of severity


class ONNXRuntime:
    """The format that most other runtimes read too."""

    precisions = ("int8", "fp32")

    @staticmethod
    def write(
        checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[Input]
    ) -> ArtifactFacts:
        """Convert a checkpoint; int8 is calibrated on `calibration` inputs."""
        target = "headrace.export.backends.onnx_conversion:convert"
        facts: ArtifactFacts = resolve(target, purpose="export to onnxruntime")(
            checkpoint, folder, task=task, precision=precision, calibration=calibration
        )
        return facts

    @staticmethod
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> "ONNXPredictor":
        task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
        return ONNXPredictor(folder, task_type.problem, n_threads=n_threads)


class ONNXPredictor:
    """A session, which several threads may use at once."""

    def __init__(self, folder: Path, problem: str, *, n_threads: int = 0) -> None:
        onnx_file.check(folder / MODEL)
        self._problem = problem
        self._encoder = Encoder.read(folder / TOKENIZER)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                folder / MODEL, _options(n_threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises a dozen kinds, and bare Exception
            raise Damaged(
                f"the model cannot be read: {error}", value=str(folder), next_step="Export the version again"
            ) from None
        self._names = [port.name for port in self._session.get_inputs()]
        self._n_outputs = int(self._session.get_outputs()[0].shape[-1])

    def logits(self, inputs: Sequence[Input]) -> Outputs:
        """Raw outputs in the order of `inputs`."""
        windows = self._encoder.encode(inputs)
        found: list[Any] = [None] * len(windows)
        for rows in like_length_batches([len(w) for w in windows], batch_tokens=_BATCH_TOKENS):
            feed = self._encoder.feed([windows[i] for i in rows], self._names)
            for i, own in zip(rows, self._session.run(None, feed)[0], strict=True):
                found[i] = own
        return outputs_of(self._problem, self._n_outputs, inputs, windows, found)


def _options(n_threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # plans for one shape; each batch has its own
    return options
