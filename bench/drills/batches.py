"""R15: what is answered does not hang on who else is in the batch.

The built-in base model with an untrained head answers texts alone, then each of them again among others: batches of 1
to 32 texts, drawn and ordered at random. In fp32 the outputs must be the same within rounding; in int8 a value at the
border of two steps may fall to either side, so the largest gap stands beside the spread of the outputs.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.drills import Figure

SEED = 1
_N_TEXTS, _N_CASES, _MOST = 1000, 10_000, 32
_ROUNDING = 1e-4


def run() -> list[Figure]:
    from bench import prediction

    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        folder = Path(name)
        texts = [row.text for row in prediction.read_rows(prediction.demo_texts(folder))]
        np.random.default_rng(SEED).shuffle(texts)
        checkpoint = prediction.untrained(folder / "checkpoint")
        figures = []
        for precision in ("fp32", "int8"):
            predictor = exported(checkpoint, folder / precision, texts[-300:], precision)
            figures += alike(predictor, texts[:_N_TEXTS], precision, limit=_ROUNDING if precision == "fp32" else None)
        return figures


def exported(checkpoint: Path, folder: Path, calibration: list[str], precision: str) -> Any:
    from bench.prediction import TASK
    from headrace.export import BACKENDS, load, write_facts

    folder.mkdir()
    facts = BACKENDS.get("openvino").write(checkpoint, folder, task=TASK, precision=precision, calibration=calibration)
    write_facts(folder, facts)
    return load(folder)[0]


def alike(predictor: Any, texts: list[str], precision: str, *, limit: float | None) -> list[Figure]:
    """Of all cases: the largest gap between an output alone and in a batch, and the answers that become others."""
    rng = np.random.default_rng(SEED)
    alone = np.concatenate([predictor.logits([text]) for text in texts])
    gap, n_other, n_cases = 0.0, 0, 0
    while n_cases < _N_CASES:
        drawn = rng.choice(len(texts), size=int(rng.integers(1, _MOST + 1)), replace=False)
        among = predictor.logits([texts[i] for i in drawn])
        gap = max(gap, float(np.abs(among - alone[drawn]).max()))
        n_other += int((among.argmax(axis=1) != alone[drawn].argmax(axis=1)).sum())
        n_cases += len(drawn)
    return [
        Figure(f"{precision}: texts answered alone and in a batch", n_cases, "", at_least=_N_CASES),
        Figure(f"{precision}: largest gap between the two", gap, "", at_most=limit),
        Figure(f"{precision}: spread of the outputs (standard deviation)", float(alone.std()), ""),
        Figure(f"{precision}: another answer", n_other, f"of {n_cases}", at_most=0 if limit else None),
    ]
