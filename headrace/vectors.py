"""Vectors of inputs by a task's base model as it is, without training; each is computed once and kept on disk.

They are kept in `.headrace/cache/vectors`, a folder for each base model and way to cut texts, in files that
are there whole or not at all: the SHA-256 of each text, and its vector. Nothing needs them but speed; the folder can be
deleted at any time. Dimensions: N inputs, D width of the model.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from headrace.finetune import base_models
from headrace.records import Input
from headrace.registry import resolve
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

Report = Callable[..., None]
Vectors = NDArray[np.float32]
_N_FILES = 16  # more are made one
_KEY_BYTES = 32


def of_inputs(
    ws: Workspace, inputs: Sequence[Input], *, task: str | None = None, report: Report = lambda *_args, **_facts: None
) -> Vectors:
    """Unit vectors (N, D) of inputs by the base model of a task; what was not asked before is computed and kept.

    Raises:
        MissingExtra: torch is not installed, and a vector is not there yet.
        NotFound: the base model is not there.
    """
    settings = ws.task(task)
    base = base_models.find(settings.base_model)
    place = hashlib.sha256(f"{base.digest} {settings.max_tokens} {settings.input}".encode()).hexdigest()[:32]
    folder = ws.state_folder / "cache" / "vectors" / place
    texts = [as_one_text(one) for one in inputs]
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    known = _known(folder, set(keys))
    fresh = list({key: i for i, key in enumerate(keys) if key not in known}.values())
    if fresh:
        embed = resolve("headrace.finetune.embeddings:embed", purpose="vectors of inputs")
        found: Vectors = embed(settings.base_model, [texts[i] for i in fresh], settings, report=report)
        _keep(folder, [keys[i] for i in fresh], found, ws.settings.finetune.cache_bytes)
        known |= {keys[i]: vector for i, vector in zip(fresh, found, strict=True)}
    return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 0), dtype=np.float32)


def _known(folder: Path, wanted: set[bytes]) -> dict[bytes, Vectors]:
    found: dict[bytes, Vectors] = {}
    for keys, vectors in _read(folder):
        found |= {key: vectors[i] for i, key in enumerate(keys) if key in wanted}
    return found


def _read(folder: Path) -> Iterator[tuple[list[bytes], Vectors]]:
    """Keys and vectors of each file, the oldest first; one that is damaged, or was just removed, is passed over."""
    for path in _files(folder):
        with suppress(OSError, EOFError, BadZipFile, KeyError, ValueError), path.open("rb") as file:
            with np.load(file) as kept:
                keys, vectors = kept["keys"], kept["vectors"]
            yield [row.tobytes() for row in keys], vectors


def _files(folder: Path) -> list[Path]:
    dated = []
    for path in folder.glob("*.npz"):
        with suppress(FileNotFoundError):
            dated.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(dated)]


def _keep(folder: Path, keys: Sequence[bytes], vectors: Vectors, most_bytes: int) -> None:
    """Add a file; many are made one, and the oldest vectors go where there is no room."""
    most = most_bytes // max(1, vectors.shape[1] * vectors.itemsize + _KEY_BYTES)
    if len(keys) > most:
        return
    folder.mkdir(parents=True, exist_ok=True)
    old = _files(folder)
    n_bytes = sum(path.stat().st_size for path in old if path.exists()) + vectors.nbytes
    if len(old) < _N_FILES and n_bytes <= most_bytes:
        _write(folder, keys, vectors)
        return
    whole = {key: row for found, rows in _read(folder) for key, row in zip(found, rows, strict=True)}
    whole |= dict(zip(keys, vectors, strict=True))
    newest = list(whole)[-most:]
    _write(folder, newest, np.stack([whole[key] for key in newest]))
    for path in old:
        path.unlink(missing_ok=True)


def _write(folder: Path, keys: Sequence[bytes], vectors: Vectors) -> None:
    part = folder / f"{os.urandom(8).hex()}.part"
    try:
        with part.open("wb") as file:
            np.savez(file, keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES), vectors=vectors)
        part.replace(part.with_suffix(".npz"))
    finally:
        part.unlink(missing_ok=True)
