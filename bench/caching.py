"""What does the cache of the frozen part's outputs save?

`freeze` and `head` train some epochs, with and without the cache (finetune.cache_bytes = 0), in turn and in one run.
The cache is empty at the start of each, so its first epoch pays for filling it; epochs after the first are shown apart.

Run: python -m bench.caching [--pairs 3] [--rows 2048] [--epochs 4]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import corpora, processes
from bench.reporting import Measured, write
from headrace.config import FinetuneTable
from headrace.finetune import base_models
from headrace.finetune.running import tune
from headrace.records import SnapshotRow

METHODS = ("freeze", "head")
N_VALIDATION = 64  # what is measured after each epoch is no part of the question
SEED = 1


def epochs_per_s(method: str, rows: Sequence[SnapshotRow], *, is_cached: bool, n_epochs: int) -> tuple[float, float]:
    """Epochs a second of the whole training, and of the epochs after the first."""
    settings = FinetuneTable(
        method=method, epochs=n_epochs, evals_per_epoch=1, min_steps=0, patience=n_epochs, seed=SEED
    )
    if not is_cached:
        settings = settings.model_copy(update={"cache_bytes": 0})
    ends: dict[float, float] = {}  # epoch to when its last step ended

    def report(*_args: Any, **facts: Any) -> None:
        if "epoch" in facts:
            ends[facts["epoch"]] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        base = base_models.find("minilm-l6").folder
        started = time.perf_counter()
        task, cache = corpora.load("vader").task, Path(folder) / "cache"
        tuned = tune(Path(folder), base, task, settings, rows, report, cache=cache)
        seconds = time.perf_counter() - started
    if tuned.facts["activations"]["cached"] != is_cached:
        raise SystemExit(f"{method}: what was asked for did not happen: {tuned.facts['activations']}")
    first = max(at for epoch, at in ends.items() if epoch <= 1)
    return n_epochs / seconds, (n_epochs - 1) / (max(ends.values()) - first)


def measured(method: str, rows: Sequence[SnapshotRow], pairs: int, n_epochs: int) -> list[Measured]:
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for i in range(pairs):
        for is_cached in (True, False):
            found[is_cached].append(epochs_per_s(method, rows, is_cached=is_cached, n_epochs=n_epochs))
        print(f"{method}, pair {i + 1}: cached {found[True][-1]}, not {found[False][-1]} epochs/s", flush=True)
    shown = []
    for place, part in enumerate((f"{n_epochs} epochs", "epochs after the first")):
        cached, plain = ([one[place] for one in found[key]] for key in (True, False))
        ratio = statistics.median(c / p for c, p in zip(cached, plain, strict=True))
        shown.append(Measured(f"{method}, {part}: no cache", statistics.median(plain), "epochs/s"))
        shown.append(
            Measured(
                f"{method}, {part}: cached", statistics.median(cached), "epochs/s",
                vs="no cache", ratio=ratio, low=min(cached), high=max(cached),
            )
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    if given.epochs < 2:
        raise SystemExit("--epochs must be 2 or more: the first fills the cache")
    processes.quiet()
    corpus = corpora.load("vader")
    rows = [*corpus.side("train")[: given.rows], *corpus.side("validation")[:N_VALIDATION]]
    print(f"about {given.pairs * given.epochs * given.rows * 2 / 300 / 60 * 1.5:.0f} minutes on two cores")
    for method in METHODS:  # compiles and warms what the first pair should not pay for
        epochs_per_s(method, rows[:64] + rows[-N_VALIDATION:], is_cached=True, n_epochs=2)
    write("caching", [row for name in METHODS for row in measured(name, rows, given.pairs, given.epochs)], [SEED])


if __name__ == "__main__":
    main()
