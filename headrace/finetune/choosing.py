"""Which method suits rows like these: what the benches of headrace found nearest to them. Pure.

The rule has no opinion of its own. Of the sets of rows that bench/methods was run on it takes the one with the same
problem and the nearest number of rows per class, and of the methods there the cheapest whose quality is within the
noise of the best. Where no set has the problem, there is nothing to choose by; what methods cost is still known.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config import FinetuneTable
from headrace.finetune.methods import METHODS
from headrace.finetune.steps import count_steps, steps_between

RESULTS = Path(__file__).with_name("method_results.json")
"""Written by bench/methods."""
_NOISE = 0.01  # of the main metric: what two seeds of one method differ by in the bench, when they differ much
_MARGIN = 0.03  # of the main metric, that training may gain at most where it is called needless
BENCH_N_PARAMETERS = 22_700_000
"""Of minilm-l6, the base model of bench/methods."""
_BENCH_BATCH_TOKENS = FinetuneTable().batch_tokens
_LIBRARIES_BYTES = 500_000_000  # of a process before it has a model
_TOKEN_BYTES = (
    225_000  # that wait for the backward pass: bench/memory's `full`, less 16 bytes a weight, over its tokens
)
_FORWARD_SHARE = 1 / 3  # of a step: a backward pass is two products for each of the forward pass


@dataclass(frozen=True)
class Result:
    """What bench/methods found for a method on a set of rows; medians over seeds."""

    corpus: str
    problem: str
    n_train_rows: int
    rows_per_class: float
    n_tokens: float
    """Mean tokens of a row."""
    epochs: float
    """Passes over the rows that gave the quality."""
    method: str
    metric: str
    quality: float
    cpu_seconds: float
    """Of one thread."""
    peak_memory_bytes: float


@dataclass(frozen=True)
class Case:
    """The rows that advice is asked for, and what full fine-tuning on them costs on this machine."""

    problem: str
    rows_per_class: float
    n_batches: int
    """Of one pass over the training side."""
    n_validation_batches: int
    """As long as those."""
    batch_s: float
    """Of a batch forward and backward, with its share of the optimiser's step."""
    size_share: float
    """Parameters of the base model, over those of the one that the bench used."""
    settings: FinetuneTable
    """Those of the workspace, with a number for `min_steps`."""


@dataclass(frozen=True)
class Expected:
    """What a method should give and cost for a case."""

    method: str
    epochs: float
    """`finetune.epochs` that gave the quality."""
    quality_in_bench: float | None
    """None where no bench has the problem."""
    behind_best: float | None
    seconds: float
    memory_bytes: float


def read_results() -> list[Result]:
    return [Result(**line) for line in json.loads(RESULTS.read_text("utf-8"))]


def nearest(results: Sequence[Result], case: Case) -> tuple[list[Result], bool]:
    """The bench's results on the rows that resemble the case most, and whether they are of the same problem.

    Methods that cannot do the case's problem, or have no teacher where they need one, are left out.
    """
    same = [r for r in results if r.problem == case.problem]
    pool = same or [r for r in results if r.problem == "single_label_classification"]
    distance = {r.corpus: abs(math.log(max(r.rows_per_class, 1) / max(case.rows_per_class, 1))) for r in pool}
    corpus = min(distance, key=lambda name: (distance[name], name))
    return [r for r in pool if r.corpus == corpus and _can_do(r.method, case)], bool(same)


def _can_do(method: str, case: Case) -> bool:
    has_teacher = method != "distil" or bool(case.settings.teacher)
    return has_teacher and case.problem in METHODS.get(method).problems


def expect(found: Sequence[Result], case: Case, *, is_same_problem: bool = True) -> list[Expected]:
    """Every method of the nearest results, best first, with time and memory as they should be for the case.

    Time: that of full fine-tuning here, times what the method took in the bench over what full took. Memory: as in the
    bench, by the size of the base model, and more or less for more or fewer tokens in a batch.
    """
    full = next((r for r in found if r.method == "full"), None)
    best = max(r.quality for r in found)
    expected = [
        Expected(
            r.method,
            r.epochs,
            r.quality if is_same_problem else None,
            round(best - r.quality, 4) if is_same_problem else None,
            full_seconds(case, r.epochs) * (r.cpu_seconds / full.cpu_seconds if full else 1.0),
            _memory_bytes(r, case),
        )
        for r in found
    ]
    return sorted(expected, key=lambda e: (-(e.quality_in_bench or 0.0), e.seconds))


def _memory_bytes(result: Result, case: Case) -> float:
    of_model = result.peak_memory_bytes - _LIBRARIES_BYTES
    of_more_tokens = _TOKEN_BYTES * (case.settings.batch_tokens - _BENCH_BATCH_TOKENS)
    return _LIBRARIES_BYTES + case.size_share * max(0.0, of_model + of_more_tokens)


def full_seconds(case: Case, epochs: float) -> float:
    """What full fine-tuning takes here: the steps that training would take, and its looks at the validation side."""
    settings = case.settings.model_copy(update={"epochs": epochs})
    passes, n_steps = count_steps(settings, case.n_batches)
    n_looks = n_steps // steps_between(settings, n_steps)
    return case.batch_s * (passes * case.n_batches + n_looks * case.n_validation_batches * _FORWARD_SHARE)


def choose(expected: Sequence[Expected], *, memory_bytes: float) -> Expected | None:
    """The cheapest of those within the noise of the best that the memory allows; None where there is none to take."""
    able = [e for e in expected if e.memory_bytes <= memory_bytes and e.quality_in_bench is not None]
    best = max((e.quality_in_bench or 0.0 for e in able), default=0.0)
    near = [e for e in able if (e.quality_in_bench or 0.0) >= best - _NOISE]
    return min(near, key=lambda e: (e.seconds, e.method), default=None)


def gain_over_head(found: Sequence[Result]) -> float | None:
    """What the best method gained in the bench over a linear layer on the frozen base model; None if not known."""
    head = next((r.quality for r in found if r.method == "head"), None)
    return None if head is None else max(r.quality for r in found) - head


def is_enough(simple: Mapping[str, Any], gain: Mapping[str, Any], *, chance: float, training_gain: float) -> bool:
    """Whether answers without training leave nothing worth training for: a claim, so what is not sure is a no.

    They have to be above chance, and all that could be gained on them has to be below the margin: the upper end of what
    all labels gain on the frozen base model, and what training gains on top of that.

    Args:
        simple: interval of the main metric of these answers, as evaluate gives it (`estimate`, `low`, `high`).
        gain: the same of what all labels on the frozen base model give more, in pairs of the same rows.
        chance: the main metric of answers that know nothing of their inputs.
        training_gain: see `gain_over_head`.
    """
    if simple["low"] is None or gain["high"] is None:
        return False
    room = 1.0 - (simple["estimate"] + gain["estimate"])  # no main metric is above 1
    more = min(max(0.0, training_gain), room)
    return bool(simple["low"] > chance and gain["high"] + more <= _MARGIN)
