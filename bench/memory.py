"""How much memory does each method need to train at batches of 32?

Each method trains 4 steps on batches of 32 rows that are all 64 tokens long, once in fp32 and once in the default
precision, in a process of its own. The figure is the most memory the process held while it trained, above what it held
before the base model was loaded; `full` with gradient checkpointing stands beside it.

Run: python -m bench.memory [--methods ...] [--steps 4]
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import processes
from bench.methods import SEPARATOR, methods_for
from bench.reporting import Measured, write
from headrace.config import AdapterTable, FinetuneTable, TaskTable
from headrace.finetune.methods import METHODS
from headrace.records import Side, SnapshotRow
from headrace.tasks import TASK_TYPES

N_ROWS, N_TOKENS = 32, 64  # of a batch
N_PROMPT_TOKENS = N_TOKENS // 4  # the most that a prompt may take
PRECISIONS = ("fp32", "auto")
TASK = TaskTable(labels=("a", "b", "c"), max_tokens=N_TOKENS)
_WORDS = ("water", "wheel", "river", "stone", "mill", "field", "bridge", "road")  # each is one word piece


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """One method in its own process."""
    processes.quiet()
    from headrace.checkpoints.saving import save
    from headrace.finetune import base_models
    from headrace.finetune.methods import contrastive
    from headrace.finetune.running import tune

    METHODS.get(job["method"])  # its libraries are no part of what training needs
    contrastive._MAX_PAIRS = contrastive._BATCH_PAIRS * job["n_steps"]  # what a batch needs, not how many there are
    settings = FinetuneTable(
        method=job["method"], epochs=1, evals_per_epoch=1, min_steps=0, batch_tokens=N_ROWS * N_TOKENS,
        precision=job["precision"], gradient_checkpointing=job["checkpointing"],
        adapter=AdapterTable(n_virtual_tokens=N_PROMPT_TOKENS),
    )  # fmt: skip
    rows = [*_rows(N_ROWS * job["n_steps"], "train"), *_rows(N_ROWS, "validation")]
    teacher = Path(job["teacher"]) if job["teacher"] else None
    before = processes.resident_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        tuned = tune(
            Path(scratch), base_models.find(TASK.base_model).folder, TASK, settings, rows, lambda *_a, **_f: None,
            unlabelled=[row.text for row in rows], teacher=teacher,
        )  # fmt: skip
    found = {"bytes": processes.peak_bytes() - before, "device_bytes": processes.device_peak_bytes()}
    if job["keep"]:
        Path(job["keep"]).mkdir(parents=True, exist_ok=True)
        save(tuned.network, tuned.tokenizer, Path(job["keep"]))
    return {**found, "device": processes.device(), "precision": tuned.facts.get("precision", "fp32")}


def _rows(n: int, side: Side) -> list[SnapshotRow]:
    """Rows of N_TOKENS tokens once they are cut."""
    texts = (" ".join(_WORDS[(i + 3 * k) % len(_WORDS)] for k in range(N_TOKENS)) for i in range(n))
    return [
        SnapshotRow(f"{side}-{i}", "made", f"{side}-{i}", text, TASK.labels[i % 3], side, 1.0, "import")
        for i, text in enumerate(texts)
    ]


def _measured(method: str, n_steps: int, teacher: Path) -> list[Measured]:
    forms = [(precision, False) for precision in PRECISIONS if precision == "fp32" or METHODS.get(method).trains]
    if method == "full":
        forms += [(precision, True) for precision in PRECISIONS]
    measured = []
    plain: dict[str, int] = {}
    for precision, checkpointing in forms:
        job = {
            "method": method, "precision": precision, "checkpointing": checkpointing, "n_steps": n_steps,
            "teacher": str(teacher) if method == "distil" else "", "keep": str(teacher) if method == "full" else "",
        }  # fmt: skip
        found = processes.run("bench.memory", job)
        name = f"{method}, gradient checkpointing" if checkpointing else method
        if "error" in found:
            print(f"{name}, {precision}: {found['error']}")
            continue
        plain.setdefault(precision, found["bytes"])
        subject = name if found["device"] == "cpu" else f"{name}, {found['device']}"
        column = "fp32" if precision == "fp32" else f"default ({found['precision']})"
        beside = {"vs": "full", "ratio": found["bytes"] / plain[precision]} if checkpointing else {}
        what = SEPARATOR.join((f"batches of {N_ROWS} rows of {N_TOKENS} tokens", subject, column))
        measured.append(Measured(what, found["bytes"], "bytes", **beside))
        if found["device_bytes"]:
            measured.append(Measured(f"{what}, on the accelerator", found["device_bytes"], "bytes"))
        print(f"{subject}, {precision}: {found['bytes'] / 1e6:.0f} MB", flush=True)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job = json.loads(given.job)
        processes.give(job, measure(job))
        return
    able = methods_for(TASK_TYPES.get(TASK.type)(TASK))
    chosen = [name for name in able if given.methods is None or name in given.methods]
    print(f"about {len(chosen) * 2 * (6 + 0.6 * given.steps) / 60:.0f} minutes on two cores")
    if "distil" in chosen:  # learns from the checkpoint of full
        chosen = ["full", *(name for name in chosen if name != "full")]
    with tempfile.TemporaryDirectory() as folder:
        measured = [row for name in chosen for row in _measured(name, given.steps, Path(folder) / "teacher")]
    if measured:
        write("memory", measured, [1])


if __name__ == "__main__":
    main()
