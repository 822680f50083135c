"""Evidence that a candidate is worse by less than a margin, valid however often and whenever one looks.

Each shadowed pair is x = +1 (candidate right, control wrong), -1 (the reverse) or 0, so the mean of x is what the
candidate gains in accuracy. Under "the mean is at most -margin, whatever came before", a bet of any size lambda that
x + margin is positive is a supermartingale, and so is the mean over a fixed grid of bets:

    E = mean over lambda of (1 + lambda (margin + 1))^W (1 + lambda (margin - 1))^L (1 + lambda margin)^A       (1)

Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", section 4; a mixture
over bets that are fixed beforehand makes E hang on the three counts alone, so that it adds, merges and replays exactly.

**Labels for disagreements only.** A pair with equal answers is x = 0 whatever the truth, so it counts among A without a
label. For disagreements that wait for their label there are two ways, and the greater E of both may be taken: to count
them as losses until then, or to count the pairs before the first that waits alone. P(E ever reaches 1/alpha after any
number of pairs) <= alpha, so the number may hang on what labels have come, and a loss is the least that a pair can add.

**A share of the disagreements.** Where a coin, thrown for each disagreement apart from all else, asks for a label with
probability `share`, x / share of those asked and 0 of the others has the same mean as x. Wins and losses are those
asked and labelled, all else is A, and the steps in (1) are +-1/share in place of +-1. (Horvitz and Thompson 1952.)
Corrections that people send when they like are no such coin; they may not enter here.

**Wrong labels.** x is as labelled. Labellers who say the reverse of a win or a loss with chance e, of either as often,
make a loss look 1 - 2 e times as large, so the level holds for a true loss of margin / (1 - 2 e). Give 1 - 2 e times
the margin that is meant.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from headrace.stats.beta_mixture import Floats
from headrace.stats.evalues import Pairs

BETS = 0.9 * 2.0 ** -np.arange(9)
"""Of the largest bet that a loss cannot bankrupt. The best lies near margin / share of disagreements; a bet that misses
it by the root of 2 grows at .83 of its rate or better."""

_MOST_PAIRS = 10**7  # further than any release goes


def log_es(wins: ArrayLike, losses: ArrayLike, agreements: ArrayLike, *, margin: float, share: float = 1.0) -> Floats:
    """Natural logarithm of E, equation (1).

    Args:
        agreements: pairs that add 0: equal answers, both wrong, or a disagreement whose coin asked for no label.
        margin: the loss of accuracy that is tolerated, within (0, 1).
        share: probability with which the coin asks for a disagreement's label.

    Raises:
        ValueError: margin, share or a count out of range.
    """
    if not 0 < margin < 1 or not 0 < share <= 1:
        raise ValueError(f"margin must be within (0, 1) and share within (0, 1]: {margin}, {share}")
    won, lost, even = (np.asarray(counts, dtype=np.float64)[..., None] for counts in (wins, losses, agreements))
    if np.any(won < 0) or np.any(lost < 0) or np.any(even < 0):
        raise ValueError(f"counts cannot be negative: {wins!r}, {losses!r}, {agreements!r}")
    bets = BETS / (1 / share - margin)
    grown: Floats = (
        won * np.log1p(bets * (margin + 1 / share))
        + lost * np.log1p(bets * (margin - 1 / share))
        + even * np.log1p(bets * margin)
    )
    top = grown.max(axis=-1, keepdims=True)
    found: Floats = top[..., 0] + np.log(np.exp(grown - top).mean(axis=-1))
    return found


def log_e(pairs: Pairs, *, margin: float, n_waiting: int = 0, share: float = 1.0) -> float:
    """`log_es` of one set of counts; the disagreements that wait for a label they were asked for count as losses."""
    return float(log_es(pairs.wins, pairs.losses + n_waiting, pairs.agreements, margin=margin, share=share))


def n_needed(*, margin: float, alpha: float, share: float = 1.0) -> int:
    """Pairs after which E reaches 1/alpha when no two answers differ: no smaller number can show non-inferiority."""
    low, high = 0, math.ceil(math.log(len(BETS) / alpha) / math.log1p(BETS[0] / (1 / share - margin) * margin))
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = log_es(0, 0, middle, margin=margin, share=share) >= math.log(1 / alpha)
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def n_more(pairs: Pairs, *, margin: float, alpha: float, share: float = 1.0) -> int | None:
    """Further pairs after which E reaches 1/alpha at the rates seen; None when no reachable number would do."""
    n, threshold = max(pairs.n, 1), math.log(1 / alpha)
    seen = np.array([pairs.wins, pairs.losses, pairs.agreements if pairs.n else 1])

    def shows(more: int) -> bool:
        return bool(log_es(*(seen * (1 + more / n)), margin=margin, share=share) >= threshold)

    low, high = -1, 0
    while not shows(high):
        low, high = high, 2 * high + 1
        if high > _MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high
