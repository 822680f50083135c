"""Many hypotheses at once, such as one for each channel and class, under any dependence between them.

A group that cannot be told from the others, from nothing, or for want of labels gets the verdict `inconclusive`, which
keeps the control in charge there, with what further labels may bring (`Judged.forecast`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headrace.stats import evalues, pooling
from headrace.stats.evalues import Forecast, Pairs

Verdict = Literal["worse", "better", "no worse", "inconclusive"]


@dataclass(frozen=True)
class Judged:
    """What the pairs of one group say, all groups considered. Log e-values are the group's own, not adjusted.

    `gain` is the share of pairs won minus lost, None without a pair; `pooled_gain` is drawn towards the other groups'.
    """

    pairs: Pairs
    verdict: Verdict
    gain: float | None
    pooled_gain: float
    log_e_harm: float
    log_e_benefit: float
    log_e_no_worse: float | None
    forecast: Forecast | None
    """Of a group that is inconclusive; None elsewhere."""


def judged(
    groups: Mapping[str, Pairs],
    *,
    alpha: float,
    no_worse: Mapping[str, float] | None = None,
) -> dict[str, Judged]:
    """A verdict on each group, from counts alone.

    Three questions are asked, each with its own familywise error <= alpha over all groups and looks (`e_holm`): is the
    candidate worse there, better, or worse by less than a margin? Worse goes before better, better before no worse.

    Args:
        groups: all that are watched, also those without a pair yet.
        no_worse: log E of `stats.noninferiority` of each group, which counts other pairs than those with a label; None
            asks the first two questions only.
    """
    log_es = {
        "worse": {name: evalues.log_e(pairs.losses, pairs.wins) for name, pairs in groups.items()},
        "better": {name: evalues.log_e(pairs.wins, pairs.losses) for name, pairs in groups.items()},
    }
    if no_worse is not None:
        log_es["no worse"] = {name: no_worse.get(name, 0.0) for name in groups}
    found = {verdict: refuted(values, alpha=alpha) for verdict, values in log_es.items()}
    pooled = pooling.gains(groups)
    return {
        name: _judged(name, pairs, log_es, found, pooled[name], alpha / max(len(groups), 1))
        for name, pairs in groups.items()
    }


def _judged(
    name: str,
    pairs: Pairs,
    log_es: Mapping[str, Mapping[str, float]],
    found: Mapping[str, list[str]],
    pooled_gain: float,
    alpha: float,
) -> Judged:
    verdicts: tuple[Verdict, ...] = ("worse", "better", "no worse")
    verdict: Verdict = next((v for v in verdicts if name in found.get(v, ())), "inconclusive")
    return Judged(
        pairs,
        verdict,
        (pairs.wins - pairs.losses) / pairs.n if pairs.n else None,
        pooled_gain,
        log_es["worse"][name],
        log_es["better"][name],
        log_es["no worse"][name] if "no worse" in log_es else None,
        evalues.forecast(pairs, alpha=alpha) if verdict == "inconclusive" else None,
    )


def e_holm(log_es: Mapping[str, float]) -> dict[str, float]:
    """Adjusted log e-values: with familywise error <= alpha, each name that ever reaches log(1/alpha) is refuted.

    The smallest mean of e-values over all sets of hypotheses that hold the name: closed testing, where the mean is what
    merges e-values under any dependence. Source: Vovk and Wang 2021, "E-values: calibration, combination and
    applications", section 5, algorithm 1.

    Args:
        log_es: current values, not the largest so far, of all hypotheses that are watched; without evidence 0.
    """
    names = sorted(log_es, key=lambda name: (log_es[name], name))
    values = np.array([log_es[name] for name in names])
    adjusted = {}
    for place, name in enumerate(names):
        smaller = np.logaddexp.accumulate(values[:place]) if place else values[:0]
        sums = np.concatenate([values[place : place + 1], np.logaddexp(values[place], smaller)])
        adjusted[name] = float((sums - np.log(np.arange(1, place + 2))).min())
    return adjusted


def refuted(log_es: Mapping[str, float], *, alpha: float) -> list[str]:
    """The names that `e_holm` refutes now, strongest first."""
    adjusted = e_holm(log_es)
    found = [name for name, value in adjusted.items() if value >= math.log(1 / alpha)]
    return sorted(found, key=lambda name: (-log_es[name], name))
