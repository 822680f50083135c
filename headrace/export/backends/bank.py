"""A compiled graph with room for channel adapters: which slot each window reads, and the arrays they lie in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from safetensors import SafetensorError
from safetensors.numpy import load_file

from headrace.checkpoints.encoding import Window
from headrace.checkpoints.packing import Batch
from headrace.errors import Damaged, NotFound
from headrace.export.backends.slots import HEAD, OWNERS, SLOTS, Adapter, Slots


class Bank:
    """The adapters that a graph is handed with each batch."""

    def __init__(self, folder: Path, compiled: Any, facts: Mapping[str, Any]) -> None:
        """Read the shared model's head from an artifact folder.

        Args:
            facts: `targets` and `rank`, as headrace.json has them.

        Raises:
            Damaged: the head is missing or unreadable.
        """
        try:
            head = load_file(folder / HEAD)
        except (OSError, SafetensorError) as error:
            raise Damaged(
                f"the head cannot be read: {error}", value=str(folder / HEAD), next_step="Export the version again"
            ) from None
        self._inputs = {port.any_name: port.partial_shape for port in compiled.inputs}
        widths = {
            name: tuple(self._inputs[f"{name}.{side}"][2].get_length() for side in "ab") for name in facts["targets"]
        }
        self.slots = Slots(facts["targets"], widths, facts["rank"], head)
        self._seen: Any = None
        self._tensors: dict[str, Any] = {}

    def feed(self, batch: Batch, windows: Sequence[Window], chosen: Mapping[int, Adapter]) -> dict[str, Any]:
        """What the graph reads of adapters for a batch.

        Args:
            chosen: number of an input to its adapter.
        """
        of_window = [adapter.slot if (adapter := chosen.get(w.row)) else 0 for w in windows]
        slots = np.zeros((len(batch.rows), max(len(row) for row in batch.rows)), dtype=np.int64)
        for row, numbers in enumerate(batch.rows):
            slots[row, : len(numbers)] = [of_window[number] for number in numbers]
        feed = {SLOTS: slots, **self._arrays()}
        if OWNERS in self._inputs:
            feed[OWNERS] = np.asarray([of_window[number] for number in batch.windows], dtype=np.int64)
        return feed

    def _arrays(self) -> dict[str, Any]:
        """The slots' arrays as tensors that share their memory."""
        arrays = self.slots.arrays
        if arrays is not self._seen:
            self._tensors = {name: ov.Tensor(array, shared_memory=True) for name, array in arrays.items()}
            self._seen = arrays
        return self._tensors


def bank_of(bank: Bank | None) -> Bank:
    """The bank, which is there.

    Raises:
        NotFound: the artifact was exported without one.
    """
    if bank is None:
        raise NotFound(
            "the artifact has no room for channel adapters", next_step="Train with --per-channel, which exports some"
        )
    return bank


def find_all(bank: Bank | None, adapters: Sequence[str | None]) -> dict[int, Adapter]:
    """Place to adapter, of the digests that are not None.

    Raises:
        NotFound: an adapter is not there.
    """
    found = {}
    for place, digest in enumerate(adapters):
        if digest is None:
            continue
        adapter = bank_of(bank).slots.find(digest)
        if adapter is None:
            raise NotFound("no such adapter is loaded", value=digest, next_step="Load it first")
        found[place] = adapter
    return found
