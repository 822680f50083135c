"""ONNX files that hold their own weights.

An ONNX file may say that a tensor's bytes are in another file, by path, offset and length. Libraries that follow this
have been led out of the folder by `..`, by links and by hard links, and to files such as /proc/self/environ; one more
form of it names an address in memory. Exported models are single files, so any such tensor is refused, before a library
reads the file.

The file is walked as protobuf (protobuf.dev/programming-guides/encoding), by the numbers of onnx.proto3 for the fields
that hold other messages; weights are passed over unread.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import Damaged

_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
"""Message to the numbers of its fields that hold messages which may hold tensors."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_OPERATOR = 4
_BRINGS_FILES = (b"EPContext",)  # onnxruntime's operator for compiled models, which may lie in another file
_MAX_DEPTH = 32
_VARINT, _BITS64, _BYTES, _BITS32 = 0, 1, 2, 5


def check(path: Path) -> None:
    """Check that a file is ONNX, that it is one file, and that it names no other.

    Raises:
        Damaged: it is not; the message says why.
    """
    try:
        if path.is_symlink():
            raise ValueError("it is a link")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk(data, 0, len(data), "model", 0)
    except (OSError, ValueError) as error:
        raise Damaged(
            f"not an ONNX file that can be used: {error}", value=str(path), next_step="Export the version again"
        ) from None


def _walk(data: mmap.mmap, begin: int, end: int, kind: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("messages inside messages without end")
    for number, wire, start, stop in _fields(data, begin, end):
        if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and start)):
            raise ValueError("a tensor's bytes are said to be elsewhere")
        if kind == "node" and number == _OPERATOR and data[start:stop] in _BRINGS_FILES:
            raise ValueError("an operator that reads other files")
        if number in _INSIDE[kind]:
            if wire != _BYTES:
                raise ValueError("a field of another type")
            _walk(data, start, stop, _INSIDE[kind][number], depth + 1)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and begin and end of each field; for a varint its value and 0."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value, 0
            continue
        if wire == _BYTES:
            n_bytes, at = _varint(data, at, end)
        elif wire in (_BITS64, _BITS32):
            n_bytes = 8 if wire == _BITS64 else 4
        else:
            raise ValueError("no protobuf")
        if n_bytes > end - at or number == 0:
            raise ValueError("a field that is longer than what holds it")
        yield number, wire, at, at + n_bytes
        at += n_bytes


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")
