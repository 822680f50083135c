"""What the rows of each source add, on frozen vectors: for held-out rows, and for each other. numpy only.

A *source* is what is valued as one: a channel's examples, a channel's feedback, a labeller. Three answers:

- `leave_one_out`: by how much a logistic regression on all rows is better than one without the source's. In points, for
  each group of held-out rows; it alone says that a source harms.
- `data_oob`: how often models that never saw a row agree with its label. No held-out rows needed; finds wrong labels,
  but rates hard rows low, too.
- `knn_shapley`: each row's share of what a nearest-neighbour classifier gets right; the fast one.

Dimensions: N rows, D width, K classes, S sources, T held-out rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats import linear_probe
from headrace.stats.intervals import LEVEL, wilson

N_MODELS = 100
"""Of `data_oob`: each row is out of about 37 of them."""
N_NEIGHBOURS = 10
_TOLERANCE = 1e-5  # of fits that start from one on nearly the same rows, which must not stay there
_RIDGE = 1e-3  # of the mean squared length of the vectors, times the rows
_BLOCK_CELLS = 8_000_000
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled rows as vectors (N, D), classes (N), and whose they are (N): source of training, group of held-out."""

    vectors: NDArray[Any]
    targets: Ints
    owners: Ints


@dataclass(frozen=True)
class Contribution:
    """What a source adds to one group of held-out rows; above 0 where they are better off with it."""

    source: int
    group: int | None
    """None: all held-out rows."""
    accuracy: Interval
    loss: Interval
    """Of the negative log-likelihood that the source saves, in nats a row."""

    @property
    def harms(self) -> bool:
        """Whether held-out rows are surely worse off, by accuracy or by loss."""
        return self.accuracy.high < 0 or self.loss.high < 0


@dataclass(frozen=True, eq=False)
class Answers:
    """What a probe says of T held-out rows."""

    right: NDArray[np.bool_]
    """(T,) whether it answers a row's class."""
    likely: Floats
    """(T,) its log-probability of that class."""


@dataclass(frozen=True, eq=False)
class Without:
    """What a probe says that was fitted without the n rows of a source."""

    held_out: Answers
    own: Ints
    """(n,) the class that it answers for each of those rows."""


def without_each(
    rows: Rows, held_out: Rows, n_classes: int, *, penalty: float = linear_probe.PENALTY
) -> tuple[Answers, dict[int, Without]]:
    """The answers of a logistic regression on all rows, and of one without the rows of each source."""
    whole = linear_probe.fit(rows.vectors, rows.targets, n_classes, penalty=penalty, tolerance=_TOLERANCE)
    found = {}
    for source in np.unique(rows.owners).tolist():
        kept = rows.owners != source
        rest = linear_probe.fit(
            rows.vectors[kept], rows.targets[kept], n_classes, penalty=penalty, start=whole, tolerance=_TOLERANCE
        )
        own = linear_probe.log_probs(rest, rows.vectors[~kept]).argmax(axis=1)
        found[source] = Without(_on(held_out, rest), own)
    return _on(held_out, whole), found


def leave_one_out(
    rows: Rows, held_out: Rows, n_classes: int, *, penalty: float = linear_probe.PENALTY, level: float = LEVEL
) -> list[Contribution]:
    """What each source adds to all held-out rows and to each group of them.

    The intervals are over held-out rows; they do not say how another sample of training rows would have done.
    """
    whole, without = without_each(rows, held_out, n_classes, penalty=penalty)
    groups: list[int | None] = [None, *np.unique(held_out.owners).tolist()]
    found = []
    for source, rest in without.items():
        for group in groups:
            mine = slice(None) if group is None else held_out.owners == group
            accuracy = paired_shares(whole.right[mine], rest.held_out.right[mine], level=level)
            loss = mean_interval((whole.likely - rest.held_out.likely)[mine], level=level)
            found.append(Contribution(source, group, accuracy, loss))
    return found


def _on(held_out: Rows, weights: Floats) -> Answers:
    logs = linear_probe.log_probs(weights, held_out.vectors)
    return Answers(logs.argmax(axis=1) == held_out.targets, logs[np.arange(len(logs)), held_out.targets])


def by_chance(labels: Ints, answers: Ints) -> float:
    """How often labels and answers (N each) would be equal if they had nothing to do with each other."""
    n, k = max(1, len(labels)), int(max(labels.max(initial=0), answers.max(initial=0))) + 1
    return float(np.bincount(labels, minlength=k) @ np.bincount(answers, minlength=k)) / n**2


def kappa(labels: Ints, answers: Ints, *, level: float = LEVEL) -> Interval | None:
    """How far labels and answers agree beyond chance: 1 always, 0 as by chance, below 0 they contradict each other.

    None without rows, or where both always say the same. Source: Cohen 1960, "A coefficient of agreement for nominal
    scales"; the ends are those of Wilson's interval of the share that agrees, chance taken as known.
    """
    share, chance = wilson(float((labels == answers).sum()), len(labels), level=level), by_chance(labels, answers)
    if share is None or chance >= 1:
        return None
    estimate, low, high = ((end - chance) / (1 - chance) for end in (share.estimate, share.low, share.high))
    return Interval(estimate, low, high, level)


