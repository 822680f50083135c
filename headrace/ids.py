"""Ids that sort by time: a prefix per noun, then a UUIDv7 (RFC 9562) in 32 hex digits."""

import os
import random
import time
from datetime import UTC, datetime

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
    "unlogged": "unlogged",  # an answer that the prediction log does not have
    "feedback": "fb",
    "review": "rev",
    "known answer": "kno",
    "suspension": "sus",
    "alarm": "alm",
    "erasure": "era",
}
_RANDOM = random.Random()  # of the system's: asking it each time hands the interpreter to other threads, and waits
os.register_at_fork(after_in_child=_RANDOM.seed)


def new_id(noun: str) -> str:
    """A fresh id for one of the nouns above, such as `prd_0199...`. It names and hides nothing: keys are no ids."""
    tail = _RANDOM.getrandbits(74)
    bits = time.time_ns() // 1_000_000 << 80 | 0x7 << 76 | (tail >> 62) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    return f"{PREFIXES[noun]}_{bits:032x}"


def first_id(noun: str, at: datetime) -> str:
    """Where the ids of an instant begin: those made before it are smaller, all others are not."""
    return f"{PREFIXES[noun]}_{int(at.timestamp() * 1000) << 80:032x}"


def made_at(row_id: str) -> datetime:
    """When an id was made, to the millisecond."""
    return datetime.fromtimestamp(int(row_id.rpartition("_")[2][:12], 16) / 1000, UTC)
