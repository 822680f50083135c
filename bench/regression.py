"""How near do numbers for texts come to the raters' mean, beside VADER's rules on the same rows?

`full` fine-tunes the base model on the mean ratings of the four VADER channels. Pearson's r of each channel's test rows
with its interval (of the first seed), and how often the truth lies in the answer's interval, which split conformal fits
on the validation side; for the checkpoint in fp32, and for what serves, its export to OpenVINO int8. VADER is the
published program itself, read from the same archive as the rows.

Run: python -m bench.regression [--seeds 1 2 3] [--epochs 3] [--minutes M]
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import corpora, processes
from bench.corpora import Corpus
from bench.reporting import Measured, write
from bench.sentiment import example
from headrace.config import ExportTable, FinetuneTable
from headrace.evaluate.evaluating import evaluate
from headrace.records import SnapshotRow
from headrace.tasks import Predictor
from headrace.tasks.text_regression import TextRegression

PARTS = processes.WORK / "regression.jsonl"
KEYS = ("seed", "epochs", "max_rows")
TARGETS = {"movies": 0.80, "amazon": 0.80}
"""Pearson's r to reach; the other channels have to be above VADER."""


def vader(rows: Sequence[SnapshotRow]) -> Any:
    """VADER's compound scores (N, 1)."""
    package = "vaderSentiment-3.3.2/vaderSentiment"
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(example().archive()) as archive:
            archive.extractall(folder, filter="data")
        path = Path(folder) / package / "vaderSentiment.py"
        spec = importlib.util.spec_from_file_location("vaderSentiment", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["vaderSentiment"] = module  # it looks for its lexicon beside its own source
        spec.loader.exec_module(module)
        analyzer = module.SentimentIntensityAnalyzer()
    scores = [analyzer.polarity_scores(row.text)["compound"] for row in rows]
    return np.asarray(scores, dtype=np.float32)[:, None]


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """One seed in its own process."""
    processes.quiet()
    from headrace.checkpoints.saving import save
    from headrace.export.checkpoint import load as load_checkpoint
    from headrace.finetune import base_models
    from headrace.finetune.running import tune

    corpus = corpora.load("vader-mean", max_rows=job["max_rows"])
    settings = FinetuneTable(epochs=job["epochs"], evals_per_epoch=1, min_steps=0, seed=job["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        run_folder, checkpoint = Path(scratch) / "run", Path(scratch) / "checkpoint"
        run_folder.mkdir()
        checkpoint.mkdir()
        base = base_models.find(corpus.task.base_model).folder
        tuned = tune(run_folder, base, corpus.task, settings, corpus.rows, lambda *_a, **_f: None)
        save(tuned.network, tuned.tokenizer, checkpoint)
        found = _asked(load_checkpoint(checkpoint, corpus.task), corpus)
        exported = _asked(_exported(checkpoint, Path(scratch) / "exported", corpus), corpus)
    facts = {"device": processes.device(), "seconds": tuned.facts["seconds"]}
    return {**_named(job), **facts, **found, "exported": exported}


def _exported(checkpoint: Path, folder: Path, corpus: Corpus) -> Predictor:
    """What serves: OpenVINO int8, its ranges fixed on as many training rows as `export` takes."""
    from headrace.export.backends import BACKENDS

    folder.mkdir()
    texts = [row.text for row in corpus.side("train")[: ExportTable().n_calibration]]
    backend = BACKENDS.get("openvino")
    facts = backend.write(checkpoint, folder, task=corpus.task, precision="int8", calibration=texts)
    predictor: Predictor = backend.load(folder, facts)
    return predictor


def _asked(predictor: Predictor, corpus: Corpus) -> dict[str, Any]:
    """Figures on the test side, with intervals that were fitted on the validation side."""
    task_type = TextRegression(corpus.task)
    sides = {side: corpus.side(side) for side in ("validation", "test")}
    outputs = {side: predictor.logits([row.text for row in rows]) for side, rows in sides.items()}
    calibration = task_type.calibrate([row.target for row in sides["validation"]], outputs["validation"])
    return _figures(evaluate(task_type, sides["test"], outputs["test"], calibration=calibration))


def _named(job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: job[key] for key in KEYS}


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Pearson's r with its ends, and coverage, of each channel and of all."""
    parts = {"all channels": found["overall"], **found["channels"]}
    return {
        "pearson": {name: _ends(part) for name, part in parts.items()},
        "coverage": {name: part.get("coverage") for name, part in parts.items()},
        "mae": {name: part["mae"] for name, part in parts.items()},
    }


def _ends(part: Mapping[str, Any]) -> list[float | None]:
    interval = part["intervals"]["pearson"]
    return [part["pearson"], interval.get("low"), interval.get("high")]


def measured(parts: Sequence[Mapping[str, Any]], corpus: Corpus) -> list[Measured]:
    test = corpus.side("test")
    rules = _figures(evaluate(TextRegression(corpus.task), test, vader(test)))
    rows = []
    for name, (r, low, high) in rules["pearson"].items():
        rows.append(Measured(f"{name}: Pearson's r, VADER's rules", r, "", low=low, high=high))
        values = [part["pearson"][name][0] for part in parts]
        _, low, high = parts[0]["pearson"][name]
        wanted = TARGETS.get(name)
        beside = f"to reach: {wanted:.2f}" if wanted else "to reach: above VADER's"
        rows.append(
            Measured(f"{name}: Pearson's r, fine-tuned", statistics.median(values), "", beside, low=low, high=high)
        )
        if len(values) > 1:
            rows.append(Measured(f"{name}: least of {len(values)} seeds", min(values), ""))
        exported = [part["exported"] for part in parts if "exported" in part]
        if exported:
            r, low, high = exported[0]["pearson"][name]
            rows.append(Measured(f"{name}: Pearson's r, exported to OpenVINO int8", r, "", beside, low=low, high=high))
        cover = [part["coverage"][name] for part in parts if part["coverage"][name] is not None]
        if cover:
            what = f"{name}: share of truths within the answer's interval"
            rows.append(Measured(what, statistics.median(cover), "", "level: 0.90"))
    rows.append(Measured("seconds of training", statistics.median(part["seconds"] for part in parts), "s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=float, default=corpora.EPOCHS["vader-mean"])
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes")
    parser.add_argument("--max-rows", type=int, help="rows of each side, to try things out")
    parser.add_argument("--parts", type=Path, default=PARTS, help="file of what was measured")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job = json.loads(given.job)
        processes.give(job, measure(job))
        return
    corpus = corpora.load("vader-mean", max_rows=given.max_rows)
    n_rows = len(corpus.side("train"))
    print(f"about {len(given.seeds) * given.epochs * n_rows / 200 / 60:.0f} minutes on two cores")
    parts, limit, there = processes.Parts(given.parts, KEYS), processes.Limit(given.minutes), []
    for seed in given.seeds:
        job = {"seed": seed, "epochs": given.epochs, "max_rows": given.max_rows}
        part = parts.read().get(parts.key(job), {"error": "not measured"})
        if "error" in part and not limit.is_over():
            part = {**_named(job), **processes.run("bench.regression", job)}
            parts.add(part)
        if "error" in part:
            print(f"without seed {seed}: {part['error']}")
        else:
            there.append(part)
    if there:
        write("regression", measured(there, corpus), [part["seed"] for part in there])


if __name__ == "__main__":
    main()
