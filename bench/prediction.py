"""How many rows a second does an exported model answer, against what tutorials write? And what does int8 cost?

Targets: 30 times the tutorials' loop; int8 loses at most 0.3 points of macro-F1.

All ways run in turn, several rounds in one process, so that a change of the machine's mood hits all alike; a figure is
the median of the rounds, and its ends are the lowest and the highest round.

Run: python -m bench.prediction [--texts FILE.jsonl --checkpoint DIR] [--rows 2048] [--rounds 5]
Without --checkpoint, the built-in base model gets a head of random weights, which is right for speed; what int8 loses
is then not measured. Give rows that the checkpoint was not trained on.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench.reporting import Measured, write
from headrace.config import TaskTable
from headrace.evaluate.agreement import agreement
from headrace.evaluate.comparison import compare
from headrace.export import BACKENDS, load, write_facts
from headrace.export.checkpoint import load as load_checkpoint
from headrace.finetune import base_models
from headrace.records import SnapshotRow
from headrace.tasks import FloatArray
from headrace.tasks.text_classification import TextClassification

SEED = 1
LABELS = ("negative", "neutral", "positive")
TASK = TaskTable(labels=LABELS)
_TARGET_RATIO, _TARGET_LOSS_POINTS = 30, 0.3
_N_SLOW, _N_CALIBRATION = 256, 300
_BASELINE = "torch fp32, padded to 128, batch 32 (the tutorials' loop)"
_SERVED = "OpenVINO int8"
Way = Callable[[Sequence[str]], FloatArray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="JSONL with text, label and channel; default: the demo's traffic")
    parser.add_argument("--checkpoint", type=Path, help="a fine-tuned sequence-classification directory")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds: 3 or more, or a median says nothing")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = read_rows(options.texts or demo_texts(folder))
        checkpoint = options.checkpoint or untrained(folder / "checkpoint")
        random.Random(SEED).shuffle(rows)
        calibration, held_out = rows[:_N_CALIBRATION], rows[_N_CALIBRATION:]
        artifacts = {p: exported(checkpoint, folder / p, p, [r.text for r in calibration]) for p in ("fp32", "int8")}
        texts = [row.text for row in held_out[: options.rows]]
        rates = measured(ways(checkpoint, artifacts), texts, n_rounds=options.rounds)
        figures = speeds(rates)
        if options.checkpoint:
            figures += quality(artifacts, held_out)
        else:
            print("What int8 loses is not measured: the head is random. Give --checkpoint.")
    write("prediction", figures, [SEED])
    return 0 if reached(figures) else 1


def ways(checkpoint: Path, artifacts: dict[str, Path]) -> dict[str, Way]:
    like_length = load_checkpoint(checkpoint, TASK).logits

    def bf16(texts: Sequence[str]) -> FloatArray:
        with torch.autocast("cpu", torch.bfloat16):
            return like_length(texts)

    return {
        _BASELINE: tutorial(checkpoint),
        "torch fp32, like length": like_length,
        "torch bf16, like length": bf16,
        "OpenVINO fp32": load(artifacts["fp32"])[0].logits,
        _SERVED: load(artifacts["int8"])[0].logits,
    }


def tutorial(checkpoint: Path) -> Way:
    """The loop that most tutorials show."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)

    def predict(texts: Sequence[str]) -> FloatArray:
        found = []
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                list(texts[start : start + 32]),
                padding="max_length",
                truncation=True,
                max_length=TASK.max_tokens,
                return_tensors="pt",
            )
            with torch.no_grad():
                found.append(model(**batch).logits.numpy())
        return np.concatenate(found)

    return predict


def measured(found: dict[str, Way], texts: Sequence[str], *, n_rounds: int) -> dict[str, list[float]]:
    """Rows a second of each way in each round. The slow baseline answers fewer rows: all cost it the same."""
    rates: dict[str, list[float]] = {name: [] for name in found}
    some = texts[:_N_SLOW]
    for name, way in found.items():  # first calls compile, and meet the shapes that are timed
        way(some if name == _BASELINE else texts)
    for _ in range(n_rounds):
        for name, way in found.items():
            mine = some if name == _BASELINE else texts
            started = time.perf_counter()
            way(mine)
            rates[name].append(len(mine) / (time.perf_counter() - started))
    return rates


def speeds(rates: dict[str, list[float]]) -> list[Measured]:
    figures = []
    for name, mine in rates.items():
        ratios = [a / b for a, b in zip(mine, rates[_BASELINE], strict=True)]
        figures.append(Measured(name, statistics.median(mine), "rows/s", low=min(mine), high=max(mine)))
        if name != _BASELINE:
            ratio = statistics.median(ratios)
            figures.append(Measured(f"{name}: times", ratio, "x", _BASELINE, ratio, min(ratios), max(ratios)))
    return figures


def quality(artifacts: dict[str, Path], rows: list[SnapshotRow]) -> list[Measured]:
    """What int8 changes against fp32, on all held-out rows."""
    texts = [row.text for row in rows]
    fp32, int8 = (load(artifacts[precision])[0].logits(texts) for precision in ("fp32", "int8"))
    task_type = TextClassification(TASK)
    same = agreement(task_type, fp32, int8)
    difference = compare(task_type, rows, fp32, int8, seed=SEED)["overall"]["difference"]
    loss, low, high = (-100 * difference[key] for key in ("estimate", "high", "low"))
    return [
        Measured(
            "int8 answers as fp32", 100 * same["share"], "% of rows", low=100 * same["low"], high=100 * same["high"]
        ),
        Measured("int8 loses", loss, "points of macro-F1", "OpenVINO fp32", low=low, high=high),
    ]


def reached(figures: Sequence[Measured]) -> bool:
    """Whether every target that was measured is met."""
    by_name = {figure.what: figure.value for figure in figures}
    fast = by_name[f"{_SERVED}: times"] >= _TARGET_RATIO
    return fast and ("int8 loses" not in by_name or by_name["int8 loses"] <= _TARGET_LOSS_POINTS)


def exported(checkpoint: Path, folder: Path, precision: str, calibration: Sequence[str]) -> Path:
    folder.mkdir()
    write_facts(
        folder,
        BACKENDS.get("openvino").write(checkpoint, folder, task=TASK, precision=precision, calibration=calibration),
    )
    return folder


def untrained(folder: Path) -> Path:
    base = base_models.find("minilm-l6").folder
    torch.manual_seed(SEED)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=len(LABELS), id2label=names, label2id={name: i for i, name in names.items()}
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def demo_texts(folder: Path) -> Path:
    """The sentences that the demo keeps for traffic, with the class of their raters' mean."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "sentiment_channels"))
    import prepare

    path = folder / "texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for channel in prepare.CHANNELS:
            for row in filter(lambda row: prepare.is_traffic(row["group"]), prepare.rows(channel)):
                line = {"text": row["text"], "label": prepare.label_of(row["mean"]), "channel": channel}
                file.write(json.dumps(line) + "\n")
    return path


def read_rows(path: Path) -> list[SnapshotRow]:
    found = []
    for i, line in enumerate(path.read_text("utf-8").splitlines()):
        row = json.loads(line)
        found.append(
            SnapshotRow(
                str(i),
                row.get("channel", "all"),
                str(i),
                row["text"],
                row.get("label", LABELS[0]),
                "test",
                1.0,
                "import",
            )
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
