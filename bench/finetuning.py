"""How much faster does headrace fine-tune than the loop most tutorials write, and is the model as good?

The loop: fp32, every text padded to 128 tokens, AdamW at 2e-5, batches of 32. Against it, in turn and in one run:
`full` as headrace does it (bf16 where the processor has it, batches of like length under a token budget, no dropout).
Then each trains one epoch of `--quality-rows` rows, and both are measured on the same held-out rows. `--rate-only`
leaves that out: the loop takes minutes for it on two cores.

How long each needs until it answers well is the question of bench.reaching.

Rows are the start rows of examples/sentiment_channels, split by group.

Run: python -m bench.finetuning [--pairs 3] [--quality-rows 4096] [--rate-only]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import processes
from bench.reporting import Measured, write
from bench.sentiment import LABELS, TASK, rows_by_side
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable
from headrace.evaluate.evaluating import evaluate
from headrace.export.checkpoint import load as load_checkpoint
from headrace.finetune import base_models
from headrace.finetune.running import tune
from headrace.records import SnapshotRow
from headrace.tasks.text_classification import TextClassification

N_LOOP_ROWS = 256  # a rate needs no more of the slow loop
N_OWN_ROWS = 4096
SEED = 1


def tutorial_loop(rows: Sequence[SnapshotRow]) -> tuple[Any, Any, float]:
    """One epoch as tutorials write it; model, tokenizer and seconds."""
    from transformers import AutoTokenizer

    folder = base_models.find("minilm-l6").folder
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = fresh(folder, TextClassification(TASK), dropout=0.1).model
    model.set_attn_implementation("sdpa")  # transformers' default, and the faster one here in fp32
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    order = np.random.default_rng(SEED).permutation(len(rows))
    started = time.perf_counter()
    for at in range(0, len(rows), 32):
        batch = [rows[i] for i in order[at : at + 32]]
        inputs = tokenizer(
            [r.text for r in batch], padding="max_length", truncation=True, max_length=128, return_tensors="pt"
        )
        loss = model(**inputs, labels=torch.tensor([LABELS.index(r.target) for r in batch])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, tokenizer, time.perf_counter() - started


def own(rows: Sequence[SnapshotRow], validation: Sequence[SnapshotRow], *, seed: int) -> tuple[Any, Any, float]:
    """One epoch of headrace's `full`; model, tokenizer and seconds, checkpoints and evaluations included."""
    folder = base_models.find("minilm-l6").folder
    settings = FinetuneTable(epochs=1, evals_per_epoch=1, min_steps=0, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        tuned = tune(Path(scratch), folder, TASK, settings, [*rows, *validation], lambda *_a, **_f: None)
    return tuned.network.model, tuned.tokenizer, tuned.facts["seconds"]


def rates(pairs: int) -> list[Measured]:
    sides = rows_by_side()
    train, validation = sides["train"], sides["validation"][:128]
    tutorial_loop(train[:64])
    own(train[:256], validation, seed=SEED)
    found: list[tuple[float, float]] = []
    for i in range(pairs):
        theirs = N_LOOP_ROWS / tutorial_loop(train[:N_LOOP_ROWS])[2]
        ours = N_OWN_ROWS / own(train[:N_OWN_ROWS], validation, seed=SEED + i)[2]
        found.append((theirs, ours))
        print(f"pair {i + 1}: loop {theirs:.1f} rows/s, full {ours:.1f} rows/s, {ours / theirs:.2f}x", flush=True)
    ratios = sorted(ours / theirs for theirs, ours in found)
    return [
        Measured("tutorials' loop", statistics.median(t for t, _ in found), "rows/s"),
        Measured(
            "full",
            statistics.median(o for _, o in found),
            "rows/s",
            vs="tutorials' loop",
            ratio=statistics.median(ratios),
            low=min(o for _, o in found),
            high=max(o for _, o in found),
        ),
    ]


def quality(name: str, model: Any, tokenizer: Any, seconds: float) -> list[Measured]:
    test = rows_by_side()["test"]
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        logits = load_checkpoint(Path(scratch), TASK).logits([r.text for r in test])
    overall = evaluate(TextClassification(TASK), test, logits)["overall"]
    shown = [Measured(f"{name}: seconds for one epoch", seconds, "s")]
    for metric in ("macro_f1", "accuracy"):
        ends = overall["intervals"][metric]
        shown.append(
            Measured(f"{name}: {metric} after one epoch", overall[metric], "", low=ends["low"], high=ends["high"])
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--quality-rows", type=int, default=4096)
    parser.add_argument("--rate-only", action="store_true")
    given = parser.parse_args()
    processes.quiet()
    measured = rates(given.pairs)
    if not given.rate_only:
        sides = rows_by_side()
        train = sides["train"][: given.quality_rows]
        measured += quality("full", *own(train, sides["validation"], seed=SEED))
        measured += quality("tutorials' loop", *tutorial_loop(train))
    write("finetuning", measured, [SEED + i for i in range(given.pairs)])


if __name__ == "__main__":
    main()
