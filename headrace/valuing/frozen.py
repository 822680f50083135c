"""What each source adds, by three ways on frozen vectors; see headrace/stats/valuation.py. Pure.

Whether a source harms is told by leaving it out: held-out rows of its own channel, and of the others, are answered
worse with it than without. Two tests for each (rows won and lost, and the log-likelihood), corrected for being two and
for all sources; and the share of right answers must have fallen too, since a channel that only makes the
others' confidences worse is no reproach to its labels. Of the other channels more must lose than gain: test rows of a
channel with wrong labels are answered worse for every honest one, which is not the honest one's fault.

One of many sources can be wrong altogether and harm nobody, as the others make up for it. Its labels tell it: they
agree with what a regression on all other sources answers less often than by chance (Cohen's kappa below 0).
"""

import math
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats import paired, valuation
from headrace.stats.abstention import chance_of_at_most
from headrace.stats.valuation import Answers, Rows
from headrace.valuing.sources import Material

ALPHA = 0.05
_N_COLUMNS = 128  # first principal components: a third of the time, and the same order of sources
_MOST_CELLS = 1_000_000  # of rows times classes
_WHOM = ("itself", "others")
_LABELS = "labels"
_SEED = 0


def by_source(given: Material) -> list[dict[str, Any]]:
    """Each source with what it adds, for whom, and a verdict: helps, harms, contradicts, not known; the best first."""
    train, held_out = _narrow(_thinned(given), given.held_out)
    agreement = valuation.data_oob(train, given.n_classes, seed=_SEED).sources
    neighbours = valuation.knn_shapley(train, held_out).sources
    added, chances = _left_out(given, train, held_out)
    p_harm = paired.holm({key: p[0] for key, p in chances.items()})
    p_help = paired.holm({key: p[1] for key, p in chances.items()})
    found: list[dict[str, Any]] = []
    for i, source in enumerate(given.sources):
        verdict, p, whom = _verdict(i, added[i], p_harm, p_help)
        one = {
            "source": source.name,
            "channel": source.channel,
            "kind": source.kind,
            "n_rows": given.n_rows[source],
            "for": {whom: added[i].get(whom) for whom in (*_WHOM, "all")},
            "kappa": added[i].get("kappa"),
            "agreement": _as_json(agreement[i]),
            "neighbours": _as_json(neighbours[i]),
            "verdict": verdict,
            "p": p,
            "whom": whom,
        }
        found.append(one)
    found.sort(key=lambda one: -one["agreement"]["estimate"])
    return [{"rank": rank, **one} for rank, one in enumerate(found, start=1)]


def _thinned(given: Material) -> Rows:
    """Every n-th training row, where rows times classes would take minutes."""
    rows, step = given.train, math.ceil(len(given.train.targets) * given.n_classes / _MOST_CELLS)
    owners = np.unique(rows.owners)
    kept = np.arange(len(rows.targets)) % step == 0
    kept[[int(np.argmax(rows.owners == owner)) for owner in owners]] = True  # no source goes altogether
    return Rows(rows.vectors[kept], rows.targets[kept], rows.owners[kept])


def _narrow(train: Rows, held_out: Rows) -> tuple[Rows, Rows]:
    """The first principal components of the training vectors, for both."""
    if train.vectors.shape[1] <= _N_COLUMNS:
        return train, held_out
    axes = np.linalg.eigh(np.cov(train.vectors.T))[1][:, -_N_COLUMNS:]
    return (
        Rows(train.vectors @ axes, train.targets, train.owners),
        Rows(held_out.vectors @ axes, held_out.targets, held_out.owners),
    )


