"""Messages between pool and worker: JSON behind its length in four bytes, big-endian. No pickle, so no code travels."""

import json
import struct
from typing import IO, Any

_LENGTH = struct.Struct(">I")
_ENCODER = json.JSONEncoder(separators=(",", ":"))
Message = dict[str, Any]


def send(stream: IO[bytes], *messages: Message) -> None:
    """Write messages and flush them, all at once: each flush wakes the other side up."""
    bodies = [_ENCODER.encode(message).encode("ascii") for message in messages]
    stream.write(b"".join(part for body in bodies for part in (_LENGTH.pack(len(body)), body)))
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """The next message; None when the other side is gone, also in the middle of a message."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (n_bytes,) = _LENGTH.unpack(head)
    body = stream.read(n_bytes)
    if len(body) < n_bytes:
        return None
    message: Message = json.loads(body)
    return message
