"""How long does headrace train until the test side is answered well, beside the loop most tutorials write?

`full`, `freeze` and the loop train on the whole training side (start rows of examples/sentiment_channels); macro-F1 of
the test side is measured every eighth of an epoch. Seconds of training count from before anything is loaded, those of
measuring do not. The loop's state is kept in a temporary folder, so that it goes on where it was stopped; when the
limit comes first, the ratio reported is a lower bound, and its row says so.

Run: python -m bench.reaching [--macro-f1 .73] [--limit-minutes 40]
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench import processes
from bench.reporting import Measured, write
from bench.sentiment import LABELS, TASK, rows_by_side
from headrace.checkpoints.encoding import like_length_batches
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable
from headrace.finetune import base_models
from headrace.finetune.running import tune
from headrace.finetune.training import LikeLengthTrainer
from headrace.records import SnapshotRow
from headrace.tasks.text_classification import TextClassification

LOOP = "tutorials' loop"
N_EPOCHS = 2  # that headrace's learning rate falls over; the loop goes on until its limit
MEASURES_PER_EPOCH = 8
# The method's own is right for the few hundred steps of few rows (bench.rates); these rows make 496.
LEARNING_RATES = {"full": 1e-4}
BATCH = 32  # rows, of the loop
SEED = 1


class _ReachedError(Exception):
    """Training need not go on."""


class Clock:
    """Seconds of training, without those of measuring."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before, self._started = seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    def set(self, seconds: float) -> None:
        self._before, self._started = seconds, time.perf_counter()


def own(method: str, wanted: float, sides: dict[str, list[SnapshotRow]]) -> tuple[float, float, bool]:
    """Seconds of training, macro-F1 then, and whether it is the wanted one."""
    clock, best = Clock(), [0.0]
    measure = LikeLengthTrainer.evaluate

    def timed(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        seconds = clock.seconds
        found = measure(trainer, *args, **kwargs)
        best[0] = max(best[0], found["eval_metric_main"])
        print(f"{method}: {found['eval_metric_main']:.4f} after {seconds:.0f} s", flush=True)
        if found["eval_metric_main"] >= wanted:
            raise _ReachedError(seconds)
        clock.set(seconds)
        return found

    settings = FinetuneTable(
        method=method, epochs=N_EPOCHS, evals_per_epoch=MEASURES_PER_EPOCH, patience=10**6, min_steps=0, seed=SEED,
        learning_rate=LEARNING_RATES.get(method),
    )  # fmt: skip
    base = base_models.find("minilm-l6").folder
    measured_on = [SnapshotRow(**{**vars(row), "side": "validation"}) for row in sides["test"]]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(LikeLengthTrainer, "evaluate", timed):
        try:
            rows, cache = [*sides["train"], *measured_on], Path(folder) / "cache"
            tune(Path(folder), base, TASK, settings, rows, lambda *_a, **_f: None, cache=cache)
        except _ReachedError as reached:
            return float(reached.args[0]), best[0], True
    return clock.seconds, best[0], False


def loop(wanted: float, limit_s: float, sides: dict[str, list[SnapshotRow]], kept: Path) -> tuple[float, float, bool]:
    """The same of the loop: fp32, padded to 128, AdamW at 2e-5, batches of 32 in an order drawn anew each epoch."""
    from transformers import AutoTokenizer

    clock = Clock()
    torch.manual_seed(SEED)
    folder = base_models.find("minilm-l6").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = fresh(folder, TextClassification(TASK), dropout=0.1).model
    model.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    train, step, best = sides["train"], 0, 0.0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, best, clock = state["step"], state["best"], Clock(state["seconds"])
        print(f"{LOOP}: goes on after {clock.seconds:.0f} s", flush=True)
    n_steps = -(-len(train) // BATCH)
    every = max(1, n_steps // MEASURES_PER_EPOCH)
    while best < wanted and clock.seconds < limit_s:
        order = np.random.default_rng((SEED, step // n_steps)).permutation(len(train))
        at = step % n_steps * BATCH
        _step(model, tokenizer, optimizer, [train[i] for i in order[at : at + BATCH]])
        step += 1
        if step % every == 0:
            seconds = clock.seconds
            best = max(best, _macro_f1(model, tokenizer, sides["test"]))
            print(f"{LOOP}: best {best:.4f} after {seconds:.0f} s", flush=True)
            facts = {"step": step, "best": best, "seconds": seconds}
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **facts}, kept)
            clock.set(seconds)
    return clock.seconds, best, best >= wanted


def _step(model: Any, tokenizer: Any, optimizer: Any, batch: Sequence[SnapshotRow]) -> None:
    model.train()
    inputs = tokenizer(
        [row.text for row in batch], padding="max_length", truncation=True, max_length=128, return_tensors="pt"
    )
    model(**inputs, labels=torch.tensor([LABELS.index(row.target) for row in batch])).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@torch.inference_mode()
def _macro_f1(model: Any, tokenizer: Any, rows: Sequence[SnapshotRow]) -> float:
    model.eval()
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=128)
    logits = np.zeros((len(rows), len(LABELS)), dtype=np.float32)
    for places in like_length_batches([len(ids) for ids in encoded["input_ids"]], batch_tokens=4096):
        feed = tokenizer.pad({"input_ids": [encoded["input_ids"][i] for i in places]}, return_tensors="pt")
        logits[places] = model(**feed).logits.numpy()
    return float(TextClassification(TASK).metrics([row.target for row in rows], logits)["macro_f1"])


def compare(wanted: float, limit_minutes: float, max_rows: int | None = None) -> list[Measured]:
    """headrace's methods, then the loop, in one run."""
    sides = {side: rows[:max_rows] for side, rows in rows_by_side().items()}
    print(f"about {limit_minutes + 10:.0f} minutes on two cores, at most")
    found = {method: own(method, wanted, sides) for method in ("full", "freeze")}
    kept = processes.WORK / f"reaching-{len(sides['train'])}.pt"
    found[LOOP] = loop(wanted, 60 * limit_minutes, sides, kept)
    loop_s, _, is_reached = found[LOOP]
    measured = []
    for name, (seconds, best, reached) in found.items():
        if not reached:
            what = f"{name}: seconds without reaching macro-F1 {wanted:g} (best {best:.4f})"
            measured.append(Measured(what, seconds, "s"))
        elif name == LOOP:
            measured.append(Measured(f"{name}: seconds to macro-F1 {wanted:g}", seconds, "s"))
        else:
            beside = f"{LOOP}, faster" if is_reached else f"{LOOP}, faster, at least: it was stopped before"
            what = f"{name}: seconds to macro-F1 {wanted:g}"
            measured.append(Measured(what, seconds, "s", vs=beside, ratio=loop_s / seconds))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--macro-f1", type=float, default=0.73)
    parser.add_argument("--limit-minutes", type=float, default=40, help="training of the loop, at most")
    parser.add_argument("--max-rows", type=int, help="rows of each side, to try things out")
    given = parser.parse_args()
    processes.quiet()
    write("reaching", compare(given.macro_f1, given.limit_minutes, given.max_rows), [SEED])


if __name__ == "__main__":
    main()
