"""How long does an import of 1,000,000 short rows take on one core, and how much memory? Target: < 60 s, < 1 GB.

Run: python -m bench.imports [--rows 1000000]
"""

import argparse
import csv
import os
import random
import resource
import sys
import tempfile
from pathlib import Path

from bench.reporting import Measured, write
from headrace.data import channels, importing
from headrace.workspace import init

SEED = 1
LABELS = ("negative", "neutral", "positive")
_MAX_S, _MAX_BYTES = 60, 1 << 30
_KIB = 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n_rows = parser.parse_args().rows
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        path = make_rows(Path(folder) / "rows.csv", n_rows)
        with init(Path(folder) / "ws", task="tone", labels=LABELS) as ws:
            channels.add(ws, "bench")
            first = importing.import_rows(ws, "bench", path)
            again = importing.import_rows(ws, "bench", path)
    assert (first.n_added, again.n_added) == (n_rows, 0)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
    target = f"target {_MAX_S} s for 1,000,000 rows"
    write(
        "imports",
        [
            Measured(f"import of {n_rows:,} new rows", first.seconds, "s", target, first.seconds / _MAX_S),
            Measured("rows a second, new", n_rows / first.seconds, "rows/s"),
            Measured("rows a second, all known", n_rows / again.seconds, "rows/s"),
            Measured("peak memory", peak_bytes, "bytes", "target 1 GiB", peak_bytes / _MAX_BYTES),
        ],
        [SEED],
    )
    return 0 if n_rows < 1_000_000 or (first.seconds < _MAX_S and peak_bytes < _MAX_BYTES) else 1


def make_rows(path: Path, n_rows: int) -> Path:
    """A CSV of short texts without ids, so that each key is a hash: the slowest case for the store's index."""
    rng = random.Random(SEED)
    words = [
        f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu", "na", "re", "so") for b in ("la", "mi", "no", "ru", "te")
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["text", "label"])
        for i in range(n_rows):
            lines.writerow([f"{' '.join(rng.choices(words, k=12))} {i}", LABELS[i % len(LABELS)]])
    return path


if __name__ == "__main__":
    sys.exit(main())
