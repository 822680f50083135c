"""Has something changed? Evidence that may be looked at after every request, with one budget of false alarms for all.

Each *stream* of facts (classes answered, confidences, embeddings, audited errors) has a detector R: the sum, over all
requests at which a change might have come, of the evidence that it came there (Shiryaev-Roberts):

    R_n = (R_(n-1) + 1) * bet_n,   E(bet_n) <= 1 while nothing has changed, whatever came before               (1)

so R grows by 1 a request on average, and so does a weighted mean of several, however the streams hang together. The
first time that such a mean reaches A comes after A requests or more on average (Shin, Ramdas and Rinaldo 2024,
"E-detectors: a nonparametric framework for sequential change detection", theorem 2.4). Stream i with the share w_i of
the budget alarms when R_i >= A / w_i, from which the mean is at A, too.

Of categories, the bet is the likelihood q by what came lately over that by the reference r, which never moves: one that
grows would take the change in. The reference is a sample of n rows, not the truth p, so the bet is divided by as much
as its expectation may be above 1 for that, by Cauchy and Schwarz with chi(a, r)^2 = sum((a - r)^2 / r):

    E(q / r) = 1 + sum((p - r)(q - r) / r) <= 1 + chi(p, r) chi(q, r),   E(chi(p, r)^2) = (K - 1) / n              (2)

and by 1 + 2 (K + 1) / n at most: where q is far from r, the two differences point to different sides, and their product
is 0 on average but for what q has learnt of p, chi(p, r)^2. That this keeps the promise is measured in bench/drift.

numpy only. Dimensions: S streams side by side, M bets, K categories, T requests.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats import audits
from headrace.stats.intervals import wilson

ARL = 100_000
"""Requests between false alarms of all streams together, on average."""
SHARES: dict[str, float] = {"classes": 0.45, "confidence": 0.25, "errors": 0.2, "embeddings": 0.1}
"""Of the budget of false alarms; they sum to 1."""
MEMORIES = (40.0, 100.0, 400.0)
"""Requests that a forgetful count is made of: the first for large changes, the last for small ones."""
MIN_REFERENCE = 200
"""Rows."""
PRIOR = 10.0
"""Requests' worth of the reference in each forgetful count."""
ERROR_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0)
"""How many times the allowed share of errors the bets on errors are."""
CUTS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
"""Of the reference's confidences: parts are finer at the ends, where inputs that a model does not know move most."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Affected = Literal["affected", "not affected", "not known"]


@dataclass(frozen=True, eq=False)
class Categories:
    """The detector of S streams of categories; `after` gives the next one. These numbers are all there is to keep."""

    reference: Floats
    """Shares (S, K), all above 0."""
    reference_error: float
    """How far these may be from the truth, as chi of equation 2."""
    memories: Floats
    """(M,)."""
    recent: Floats
    """Forgetful counts (S, M, K)."""
    log_r: Floats
    """Logarithm of R for each memory (S, M)."""
    cusum: Floats
    """Log-evidence of a change at the likeliest moment for it (S, M)."""
    since: Ints
    """Counts since that moment (S, M, K)."""
    n: int = 0

    def after(self, seen: NDArray[np.integer[Any]]) -> "Categories":
        """The detector when these categories have come (T, S), or (T,) of one stream, in their order.

        Raises:
            ValueError: a category that the reference does not have.
        """
        n_streams, k = self.reference.shape
        rows = np.asarray(seen).reshape(-1, n_streams)
        if rows.size and not 0 <= rows.min() <= rows.max() < k:
            raise ValueError(f"categories from {rows.min()} to {rows.max()}, not within 0 to {k - 1}")
        if n_streams == 1:
            return self._one_after(rows[:, 0], math.inf)[0]
        recent, log_r, cusum, since = self.recent.copy(), self.log_r, self.cusum, self.since.copy()
        keep, totals, log_reference = 1 - 1 / self.memories, recent.sum(axis=2) + PRIOR, np.log(self.reference)
        squares = (np.square(recent) / self.reference[:, None]).sum(axis=2)
        streams = np.arange(n_streams)
        for row in rows:
            expected, before = self.reference[streams, row][:, None], recent[streams, :, row]
            distance2 = (squares + PRIOR * (2 * totals - PRIOR)) / totals**2 - 1  # chi-squared of bet and reference
            bet = np.log((before + PRIOR * expected) / totals) - log_reference[streams, row][:, None]
            worst = self.reference_error * np.sqrt(np.maximum(0.0, distance2))
            bet -= np.log1p(np.minimum(worst, 2 * self.reference_error**2))
            log_r = np.logaddexp(log_r, 0.0) + bet
            since[cusum <= 0] = 0
            cusum = np.maximum(cusum, 0.0) + bet
            since[streams, :, row] += 1
            squares = squares * keep**2 + (2 * keep * before + 1) / expected
            recent *= keep[:, None]
            recent[streams, :, row] += 1
            totals = (totals - PRIOR) * keep + 1 + PRIOR
        return replace(self, recent=recent, log_r=log_r, cusum=cusum, since=since, n=self.n + len(rows))

    def until(self, seen: NDArray[np.integer[Any]], log_bar: float) -> tuple["Categories", int | None]:
        """The detector of one stream when these have come (T), and the place of the first that took its evidence to
        the bar; None where none did.

        Raises:
            ValueError: more streams than one, or a category that the reference does not have.
        """
        n_streams, k = self.reference.shape
        if n_streams != 1 or (len(seen) and not 0 <= seen.min() <= seen.max() < k):
            raise ValueError(f"one stream of categories from 0 to {k - 1} is looked at as it goes on")
        return self._one_after(seen, log_bar)

    def _one_after(self, seen: NDArray[np.integer[Any]], log_bar: float) -> tuple["Categories", int | None]:
        """`after` of one stream: the same sums number by number, since few numbers make arrays slow."""
        recent, log_r, cusum = self.recent[0].copy(), self.log_r[0].tolist(), self.cusum[0].tolist()
        keep, reference, error = 1 - 1 / self.memories, self.reference[0].tolist(), self.reference_error
        keeps, totals = keep.tolist(), (recent.sum(axis=1) + PRIOR).tolist()
        squares = (np.square(recent) / self.reference[0]).sum(axis=1).tolist()
        began: list[int | None] = [None] * len(keeps)
        crossed = None
        for place, k in enumerate(seen.tolist()):
            expected = reference[k]
            for m, before in enumerate(recent[:, k].tolist()):
                total = totals[m]
                distance2 = (squares[m] + PRIOR * (2 * total - PRIOR)) / (total * total) - 1
                worst = error * math.sqrt(distance2) if distance2 > 0 else 0.0
                bet = math.log((before + PRIOR * expected) / (total * expected))
                bet -= math.log1p(min(worst, 2 * error * error))
                past = log_r[m]  # log(exp(past) + 1), without overflow
                log_r[m] = bet + (past + math.log1p(math.exp(-past)) if past > 0 else math.log1p(math.exp(past)))
                if cusum[m] <= 0:
                    began[m] = place
                    cusum[m] = 0.0
                cusum[m] += bet
                squares[m] = squares[m] * keeps[m] * keeps[m] + (2 * keeps[m] * before + 1) / expected
                totals[m] = (total - PRIOR) * keeps[m] + 1 + PRIOR
            recent *= keep[:, None]
            recent[:, k] += 1
            if crossed is None and max(log_r) >= log_bar and float(_log_mean(np.array(log_r))) >= log_bar:
                crossed = place
        since = np.stack([self._counts_since(m, seen, start) for m, start in enumerate(began)])
        found = replace(
            self,
            recent=recent[None],
            log_r=np.array([log_r]),
            cusum=np.array([cusum]),
            since=since[None],
            n=self.n + len(seen),
        )
        return found, crossed

    def _counts_since(self, memory: int, seen: NDArray[np.integer[Any]], start: int | None) -> Ints:
        """Counts since a change began: before these came, or at the place `start` of them."""
        counts = np.bincount(seen if start is None else seen[start:], minlength=self.reference.shape[1])
        found: Ints = counts + (self.since[0, memory] if start is None else 0)
        return found

    @property
    def log_evidence(self) -> Floats:
        """Logarithm of the mean of R over memories (S)."""
        return _log_mean(self.log_r)

    def changes(self, stream: int = 0, *, n_most: int = 5) -> list["Change"]:
        """What has changed since the likeliest moment of a change, most first: categories whose interval says so."""
        counts = self.since[stream, int(self.cusum[stream].argmax())]
        n, before = int(counts.sum()), self.reference[stream]
        if not n:
            return []
        surprise = np.abs(counts - n * before) / np.sqrt(n * before)
        found = [(k, wilson(int(counts[k]), n)) for k in np.argsort(-surprise, kind="stable").tolist()]
        told = [Change(k, float(before[k]), now, n) for k, now in found if now and not now.low <= before[k] <= now.high]
        return told[:n_most]


@dataclass(frozen=True)
class Change:
    """A category whose share is not what it was."""

    category: int
    before: float
    now: Interval
    n: int
    """Requests since the change began, as far as can be told."""


def categories(reference_counts: NDArray[Any], memories: Sequence[float] = MEMORIES) -> Categories:
    """A detector from reference counts (S, K), or (K) of one stream.

    Raises:
        ValueError: the reference is too small.
    """
    counts = np.atleast_2d(np.asarray(reference_counts, dtype=np.float64))
    n_rows, k = float(counts.sum(axis=1).min()), counts.shape[1]
    if n_rows < MIN_REFERENCE:
        raise ValueError(f"a reference of {n_rows:.0f} rows, fewer than {MIN_REFERENCE}")
    shares = counts + 0.5  # a category without a row is rare, not impossible
    shares /= shares.sum(axis=1, keepdims=True)
    shape, lengths = (len(counts), len(memories)), np.asarray(memories, dtype=np.float64)
    return Categories(
        shares,
        math.sqrt((k + 1) / n_rows),
        lengths,
        lengths[:, None] * shares[:, None, :],
        np.full(shape, -np.inf),
        np.zeros(shape),
        np.zeros((*shape, k), dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class Bins:
    """Numbers as categories: parts of the reference."""

    edges: Floats
    """(K - 1), rising."""

    def of(self, values: NDArray[Any]) -> Ints:
        """Bin of each value, 0 for the lowest."""
        found: Ints = np.searchsorted(self.edges, np.asarray(values, dtype=np.float64), side="right")
        return found

    def counts(self, values: NDArray[Any]) -> Ints:
        """How many values (N) lie in each bin (K)."""
        found: Ints = np.bincount(self.of(values), minlength=len(self.edges) + 1)
        return found


def bins(reference: NDArray[Any], cuts: Sequence[float] = CUTS) -> Bins:
    """Bins between these quantiles of the reference; fewer where many values are equal."""
    values = np.asarray(reference, dtype=np.float64)
    edges = np.unique(np.quantile(values, cuts, method="higher"))
    return Bins(edges[edges > values.min()])


@dataclass(frozen=True, eq=False)
class Errors:
    """The detector of more errors than allowed, from audits; `after` gives the next one.

    The bet of ratio q on an audited request is 1 + s v (wrong - allowed) with s = (q - 1) / (1 - allowed) and v the
    floor of the probabilities of audits over its own, so that it is fair for the traffic, not for what was audited; of
    equal probabilities it is the likelihood ratio of q * allowed against allowed. An unaudited request bets nothing.
    """

    allowed_share: float
    """Of errors, of all requests: what was measured before, with its margin."""
    log_r: Floats
    """(M,) for each of `ERROR_RATIOS` that leaves a share below 1."""
    n: int = 0

    def after(
        self, is_audited: NDArray[np.bool_], wrong: NDArray[Any], probability: NDArray[Any], floor: float
    ) -> "Errors":
        """The detector when these requests have come, in their order.

        Args:
            wrong: 0..1 (T); read where `is_audited` (T).
            probability: of an audit (T); at least `floor`.
        """
        places = np.flatnonzero(is_audited)
        n_before = np.diff(places, prepend=-1)
        n_left = len(is_audited) - int(n_before.sum())
        return self.told(n_before, np.asarray(wrong)[places], np.asarray(probability)[places], floor, n_left=n_left)

    def told(
        self, n_before: Ints, wrong: NDArray[Any], probability: NDArray[Any], floor: float, *, n_left: int = 0
    ) -> "Errors":
        """The detector when audits were answered (T), in the order of their answers, which may come late.

        Args:
            n_before: requests that came since the answer before (T).
            n_left: requests that came since the last answer.
        """
        stakes = (_ratios(self.allowed_share) - 1) / (1 - self.allowed_share)
        gains = (np.asarray(wrong, dtype=np.float64) - self.allowed_share) * np.minimum(1.0, floor / probability)
        log_r = self.log_r
        for n, gain in zip(n_before.tolist(), gains.tolist(), strict=True):
            log_r = (np.logaddexp(log_r, math.log(n)) if n else log_r) + np.log1p(stakes * gain)
        log_r = np.logaddexp(log_r, math.log(n_left)) if n_left else log_r
        return replace(self, log_r=log_r, n=self.n + int(n_before.sum()) + n_left)

    @property
    def log_evidence(self) -> Floats:
        """Logarithm of the mean of R over bets (1,)."""
        return _log_mean(self.log_r[None])


def errors(allowed_share: float) -> Errors:
    """A detector of more than `allowed_share` of errors.

    Raises:
        ValueError: a share at which nothing is left to bet on.
    """
    if not 0 < allowed_share < 1 / ERROR_RATIOS[0]:
        raise ValueError(f"an allowed share of errors lies above 0 and below {1 / ERROR_RATIOS[0]}: {allowed_share}")
    return Errors(allowed_share, np.full(len(_ratios(allowed_share)), -np.inf))


def _ratios(allowed_share: float) -> Floats:
    return np.array([ratio for ratio in ERROR_RATIOS if ratio * allowed_share < 1])


@dataclass(frozen=True)
class Blocks:
    """The detector of blocks of requests, each with an e-value against "like the reference" (two_sample.log_e)."""

    log_r: float = -math.inf
    n: int = 0

    def after(self, log_e: float, n_requests: int) -> "Blocks":
        """The detector after another block; a change may have come with any of its requests, seen at its first."""
        return Blocks(float(np.logaddexp(self.log_r, math.log(n_requests))) + log_e, self.n + n_requests)

    @property
    def log_evidence(self) -> Floats:
        """(1,)."""
        return np.array([self.log_r])


Detector = Categories | Errors | Blocks


def alarms(
    detectors: Mapping[str, Detector], *, arl: float = ARL, shares: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The streams that say that something has changed: by how much log-evidence beyond what is needed.

    One alarm that is not false may set off others; after it, detectors are made anew, with a reference of now where
    the change is to stay.

    Raises:
        ValueError: shares that are more than the budget.
    """
    shares = SHARES if shares is None else shares
    if sum(shares[name] for name in detectors) > 1 + 1e-9:
        raise ValueError(f"shares of the false alarms sum to more than 1: {dict(shares)}")
    beyond = {
        name: float(detector.log_evidence.max()) - math.log(arl / shares[name]) for name, detector in detectors.items()
    }
    return {name: value for name, value in beyond.items() if value >= 0}


