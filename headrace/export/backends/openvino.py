"""OpenVINO: one model file for CPU serving, int8 or fp32. Loading needs openvino, tokenizers and numpy only."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openvino as ov

from headrace.checkpoints import packing
from headrace.checkpoints.encoding import TOKENIZER, Encoder, Window, like_length_batches
from headrace.checkpoints.windows import outputs_of
from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.bank import Bank, bank_of, find_all
from headrace.export.backends.slots import Adapter
from headrace.records import Input
from headrace.registry import resolve
from headrace.tasks import TASK_TYPES, Outputs, TaskType

MODEL = "model.xml"
# Not tuned: on a busy machine, 256 to 4096 tokens and one or two streams did not differ by more than the noise.
_BATCH_TOKENS = 1024
_MULTIPLE = 8  # lengths are rounded up to this: fewer shapes, so fewer kernels to make on first use
_Filled = tuple[dict[str, Any], Callable[[Any], None]]
"""What a batch is fed, and what puts its logits where they belong."""


class OpenVINO:
    """The format that serving uses."""

    precisions = ("int8", "fp32")

    @staticmethod
    def write(
        checkpoint: Path,
        folder: Path,
        *,
        task: TaskTable,
        precision: str,
        calibration: Sequence[Input],
        bank: Mapping[str, Any] | None = None,
    ) -> ArtifactFacts:
        """Convert a checkpoint; int8 is calibrated on `calibration` inputs."""
        target = "headrace.export.backends.openvino_conversion:convert"
        facts: ArtifactFacts = resolve(target, purpose="export to openvino")(
            checkpoint, folder, task=task, precision=precision, calibration=calibration, bank=bank or {}
        )
        return facts

    @staticmethod
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> "OpenVINOPredictor":
        return OpenVINOPredictor(folder, facts, n_threads=n_threads)


class OpenVINOPredictor:
    """A compiled model. Calls from several threads wait for each other."""

    def __init__(self, folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> None:
        task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
        self._problem = task_type.problem
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
        self._first_position = facts.first_position
        self._bank = Bank(folder, compiled, facts.bank) if facts.bank else None
        self._queue = ov.AsyncInferQueue(compiled)
        self._lock = threading.Lock()

    def logits(self, inputs: Sequence[Input], adapters: Sequence[str | None] | None = None) -> Outputs:
        """Raw outputs in the order of `inputs`, each by the adapter whose weights' digest stands at its place.

        Raises:
            NotFound: no such adapter, or no room for any.
        """
        windows = self._encoder.encode(inputs)
        found: list[Any] = [None] * len(windows)
        chosen = find_all(self._bank, adapters) if adapters is not None else {}

        def keep(request: Any, filled: _Filled) -> None:
            filled[1](request.get_output_tensor(0).data.copy())

        batches = self._padded if self._first_position is None else self._packed
        with self._lock:
            self._queue.set_callback(keep)
            for filled in batches(windows, chosen, found):
                self._queue.start_async(filled[0], filled, share_inputs=True)  # which keeps the arrays alive meanwhile
            self._queue.wait_all()
        return outputs_of(self._problem, self._n_outputs, inputs, windows, found)

    def add_adapter(self, folder: Path) -> str:
        """Hold the channel adapter of a PEFT directory; the digest of its weights as they lie here.

        Raises:
            Damaged: it cannot be read, or does not fit.
            NotFound: this artifact has no room for adapters.
        """
        return bank_of(self._bank).slots.add(folder)

    def remove_adapter(self, digest: str) -> None:
        bank_of(self._bank).slots.remove(digest)

    @property
    def adapters(self) -> list[str]:
        """Digests of the adapters at hand."""
        return [] if self._bank is None else self._bank.slots.digests

    def _padded(self, windows: Sequence[Window], _chosen: Mapping[int, Adapter], found: list[Any]) -> Iterator[_Filled]:
        """Batches of like length, for models that cannot be packed."""
        lengths = [len(w) for w in windows]
        for rows in like_length_batches(lengths, batch_tokens=_BATCH_TOKENS, multiple=_MULTIPLE):
            feed = self._encoder.feed([windows[i] for i in rows], self._names, multiple=_MULTIPLE)

            def place(logits: Any, rows: Any = rows) -> None:
                for i, own in zip(rows, logits, strict=True):
                    found[i] = own

            yield feed, place

    def _packed(self, windows: Sequence[Window], chosen: Mapping[int, Adapter], found: list[Any]) -> Iterator[_Filled]:
        assert self._first_position is not None
        by_window = "starts" in self._names
        for batch in packing.pack([len(w) for w in windows], batch_tokens=_BATCH_TOKENS):
            feed: dict[str, Any] = packing.feed(
                batch, windows, self._names, pad_id=self._encoder.pad_id, first_position=self._first_position
            )
            if self._bank is not None:
                feed |= self._bank.feed(batch, windows, chosen)

            def place(logits: Any, batch: Any = batch) -> None:
                for number, own in packing.unpack(batch, windows, logits, by_window=by_window):
                    found[number] = own

            yield feed, place


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
