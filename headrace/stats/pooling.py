"""Estimates of several groups of which some are small: each is drawn towards the mean of all, by how unsure it is.

Pooled figures describe; they decide nothing. A channel's promotion or rejection rests on its own pairs.
"""

import math
from collections.abc import Mapping, Sequence

from headrace.stats.evalues import Pairs


def pooled(estimates: Sequence[float], errors: Sequence[float]) -> list[float]:
    """The estimates (G) after partial pooling; where nothing tells the groups apart, all get the common mean.

    Source: the spread between groups by DerSimonian and Laird 1986, "Meta-analysis in clinical trials"; each group's
    share of it by Morris 1983, "Parametric empirical Bayes inference".

    Args:
        errors: standard errors above 0 (G); infinite for a group that says nothing.
    """
    weights = [1 / error**2 for error in errors]
    total = sum(weights)
    if total == 0:
        return list(estimates)
    mean = _mean(estimates, weights)
    scatter = sum(w * (e - mean) ** 2 for w, e in zip(weights, estimates, strict=True))
    free = total - sum(w**2 for w in weights) / total
    n_groups = sum(w > 0 for w in weights)
    between = max(0.0, (scatter - (n_groups - 1)) / free) if free > 0 else 0.0
    mean = _mean(estimates, [1 / (error**2 + between) for error in errors])
    own = [between / (error**2 + between) for error in errors]
    return [s * e + (1 - s) * mean for s, e in zip(own, estimates, strict=True)]


def gains(groups: Mapping[str, Pairs]) -> dict[str, float]:
    """The gain in accuracy of each group, (wins - losses) / pairs, after partial pooling; 0 where nobody has a pair.

    A group without a disagreement is not sure of that: its spread is that of one disagreement more than was seen.
    """
    own = [(p.wins - p.losses) / p.n if p.n else 0.0 for p in groups.values()]
    errors = [math.sqrt((p.n_disagreements + 1) / (p.n + 1) / p.n) if p.n else math.inf for p in groups.values()]
    return dict(zip(groups, pooled(own, errors), strict=True))


def differences(groups: Mapping[str, tuple[int, int, int, int]]) -> dict[str, float]:
    """The difference in accuracy of two arms in each group, after partial pooling; empty where no group has both.

    Variances are those of shares with one right and one wrong answer added (Agresti and Caffo 2000, "Simple and
    effective confidence intervals for proportions").

    Args:
        groups: labelled and right answers of the candidate, then of the control.
    """
    own, errors = [], []
    for n, n_right, n_control, n_right_control in groups.values():
        arms = ((n, n_right), (n_control, n_right_control))
        has_both = n > 0 and n_control > 0
        own.append(n_right / n - n_right_control / n_control if has_both else 0.0)
        spread = sum((right + 1) * (m - right + 1) / (m + 2) ** 2 / max(m, 1) for m, right in arms)
        errors.append(math.sqrt(spread) if has_both else math.inf)
    if all(math.isinf(error) for error in errors):
        return {}
    return dict(zip(groups, pooled(own, errors), strict=True))


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
