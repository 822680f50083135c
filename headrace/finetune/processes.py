"""Processes that fine-tune one model together, as torchrun starts them: which one this is, and words between them.

Outside `together` there is one process, whatever the environment says.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")
_PATIENCE = timedelta(minutes=30)  # of one that waits for the others, which may evaluate or compile


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes of torchrun: over gloo, and NCCL between GPUs."""
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def place() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the one that writes."""
    return place() == 0


def told(value: T) -> T:
    """The first process's value, of JSON, in every process."""
    return of_all(value)[0]


def of_all(value: T) -> list[T]:
    """Every process's value, of JSON, in the order of their places. (torch's own way to say values is pickle.)"""
    if count() == 1:
        return [value]
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor([len(text)]))
    room = max(int(size) for size in sizes)
    texts = [torch.zeros(room, dtype=torch.uint8) for _ in range(count())]
    distributed.all_gather(texts, torch.nn.functional.pad(text, (0, room - len(text))))
    return [json.loads(bytes(said[: int(size)].tolist())) for said, size in zip(texts, sizes, strict=True)]


def wait() -> None:
    """Go on when all have come here."""
    if count() > 1:
        distributed.barrier()


def own_folder(folder: Path) -> Path:
    """A run's scratch for what this process alone writes; the first one's is the run's own."""
    own = folder if is_first() else folder / f"process-{place()}"
    own.mkdir(parents=True, exist_ok=True)
    return own


def first_folder(own: Path) -> Path:
    """The run's own scratch, from `own_folder` of it: where checkpoints are."""
    return own if is_first() else own.parent


def check_same(model: torch.nn.Module) -> None:
    """Check that all processes hold the same weights, which they do if every gradient was shared.

    Raises:
        RuntimeError: they do not.
    """
    sums = of_all([float(p.detach().double().sum()) for p in model.parameters() if p.requires_grad])
    if any(one != sums[0] for one in sums):
        raise RuntimeError("the processes trained apart: an objective passes data-parallel training by")
