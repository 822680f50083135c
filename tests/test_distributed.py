"""`torchrun --nproc-per-node 2 -m headrace train` on a tiny base model, against one process.

Catches: processes that each train alone, see all rows, make other steps than one would, stop at different times, or
write a version each; a killed training that does not go on; one process that hangs when another has failed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from conftest import LABELS, TINY_TRAINING, sentences, write_jsonl
from headrace import loop
from headrace.data import channels, importing
from headrace.finetune.batching import TokenBudgetSampler
from headrace.records import Run
from headrace.store import runs, versions
from headrace.workspace import open_workspace

TIMEOUT_S = 120
SETTINGS = (
    TINY_TRAINING
    + """epochs = 3
learning_rate = 0.005
min_steps = 0
patience = 20
precision = "{precision}"
{more}

[export]
backend = "hf"
precision = "fp32"
"""
)


def make_workspace(root: Path, base: Path, *, precision: str = "fp32", more: str = "") -> Path:
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(base)), precision=precision, more=more))
    with open_workspace(root) as ws:
        channels.add(ws, "a")
        rows = write_jsonl(root / "a.jsonl", sentences(240, channel="a"))
        importing.import_rows(ws, "a", rows)
    return root


@contextmanager
def training(root: Path, n_processes: int) -> Iterator[subprocess.Popen[str]]:
    """The command, and nothing of it left behind."""
    words = ["-m", "headrace", "train", "--workspace", str(root), "--json"]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
    command = [sys.executable, *(together if n_processes > 1 else []), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    seen = psutil.Process(process.pid)
    try:
        yield process
    finally:
        try:
            left = [seen, *seen.children(recursive=True)]
        except psutil.NoSuchProcess:
            left = []
        for one in left:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        process.communicate()


def trained(root: Path, n_processes: int) -> tuple[dict[str, Any], Run]:
    with training(root, n_processes) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err[-3000:]
    (answer,) = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return answer, run_of(root)


def run_of(root: Path) -> Run:
    with open_workspace(root) as ws, ws.store.read() as conn:
        (run,) = runs.listing(conn, "tone")
        assert len(versions.listing(conn, "tone")) <= 1
    return run


def curve(run: Run, key: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[key]) for entry in run.history if key in entry]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path, tiny_base: Path) -> None:
    """With all that could set them apart; the plain case in fp32 is the one that is killed below."""
    made, more = {}, 'method = "lora"\naccumulate_batches = 2\ndropout = 0.1'
    for n in (1, 2):
        root = make_workspace(tmp_path / f"ws{n}", tiny_base, precision="bf16", more=more)
        made[n] = trained(root, n)
    (one, run_one), (two, run_two) = made[1], made[2]
    assert one["version"] == two["version"] == "tone/1"
    n_train = run_one.facts["n_train_rows"]
    seen = run_two.facts["n_rows_by_process"]
    assert len(seen) == 2
    assert sum(seen) == pytest.approx(3 * n_train, abs=3 * 12)  # a batch of one row is both processes'
    assert seen[0] == pytest.approx(seen[1], rel=0.2)
    assert "n_rows_by_process" not in run_one.facts
    for key in ("loss", "eval_loss"):
        steps_one, steps_two = curve(run_one, key), curve(run_two, key)
        assert [step for step, _ in steps_one] == [step for step, _ in steps_two]
        assert np.allclose([v for _, v in steps_one], [v for _, v in steps_two], atol=0.15), (steps_one, steps_two)
    assert not (tmp_path / "ws2" / ".headrace" / "runs" / run_two.id).exists()


@pytest.mark.slow
def test_a_killed_training_goes_on_and_early_stopping_is_agreed(tmp_path: Path, tiny_base: Path) -> None:
    root = make_workspace(tmp_path / "ws", tiny_base, more="evals_per_epoch = 4")
    toml = root / "headrace.toml"
    toml.write_text(toml.read_text().replace("epochs = 3", "epochs = 40").replace("patience = 20", "patience = 6"))
    with training(root, 2) as process:
        until = time.monotonic() + TIMEOUT_S
        while not list((root / ".headrace" / "runs").glob("run_*/checkpoint-*/whole")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [one for one in children if "headrace" in one.cmdline()]
        os.kill(workers[-1].pid, signal.SIGKILL)
        assert process.wait(TIMEOUT_S) != 0  # the other one does not wait for ever
        psutil.wait_procs(children, timeout=30)
    answer, run = trained(root, 2)
    assert answer["version"] == "tone/1"
    assert run.facts["resumed"]
    assert run.facts["stopped_early"]
    values = [value for _, value in curve(run, "eval_metric_main")]
    assert len(values) - 1 - values.index(max(values)) == 6


def test_processes_share_each_batch() -> None:
    lengths = [5, 9, 3, 7, 7, 2, 8, 60, 4, 6, 5]
    whole = list(TokenBudgetSampler(lengths, batch_tokens=32, seed=3))
    parts = [list(TokenBudgetSampler(lengths, batch_tokens=32, seed=3, process=p, n_processes=2)) for p in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for batch, own, other in zip(whole, *parts, strict=True):
        assert set(own) | set(other) == set(batch)
        assert abs(len(own) - len(other)) <= 1
        assert len(batch) == 1 or not set(own) & set(other)
