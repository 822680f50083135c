"""OpenVINO: one model file for CPU serving, int8 or fp32. Loading needs openvino, tokenizers and numpy only."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino as ov

from headrace.checkpoints.encoding import TOKENIZER, Encoder, like_length_batches
from headrace.checkpoints.windows import outputs_of
from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export.artifact import ArtifactFacts
from headrace.records import Input
from headrace.registry import resolve
from headrace.tasks import TASK_TYPES, Outputs, TaskType

MODEL = "model.xml"
# Not tuned: on a busy machine, 256 to 4096 tokens and one or two streams did not differ by more than the noise.
_BATCH_TOKENS = 1024
_MULTIPLE = 8  # lengths are rounded up to this: fewer shapes, so fewer kernels to make on first use


class OpenVINO:
    """The format that serving uses."""

    precisions = ("int8", "fp32")

    @staticmethod
    def write(
        checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[Input]
    ) -> ArtifactFacts:
        """Convert a checkpoint; int8 is calibrated on `calibration` inputs."""
        target = "headrace.export.backends.openvino_conversion:convert"
        facts: ArtifactFacts = resolve(target, purpose="export to openvino")(
            checkpoint, folder, task=task, precision=precision, calibration=calibration
        )
        return facts

    @staticmethod
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> "OpenVINOPredictor":
        task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
        return OpenVINOPredictor(folder, task_type.problem, n_threads=n_threads)


class OpenVINOPredictor:
    """A compiled model. Calls from several threads wait for each other."""

    def __init__(self, folder: Path, problem: str, *, n_threads: int = 0) -> None:
        self._problem = problem
        self._encoder = Encoder.read(folder / TOKENIZER)
        core = ov.Core()
        try:
            compiled = core.compile_model(core.read_model(folder / MODEL), "CPU", _options(n_threads))
        except RuntimeError as error:
            raise Damaged(
                f"the model cannot be read: {error}", value=str(folder), next_step="Export the version again"
            ) from None
        self._names = [port.any_name for port in compiled.inputs]
        self._n_outputs = int(compiled.output(0).partial_shape[-1].get_length())
        self._queue = ov.AsyncInferQueue(compiled)
        self._lock = threading.Lock()

    def logits(self, inputs: Sequence[Input]) -> Outputs:
        """Raw outputs in the order of `inputs`."""
        windows = self._encoder.encode(inputs)
        found: list[Any] = [None] * len(windows)
        batches = like_length_batches([len(w) for w in windows], batch_tokens=_BATCH_TOKENS, multiple=_MULTIPLE)

        def keep(request: Any, rows: Any) -> None:
            for i, own in zip(rows, request.get_output_tensor(0).data.copy(), strict=True):
                found[i] = own

        with self._lock:
            self._queue.set_callback(keep)
            for rows in batches:
                feed = self._encoder.feed([windows[i] for i in rows], self._names, multiple=_MULTIPLE)
                self._queue.start_async(feed, rows)
            self._queue.wait_all()
        return outputs_of(self._problem, self._n_outputs, inputs, windows, found)


def _options(n_threads: int) -> dict[str, Any]:
    """Settings of the CPU plugin.

    f32 is for what is not int8. OpenVINO's own choice on processors with AMX, bf16, gave wrong int8 results at exactly
    T = head size (32; logits off by up to 2.5 standard deviations, at all other T up to 128 within rounding; OpenVINO
    2026.4.1), for about 5 % more rows/s. Its bf16 products are reported wrong elsewhere too:
    github.com/openvinotoolkit/openvino/issues/38256. f16 did not finish 512 rows in 6 minutes.
    """
    options: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    if n_threads:
        options["INFERENCE_NUM_THREADS"] = n_threads
    return options
