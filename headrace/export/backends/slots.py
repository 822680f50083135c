"""The channel adapters of a bank: arrays with a row for each, which a graph picks from by slot.

Slot 0 is no adapter. Arrays grow by doubling, so that the graph sees few shapes; what is handed out before stays valid.

Dimensions: C slots, r rank, K outputs of the head, D_in and D_out of a linear layer.
"""

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from headrace.checkpoints.low_rank import LowRank, read, weights_digest
from headrace.errors import Damaged, NotFound
from headrace.files import safetensors_file

HEAD = "head.safetensors"
"""The shared model's last linear layer, beside the graph."""
HEAD_WEIGHT, HEAD_BIAS, SLOTS, PLACES, OWNERS = "head.weight", "head.bias", "slots", "places", "owners"
"""Inputs of the graph besides those of `a_name` and `b_name` (see openvino_bank.py)."""
_AND = "+"  # which is in no path of a module
Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Slot:
    """An adapter in its slot, which is nobody else's while this object lives."""

    slot: int
    digest: str
    """Of the weights that lie in the slot."""


def a_name(group: Sequence[str]) -> str:
    """Of the array with the A of linear layers that read the same."""
    return f"{_AND.join(group)}.a"


def b_name(target: str) -> str:
    return f"{target}.b"


def widths_in(inputs: Mapping[str, Any]) -> dict[str, int]:
    """The last dimension of each array with A or B, from the partial shapes of a graph's inputs."""
    return {name: shape[-1].get_length() for name, shape in inputs.items() if name.endswith((".a", ".b"))}


def read_head(folder: Path) -> Arrays:
    """The shared model's last linear layer, from an artifact folder.

    Raises:
        Damaged: missing or unreadable.
    """
    safetensors_file.check(folder / HEAD)
    return dict(load_file(folder / HEAD))


class Slots:
    """Room for adapters. Safe to use from several threads."""

    def __init__(self, widths: Mapping[str, int], rank: int, head: Arrays) -> None:
        """Make slot 0.

        Args:
            widths: as `widths_in` gives them.
            head: the shared model's, `weight` (K, D) and `bias` (K,).
        """
        self._rank = rank
        self._place_of_a: dict[str, tuple[str, int]] = {}
        """Of each linear layer, the array that its A lies in, and the first row there."""
        self._arrays: dict[str, NDArray[np.float32]] = {
            HEAD_WEIGHT: np.ascontiguousarray(head["weight"][None], dtype=np.float32),
            HEAD_BIAS: np.ascontiguousarray(head["bias"][None], dtype=np.float32),
        }
        for name, width in widths.items():
            group = name.removesuffix(".a").split(_AND) if name.endswith(".a") else []
            self._place_of_a |= {target: (name, i * rank) for i, target in enumerate(group)}
            self._arrays[name] = np.zeros((1, max(1, len(group)) * rank, width), dtype=np.float32)
        self._held: dict[str, Slot] = {}
        self._taken: weakref.WeakValueDictionary[int, Slot] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    @property
    def digests(self) -> list[str]:
        return list(self._held)

    def add(self, folder: Path) -> str:
        """Put the adapter of a PEFT directory into a free slot; the digest of what lies there then.

        Raises:
            Damaged: it cannot be read, or is not of this model.
        """
        given = read(folder)
        self._check(given, folder)
        with self._lock:
            slot = next((i for i in range(1, self._n_slots) if i not in self._taken), self._n_slots)
            if slot == self._n_slots:
                self._grow()
            self._write(slot, given)
            digest = weights_digest(self._written(slot, given))
            adapter = Slot(slot, digest)
            self._held[digest] = self._taken[slot] = adapter
        return digest

    def remove(self, digest: str) -> None:
        """Let go of an adapter; its slot is free when nobody holds what `find` gave for it."""
        with self._lock:
            self._held.pop(digest, None)

    def find(self, digest: str) -> Slot:
        """The adapter with these weights.

        Raises:
            NotFound: it is not at hand.
        """
        found = self._held.get(digest)
        if found is None:
            raise NotFound("no such adapter is loaded", value=digest, next_step="Load it first")
        return found

    @property
    def arrays(self) -> Arrays:
        """What the graph reads, C rows each; another object when it grew."""
        return self._arrays

    @property
    def _n_slots(self) -> int:
        return len(self._arrays[HEAD_BIAS])

    def _grow(self) -> None:
        self._arrays = {name: np.concatenate([old, np.zeros_like(old)]) for name, old in self._arrays.items()}

    def _check(self, given: LowRank, folder: Path) -> None:
        problem = None
        if unknown := sorted(given.updates.keys() - self._place_of_a.keys()):
            problem = f"it changes {unknown[0]}, for which the bank has no room"
        for name, (a, b) in given.updates.items():
            if problem is None and (a.shape[1], b.shape[0]) != tuple(one.shape[1] for one in self._of(0, name)):
                problem = f"{name} has other widths than the model"
            elif problem is None and len(a) > self._rank:
                problem = f"its rank is {len(a)}, and the bank's is {self._rank}"
        if given.head is not None and given.head[0].shape != self._arrays[HEAD_WEIGHT].shape[1:]:
            problem = "its head is not that of the task"
        if problem:
            raise Damaged(
                f"the adapter does not fit the model: {problem}",
                value=str(folder),
                next_step="Train it again on this version",
            )

    def _write(self, slot: int, given: LowRank) -> None:
        for array in self._arrays.values():
            array[slot] = 0
        for name, (a, b) in given.updates.items():
            own_a, own_b = self._of(slot, name)
            own_a[: len(a)], own_b[: len(a)] = a, b.T * np.float32(given.scale)
        head = given.head or (self._arrays[HEAD_WEIGHT][0], self._arrays[HEAD_BIAS][0])
        self._arrays[HEAD_WEIGHT][slot], self._arrays[HEAD_BIAS][slot] = head

    def _of(self, slot: int, target: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Views (r, D_in) and (r, D_out) of a linear layer's A and B in a slot."""
        joint, start = self._place_of_a[target]
        return self._arrays[joint][slot, start : start + self._rank], self._arrays[b_name(target)][slot]

    def _written(self, slot: int, given: LowRank) -> LowRank:
        """What lies in a slot, in the shapes of what was given."""
        updates = {}
        for name, (a, _) in given.updates.items():
            own_a, own_b = self._of(slot, name)
            updates[name] = own_a[: len(a)], own_b[: len(a)].T
        head: Any = None
        if given.head is not None:
            head = (self._arrays[HEAD_WEIGHT][slot], self._arrays[HEAD_BIAS][slot])
        return replace(given, scale=1.0, updates=updates, head=head)
