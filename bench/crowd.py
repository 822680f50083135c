"""What is left of the truth when some of a crowd are hostile? Labels recovered under attack, with and without the gate.

Two crowds: the 800 pairs of sentences that 164 workers judged ten times each (RTE, Snow et al. 2008, in the folder of
data), and simulated ones of three classes. Hostile annotators are added until they cast 10 to 50 % of all votes. The
answers of 2.4 % of the items are known, and nobody sees of which; every newcomer's first three questions are among
them where it says "asked first". Shown is the worst share of votes for each attack. Then: how often the gate bars
honest people, and how fast it all is.

Run: python -m bench.crowd [--seeds 1 2 3] [--data FOLDER]
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.stats import annotators
from headrace.stats.annotators import UNKNOWN, Gate, Ints, Votes
from headrace.stats.consensus import AGGREGATIONS, Consensus, dawid_skene, majority

DATA = Path(__file__).parents[2] / "shared" / "data"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
KNOWN_SHARE = 0.024  # of the published poisoning runs
N_FIRST = 3
KINDS = ("flip", "random", "constant", "drip", "targeted", "sybil")
_SIZES = {"sybil": 15}
_SIZE = 200
"""Votes of a hostile annotator."""
_PUBLISHED = {"majority": 0.897, "dawid-skene": 0.927, "mace": 0.93}
"""Of RTE: Snow et al. 2008 (majority, ties by lot; their own EM .927), Hovy et al. 2013 (MACE .93)."""


def rte(data: Path) -> tuple[Votes, Ints] | None:
    """The votes and the truth; None where the file is not there."""
    path = data / "rte_crowd" / "rte.standardized.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    items, first, places = np.unique([row["orig_id"] for row in rows], return_index=True, return_inverse=True)
    workers, who = np.unique([row["!amt_worker_ids"] for row in rows], return_inverse=True)
    said = np.array([int(row["response"]) for row in rows])
    return Votes(places, who, said, len(items), len(workers), 2), np.array([int(rows[i]["gold"]) for i in first])


def simulated(
    *,
    n_items: int = 600,
    n_annotators: int = 60,
    n_classes: int = 3,
    n_votes: int = 5,
    accuracies: tuple[float, float] = (0.65, 0.95),
    seed: int,
) -> tuple[Votes, Ints]:
    """Votes of annotators who are as accurate on every class, `n_votes` on each item, and the truth (I)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n_items)
    accuracy = rng.uniform(*accuracies, n_annotators)
    items = np.repeat(np.arange(n_items), n_votes)
    who = np.concatenate([rng.permutation(n_annotators)[:n_votes] for _ in range(n_items)])
    wrong = (truth[items] + rng.integers(1, n_classes, len(items))) % n_classes
    said = np.where(rng.random(len(items)) < accuracy[who], truth[items], wrong)
    return Votes(items, who, said, n_items, n_annotators, n_classes), truth


def some_known(truth: Ints, share: float, *, seed: int) -> Ints:
    """The truth of that share of the items, UNKNOWN of the others."""
    is_known = np.zeros(len(truth), dtype=bool)
    is_known[np.random.default_rng(seed).permutation(len(truth))[: round(share * len(truth))]] = True
    return np.where(is_known, truth, UNKNOWN)