def _left_out(
    given: Material, train: Rows, held_out: Rows
) -> tuple[list[dict[str, Any]], dict[str, tuple[float, float]]]:
    """Of each source what it adds, in points; and the chances of such harm, and of such help, if it did neither."""
    if len(given.sources) < 2:
        return [{} for _ in given.sources], {}
    whole, without = valuation.without_each(train, held_out, given.n_classes)
    added: list[dict[str, Any]] = []
    chances: dict[str, tuple[float, float]] = {}
    for i, source in enumerate(given.sources):
        rest, own = without[i].held_out, held_out.owners == given.channels.index(source.channel)
        parts = {"itself": own, "others": ~own, "all": np.ones(len(own), dtype=bool)}
        labels, answers = train.targets[train.owners == i], without[i].own
        kappa = valuation.kappa(labels, answers)
        found = {whom: _added(whole, rest, mine) for whom, mine in parts.items() if mine.any()}
        added.append({**found, "kappa": None if kappa is None else _as_json(kappa)})
        for whom in _WHOM:
            if whom in added[i]:
                harm, help_ = _chances(whole, rest, parts[whom])
                chances[_key(i, whom)] = (harm if _most_lose(whole, rest, held_out, parts[whom]) else 1.0), help_
        n_alike = int((labels == answers).sum())
        chances[_key(i, _LABELS)] = chance_of_at_most(n_alike, len(labels), valuation.by_chance(labels, answers)), 1.0
    return added, chances


def _most_lose(whole: Answers, without: Answers, held_out: Rows, mine: NDArray[np.bool_]) -> bool:
    """Whether the rows of more channels are less likely with the source than are more likely."""
    saved = (whole.likely - without.likely)[mine]
    sums = np.bincount(held_out.owners[mine], saved)
    return bool((sums < 0).sum() > (sums > 0).sum())


def _key(place: int, whom: str) -> str:
    return f"{place} {whom}"


def _added(whole: Answers, without: Answers, mine: NDArray[np.bool_]) -> dict[str, Any]:
    """In points of the share of right answers, and in nats of log-likelihood a row."""
    points = valuation.paired_shares(whole.right[mine], without.right[mine])
    return {
        "n": int(mine.sum()),
        "points": in_points(points),
        "nats": _as_json(valuation.mean_interval((whole.likely - without.likely)[mine])),
    }


def _as_json(found: Interval) -> dict[str, float | None]:
    """Without ends where one row alone has none."""
    return {key: end if math.isfinite(end) else None for key, end in asdict(found).items()}


def in_points(share: Interval) -> dict[str, float]:
    """Hundredths of a share, as JSON."""
    low, high = 100 * share.low, 100 * share.high
    return {
        "estimate": round(100 * share.estimate, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "level": share.level,
    }


def _chances(whole: Answers, without: Answers, mine: NDArray[np.bool_]) -> tuple[float, float]:
    """Of harm at least as great as was seen, if there is none; and of such help."""
    n_won = int((whole.right & ~without.right)[mine].sum())
    n_lost = int((without.right & ~whole.right)[mine].sum())
    saved = (whole.likely - without.likely)[mine]
    error = float(saved.std(ddof=1)) / math.sqrt(len(saved)) if len(saved) > 1 else math.inf
    below = NormalDist().cdf(float(saved.mean()) / error) if error > 0 else 0.5
    harm = paired.mcnemar(n_lost, n_won), below if n_lost > n_won else 1.0
    help_ = paired.mcnemar(n_won, n_lost), 1 - below if n_won > n_lost else 1.0
    return min(1.0, 2 * min(harm)), min(1.0, 2 * min(help_))


def _verdict(
    place: int, added: dict[str, Any], p_harm: dict[str, float], p_help: dict[str, float]
) -> tuple[str, float | None, str | None]:
    """Harm goes before contradiction, and both before help; the chance of it by luck, and whom it is about."""
    of_labels = p_harm.get(_key(place, _LABELS), 1.0)
    for verdict, p_values in (("harms", p_harm), ("contradicts", {}), ("helps", p_help)):
        if verdict == "contradicts" and of_labels < ALPHA:
            return verdict, of_labels, "others"
        mine = {whom: p_values[_key(place, whom)] for whom in _WHOM if _key(place, whom) in p_values}
        if mine and min(mine.values()) < ALPHA:
            whom = min(mine, key=lambda one: mine[one])
            return verdict, mine[whom], whom
    return "not known", None, None
