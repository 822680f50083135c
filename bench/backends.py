"""How fast is each export format on this machine, and how often does it answer as the checkpoint does?

All formats answer the same texts in turn, several rounds in one process, so that a change of the machine's mood hits
all alike; a figure is the median of the rounds, and its ends are the lowest and the highest round.

Run: python -m bench.backends [--texts FILE.jsonl --checkpoint DIR] [--rows 1024] [--rounds 3] [--threads N]
Without --checkpoint, the built-in base model gets a head of random weights, which is right for speed alone.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.prediction import SEED, TASK, demo_texts, read_rows, untrained
from bench.reporting import Measured, write
from headrace.evaluate.agreement import agreement
from headrace.export import BACKENDS, load, write_facts
from headrace.export.checkpoint import load as load_checkpoint
from headrace.tasks import Predictor
from headrace.tasks.text_classification import TextClassification

_N_CALIBRATION = 300
_SERVED = "openvino int8"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="JSONL with text, label and channel; default: the demo's traffic")
    parser.add_argument("--checkpoint", type=Path, help="a fine-tuned sequence-classification directory")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of each format; default: its own choice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = read_rows(options.texts or demo_texts(folder))
        random.Random(SEED).shuffle(rows)
        texts = [row.text for row in rows]
        checkpoint = options.checkpoint or untrained(folder / "checkpoint")
        calibration, asked = texts[:_N_CALIBRATION], texts[_N_CALIBRATION : _N_CALIBRATION + options.rows]
        found, started_s = exported(checkpoint, folder, calibration, n_threads=options.threads)
        figures = speeds(found, asked, n_rounds=options.rounds) + started_s
        if options.checkpoint:
            figures += agreements(found, checkpoint, asked)
    write("backends", figures, [SEED])
    return 0


def exported(
    checkpoint: Path, folder: Path, calibration: list[str], *, n_threads: int
) -> tuple[dict[str, Predictor], list[Measured]]:
    """The predictor of each format and precision, its size on disk and the time to load it."""
    found: dict[str, Predictor] = {}
    figures = []
    for name in BACKENDS.names():
        for precision in BACKENDS.get(name).precisions:
            what, place = f"{name} {precision}", folder / f"{name}-{precision}"
            place.mkdir()
            write_facts(
                place,
                BACKENDS.get(name).write(checkpoint, place, task=TASK, precision=precision, calibration=calibration),
            )
            started = time.perf_counter()
            found[what], _ = load(place, n_threads=n_threads)
            figures.append(Measured(f"{what}: load", time.perf_counter() - started, "s"))
            n_bytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            figures.append(Measured(f"{what}: size", n_bytes / 1e6, "MB"))
    return found, figures


def speeds(found: dict[str, Predictor], texts: list[str], *, n_rounds: int) -> list[Measured]:
    rates: dict[str, list[float]] = {what: [] for what in found}
    for predictor in found.values():  # first calls compile, and meet the shapes that are timed
        predictor.logits(texts)
    for _ in range(n_rounds):
        for what, predictor in found.items():
            started = time.perf_counter()
            predictor.logits(texts)
            rates[what].append(len(texts) / (time.perf_counter() - started))
    figures = []
    for what, mine in rates.items():
        ratio = statistics.median(a / b for a, b in zip(mine, rates[_SERVED], strict=True))
        figures.append(Measured(what, statistics.median(mine), "rows/s", _SERVED, ratio, min(mine), max(mine)))
    return figures


def agreements(found: dict[str, Predictor], checkpoint: Path, texts: list[str]) -> list[Measured]:
    """Share of the texts that a format answers as the checkpoint does, in fp32."""
    expected = load_checkpoint(checkpoint, TASK).logits(texts)
    figures = []
    for what, predictor in found.items():
        same = agreement(TextClassification(TASK), predictor.logits(texts), expected)
        ends = {key: 100 * same[key] for key in ("low", "high")}
        figures.append(Measured(f"{what}: answers as the checkpoint", 100 * same["share"], "% of rows", **ends))
    return figures


if __name__ == "__main__":
    sys.exit(main())
