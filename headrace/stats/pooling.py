"""Estimates of several groups of which some are small: each is drawn towards the mean of all, by how unsure it is."""

from collections.abc import Sequence


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


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
