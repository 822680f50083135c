"""Do two processes train as one does? The same rows and settings by one process and by two, side by side.

Shown: rows that each process saw, steps, the largest gap between the two learning curves (training loss and validation
metric at the same steps) beside the gap between two seeds of one process, and rows/s. On one machine two share
the cores, so a gain in speed is not the point.

Run: python -m bench.distributed [--rows 2048] [--epochs 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bench.reporting import Measured, write

N_VALIDATION = 512
TIMEOUT_S = 3600


def train_here(n_rows: int, epochs: float, seed: int, destination: Path) -> None:
    """One process's part; the first of them writes curve and facts."""
    from bench.sentiment import TASK, rows_by_side
    from headrace.config import FinetuneTable
    from headrace.finetune import base_models, processes
    from headrace.finetune.running import tune

    settings = FinetuneTable(epochs=epochs, min_steps=0, patience=100, seed=seed)
    sides = rows_by_side()
    rows = [*sides["train"][:n_rows], *sides["validation"][:N_VALIDATION]]
    with processes.together() if "RANK" in os.environ else nullcontext():
        folder = destination.with_suffix(".scratch")
        tuned = tune(folder, base_models.find("minilm-l6").folder, TASK, settings, rows, lambda *_, **__: None)
        if processes.is_first():
            destination.write_text(json.dumps({"history": tuned.history, "facts": tuned.facts}), "utf-8")


def trained(n_processes: int, n_rows: int, epochs: float, seed: int) -> dict[str, Any]:
    """Curve and facts of a training by so many processes, with the machine's cores shared among them."""
    with tempfile.TemporaryDirectory() as folder:
        destination = Path(folder) / "made.json"
        together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
        words = ["-m", "bench.distributed", "--worker", str(destination), "--rows", str(n_rows)]
        words += ["--epochs", str(epochs), "--seed", str(seed)]
        n_threads = max(1, len(os.sched_getaffinity(0)) // n_processes)
        subprocess.run(
            [sys.executable, *(together if n_processes > 1 else []), *words],
            env={**os.environ, "OMP_NUM_THREADS": str(n_threads)},
            timeout=TIMEOUT_S,
            check=True,
        )
        made: dict[str, Any] = json.loads(destination.read_text("utf-8"))
    return made


def gap(one: dict[str, Any], other: dict[str, Any], key: str) -> float:
    """Largest distance of two curves at the same steps."""
    curves = [{entry["step"]: entry[key] for entry in made["history"] if key in entry} for made in (one, other)]
    assert curves[0].keys() == curves[1].keys(), "the trainings made other steps"
    return max(abs(curves[0][step] - curves[1][step]) for step in curves[0])


def main(n_rows: int, epochs: float, seed: int) -> None:
    one, two = (trained(n, n_rows, epochs, seed) for n in (1, 2))
    other_seed = trained(1, n_rows, epochs, seed + 1)
    rows = [
        Measured(f"process {place}: share of the rows", n / sum(two["facts"]["n_rows_by_process"]), "share")
        for place, n in enumerate(two["facts"]["n_rows_by_process"])
    ]
    for key, what in (("loss", "training loss"), ("eval_metric_main", "validation metric")):
        rows.append(Measured(f"{what}: largest gap between 1 and 2 processes", gap(one, two, key), ""))
        rows.append(Measured(f"{what}: largest gap between two seeds", gap(one, other_seed, key), ""))
    for name, made in (("1 process", one), ("2 processes", two)):
        last = [entry["eval_metric_main"] for entry in made["history"] if "eval_metric_main" in entry][-1]
        rows.append(Measured(f"{name}: validation metric at the end", last, ""))
        rows.append(Measured(f"{name}: training", made["facts"]["rows_per_s"], "rows/s"))
    write("distributed", rows, [seed, seed + 1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", type=Path)
    options = parser.parse_args()
    if options.worker is None:
        main(options.rows, options.epochs, options.seed)
    else:
        train_here(options.rows, options.epochs, options.seed, options.worker)
