"""What bench.methods found, in the form that `headrace advise method` reads: medians over the seeds, on a CPU."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.corpora import EPOCHS
from headrace.finetune.choosing import RESULTS, Result
from headrace.finetune.methods import METHODS


def write(parts: Sequence[Mapping[str, Any]]) -> None:
    """Write the results of the methods of the registry, a line each."""
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for part in parts:
        if part["method"] in METHODS.names() and part["device"] == "cpu":
            cells[part["corpus"], part["method"]].append(part)
    lines = [json.dumps(asdict(_result(mine))) for _, mine in sorted(cells.items())]
    RESULTS.write_text("[\n " + ",\n ".join(lines) + "\n]\n", "utf-8")
    print(f"-> {RESULTS.name}, {len(lines)} lines")


def _result(parts: Sequence[Mapping[str, Any]]) -> Result:
    first = parts[0]
    metric = "macro_f1" if "accuracy" in first else "f1"

    def median(key: str) -> float:
        return round(statistics.median(part[key] or 0.0 for part in parts), 4)

    return Result(
        corpus=first["corpus"],
        problem=first["problem"],
        n_train_rows=first["n_train"],
        rows_per_class=round(first["n_train"] / first["n_classes"], 1),
        n_tokens=round(first["mean_tokens"], 1),
        epochs=EPOCHS[first["corpus"]],
        method=first["method"],
        metric=metric,
        quality=median(metric),
        cpu_seconds=median("cpu_seconds"),
        peak_memory_bytes=median("peak_bytes"),
    )
