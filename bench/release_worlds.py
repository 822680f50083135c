"""Worlds in which releases are simulated, many at once, with a look after every request.

A rule that rests on counts is a table: for each n the fewest events that decide, made by the functions that decide. And
evidence grows at an event only (a disagreement, a bad answer), so a release is drawn as the sequence of its events with
the request of each: a look after every event misses nothing that a look after every request would see.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stats import beta_mixture, guardrails, noninferiority, sample_ratio

BLOCK = 200  # releases at a time: 4 million requests, 16 MB an array
NEVER = math.inf
LEAST_NAIVE = 30  # disagreements or events before the naive test looks, as textbooks ask
Table = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """When each of R releases was decided, in requests, infinite where never; and what had been spent by then."""

    n_requests: Floats
    n_spent: Floats
    """Labels or bad answers, up to the decision or to the end."""

    @property
    def share(self) -> float:
        return float(np.isfinite(self.n_requests).mean())

    def quantile(self, q: float) -> float:
        """Requests within which a share q of all releases was decided; infinite where fewer were."""
        return float(np.quantile(self.n_requests, q, method="higher"))

    def spent(self, q: float) -> float:
        return float(np.quantile(self.n_spent, q, method="higher"))


def first(crossed: NDArray[np.bool_], at_request: NDArray[Any], spent: NDArray[Any], n_requests: int) -> Found:
    """The first event (R, D) that decides within so many requests, its request, and what had been spent by then."""
    is_in_time = at_request <= n_requests
    crossed = crossed & is_in_time
    rows, at = np.arange(len(crossed)), crossed.argmax(axis=1)
    is_found = crossed[rows, at]
    last = np.maximum(is_in_time.sum(axis=1) - 1, 0)
    when = np.where(is_found, at_request[rows, at], NEVER)
    spent = np.broadcast_to(spent, crossed.shape)
    return Found(when, spent[rows, np.where(is_found, at, last)].astype(float))


def joined(parts: list[Found]) -> Found:
    return Found(np.concatenate([p.n_requests for p in parts]), np.concatenate([p.n_spent for p in parts]))


def blocks(n_releases: int, seed: int) -> Iterator[tuple[np.random.Generator, int]]:
    """A generator and a number of releases for each block; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_releases, BLOCK):
        yield rng, min(BLOCK, n_releases - start)


def pairs_of(
    rng: np.random.Generator, n_releases: int, win: NDArray[Any], loss: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The requests at which something may have happened, and wins and losses by then (R, D).

    Of requests that are won and lost with chances (T) that change: drawn at the highest rate and thinned to each one's.
    """
    n_requests, most = len(win), float((win + loss).max())
    shape = (n_releases, most_events(n_requests, most))
    at_request = rng.geometric(most, size=shape).cumsum(axis=1)
    place = np.minimum(at_request, n_requests) - 1
    drawn = rng.random(shape) * most
    is_won = drawn < win[place]
    is_lost = ~is_won & (drawn < (win + loss)[place])
    return at_request, is_won.cumsum(axis=1), is_lost.cumsum(axis=1)


def naive_fewest(n_most: int, z: float = 1.645) -> Table:
    """For n = 0 .. n_most the fewest of n fair coins that a one-sided z-test calls too many."""
    n = np.arange(n_most + 1)
    fewest = np.floor((n + z * np.sqrt(n)) / 2).astype(np.int64) + 1
    return np.where(n < LEAST_NAIVE, n + 1, fewest)


def paired_fewest(n_most: int, alpha: float) -> Table:
    """For n disagreements the fewest wins at which the e-process decides."""
    return beta_mixture.fewest_events(n_most, 0.5, e=1 / alpha)


def limit_fewest(n_most: int, limit: float, alpha: float) -> Table:
    """For n requests the fewest events at which the guardrail of a limit fires."""
    return beta_mixture.fewest_events(n_most, limit, e=1 / alpha, **guardrails.LIMIT_PRIOR)


def no_worse(rng: np.random.Generator, size: int, n_requests: int, rates: tuple[float, float], **rule: float) -> Found:
    """When non-inferiority is shown in `size` releases that win and lose requests at the given rates.

    E grows with every agreement and may fall at a disagreement only, so it is looked at before each of these; within
    the stretch of agreements in which it crosses, the very request is found by bisection.
    """
    win, loss = rates
    n_most = most_events(n_requests, win + loss)
    when = rng.geometric(win + loss, size=(size, n_most)).cumsum(axis=1)
    wins = np.pad((rng.random((size, n_most)) < win / (win + loss)).cumsum(axis=1), ((0, 0), (1, 0)))
    n = np.arange(n_most + 1)
    agreements = np.minimum(np.pad(when - 1, ((0, 0), (0, 1)), constant_values=n_requests), n_requests) - n
    threshold = math.log(1 / rule.pop("alpha"))
    is_open = agreements >= 0  # later stretches lie beyond the last request
    looks = noninferiority.log_es(wins, n - wins, np.maximum(agreements, 0), **rule) >= threshold
    crossed = looks & is_open
    at, rows = crossed.argmax(axis=1), np.arange(size)
    low, high = (np.maximum(agreements[rows, ends], 0) for ends in (at - 1, at))  # a win may cross by itself
    low = np.where(at > 0, low, 0)
    while np.any(low < high):
        middle = (low + high) // 2
        shown = noninferiority.log_es(wins[rows, at], at - wins[rows, at], middle, **rule) >= threshold
        low, high = np.where(shown | (low == high), low, middle + 1), np.where(shown, middle, high)
    is_found = crossed[rows, at]
    n_all = is_open.sum(axis=1) - 1
    return Found(np.where(is_found, at + low, NEVER), np.where(is_found, at, n_all).astype(float))


def most_events(n_requests: int, rate: float) -> int:
    """More events than requests at this rate bring, but for a chance below 1e-14."""
    return math.ceil(n_requests * rate + 8 * math.sqrt(n_requests * rate) + 10)


def sample_ratio_looks(arms: NDArray[Any], shares: tuple[float, ...]) -> Floats:
    """Log E (R, T) of the sample ratio after every request, from the arm of each (R, T).

    The terms of `sample_ratio.log_es` hang on one count each, so each is looked up in a table of all counts.
    """
    n = np.arange(arms.shape[1] + 1, dtype=np.float64)
    planned = np.array(shares) / sum(shares)
    alone = sample_ratio.CONCENTRATION * planned[:, None]
    log_gamma = beta_mixture.log_gamma
    terms = log_gamma(alone + n) - log_gamma(alone) - n * np.log(planned[:, None])
    whole = log_gamma(sample_ratio.CONCENTRATION + n) - math.lgamma(sample_ratio.CONCENTRATION)
    found: Floats = -np.broadcast_to(whole[1:], arms.shape).copy()
    for arm, of_arm in enumerate(terms):
        found += of_arm[(arms == arm).cumsum(axis=1, dtype=np.int32)]
    return found
