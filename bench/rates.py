"""Is each method's default learning rate a good one?

Each method trains on 2,048 rows of the VADER channels at a third of its default, at its default and at three times it,
in a process of its own; macro-F1 of the test side. A default counts as good where the best of the three is within noise
of it: the half-width of a 95 % interval of the default's own macro-F1 on that many rows.

Run: python -m bench.rates [--methods ...] [--seeds 1] [--minutes M]
"""

import argparse
import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import corpora, processes
from bench.methods import KEYS, SEPARATOR, Job, methods_for, work_off
from bench.reporting import Measured, write
from headrace.tasks import TASK_TYPES

N_ROWS = 2048
FACTORS = {1 / 3: "a third", 1.0: "default", 3.0: "three times"}
PARTS = processes.WORK / "rates.jsonl"


def measured(jobs: Sequence[Job], done: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> list[Measured]:
    """A row for each method: its default, and macro-F1 at each rate."""
    rows = []
    for method in dict.fromkeys(job.method for job in jobs):
        found: dict[float, list[Mapping[str, Any]]] = {factor: [] for factor in FACTORS}
        for job in jobs:
            part = done.get(job.key, {"error": "not measured"})
            if job.method == method and "error" not in part:
                found[job.rate_factor].append(part)
            elif job.method == method:
                print(f"without {method} at {FACTORS[job.rate_factor]}, seed {job.seed}: {part['error']}")
        if not all(found.values()):
            continue
        score = {factor: statistics.median(part["macro_f1"] for part in parts) for factor, parts in found.items()}
        noise = 1.96 * math.sqrt(score[1.0] * (1 - score[1.0]) / found[1.0][0]["n_test"])
        best = max(score, key=lambda factor: score[factor])
        is_good = score[best] <= score[1.0] + noise
        subject = method if is_good else f"{method} (better at {FACTORS[best]})"
        name = f"macro-F1, {N_ROWS:,} training rows"
        rows.append(Measured(SEPARATOR.join((name, subject, "default rate")), found[1.0][0]["learning_rate"], ""))
        for factor, shown in FACTORS.items():
            values = [part["macro_f1"] for part in found[factor]]
            ends = {"low": min(values), "high": max(values)} if len(values) > 1 else {}
            rows.append(Measured(SEPARATOR.join((name, subject, shown)), score[factor], "", **ends))
        rows.append(Measured(SEPARATOR.join((name, subject, "noise")), noise, ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpora.add_data_option(parser)
    parser.add_argument("--methods", nargs="+", help="default: all that train")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes")
    parser.add_argument("--rows", type=int, default=N_ROWS)
    parser.add_argument("--parts", type=Path, default=PARTS, help="file of what was measured")
    parser.set_defaults(wants_int8=False, at_once=os.cpu_count() or 1)
    given = parser.parse_args()
    from headrace.finetune.methods import METHODS

    task = corpora.load("vader").task
    able = [name for name in methods_for(TASK_TYPES.get(task.type)(task)) if METHODS.get(name).trains]
    chosen = [name for name in able if given.methods is None or name in given.methods]
    jobs = [
        dataclasses.replace(Job("vader", name, seed, given.rows), rate_factor=factor)
        for seed in given.seeds
        for name in chosen
        for factor in sorted(FACTORS, key=lambda factor: factor != 1)
    ]
    parts = processes.Parts(given.parts, KEYS)
    work_off(jobs, parts, given)
    if rows := measured(jobs, parts.read()):
        write("rates", rows, given.seeds)


if __name__ == "__main__":
    main()
