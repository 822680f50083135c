"""OpenVINO: one model file for CPU serving, int8 or fp32. Loading needs openvino, tokenizers and numpy only."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from headrace.checkpoints import packing
from headrace.checkpoints.encoding import TOKENIZER, Encoder, Window, like_length_batches
from headrace.checkpoints.packing import Batch
from headrace.checkpoints.windows import outputs_of
from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.slots import OWNERS, PLACES, SLOTS, Slot, Slots, read_head, widths_in
from headrace.files import openvino_file
from headrace.records import Input
from headrace.registry import resolve
from headrace.tasks import TASK_TYPES, Adapter, Outputs, Predictor, TaskType

MODEL = "model.xml"
WEIGHTS = "model.bin"
# Not tuned: on a busy machine, 256 to 4096 tokens and one or two streams did not differ by more than the noise.
_BATCH_TOKENS = 1024
_MULTIPLE = 8  # lengths are rounded up to this: fewer shapes, so fewer kernels to make on first use
More = Callable[[Batch, Sequence[Window]], Mapping[str, Any]]
_Filled = tuple[Mapping[str, Any], Callable[[Any], Iterable[tuple[int, Any]]]]
"""What a batch is fed, and what says which of its logits are which window's."""


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
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> Predictor:
        predictor = OpenVINOPredictor(folder, facts, n_threads=n_threads)
        return OpenVINOBank(folder, predictor, facts.bank) if facts.bank else predictor


class _Own(threading.local):
    """What each thread that calls has of its own."""

    def __init__(self, compiled: Any) -> None:
        self.queue = ov.AsyncInferQueue(compiled)
        self.encode_s = 0.0


