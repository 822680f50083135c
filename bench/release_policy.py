"""The policy `shadow` over many releases at once: the rules of headrace.release.policies.shadow on arrays.

Only disagreements and the least number of requests change what the policy says, so a release is the sequence of its
disagreements, each with its channel, its request and who won it. tests/test_bench_release.py holds verdicts and their
moments against the policy itself.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.release_worlds import NEVER, Floats, blocks, most_events
from headrace.release.policies.guardrails import SUSPICION_E
from headrace.release.policies.shadow import N_REQUESTS_A_CHANNEL
from headrace.stats import beta_mixture

_LARGEST = 1e300
HOLD, PROMOTE, REJECT = 0, 1, -1
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ChannelWorld:
    """What a channel sends and how the candidate fares there."""

    share: float
    """Of the requests."""
    win: float
    """Share of the channel's requests that the candidate alone answers rightly."""
    loss: float


@dataclass(frozen=True)
class Ended:
    """Verdicts (R) and when they fell, in requests (infinite where the policy held to the end) and in labels."""

    verdicts: NDArray[np.int64]
    n_requests: Floats
    n_labels: Floats


class Tables:
    """The rules as the fewest losses or wins for each number of disagreements."""

    def __init__(self, n_most: int, n_channels: int, alpha: float) -> None:
        def fewest(e: float) -> NDArray[np.int64]:
            return beta_mixture.fewest_events(n_most, 0.5, e=e)

        self.n_channels, self.alpha = n_channels, alpha
        self.decisive, self.suspicious = fewest(1 / alpha), fewest(SUSPICION_E)
        self.e = e_table(n_most)


def verdicts(
    channels: NDArray[Any], won: Bools, at_request: NDArray[Any], tables: Tables
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The first verdict of each release, the place of the last disagreement before it, and its request (R).

    Args:
        channels: of each disagreement, 0 .. n_channels - 1 (R, D).
        won: by the candidate (R, D).
        at_request: at which it came, counted from 1 (R, D).
    """
    wins, n = won.cumsum(axis=1, dtype=np.int32), np.arange(1, won.shape[1] + 1)
    losses = n - wins
    has_benefit = wins >= tables.decisive[n]
    is_harmed = losses >= tables.decisive[n]
    is_suspected = losses >= tables.suspicious[n]
    harm_here = np.empty((tables.n_channels, *won.shape))
    for channel in range(tables.n_channels):
        is_here = channels == channel
        n_here = is_here.cumsum(axis=1, dtype=np.int32)
        losses_here = (is_here & ~won).cumsum(axis=1, dtype=np.int32)
        harm_here[channel] = tables.e[losses_here, n_here - losses_here]
        is_suspected |= losses_here >= tables.suspicious[n_here]
    is_harmed |= any_refuted(harm_here, tables.alpha)
    until = np.pad(at_request[:, 1:], ((0, 0), (0, 1)), constant_values=2**40)  # what holds now holds up to the next
    n_needed = N_REQUESTS_A_CHANNEL * tables.n_channels
    is_promoted = has_benefit & ~is_suspected & (until > n_needed)
    at = (is_harmed | is_promoted).argmax(axis=1)
    rows = np.arange(len(won))
    found = np.where(is_harmed[rows, at], REJECT, np.where(is_promoted[rows, at], PROMOTE, HOLD))
    when = at_request[rows, at]
    return found, at, np.where(found == PROMOTE, np.maximum(when, n_needed), when)


def run(worlds: tuple[ChannelWorld, ...], *, n_releases: int, n_requests: int, alpha: float, seed: int) -> Ended:
    """Releases of so many requests in which every disagreement gets its label at once."""
    rates = np.array([w.share * (w.win + w.loss) for w in worlds])
    rate = float(rates.sum())
    n_most = most_events(n_requests, rate)
    tables = Tables(n_most, len(worlds), alpha)
    chance_won = np.array([w.win / (w.win + w.loss) if w.win + w.loss else 0.0 for w in worlds])
    parts = []
    for rng, size in blocks(n_releases, seed):
        at_request = rng.geometric(rate, size=(size, n_most)).cumsum(axis=1)
        channels = rng.choice(len(worlds), p=rates / rate, size=(size, n_most))
        won = rng.random((size, n_most)) < chance_won[channels]
        found, at, when = verdicts(channels, won, at_request, tables)
        is_in_time = (found != HOLD) & (when <= n_requests)
        spent = np.where(is_in_time, at + 1, (at_request <= n_requests).sum(axis=1))
        parts.append((np.where(is_in_time, found, HOLD), np.where(is_in_time, when, NEVER), spent))
    verdict, when, spent = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Ended(verdict, when, spent.astype(float))


def e_table(n_most: int) -> Floats:
    """E of (events for, events against), for up to n_most of both together; very large ones cut off.

    By parts, E(W, L) = (1 + W E(W - 1, L + 1)) / (L + 1): a thousand times as fast as one by one.
    """
    found, against = np.zeros((n_most + 1, n_most + 1)), np.arange(n_most + 1)
    found[0] = 1 / (against + 1)
    for n in range(1, n_most + 1):
        left = n_most + 1 - n
        found[n, :left] = np.minimum((1 + n * found[n - 1, 1 : left + 1]) / (against[:left] + 1), _LARGEST)
    return found


class Refutations:
    """e-Holm over even channels that are looked at after every disagreement: is any of them ever called better?"""

    def __init__(self, n_most: int, n_channels: int, alpha: float) -> None:
        self.n_most, self.n_channels, self.alpha = n_most, n_channels, alpha
        self.table = e_table(most_events(n_most, 1 / n_channels))

    def any(self, rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
        """For each release (R)."""
        shape = (size, self.n_most)
        channels, won = rng.integers(self.n_channels, size=shape), rng.random(shape) < 0.5
        values = np.empty((self.n_channels, *shape))
        for channel, of_channel in enumerate(values):
            is_here = channels == channel
            wins = (is_here & won).cumsum(axis=1, dtype=np.int32)
            of_channel[:] = self.table[wins, is_here.cumsum(axis=1, dtype=np.int32) - wins]
        return np.asarray(any_refuted(values, self.alpha).any(axis=1))


def any_refuted(values: Floats, alpha: float) -> Bools:
    """Whether e-Holm refutes any of C hypotheses with these e-values (C, R, D), which are sorted in place."""
    values.sort(axis=0)
    lowest, smallest = values[-1].copy(), np.zeros(values.shape[1:])
    for n, smaller in enumerate(values[:-1], start=1):  # the strongest with the 1, 2, ... smallest
        smallest += smaller
        lowest = np.minimum(lowest, (values[-1] + smallest) / (n + 1))
    refuted: Bools = lowest >= 1 / alpha
    return refuted
