"""How does a server behave in trouble? Slow clients, vanished ones, changes of version under load, ten times too much,
a noisy neighbour, dying workers, bad artifacts, lost answers, killed trainings, kills at any system call, bad disks,
a machine that dies while a backup follows.

Each drill starts a real server with the tests' stub model and brings the trouble about; docs/reliability.md says what
is asked for and where each is tested in small. With --only, the figures of the others stay those of the newest report.

Run: python -m bench.behaviour [--only R7 R12 ...] [--swaps 1000]     all: about 20 minutes, mostly waiting
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from bench.drills import (
    Figure,
    artifacts,
    batches,
    crash_points,
    deaths,
    disks,
    following,
    half_open,
    hammer,
    killed_training,
    kills,
    lost_answers,
    migrations,
    neighbours,
    overload,
    partition,
    power,
    slow_clients,
    swaps,
)
from bench.reporting import RESULTS, Measured, write

NAME = "behaviour"
SEED = 1
DRILLS: dict[str, tuple[str, Callable[[], list[Figure]]]] = {
    "R1": ("killed at a system call", crash_points.run),
    "R2": ("a server that is killed", kills.run),
    "R3": ("the power goes", power.run),
    "R4": ("disks that fail or are full", disks.run),
    "R7": ("slow clients", slow_clients.run),
    "R8": ("clients that vanish", half_open.run),
    "R10": ("changes of version", swaps.run),
    "R12": ("ten times too much", overload.run),
    "R13": ("deadlines", overload.run_deadlines),
    "R14": ("a noisy neighbour", neighbours.run),
    "R15": ("a batch of several", batches.run),
    "R16": ("deaths of workers", deaths.run),
    "R17": ("bad artifacts", artifacts.run),
    "R19": ("several that write at once", hammer.run),
    "R20": ("a database of an older version", migrations.run),
    "R21": ("a machine that dies while a backup follows", following.run),
    "R23": ("a network that goes", partition.run),
    "R24": ("lost answers", lost_answers.run),
    "R25": ("killed trainings", killed_training.run),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=DRILLS, metavar="R", help=" ".join(DRILLS))
    parser.add_argument("--swaps", type=int, default=1000, help="changes of version (R10)")
    given = parser.parse_args()
    rows, unmet = [] if given.only is None else earlier(given.only), []
    for number in given.only or DRILLS:
        title, drill = DRILLS[number]
        print(f"{number} {title} ...", flush=True)
        started = time.monotonic()
        figures = partial(swaps.run, given.swaps)() if number == "R10" else drill()
        for figure in figures:
            print(f"  {'ok  ' if figure.is_met else 'MISS'} {told(figure)}", flush=True)
        print(f"  {time.monotonic() - started:.0f} s", flush=True)
        unmet += [f"{number} {figure.what}" for figure in figures if not figure.is_met]
        rows += [asdict(measured(number, title, figure)) for figure in figures]
    order = list(DRILLS)
    rows.sort(key=lambda row: order.index(row["what"].partition(" ")[0]))
    write(NAME, rows, [SEED])
    for what in unmet:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if unmet else 0


def earlier(replaced: list[str]) -> list[dict[str, Any]]:
    """Rows of the newest report, without those of some drills."""
    path = RESULTS / f"{NAME}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if row["what"].partition(" ")[0] not in replaced]


def measured(number: str, title: str, figure: Figure) -> Measured:
    """As benches report it: beside a figure stands what was asked for."""
    asked = None if figure.asked is None else f"asked: {figure.asked}{'' if figure.is_met else ', not met'}"
    return Measured(f"{number} {title}: {figure.what}", figure.value, figure.unit, asked)


def told(figure: Figure) -> str:
    asked = "" if figure.asked is None else f"  ({figure.asked})"
    return f"{figure.what:<64} {figure.value:>12,.4g} {figure.unit}{asked}"


if __name__ == "__main__":
    sys.exit(main())
