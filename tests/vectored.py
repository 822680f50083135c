"""A workspace whose texts have vectors that a test makes up, so that no base model is needed."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import LABELS, write_jsonl
from headrace import vectors
from headrace.data import channels
from headrace.data.importing import import_rows
from headrace.records import SnapshotRow
from headrace.workspace import Workspace

WIDTH = 24


def vector_of(text: str, *, spread: float = 0.9) -> Any:
    """A unit vector near the direction of the label that the text names; the same for the same text."""
    named = [k for k, label in enumerate(LABELS) if label in text]
    centre = np.zeros(WIDTH)
    if named:
        centre[named[0]] = 1.0
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    found = centre + spread * np.random.default_rng(seed).normal(size=WIDTH) / np.sqrt(WIDTH)
    return (found / np.linalg.norm(found)).astype(np.float32)


def make_up_vectors(monkeypatch: pytest.MonkeyPatch, *, spread: float = 0.9) -> None:
    def of_inputs(ws: Workspace, inputs: Sequence[Any], **_: Any) -> Any:
        return np.stack([vector_of(str(one), spread=spread) for one in inputs])

    monkeypatch.setattr(vectors, "of_inputs", of_inputs)


def plant_rows(ws: Workspace, folder: Path, n_by_channel: Mapping[str, int], flipped: Mapping[str, float] = {}) -> None:
    """Rows of channels, whose texts name their label; of those in `flipped` this share says another one."""
    rng = np.random.default_rng(0)
    for channel, n in n_by_channel.items():
        channels.add(ws, channel)
        rows = []
        for i in range(n):
            k = int(rng.integers(len(LABELS)))
            said = (k + 1) % len(LABELS) if rng.random() < flipped.get(channel, 0) else k
            noise = hashlib.sha256(f"{channel} {i}".encode()).hexdigest()
            rows.append({"id": f"{channel}-{i}", "text": f"{LABELS[k]} {noise}", "label": LABELS[said]})
        import_rows(ws, channel, write_jsonl(folder / f"{channel}.jsonl", rows))


def rows_of(channel: str, n: int) -> list[SnapshotRow]:
    return [SnapshotRow(f"ex{i}", channel, str(i), f"text {i}", LABELS[0], "train", 1.0, "import") for i in range(n)]