def attacked(
    votes: Votes, truth: Ints, kind: str, share: float, *, size: int = _SIZE, seed: int, first: Ints | None = None
) -> Votes:
    """Votes with so many of hostile annotators of `size` votes each that theirs are `share` of all.

    `flip` and `sybil` never tell the truth, `random` tells anything, `constant` always the last class, `drip` flips a
    quarter, `targeted` flips the last class alone.

    Args:
        first: items that each of them is asked about first, three of them (I of them or more).
    """
    rng = np.random.default_rng(seed)
    n = round(len(votes) * share / (1 - share))
    items, nth = rng.integers(0, votes.n_items, n), np.arange(n) % size
    if first is not None:
        items = np.where(nth < N_FIRST, rng.choice(first, n), items)
    t, k = truth[items], votes.n_classes
    flipped = (t + 1) % k
    said = {
        "flip": flipped,
        "sybil": flipped,
        "random": rng.integers(0, k, n),
        "constant": np.full(n, k - 1),
        "drip": np.where(rng.random(n) < 0.25, flipped, t),
        "targeted": np.where(t == k - 1, flipped, t),
    }[kind]
    who = votes.n_annotators + np.arange(n) // size
    return votes + Votes(items, who, said, votes.n_items, votes.n_annotators + n // size + 1, k)


def gated(votes: Votes, known: Ints, aggregate: Callable[..., Consensus] = dawid_skene) -> Consensus:
    """The order of the design: known answers, the gate, then aggregation with what is known."""
    return aggregate(votes, annotators.weights(*annotators.score(votes, known)), known)


def accuracy(found: Consensus, truth: Ints, counted: NDArray[np.bool_]) -> float:
    return float((found.answers() == truth)[counted].mean())


def macro_f1(found: Consensus, truth: Ints, counted: NDArray[np.bool_]) -> float:
    answers, right = found.answers()[counted], truth[counted]
    scores = []
    for k in range(found.probs.shape[1]):
        hits = ((answers == k) & (right == k)).sum()
        scores.append(2 * hits / max(1, (answers == k).sum() + (right == k).sum()))
    return float(np.mean(scores))


def clean(name: str, crowd: Callable[[int], tuple[Votes, Ints]], seeds: Sequence[int]) -> list[Measured]:
    rows = []
    for method, aggregate in AGGREGATIONS.items():
        values, seconds = [], 0.0
        for seed in seeds:
            votes, truth = crowd(seed)
            started = time.perf_counter()
            found = aggregate(votes)
            seconds = time.perf_counter() - started
            values.append(accuracy(found, truth, np.ones(len(truth), dtype=bool)))
        published = f"published: {_PUBLISHED[method]}" if name == "RTE" else None
        rows.append(Measured(f"{name}: accuracy, {method}", float(np.mean(values)), "", published))
        rows.append(Measured(f"{name}: seconds, {method}", seconds, "s"))
    return rows


def sweep(name: str, crowd: Callable[[int], tuple[Votes, Ints]], seeds: Sequence[int]) -> list[Measured]:
    """Per attack, the worst share of hostile votes of 10 to 50 %."""
    rows = []
    for kind in KINDS:
        for asked_first in (False, True):
            by_share = [_attack(crowd, kind, share, seeds, asked_first) for share in SHARES]
            label = f"{name}, {kind}{', asked first' if asked_first else ''}"
            for figure in ("accuracy", "macro-F1"):
                for way in [way for way, named in by_share[0] if named == figure]:
                    losses = np.array([part[way, figure] for part in by_share]) * 100  # (shares, seeds)
                    worst = losses.mean(axis=1).argmax()
                    what = f"{label}: points of {figure} lost at the worst, {way}"
                    low, high = float(losses[worst].min()), float(losses[worst].max())
                    if figure == "accuracy" or kind in ("drip", "targeted"):
                        beside = f"at {SHARES[worst]:.0%} of the votes"
                        rows.append(Measured(what, float(losses[worst].mean()), "points", beside, low=low, high=high))
    return rows


def _attack(
    crowd: Callable[[int], tuple[Votes, Ints]], kind: str, share: float, seeds: Sequence[int], asked_first: bool
) -> dict[tuple[str, str], list[float]]:
    """What each way loses to the clean crowd by Dawid-Skene, for each seed, on items whose answer is not known."""
    lost: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        votes, truth = crowd(seed)
        known = some_known(truth, KNOWN_SHARE, seed=seed)
        counted = known == UNKNOWN
        first = np.flatnonzero(~counted) if asked_first else None
        whole = attacked(votes, truth, kind, share, size=_SIZES.get(kind, _SIZE), seed=seed, first=first)
        before = dawid_skene(votes)
        ways = {"gate + dawid-skene": gated(whole, known)}
        if not asked_first:
            ways |= {"dawid-skene": dawid_skene(whole), "majority": majority(whole)}
        for way, found in ways.items():
            for figure, measure in (("accuracy", accuracy), ("macro-F1", macro_f1)):
                loss = measure(before, truth, counted) - measure(found, truth, counted)
                lost.setdefault((way, figure), []).append(loss)
    return lost


def false_gating(seeds: Sequence[int]) -> list[Measured]:
    """Share of honest people who are barred at any of the looks after 1 to 100 known answers."""
    rng = np.random.default_rng(seeds[0])
    rows = []
    for low, high in ((0.75, 0.75), (0.8, 0.8), (0.85, 0.85), (0.7, 0.98)):
        right = (rng.random((20_000, 100)) < rng.uniform(low, high, (20_000, 1))).cumsum(axis=1)
        asked = np.broadcast_to(np.arange(1, 101), right.shape)
        table = np.stack([annotators.is_barred(np.full(101, n), np.minimum(np.arange(101), n)) for n in range(101)])
        for name, barred in (("posterior", table[asked, right]), ("mean", _mean_rule(asked, right))):
            ever = float(barred.any(axis=1).mean())
            who = f"{low}" if low == high else f"{low} to {high}"
            rule = "the gate" if name == "posterior" else "a gate on the posterior's mean"
            rows.append(
                Measured(f"honest people of accuracy {who}: ever barred, {rule}", ever, "share", "target: 0.02")
            )
    return rows


def _mean_rule(asked: Ints, right: Ints) -> NDArray[np.bool_]:
    gate = Gate()
    barred: NDArray[np.bool_] = ((1 + right) / (2 + asked) < gate.bar) & (asked >= gate.min_known)
    return barred


def real_workers(votes: Votes, truth: Ints, seeds: Sequence[int]) -> Measured:
    """Of RTE's workers who are right in 70 % or more of what they did, how many are barred."""
    right = np.bincount(votes.annotators, votes.classes == truth[votes.items]) / np.bincount(votes.annotators)
    shares = []
    for seed in range(100):
        known = some_known(truth, 0.1, seed=1000 * seeds[0] + seed)
        shares.append(float(annotators.is_barred(*annotators.score(votes, known))[right >= 0.7].mean()))
    return Measured(
        "RTE: workers of accuracy .7 or more barred, 10 % known", float(np.mean(shares)), "share", "target: 0.02"
    )


def speed() -> list[Measured]:
    votes, _ = simulated(n_items=20_000, n_annotators=500, n_classes=10, n_votes=5, seed=1)
    rows = []
    for method, aggregate in AGGREGATIONS.items():
        started = time.perf_counter()
        found = aggregate(votes)
        seconds = time.perf_counter() - started
        rows.append(Measured(f"100,000 votes, 10 classes: {method}, {found.n_rounds} rounds", seconds, "s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data sets; beside the repository by default")
    given = parser.parse_args()
    rows, real = [], rte(given.data)
    if real is None:
        print(f"without RTE: {given.data}/rte_crowd is not there")
    else:
        rows += clean("RTE", lambda seed: real, [given.seeds[0]]) + sweep("RTE", lambda seed: real, given.seeds)
        rows.append(real_workers(*real, given.seeds))

    def crowd(seed: int) -> tuple[Votes, Ints]:
        return simulated(n_items=1500, n_annotators=100, seed=seed)

    rows += clean("simulated", crowd, given.seeds) + sweep("simulated", crowd, given.seeds)
    rows += false_gating(given.seeds) + speed()
    write("crowd", rows, given.seeds)


if __name__ == "__main__":
    main()
