"""Are bad sources found, bad labels, and what more labels would bring? On real texts, as vectors of the base model.

1. Ten sources of 300 rows each from the VADER channels, mixed, as 64 principal components of the vectors; a fifth of
   the labels of one is wrong. How often is it ranked last, by each way to value sources, and how alike are values under
   two seeds?
2. Seconds for 10,000 rows.
3. One label in ten is wrong: precision and recall of the suspects, and accuracy on clean test rows after they are left
   out. VADER's own labels are means of raters around a cut, so wrong ones and narrow ones look alike there.
4. Learning curves seen up to a share of the rows, continued to all of them: how often does the forecast hold the truth?

Texts of Banking77 and CLINC150 are read from the folder of data, and left out where it is not there.

Run: python -m bench.valuation [--seeds 100] [--data FOLDER]
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import corpora, processes
from bench.reporting import Measured, table, write
from headrace.config import TaskTable
from headrace.records import Interval
from headrace.stats import label_errors, learning_curves, linear_probe, valuation
from headrace.stats.intervals import wilson
from headrace.stats.valuation import Rows

N_SOURCES, N_EACH, N_HELD_OUT, BAD_SHARE = 10, 300, 500, 0.2
N_MODELS = 40
"""Of Data-OOB in the hundred worlds; its default is measured for time and for stability."""
NOISE = 0.1
MAX_ROWS = {"train": 4000, "test": 1500}
N_COLUMNS = 64
"""Of the vectors in the hundred worlds and of the curves: the first principal components. Twice as many where classes
are many; the seconds are those of all 384."""
CACHE = processes.WORK / "vectors"
CHANNELS = ("amazon", "movies", "nyt", "tweets")  # of VADER, in order
TEXTS = ("vader", "banking77", "clinc150")
Known = dict[str, tuple[Rows, Rows, int]]


def embedded(name: str, data: Path) -> tuple[Rows, Rows, int]:
    """Training and test rows as vectors, owned by their channels, and the number of classes."""
    from headrace.finetune.embeddings import embed

    corpus = corpora.load(name, data)
    labels, channels = list(corpus.task.labels or ()), sorted({row.channel for row in corpus.rows})
    sides = []
    for side in ("train", "test"):
        rows = corpus.side(side)[
            : MAX_ROWS[side]
        ]  # in an order that hangs on a hash, so classes and channels are mixed
        path = CACHE / f"{name}-{side}-{len(rows)}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, embed("minilm-l6", [row.text for row in rows], TaskTable(max_tokens=64)))
        targets = np.array([labels.index(row.target) for row in rows])
        sides.append(Rows(np.load(path), targets, np.array([channels.index(row.channel) for row in rows])))
    return sides[0], sides[1], len(labels)


def narrow(train: Rows, test: Rows, n_columns: int = N_COLUMNS) -> tuple[Rows, Rows]:
    """The first principal components of the training vectors, for both."""
    axes = np.linalg.eigh(np.cov(train.vectors.T))[1][:, -n_columns:]
    return Rows(train.vectors @ axes, train.targets, train.owners), Rows(test.vectors @ axes, test.targets, test.owners)


def part(rows: Rows, chosen: NDArray[Any], owners: NDArray[Any] | None = None) -> Rows:
    return Rows(rows.vectors[chosen], rows.targets[chosen], rows.owners[chosen] if owners is None else owners)


def spoiled(targets: NDArray[np.int64], which: NDArray[np.bool_], k: int, rng: np.random.Generator) -> Any:
    """Targets with others in place of those of some rows."""
    return np.where(which, (targets + rng.integers(1, k, len(targets))) % k, targets)


def world(train: Rows, test: Rows, k: int, seed: int) -> tuple[Rows, Rows]:
    """Ten like sources, of which the last has bad labels; and held-out rows."""
    rng = np.random.default_rng(seed)
    rows = part(
        train, rng.permutation(len(train.targets))[: N_SOURCES * N_EACH], np.repeat(np.arange(N_SOURCES), N_EACH)
    )
    is_bad = (rows.owners == N_SOURCES - 1) & (rng.random(len(rows.targets)) < BAD_SHARE)
    held_out = part(test, rng.permutation(len(test.targets))[:N_HELD_OUT])
    return Rows(rows.vectors, spoiled(rows.targets, is_bad, k, rng), rows.owners), held_out


def by_leaving_out(rows: Rows, held_out: Rows, k: int, seed: int) -> list[int]:
    found = [c for c in valuation.leave_one_out(rows, held_out, k) if c.group is None]
    return [c.source for c in sorted(found, key=lambda c: -c.loss.estimate)]


WAYS: dict[str, Callable[[Rows, Rows, int, int], list[int]]] = {
    "leave-one-out": by_leaving_out,
    "data-oob": lambda rows, _, k, seed: valuation.data_oob(rows, k, seed=seed, n_models=N_MODELS).ranked(),
    "knn-shapley": lambda rows, held_out, k, seed: valuation.knn_shapley(rows, held_out).ranked(),
}


def planted_sources(train: Rows, test: Rows, k: int, n_seeds: int) -> list[Measured]:
    n_last = dict.fromkeys(WAYS, 0)
    for seed in range(n_seeds):
        rows, held_out = world(train, test, k, seed)
        for way, ranked in WAYS.items():
            n_last[way] += ranked(rows, held_out, k, seed)[-1] == N_SOURCES - 1
    measured = []
    for way, n in n_last.items():
        ends = wilson(n, n_seeds)
        assert ends is not None
        what = f"one bad source of ten is ranked last, {way}"
        measured.append(Measured(what, n / n_seeds, "share", "target: 0.95", low=ends.low, high=ends.high))
    return measured


def stability(train: Rows, k: int) -> list[Measured]:
    """Rank correlation of values under two seeds: of rows, and of ten sources with 0 to 45 % of bad labels."""
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    rows = part(
        train, rng.permutation(len(train.targets))[: N_SOURCES * N_EACH], np.repeat(np.arange(N_SOURCES), N_EACH)
    )
    is_bad = rng.random(len(rows.targets)) < 0.05 * rows.owners
    rows = Rows(rows.vectors, spoiled(rows.targets, is_bad, k, rng), rows.owners)
    one, other = (valuation.data_oob(rows, k, seed=seed) for seed in (1, 2))
    of_rows = spearmanr(one.rows, other.rows).statistic
    sources = [[side.sources[s].estimate for s in range(N_SOURCES)] for side in (one, other)]
    return [
        Measured("data-oob: rank correlation of rows under two seeds", float(of_rows), "", "target: 0.9"),
        Measured("data-oob: rank correlation of sources", float(spearmanr(*sources).statistic), "", "target: 0.9"),
        Measured(
            "data-oob: with the share of bad labels", -float(spearmanr(sources[0], range(N_SOURCES)).statistic), ""
        ),
    ]


def seconds(train: Rows, test: Rows, k: int) -> list[Measured]:
    rng = np.random.default_rng(0)
    rows = part(train, rng.integers(0, len(train.targets), 10_000), rng.integers(0, 10, 10_000))
    held_out = part(test, rng.permutation(len(test.targets))[:2000])
    ways: dict[str, Callable[[], object]] = {
        "leave-one-out": lambda: valuation.leave_one_out(rows, held_out, k),
        "data-oob": lambda: valuation.data_oob(rows, k, seed=0),
        "knn-shapley": lambda: valuation.knn_shapley(rows, held_out),
    }
    measured = []
    for way, run in ways.items():
        started = time.process_time()
        run()
        what = f"10,000 rows of 10 sources, {len(held_out.targets)} held-out rows: {way}"
        measured.append(Measured(what, time.process_time() - started, "s of one core", "target: 60"))
    return measured


def channels(train: Rows, test: Rows, k: int) -> Iterator[Measured]:
    """What each of VADER's channels adds to all, in points."""
    for one in valuation.leave_one_out(train, test, k):
        if one.group is None:
            ends = one.accuracy
            what = f"vader: what the channel {CHANNELS[one.source]} adds for all"
            yield Measured(what, ends.estimate * 100, "points", low=ends.low * 100, high=ends.high * 100)


