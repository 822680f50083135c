"""Which method suits rows like these: what the benches of headrace found nearest to them. Pure.

The rule has no opinion of its own. Of the sets of rows that bench/methods was run on it takes the one with the same
problem and the nearest number of rows per class, and of the methods there the cheapest whose quality is within the
noise of the best.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("method_results.json")
"""Written by bench/methods."""
_NOISE = 0.01  # of the main metric: what two seeds of one method differ by in the bench, when they differ much
BENCH_N_PARAMETERS = 22_700_000
"""Of minilm-l6, the base model of bench/methods."""


@dataclass(frozen=True)
class Result:
    """What bench/methods found for a method on a set of rows; medians over seeds."""

    corpus: str
    problem: str
    n_train_rows: int
    rows_per_class: float
    n_tokens: float
    """Mean tokens of a row."""
    method: str
    metric: str
    quality: float
    cpu_seconds: float
    """Of one thread."""
    peak_memory_bytes: float


@dataclass(frozen=True)
class Case:
    """The rows that advice is asked for."""

    problem: str
    n_train_rows: int
    rows_per_class: float
    n_tokens: float
    tokens_per_s: float
    """Of full fine-tuning, on this machine."""
    size_share: float
    """Parameters of the base model, over those of the one that the bench used."""
    epochs: float


@dataclass(frozen=True)
class Expected:
    """What a method should give and cost for a case."""

    method: str
    quality_in_bench: float
    behind_best: float
    seconds: float
    memory_bytes: float


def read_results() -> list[Result]:
    return [Result(**line) for line in json.loads(RESULTS.read_text("utf-8"))]


def nearest(results: Sequence[Result], case: Case) -> tuple[list[Result], bool]:
    """The bench's results on the rows that resemble the case most, and whether they are of the same problem."""
    same = [r for r in results if r.problem == case.problem]
    pool = same or [r for r in results if r.problem == "single_label_classification"]
    distance = {r.corpus: abs(math.log(max(r.rows_per_class, 1) / max(case.rows_per_class, 1))) for r in pool}
    corpus = min(distance, key=lambda name: (distance[name], name))
    return [r for r in pool if r.corpus == corpus], bool(same)


def expect(found: Sequence[Result], case: Case) -> list[Expected]:
    """Every method of the nearest results, best first, with time and memory as they should be for the case.

    Time: full fine-tuning's measured rate here, times what the method took in the bench over what full took. Memory: as
    in the bench, scaled by the size of the base model.
    """
    full = next((r for r in found if r.method == "full"), None)
    best = max(r.quality for r in found)
    own_full_s = case.n_train_rows * case.epochs * case.n_tokens / case.tokens_per_s
    expected = [
        Expected(
            r.method,
            r.quality,
            round(best - r.quality, 4),
            own_full_s * (r.cpu_seconds / full.cpu_seconds if full else 1.0),
            r.peak_memory_bytes * case.size_share,
        )
        for r in found
    ]
    return sorted(expected, key=lambda e: (-e.quality_in_bench, e.seconds))


def choose(expected: Sequence[Expected], *, memory_bytes: float) -> Expected | None:
    """The cheapest of those within the noise of the best that the memory allows; None where it allows none."""
    able = [e for e in expected if e.memory_bytes <= memory_bytes]
    if not able:
        return None
    best = max(e.quality_in_bench for e in able)
    return min((e for e in able if e.quality_in_bench >= best - _NOISE), key=lambda e: (e.seconds, e.method))


def is_enough(simple: dict[str, Any], better: dict[str, Any]) -> bool:
    """Whether a simple way is as good as a better one: the interval of the gain reaches down to the noise.

    Args:
        simple: an interval as evaluate gives it (`estimate`, `low`, `high`).
        better: that of the more costly way, on the same rows.
    """
    if simple["estimate"] is None or better["estimate"] is None:
        return False
    return bool(better["estimate"] - simple["estimate"] <= _NOISE)
