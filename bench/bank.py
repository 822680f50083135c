"""What do channel adapters cost when they are served: rows/s, memory, and the time to add one?

One int8 graph of the built-in base model without room for adapters (the single model), and one with room, holding 1,
10, 100 and 1,000 of rank 8 on query and value of every layer, each with a head of its own; every row asks for a random
one of them. Both answer the same texts in the same batches, in turn, several rounds; so do rows without an adapter, and
calls each of one adapter, as a client's request is. Also: the same rows in batches as they come, packed, beside the
padded batches of the same rows that a graph without packing needs.

Run: python -m bench.bank [--rows 2048] [--rounds 5] [--adapters 1 10 100 1000]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import processes
from bench.prediction import TASK, demo_texts, read_rows, untrained
from bench.reporting import Measured, write
from headrace.checkpoints import low_rank
from headrace.checkpoints.low_rank import LowRank
from headrace.export import BACKENDS, load, write_facts

SEED = 1
RANK, WIDTH, N_LAYERS = 8, 384, 6
TARGETS = [f"bert.encoder.layer.{i}.attention.self.{part}" for i in range(N_LAYERS) for part in ("query", "value")]
_ASKED = "the single model; asked 0.95"
BATCH_ROWS = 64  # of a call, as a busy worker's batch has them
_N_ADDED = 20  # adapters whose adding is timed


def exported(checkpoint: Path, folder: Path, calibration: Sequence[str], bank: dict[str, Any] | None) -> Any:
    folder.mkdir()
    given = {} if bank is None else {"bank": bank}
    backend = BACKENDS.get("openvino")
    facts = backend.write(checkpoint, folder, task=TASK, precision="int8", calibration=calibration, **given)
    write_facts(folder, facts)
    return load(folder)[0]


def make_adapter(folder: Path, seed: int) -> Path:
    """An adapter with random weights, which cost what learnt ones do."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return (rng.normal(size=shape) / 50).astype(np.float32)

    updates = {name: (draw(RANK, WIDTH), draw(WIDTH, RANK)) for name in TARGETS}
    head = (draw(len(TASK.labels), WIDTH), draw(len(TASK.labels)))
    low_rank.write(folder, LowRank(2.0, updates, head, "classifier"), base="shared")
    return folder


def rates(ways: dict[str, Callable[[], Any]], n_rows: int, n_rounds: int) -> dict[str, list[float]]:
    """Rows a second of each way in each round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(n_rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            found[name].append(n_rows / (time.perf_counter() - started))
    return found


def ways_of(
    single: Any, bank: Any, texts: Sequence[str], calls: Sequence[slice], mixed: Sequence[Any]
) -> dict[str, Callable[[], Any]]:
    return {
        "single": lambda: [single.logits(texts[c]) for c in calls],
        "mixed": lambda: [bank.logits(texts[c], mixed[c]) for c in calls],
        "one a call": lambda: [bank.logits(texts[c], [mixed[c.start]] * len(texts[c])) for c in calls],
        "none": lambda: [bank.logits(texts[c]) for c in calls],
    }


def compared(name: str, mine: Sequence[float], others: Sequence[float], vs: str) -> Measured:
    ratios = [a / b for a, b in zip(mine, others, strict=True)]
    return Measured(name, statistics.median(mine), "rows/s", vs, statistics.median(ratios), min(ratios), max(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--adapters", nargs="+", type=int, default=[1, 10, 100, 1000])
    given = parser.parse_args()
    processes.quiet()
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [row.text for row in read_rows(demo_texts(folder))]
        rng.shuffle(texts)
        calibration, texts = texts[:300], texts[300 : 300 + given.rows]
        checkpoint = untrained(folder / "checkpoint")
        single = exported(checkpoint, folder / "single", calibration, None)
        bank = exported(checkpoint, folder / "bank", calibration, {"targets": TARGETS, "rank": RANK})
        calls = [slice(i, i + BATCH_ROWS) for i in range(0, len(texts), BATCH_ROWS)]
        figures = padded_or_packed(single, texts, calls, given.rounds)
        before, held = processes.resident_bytes(), []
        for n in sorted(given.adapters):
            added_s = []
            while len(held) < n:
                place = make_adapter(folder / "adapter" / str(len(held)), len(held))
                started = time.perf_counter()
                held.append(bank.adapter(bank.add_adapter(place)))
                added_s.append(time.perf_counter() - started)
            mixed = [held[i] for i in rng.integers(0, n, size=len(texts))]
            found = rates(ways_of(single, bank, texts, calls, mixed), len(texts), given.rounds)
            print(f"{n} adapters: {statistics.median(found['mixed']):.0f} rows/s", flush=True)
            figures += [
                compared(f"{n:,} adapters mixed in each batch", found["mixed"], found["single"], _ASKED),
                compared(f"{n:,} adapters, one of them a call", found["one a call"], found["single"], _ASKED),
                compared(f"{n:,} adapters, rows without one", found["none"], found["single"], _ASKED),
                Measured(f"{n:,} adapters: memory above the bank alone", processes.resident_bytes() - before, "bytes"),
                Measured(
                    f"{n:,} adapters: time to add one", statistics.median(added_s[-_N_ADDED:]), "s", high=max(added_s)
                ),
            ]
    write("bank", figures, [SEED])


def padded_or_packed(single: Any, texts: Sequence[str], calls: Sequence[slice], n_rounds: int) -> list[Measured]:
    """The same graph on the same calls: several texts in a row, and one text in a row, padded to the longest."""
    from headrace.checkpoints import packing
    from headrace.checkpoints.encoding import round_up

    one_by_one = packing.pack

    def alone(lengths: Sequence[int], *, batch_tokens: int) -> list[packing.Batch]:
        return [packing.Batch([[i] for i in range(len(lengths))], round_up(max(lengths), 8))]

    def padded() -> None:
        packing.pack = alone
        try:
            [single.logits(texts[c]) for c in calls]
        finally:
            packing.pack = one_by_one

    found = rates({"padded": padded, "packed": lambda: [single.logits(texts[c]) for c in calls]}, len(texts), n_rounds)
    vs = f"calls of {BATCH_ROWS} rows as they come, padded"
    return [
        Measured(vs, statistics.median(found["padded"]), "rows/s"),
        compared(f"calls of {BATCH_ROWS} rows as they come, packed", found["packed"], found["padded"], vs),
    ]


if __name__ == "__main__":
    main()
