"""What do channel adapters cost when they are served: rows/s, memory, and the time to add one?

One int8 graph of the built-in base model without room for adapters (the single model), and one with room, holding 1,
10, 100 and 1,000 as `train --per-channel` makes them by default (rank 8, query and value, upper half of the layers),
each with a head of its own; every row asks for a random one of them. Both answer the same texts in the same batches, in
turn, several rounds; so do rows without an adapter, calls each of one adapter, as a client's request is, and as many
mixed adapters that update all layers. Also: the same rows in batches as they come, packed, beside the padded batches of
the same rows that a graph without packing needs.

Run: python -m bench.bank [--rows 2048] [--rounds 5] [--adapters 1 10 100 1000]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import processes
from bench.prediction import TASK, demo_texts, read_rows, untrained
from bench.reporting import Measured, write
from headrace.checkpoints import low_rank
from headrace.config import FinetuneTable, PerChannelTable
from headrace.export import BACKENDS, load, write_facts
from headrace.finetune.banked import Layout, as_low_rank
from headrace.finetune.channel_adapters import open_shared

SEED = 1
_ASKED = "the single model; asked 0.95"
BATCH_ROWS = 64  # of a call, as a busy worker's batch has them
_WAYS = {
    "mixed": " mixed in each batch", "one a call": ", one of them a call", "none": ", rows without one",
    "all layers": " mixed, which update all layers",
}  # fmt: skip


def exported(checkpoint: Path, folder: Path, calibration: Sequence[str], bank: dict[str, Any] | None) -> Any:
    folder.mkdir()
    given = {} if bank is None else {"bank": bank}
    backend = BACKENDS.get("openvino")
    facts = backend.write(checkpoint, folder, task=TASK, precision="int8", calibration=calibration, **given)
    write_facts(folder, facts)
    return load(folder)[0]


def fill(bank: Any, layout: Layout, held: list[Any], n: int, place: Path) -> list[float]:
    """Add adapters until `n` are held, with random weights, which cost what learnt ones do; the seconds of each."""
    seconds = []
    while len(held) < n:
        vector = np.random.default_rng(len(held)).normal(size=layout.n_numbers).astype(np.float32) / 50
        low_rank.write(place, as_low_rank(layout, vector), base="shared")
        started = time.perf_counter()
        held.append(bank.adapter(bank.add_adapter(place)))
        seconds.append(time.perf_counter() - started)
    return seconds


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
    single: Any, banks: Mapping[str, Any], texts: Sequence[str], calls: Sequence[slice], picked: Mapping[str, Any]
) -> dict[str, Callable[[], Any]]:
    bank, mixed = banks["default"], picked["default"]
    return {
        "single": lambda: [single.logits(texts[c]) for c in calls],
        "mixed": lambda: [bank.logits(texts[c], mixed[c]) for c in calls],
        "one a call": lambda: [bank.logits(texts[c], [mixed[c.start]] * len(texts[c])) for c in calls],
        "none": lambda: [bank.logits(texts[c]) for c in calls],
        "all layers": lambda: [banks["all"].logits(texts[c], picked["all"][c]) for c in calls],
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
        tables = {"default": PerChannelTable(), "all": PerChannelTable(frozen_layers=0)}
        like = {name: open_shared(checkpoint, TASK, FinetuneTable(per_channel=own)) for name, own in tables.items()}
        single = exported(checkpoint, folder / "single", calibration, None)
        banks = {name: exported(checkpoint, folder / name, calibration, own.bank) for name, own in like.items()}
        calls = [slice(i, i + BATCH_ROWS) for i in range(0, len(texts), BATCH_ROWS)]
        figures = padded_or_packed(single, texts, calls, given.rounds)
        held: dict[str, list[Any]] = {name: [] for name in banks}
        for n in sorted(given.adapters):
            before = processes.resident_bytes()
            seconds = fill(banks["default"], like["default"].layout, held["default"], n, folder / "adapter")
            what, more = f"{n:,} adapters: memory of the last {len(seconds):,}", processes.resident_bytes() - before
            figures.append(Measured(what, more, "bytes"))
            what = f"{n:,} adapters: time to add one"
            figures.append(Measured(what, statistics.median(seconds), "s", high=max(seconds)))
            fill(banks["all"], like["all"].layout, held["all"], n, folder / "adapter")
            drawn = rng.integers(0, n, size=len(texts))
            picked = {name: [mine[i] for i in drawn] for name, mine in held.items()}
            found = rates(ways_of(single, banks, texts, calls, picked), len(texts), given.rounds)
            print(f"{n} adapters: {statistics.median(found['mixed']):.0f} rows/s", flush=True)
            for way, what in _WAYS.items():
                figures.append(compared(f"{n:,} adapters{what}", found[way], found["single"], _ASKED))
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
