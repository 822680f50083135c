"""How long do the answers to a file of 1,000,000 rows take, and how much memory? Target: memory flat in the rows.

The model is the built-in base with a head of random weights in int8, which is right for speed; `--model stub` answers
without looking and leaves what the file itself costs. The rows are the demo's sentences, over and over. Peak memory is
that of a process that answers nothing else; beside it stands that of a tenth of the rows.

Run: python -m bench.offline [--rows 1000000] [--model real|stub] [--to csv|jsonl|parquet]
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.reporting import Measured, write
from headrace import offline
from headrace.config import TaskTable
from headrace.export import load
from headrace.records import Input, ModelVersion
from headrace.release import controls
from headrace.serve.worker import Model
from headrace.tasks.text_classification import TextClassification
from headrace.workspace import init

SEED = 1
TASK = TaskTable(labels=("negative", "neutral", "positive"))
_FLAT_BYTES = 100 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", choices=("real", "stub"), default="real")
    parser.add_argument("--to", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(answered(options.child, options.rows, options.model, options.to)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from bench import prediction  # here, since the process that answers would carry torch

        texts = [row.text for row in prediction.read_rows(prediction.demo_texts(folder))]
        if options.model == "real":
            prediction.exported(prediction.untrained(folder / "checkpoint"), folder / "artifact", "int8", texts[:300])
        found = []
        for n_rows in (max(options.rows // 10, 1), options.rows):
            make_rows(folder / f"{n_rows}.csv", texts, n_rows)
            found.append(in_a_process(folder, n_rows, options))
    few, many = found
    growth = many["peak_bytes"] - few["peak_bytes"]
    write(
        "offline" if options.model == "real" else "offline_file",
        [
            Measured(f"answers to {options.rows:,} rows, CSV to {options.to}", many["seconds"], "s"),
            Measured("rows a second", options.rows / many["seconds"], "rows/s"),
            Measured("peak memory", many["peak_bytes"], "bytes"),
            Measured("more than for a tenth of the rows", growth, "bytes", "target", growth / _FLAT_BYTES),
        ],
        [SEED],
    )
    return 0 if growth < _FLAT_BYTES else 1


def in_a_process(folder: Path, n_rows: int, options: argparse.Namespace) -> dict[str, Any]:
    words = ["--child", str(folder), "--rows", str(n_rows), "--model", options.model, "--to", options.to]
    done = subprocess.run([sys.executable, "-m", "bench.offline", *words], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answered(folder: Path, n_rows: int, model: str, suffix: str) -> dict[str, Any]:
    """Answer one file in this process, with the model that is in the folder or one that answers without looking."""
    predictor, _ = load(folder / "artifact") if model == "real" else (Constant(), None)
    model_here = Model("", predictor, TextClassification(TASK), {}, TASK.max_tokens)
    offline.load_model = lambda *_args, **_settings: model_here  # type: ignore[attr-defined]
    version = ModelVersion("", "tone", 1, "", "", "", "sha256:0", None)  # type: ignore[arg-type]
    controls.serving = lambda *_: controls.Serving(version, None, None)
    with init(folder / f"ws{n_rows}", task="tone", labels=TASK.labels) as ws:
        ws.artifacts.get = lambda _digest: folder  # type: ignore[method-assign]
        report = offline.predict_file(ws, folder / f"{n_rows}.csv", folder / f"answers{n_rows}.{suffix}")
    assert (report.n_rows, report.n_answered) == (n_rows, n_rows)
    return {"seconds": report.seconds, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Peak resident memory of this process. Not ru_maxrss, in which a child begins with what its parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) * 1024


class Constant:
    """A model that answers without looking."""

    def logits(self, inputs: Sequence[Input]) -> Any:
        return np.zeros((len(inputs), len(TASK.labels)), dtype=np.float32)


def make_rows(path: Path, texts: Sequence[str], n_rows: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["n", "text", "channel"])
        lines.writerows([n, text, f"c{n % 4}"] for n, text in enumerate(islice(cycle(texts), n_rows)))


if __name__ == "__main__":
    sys.exit(main())
