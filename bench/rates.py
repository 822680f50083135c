"""Is each method's default learning rate a good one?

Each method trains on 2,048 rows at a third of its default, at its default and at three times it, in a process of its
own: of the VADER channels (macro-F1 of the test side), and of WNUT17 (F1 of its entities). A default counts as good
where the best of the three is within noise of it: the half-width of a 95 % interval of the default's own figure on that
many rows, or as many entities as WNUT17's test side has. Figures of a corpus that is not asked for stay as they are.

Run: python -m bench.rates [--corpora vader wnut17] [--methods ...] [--seeds 1] [--minutes M]
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import corpora, processes
from bench.methods import KEYS, SEPARATOR, Job, methods_for, work_off
from bench.reporting import RESULTS, Measured, write
from headrace.tasks import TASK_TYPES

N_ROWS = 2048
FACTORS = {1 / 3: "a third", 1.0: "default", 3.0: "three times"}
PARTS = RESULTS / "parts" / "rates.jsonl"
CORPORA = {"vader": ("macro_f1", "macro-F1"), "wnut17": ("f1", "F1")}
N_ENTITIES = 1079
"""Of the test side of WNUT17 (Derczynski et al. 2017, table 2)."""


def measured(corpus: str, jobs: Sequence[Job], done: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> list[Measured]:
    """A row for each method: its default, and the corpus's figure at each rate."""
    rows, (figure, shown_figure) = [], CORPORA[corpus]
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
        score = {factor: statistics.median(part[figure] for part in parts) for factor, parts in found.items()}
        n_test = N_ENTITIES if corpus == "wnut17" else found[1.0][0]["n_test"]
        noise = 1.96 * math.sqrt(score[1.0] * (1 - score[1.0]) / n_test)
        best = max(score, key=lambda factor: score[factor])
        is_good = score[best] <= score[1.0] + noise
        subject = method if is_good else f"{method} (better at {FACTORS[best]})"
        name = f"{corpus}: {shown_figure}, {N_ROWS:,} training rows"
        rows.append(Measured(SEPARATOR.join((name, subject, "default rate")), found[1.0][0]["learning_rate"], ""))
        for factor, shown in FACTORS.items():
            values = [part[figure] for part in found[factor]]
            ends = {"low": min(values), "high": max(values)} if len(values) > 1 else {}
            rows.append(Measured(SEPARATOR.join((name, subject, shown)), score[factor], "", **ends))
        rows.append(Measured(SEPARATOR.join((name, subject, "noise")), noise, ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpora.add_data_option(parser)
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--methods", nargs="+", help="default: all that train")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes")
    parser.add_argument("--rows", type=int, default=N_ROWS)
    parser.add_argument("--parts", type=Path, default=PARTS, help="file of what was measured")
    parser.set_defaults(wants_int8=False, at_once=os.cpu_count() or 1)
    given = parser.parse_args()
    from headrace.finetune.methods import METHODS

    jobs = []
    for corpus in given.corpora:
        task = corpora.load(corpus, given.data).task
        able = [name for name in methods_for(TASK_TYPES.get(task.type)(task)) if METHODS.get(name).trains]
        jobs += [
            dataclasses.replace(Job(corpus, name, seed, given.rows), rate_factor=factor)
            for seed in given.seeds
            for name in able
            if given.methods is None or name in given.methods
            for factor in sorted(FACTORS, key=lambda factor: factor != 1)
        ]
    parts = processes.Parts(given.parts, KEYS)
    work_off(jobs, parts, given)
    done = parts.read()
    rows = [row for name in given.corpora for row in measured(name, [job for job in jobs if job.corpus == name], done)]
    if rows:
        write("rates", [*_of_others(given.corpora), *rows], given.seeds)


def _of_others(names: Sequence[str]) -> list[Mapping[str, Any]]:
    """What the last report has of corpora that are not named."""
    path = RESULTS / "rates.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if row["what"].partition(":")[0] not in names]


if __name__ == "__main__":
    main()