@dataclass(frozen=True)
class Effect:
    """Whether a change of the inputs has changed how often answers are right."""

    accuracy: Affected
    now: Interval | None
    n_more: int | None
    """Audits that would settle it, about; None where none would, since accuracy before is not known well enough."""


def effect(since: audits.Tally, before: Interval, *, tolerance: float = 0.02) -> Effect:
    """From audits since the change began: affected where accuracy is surely lower than before, not affected where it is
    surely less than the tolerance lower.

    Confidences are no evidence of it: they are wrong in just the cases that matter.

    Args:
        before: accuracy on the reference, as sure as it was measured.
    """
    now = audits.estimate(since)
    if now is not None:
        apart = audits.difference(before, now)
        if apart.high < 0:
            return Effect("affected", now, 0)
        if apart.low > -tolerance:
            return Effect("not affected", now, 0)
    left = tolerance**2 - (before.high - before.estimate) ** 2  # squared half-widths add up in a difference
    if left < (tolerance / 4) ** 2:
        return Effect("not known", now, None)
    return Effect("not known", now, max(1, audits.n_needed(math.sqrt(left), before.estimate) - since.n_audited))


def _log_mean(log_r: Floats) -> Floats:
    """Of R over its last axis."""
    top = np.maximum(log_r.max(axis=-1), -700.0)
    found: Floats = top + np.log(np.exp(log_r - top[..., None]).mean(axis=-1) + 1e-300)
    return found
