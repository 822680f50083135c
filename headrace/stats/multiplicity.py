"""Many hypotheses at once, such as one for each channel and class, under any dependence between them."""

import math
from collections.abc import Mapping

import numpy as np


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
        smaller = np.logaddexp.accumulate(values[:place]) if place else np.empty(0)
        sums = np.concatenate([values[place : place + 1], np.logaddexp(values[place], smaller)])
        adjusted[name] = float((sums - np.log(np.arange(1, place + 2))).min())
    return adjusted


def refuted(log_es: Mapping[str, float], *, alpha: float) -> list[str]:
    """The names that `e_holm` refutes now, strongest first."""
    adjusted = e_holm(log_es)
    found = [name for name, value in adjusted.items() if value >= math.log(1 / alpha)]
    return sorted(found, key=lambda name: (-log_es[name], name))
