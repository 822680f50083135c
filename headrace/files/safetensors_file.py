"""Safetensors files whose header describes the file it is in, and nothing else.

The format: eight bytes with the length of a JSON header, the header, the tensors' bytes one after another
(github.com/huggingface/safetensors). The library checks much of this itself, after it has taken the header's memory.
"""

import json
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.errors import Damaged, Unusable

_MAX_HEADER_BYTES = 2 * 2**20  # about 20,000 tensors; parsed, at most 50 MiB
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_METADATA = "__metadata__"


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Where tensors are written, with other files or without.

    Raises:
        Unusable: the disk is full or fails, which the library tells by an error of its own.
    """
    from safetensors import SafetensorError  # the command line reads headers only

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise Unusable(
            f"a model could not be written: {error}",
            value=str(folder),
            next_step="Make room, or look after the disk; the same command goes on from the last whole checkpoint",
        ) from error


def check(path: Path) -> None:
    """Check that a file is safetensors: every byte of it belongs to the header or to one tensor.

    Raises:
        Damaged: it is not; the message says why.
    """
    try:
        header, n_bytes = _header(path)
        _check_tensors(header, n_bytes)
    except OSError as error:
        raise Damaged(
            f"a file of tensors cannot be read: {error.strerror}", value=str(path), next_step="Save the model again"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(
            f"not a safetensors file: {error}", value=str(path), next_step="Save the model again as safetensors"
        ) from None


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes come after it."""
    n_all = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        n_header = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if not 2 <= n_header <= min(_MAX_HEADER_BYTES, n_all - 8):
            raise ValueError(f"a header of {n_header} bytes in a file of {n_all}")
        header = json.loads(file.read(n_header).decode(), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return header, n_all - 8 - n_header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _check_tensors(header: dict[str, Any], n_bytes: int) -> None:
    facts = header.pop(_METADATA, {})
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError("metadata that is no text")
    spans = sorted(_span(name, tensor) for name, tensor in header.items())
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            raise ValueError(f"tensor {name[:100]!r} begins at {begin}, the one before ends at {end}")
        end = stop
    if end != n_bytes:
        raise ValueError(f"{n_bytes} bytes of tensors, of which the header names {end}")


def _span(name: str, tensor: dict[str, Any]) -> tuple[int, int, str]:
    """Begin, end and name of a tensor whose shape fills what it claims."""
    if set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name[:100]!r} with other facts than type, shape and place")
    begin, end = tensor["data_offsets"]
    sizes = [begin, end, *tensor["shape"]]
    if not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise ValueError(f"tensor {name[:100]!r} with a size that is none")
    if math.prod(tensor["shape"]) * _BITS[tensor["dtype"]] != (end - begin) * 8:
        raise ValueError(f"tensor {name[:100]!r} does not fill its place")
    return begin, end, name
