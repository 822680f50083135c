"""Ids that sort by time: a prefix per noun, then a UUIDv7 (RFC 9562) in 32 hex digits."""

import os
import time

PREFIXES = {
    "channel": "ch",
    "labeller": "lab",
    "import": "imp",
    "example": "ex",
    "label": "lbl",
    "snapshot": "snap",
    "job": "job",
    "run": "run",
    "trial": "trl",
    "version": "ver",
    "evaluation": "ev",
    "release": "rel",
    "ledger": "led",
    "request": "req",
    "prediction": "prd",
    "feedback": "fb",
}


def new_id(noun: str) -> str:
    """A fresh id for one of the nouns above, such as `prd_0199...`."""
    stamp = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    bits = (stamp & (1 << 48) - 1) << 80 | 0x7 << 76 | (tail >> 68) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return f"{PREFIXES[noun]}_{bits:032x}"
