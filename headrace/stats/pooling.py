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


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