def bad_labels(name: str, train: Rows, test: Rows, k: int, seeds: int) -> list[Measured]:
    precision, recall, gained = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        chosen = part(train, rng.permutation(len(train.targets))[:6000])
        is_bad = rng.random(len(chosen.targets)) < NOISE
        labels = spoiled(chosen.targets, is_bad, k, rng)
        found = label_errors.suspects(linear_probe.out_of_fold(chosen.vectors, labels, k, seed=seed), labels)
        precision.append(is_bad[found.rows].mean())
        recall.append(is_bad[found.rows].sum() / is_bad.sum())
        kept = np.ones(len(labels), dtype=bool)
        kept[found.rows] = False
        accuracies = [
            accuracy(chosen.vectors[rows], labels[rows], test, k) for rows in (np.ones(len(labels), dtype=bool), kept)
        ]
        gained.append(accuracies[1] - accuracies[0])
    rows = [
        (f"{name}, 10 % bad labels: precision of the suspects", precision, 1, "share", "target: 0.8"),
        (f"{name}, 10 % bad labels: recall", recall, 1, "share", "target: 0.6"),
        (f"{name}, 10 % bad labels: clean test after leaving them out", gained, 100, "points", "target: -0.2"),
    ]
    return [
        Measured(what, float(np.mean(v)) * f, unit, beside, low=min(v) * f, high=max(v) * f)
        for what, v, f, unit, beside in rows
    ]