class OpenVINOPredictor:
    """A compiled model. Calls from several threads are worked on side by side."""

    def __init__(self, folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> None:
        openvino_file.check(folder / MODEL, folder / WEIGHTS)
        task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
        self._problem = task_type.problem
        self._encoder = Encoder.read(folder / TOKENIZER)
        core = ov.Core()
        try:
            self._compiled = core.compile_model(core.read_model(folder / MODEL), "CPU", _options(n_threads))
        except RuntimeError as error:
            raise Damaged(
                f"the model cannot be read: {error}", value=str(folder), next_step="Export the version again"
            ) from None
        self._names = [port.any_name for port in self._compiled.inputs]
        self._n_outputs = int(self._compiled.output(0).partial_shape[-1].get_length())
        self._first_position = facts.first_position
        self._own = _Own(self._compiled)

    @property
    def n_at_once(self) -> int:
        """Calls that are worked on side by side without waiting for each other's cores."""
        return int(self._compiled.get_property("NUM_STREAMS"))

    @property
    def encode_s(self) -> float:
        """Seconds of this thread's last call that went into tokens."""
        return self._own.encode_s

    @property
    def is_packed(self) -> bool:
        """Whether a row holds several inputs, so that a batch of unlike lengths costs no more than one of like."""
        return self._first_position is not None

    def logits(self, inputs: Sequence[Input]) -> Outputs:
        """Raw outputs in the order of `inputs`."""
        return self.answer(inputs)

    def answer(self, inputs: Sequence[Input], more: More | None = None) -> Outputs:
        """Raw outputs in the order of `inputs`, of a graph that is fed `more` than tokens with each packed batch."""
        began_at = time.perf_counter()
        windows = self._encoder.encode(inputs)
        self._own.encode_s = time.perf_counter() - began_at
        found: list[Any] = [None] * len(windows)

        def keep(request: Any, filled: _Filled) -> None:
            for number, own in filled[1](request.get_output_tensor(0).data.copy()):
                found[number] = own

        batches = self._packed(windows, more) if self.is_packed else self._padded(windows)
        queue = self._own.queue
        queue.set_callback(keep)
        for filled in batches:
            queue.start_async(filled[0], filled, share_inputs=True)  # which keeps the arrays alive meanwhile
        queue.wait_all()
        return outputs_of(self._problem, self._n_outputs, inputs, windows, found)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The graph's inputs by name, with their partial shapes."""
        return {port.any_name: port.partial_shape for port in self._compiled.inputs}

    def _padded(self, windows: Sequence[Window]) -> Iterator[_Filled]:
        """Batches of like length, for models that cannot be packed."""
        lengths = [len(w) for w in windows]
        for rows in like_length_batches(lengths, batch_tokens=_BATCH_TOKENS, multiple=_MULTIPLE):
            feed = self._encoder.feed([windows[i] for i in rows], self._names, multiple=_MULTIPLE)
            yield feed, partial(zip, rows, strict=True)

    def _packed(self, windows: Sequence[Window], more: More | None) -> Iterator[_Filled]:
        assert self._first_position is not None
        by_window = "starts" in self._names
        for batch in packing.pack([len(w) for w in windows], batch_tokens=_BATCH_TOKENS):
            feed: dict[str, Any] = dict(
                packing.feed(
                    batch, windows, self._names, pad_id=self._encoder.pad_id, first_position=self._first_position
                )
            )
            if more is not None:
                feed |= more(batch, windows)
            yield feed, partial(packing.unpack, batch, windows, by_window=by_window)


class OpenVINOBank:
    """A compiled model with channel adapters, which are handed to it with each batch."""

    def __init__(self, folder: Path, predictor: OpenVINOPredictor, facts: Mapping[str, Any]) -> None:
        """Begin without adapters.

        Args:
            facts: `targets` and `rank`, as headrace.json has them.

        Raises:
            Damaged: the shared head is missing or unreadable.
        """
        self._predictor, inputs = predictor, predictor.inputs
        self._slots = Slots(widths_in(inputs), facts["rank"], read_head(folder))
        self._has_owners = OWNERS in inputs
        self._shared: tuple[Any, Mapping[str, Any]] = (None, {})

    @property
    def is_packed(self) -> bool:
        return True

    @property
    def n_at_once(self) -> int:
        return self._predictor.n_at_once

    @property
    def encode_s(self) -> float:
        return self._predictor.encode_s

    @property
    def adapters(self) -> list[str]:
        """Digests of the adapters at hand."""
        return self._slots.digests

    def adapter(self, digest: str) -> Slot:
        """The adapter with these weights.

        Raises:
            NotFound: it is not at hand.
        """
        return self._slots.find(digest)

    def add_adapter(self, folder: Path) -> str:
        """Hold the adapter of a PEFT directory; the digest of its weights as they lie here.

        Raises:
            Damaged: it cannot be read, or does not fit.
        """
        return self._slots.add(folder)

    def remove_adapter(self, digest: str) -> None:
        """Let go of an adapter; who holds it can still use it."""
        self._slots.remove(digest)

    def logits(self, inputs: Sequence[Input], adapters: Sequence[Adapter | None] = ()) -> Outputs:
        """Raw outputs in the order of `inputs`, each by the adapter at its place; none: by the shared weights."""
        slots = [adapter.slot if isinstance(adapter, Slot) else 0 for adapter in adapters] or [0] * len(inputs)
        return self._predictor.answer(inputs, partial(self._feed, slots))

    def _feed(self, slots: Sequence[int], batch: Batch, windows: Sequence[Window]) -> dict[str, Any]:
        places = np.zeros((len(batch.rows), batch.n_tokens), dtype=np.int64)
        by_row: list[dict[int, int]] = []
        for row, numbers in zip(places, batch.rows, strict=True):
            at, own = 0, dict[int, int]()  # slot to its place: an adapter costs a row as much for one window as for all
            for number in numbers:
                end = at + len(windows[number])
                row[at:end] = own.setdefault(slots[windows[number].row], len(own) + 1)
                at = end
            by_row.append(own)
        chosen = np.zeros((len(by_row), max(map(len, by_row))), dtype=np.int64)
        for row, own in zip(chosen, by_row, strict=True):
            row[: len(own)] = list(own)
        feed = {SLOTS: chosen, PLACES: places, **self._arrays()}
        if self._has_owners:
            owners = feed[OWNERS] = np.zeros(batch.n_places, dtype=np.int64)
            owners[: len(batch.windows)] = [slots[windows[number].row] for number in batch.windows]
        return feed

    def _arrays(self) -> Mapping[str, Any]:
        """The slots' arrays as tensors that share their memory."""
        arrays, (seen, tensors) = self._slots.arrays, self._shared
        if arrays is not seen:
            tensors = {name: ov.Tensor(array, shared_memory=True) for name, array in arrays.items()}
            self._shared = (arrays, tensors)  # at once, for calls from other threads
        return tensors


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
