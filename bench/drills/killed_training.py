"""R25: a training that is killed again and again at random steps. Does it end as one that never was?

The tests' tiny base model and toy task, on the CPU, with a fixed seed: the weights must be the same to the last bit.

Run: python -m bench.drills.killed_training   (one training, as `killed_training` below starts it)
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.drills import Figure

N_KILLS = 10
_ROOT = Path(__file__).parents[2]
_SETTINGS = {"epochs": 6, "batch_tokens": 128, "evals_per_epoch": 6, "patience": 40, "seed": 5}


def run(n_kills: int = N_KILLS) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        return killed_training(Path(name), n_kills)


def killed_training(folder: Path, n_kills: int) -> list[Figure]:
    """Train once to the end, and once with kills; after each, files as a kill in the middle of saving leaves them."""
    from conftest import make_tiny_base

    base, rng = make_tiny_base(folder / "base"), random.Random(4)
    whole, n_steps = _trained(folder / "whole", base)
    n_killed, n_partial = 0, 0
    for _ in range(n_kills):
        n_partial += _leave_partial(folder / "killed")
        n_killed += _killed(
            folder / "killed", base, at=_progress(folder / "killed") + rng.randint(1, n_steps // n_kills)
        )
    n_partial += _leave_partial(folder / "killed")
    resumed, _ = _trained(folder / "killed", base)
    n_apart = sum(whole["weights"][name] != digest for name, digest in resumed["weights"].items())
    return [
        Figure("kills at random steps", n_killed, f"of a training of {n_steps} steps"),
        Figure("partial checkpoints that lay about", n_partial, ""),
        Figure("tensors that differ from those of an uninterrupted one", n_apart, "", at_most=0),
        Figure("lines of its history that differ", float(whole["history"] != resumed["history"]), "", at_most=0),
        Figure("began anew", float(not resumed["resumed"]), "", at_most=0),
    ]


def _start(folder: Path, base: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.drills.killed_training", str(folder), str(base)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=quiet, text=True)


def _killed(folder: Path, base: Path, *, at: int) -> bool:
    """Train from the newest checkpoint, and kill it when it reports the step; whether it came to that."""
    process = _start(folder, base)
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.strip().isdigit() and int(line) >= at:
                process.send_signal(signal.SIGKILL)
                break
    return process.wait() == -signal.SIGKILL


def _trained(folder: Path, base: Path) -> tuple[dict[str, Any], int]:
    """Train to the end: what it says of itself, and how many steps it takes in all."""
    process = _start(folder, base)
    said, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError("the training failed")
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result, result["history"][-1]["step"]


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def _progress(folder: Path) -> int:
    whole = [path for path in _checkpoints(folder) if (path / "whole").exists()]
    return int(whole[-1].name.rpartition("-")[2]) if whole else 0


def _leave_partial(folder: Path) -> int:
    """Beside the newest checkpoint, two newer ones: one with a file cut short, one that does not say it is whole."""
    known = _checkpoints(folder)
    if not known:
        return 0
    number = int(known[-1].name.rpartition("-")[2])
    for ahead in (1, 2):
        copy = folder / f"checkpoint-{number + ahead}"
        shutil.copytree(known[-1], copy)
        largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
        if ahead == 2:
            (copy / "whole").unlink(missing_ok=True)
    return 2


def _train(folder: Path, base: Path) -> dict[str, Any]:
    import hashlib

    from finetune import toy
    from headrace.config import FinetuneTable
    from headrace.finetune.running import tune

    def tell(_what: str, step: int, *_args: Any, **_facts: Any) -> None:
        print(step, flush=True)

    tuned = tune(folder, base, toy.TASK, FinetuneTable(**_SETTINGS), toy.rows(), tell)
    state = tuned.network.state_dict()  # type: ignore[attr-defined]
    weights = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.items()}
    return {"weights": weights, "history": tuned.history, "resumed": tuned.facts["resumed"]}


if __name__ == "__main__":
    print(json.dumps(_train(Path(sys.argv[1]), Path(sys.argv[2]))))
