"""Which rows an epoch has: channels in other shares than their own.

Dimensions: N features of the training side (a row that is read in windows has several).
"""

from collections.abc import Sequence

import numpy as np

from headrace.config import SamplingTable

Slots = list[list[int]]
"""N places in an epoch; each holds the features that take it in turn, an epoch each."""


def slots_of(channels: Sequence[str], lengths: Sequence[int], settings: SamplingTable) -> Slots:
    """The slots of an epoch, as many as there are features, shared out among the channels.

    A channel with more slots than features has each of its features in some of them; one with fewer has in each slot a
    few features of like length, so that it shows all of them over the epochs.

    Args:
        channels: (N,) the channel of each feature.
        lengths: (N,) its tokens.
    """
    if settings.channels == "natural":
        return [[i] for i in range(len(channels))]
    mine: dict[str, list[int]] = {}
    for i in np.argsort(np.asarray(lengths), kind="stable").tolist():
        mine.setdefault(channels[i], []).append(i)
    names = sorted(mine)
    power = 0.0 if settings.channels == "equal" else 1 / settings.temperature
    quotas = shared_out(len(channels), [len(mine[name]) ** power for name in names])
    return [slot for name, quota in zip(names, quotas, strict=True) for slot in _slots(mine[name], quota)]


def shared_out(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, as near to the weights as can be (largest remainders)."""
    exact = np.asarray(weights) / np.sum(weights) * total
    parts = np.floor(exact).astype(int)
    for i in np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]:
        parts[i] += 1
    found: list[int] = parts.tolist()
    return found


def _slots(features: list[int], quota: int) -> Slots:
    """Every feature whole times, and the rest of the quota as groups of neighbours."""
    whole, rest = divmod(quota, len(features))
    groups = np.array_split(np.asarray(features), rest) if rest else []
    return [[i] for i in features] * whole + [group.tolist() for group in groups]