def paired_shares(one: NDArray[np.bool_], other: NDArray[np.bool_], *, level: float = LEVEL) -> Interval:
    """By how much the share of `one` is above that of `other`, of the same T rows.

    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": Wald's
    interval with half a row added to each of the four kinds; widened where needed to hold the estimate.
    """
    n, won, lost = len(one), int((one & ~other).sum()), int((other & ~one).sum())
    centre = (won - lost) / (n + 2)
    spread = math.sqrt(max(0.0, (won + lost + 1) - (won - lost) ** 2 / (n + 2))) / (n + 2)
    half, estimate = NormalDist().inv_cdf((1 + level) / 2) * spread, (won - lost) / max(1, n)
    return Interval(estimate, min(estimate, centre - half), max(estimate, centre + half), level)


def mean_interval(values: Floats, *, level: float = LEVEL) -> Interval:
    """The mean of N values that hang on nothing common, by the normal law; without width below two values."""
    n, z = len(values), NormalDist().inv_cdf((1 + level) / 2)
    mean = float(values.mean()) if n else 0.0
    half = z * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Interval(mean, mean - half, mean + half, level)


@dataclass(frozen=True, eq=False)
class Values:
    """Of each row, and of each source the mean over its rows."""

    rows: Floats
    """(N,); NaN where a row has none."""
    sources: dict[int, Interval]

    def ranked(self) -> list[int]:
        """Sources, the best first."""
        return sorted(self.sources, key=lambda source: -self.sources[source].estimate)


def data_oob(rows: Rows, n_classes: int, *, seed: int, n_models: int = N_MODELS, level: float = LEVEL) -> Values:
    """Of each row, the share of models fitted to redraws without it that answer its label.

    Source: Kwon and Zou 2023, "Data-OOB: out-of-bag estimate as a simple and efficient data value", equation 3; with
    ridge regression on the classes in place of trees, since vectors of a language model are nearly linear in classes.
    """
    rng = np.random.default_rng(seed)
    x = np.concatenate([rows.vectors, np.ones((len(rows.vectors), 1))], axis=1).astype(np.float32)
    truth = np.eye(n_classes, dtype=np.float32)[rows.targets]
    n, penalty = len(x), _RIDGE * float(np.square(rows.vectors).sum(axis=1).mean()) * len(x)
    n_hits, n_out = np.zeros(n), np.zeros(n)
    for _ in range(n_models):
        counts = np.bincount(rng.integers(0, n, size=n), minlength=n)
        drawn = counts > 0
        weighted = x[drawn] * counts[drawn, None].astype(np.float32)
        gram = (weighted.T @ x[drawn]).astype(np.float64)
        gram[np.diag_indices(len(gram))] += penalty / len(gram) + 1e-9
        weights = np.linalg.solve(gram, (weighted.T @ truth[drawn]).astype(np.float64))
        answers = (x[~drawn] @ weights.astype(np.float32)).argmax(axis=1)
        n_hits[~drawn] += answers == rows.targets[~drawn]
        n_out[~drawn] += 1
    values = np.divide(n_hits, n_out, out=np.full(n, np.nan), where=n_out > 0)
    of_source = {s: values[(rows.owners == s) & (n_out > 0)] for s in np.unique(rows.owners).tolist()}
    return Values(values, {s: mean_interval(mine, level=level) for s, mine in of_source.items()})


def knn_shapley(rows: Rows, held_out: Rows, *, n_neighbours: int = N_NEIGHBOURS, level: float = LEVEL) -> Values:
    """Of each row, its Shapley value in the accuracy on held-out rows of a classifier by nearest neighbours, times N.

    Exact: with rows in order of their distance to one held-out row, m_i whether the i-th has its class, and k the
    number of neighbours,

        v_N = m_N min(k, N) / (k N),   v_i = v_(i+1) + (m_i - m_(i+1)) min(k, i) / (k i)

    Source: Jia et al. 2019, "Efficient task-specific data valuation for nearest neighbor algorithms", theorem 1. Times
    N, so that values do not shrink with the rows and 1 means "as good as the mean of a classifier that is always
    right". Intervals are over held-out rows.
    """
    x = np.asarray(rows.vectors, dtype=np.float64)
    n, lengths = len(x), np.square(x).sum(axis=1)
    sources, places = np.unique(rows.owners, return_inverse=True)
    shares = np.eye(len(sources))[places.reshape(-1)]
    shares /= shares.sum(axis=0)
    rank = np.arange(1, n + 1)
    factor = np.minimum(n_neighbours, rank) / (n_neighbours * rank)
    total, by_source = np.zeros(n), []
    for block in _blocks(len(held_out.targets), n):
        asked = np.asarray(held_out.vectors[block], dtype=np.float64)
        order = np.argsort(lengths - 2 * asked @ x.T, axis=1, kind="stable")
        match = (rows.targets[order] == held_out.targets[block][:, None]).astype(np.float64)
        steps = match * factor
        steps[:, :-1] -= match[:, 1:] * factor[:-1]
        values = np.empty_like(steps)
        np.put_along_axis(values, order, np.cumsum(steps[:, ::-1], axis=1)[:, ::-1], axis=1)
        total += values.sum(axis=0)
        by_source.append(values @ shares * n)
    means = np.concatenate(by_source) if by_source else np.zeros((0, len(sources)))
    intervals = {s: mean_interval(means[:, i], level=level) for i, s in enumerate(sources.tolist())}
    return Values(total * n / max(1, len(means)), intervals)


def _blocks(n_rows: int, n_columns: int) -> Sequence[slice]:
    size = max(1, _BLOCK_CELLS // max(1, n_columns))
    return [slice(start, start + size) for start in range(0, n_rows, size)]
