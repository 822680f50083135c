"""Watch drift with all four streams: those of headrace/feedback/drift.py, and what the inputs are like.

The inputs are turned into vectors by the task's base model, which takes the training parts; where they are not
installed, that stream is left out and said to be. A block of inputs is compared with a reference of the same kind now
and then, since vectors take time: 256 of every 2,000 answers, some seconds of one core.
"""

import base64
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import MissingExtra, NotFound
from headrace.feedback import drift
from headrace.feedback.alarms import Alarm
from headrace.feedback.drift import Block
from headrace.registry import resolve
from headrace.stats import two_sample
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

N_REFERENCE, N_BLOCK, N_BETWEEN = 512, 256, 2_000
_WIDTH = 64
"""Numbers that a vector is projected on, at random but always alike (Johnson and Lindenstrauss 1984)."""


@dataclass(frozen=True)
class Watched:
    """What a look gave, and what it could not look at."""

    alarms: list[Alarm]
    left_out: str
    """Empty where all streams are watched."""


def watch(ws: Workspace, task: str | None = None) -> Watched:
    """Look at what came since the last look, in all streams.

    Raises:
        NotFound: no such task.
    """
    task = ws.task_name(task)
    raised = drift.watch(ws, task)
    if ws.settings.serve.log_inputs != "text":
        return Watched(raised, "embeddings, since serve.log_inputs keeps no text")
    if find_spec("torch") is None:
        return Watched(raised, "embeddings, since headrace[train] is not installed")
    found = drift.next_block(ws, task, n_first=N_REFERENCE, n_block=N_BLOCK, n_between=N_BETWEEN)
    if found is None:
        return Watched(raised, "")
    try:
        judged = _judged(ws, task, found)
    except (NotFound, MissingExtra) as error:  # the other streams are looked at all the same
        return Watched(raised, f"embeddings, since {error}")
    alarm = drift.note_block(ws, task, found, *judged)
    return Watched(raised + ([] if alarm is None else [alarm]), "")


def _judged(ws: Workspace, task: str, block: Block) -> tuple[str, float]:
    """The reference, and the evidence of a block against "like the reference"; 0 of the reference itself."""
    settings = ws.task(task)
    embed = resolve("headrace.finetune.embeddings:embed", purpose="drift of embeddings")
    vectors = embed(settings.base_model, [as_one_text(one) for one in block.inputs], settings)
    now = _projected(vectors)
    if block.reference is None:
        return base64.b64encode(now.astype(np.float16).tobytes()).decode(), 0.0
    kept = np.frombuffer(base64.b64decode(block.reference), dtype=np.float16)
    before = kept.reshape(-1, _WIDTH).astype(np.float64)
    return block.reference, two_sample.log_e(before, now, seed=block.n)


def _projected(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Vectors (N, D) as (N, `_WIDTH`), distances kept about."""
    directions = np.random.default_rng(0).normal(size=(vectors.shape[1], _WIDTH)) / np.sqrt(_WIDTH)
    found: NDArray[np.float64] = vectors.astype(np.float64) @ directions
    return found