def accuracy(vectors: NDArray[Any], labels: NDArray[np.int64], test: Rows, k: int) -> float:
    weights = linear_probe.fit(vectors, labels, k)
    return float((linear_probe.log_probs(weights, test.vectors).argmax(axis=1) == test.targets).mean())


def forecasts(name: str, train: Rows, test: Rows, k: int, seeds: int) -> list[tuple[Interval, float]]:
    """Curves on rows up to a quarter or half, continued to all: the forecast, and what came."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(train.targets))
        for last in (0.25, 0.5):
            sizes, errors = [], []
            for share in last * 2.0 ** -np.arange(5):
                for _ in range(3):
                    drawn = rng.permutation(order[: int(last * len(order))])[: max(20, int(share * len(order)))]
                    sizes.append(len(drawn))
                    errors.append(1 - accuracy(train.vectors[drawn], train.targets[drawn], test, k))
            curve = learning_curves.fit(sizes, errors)
            assert curve is not None
            truth = 1 - accuracy(train.vectors, train.targets, test, k)
            found.append((learning_curves.forecast(curve, len(order), seed=seed, n_repeats=1), truth))
    return found


def back_tests(known: Known, seeds: int) -> list[Measured]:
    """Of each corpus, of each channel of VADER and CLINC150, and of scikit-learn's digits."""
    rows, every = [], []
    for name, (train, test, k) in {**_of_channels(known), "vader": known["vader"], "digits": _digits()}.items():
        found = forecasts(name, train, test, k, seeds)
        every.append((name.rstrip("0123456789 "), found))
    for group in dict.fromkeys(name for name, _ in every):
        rows.append(_held(f"{group}: forecasts", [one for name, found in every if name == group for one in found]))
    rows.append(_held("all: forecasts", [one for _, found in every for one in found], "target: 0.8"))
    return rows


def _held(what: str, found: list[tuple[Interval, float]], beside: str | None = None) -> Measured:
    n = sum(ends.low <= truth <= ends.high for ends, truth in found)
    ends = wilson(n, len(found))
    assert ends is not None
    width = np.median([(one.high - one.low) / 2 for one, _ in found]) * 100
    label = f"{what} of {len(found)} that hold the truth (level .9, median half-width {width:.1f} points)"
    return Measured(label, n / len(found), "share", beside, low=ends.low, high=ends.high)


def _of_channels(known: Known) -> Known:
    parts: Known = {}
    for name in ("vader", "clinc150"):
        if name in known:
            train, test, _ = known[name]
            for owner in np.unique(train.owners):
                mine, held_out = (part(rows, rows.owners == owner) for rows in (train, test))
                classes = np.unique(np.concatenate([mine.targets, held_out.targets]))  # of one domain, not of all ten
                mine, held_out = (
                    Rows(rows.vectors, np.searchsorted(classes, rows.targets), rows.owners) for rows in (mine, held_out)
                )
                parts[f"{name}'s channel {owner}"] = (mine, held_out, len(classes))
    return parts


def _digits() -> tuple[Rows, Rows, int]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    rows = Rows(x / 16, y, np.zeros(len(y), dtype=int))
    return part(rows, order[:1000]), part(rows, order[1000:]), 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="worlds of ten sources")
    corpora.add_data_option(parser)
    given = parser.parse_args()
    known: Known = {}
    for name in TEXTS:
        if corpora.is_there(name, given.data):
            known[name] = embedded(name, given.data)
        else:
            print(f"without {name}: not in {given.data}")
    train, test, k = known["vader"]
    rows = planted_sources(*narrow(train, test), k, given.seeds)
    rows += stability(narrow(train, test)[0], k) + seconds(train, test, k)
    rows += channels(train, test, k)
    print(table(rows), flush=True)
    for name, (mine, held_out, n_classes) in known.items():
        if n_classes > 10:
            rows += bad_labels(name, *narrow(mine, held_out, 2 * N_COLUMNS), n_classes, 1)
        else:
            rows += bad_labels(name, mine, held_out, n_classes, 3)
    print(table(rows), flush=True)
    rows += back_tests({name: (*narrow(*sides), n) for name, (*sides, n) in known.items()}, 2)
    write("valuation", rows, list(range(given.seeds))[:3])


if __name__ == "__main__":
    main()
