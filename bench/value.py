"""Does `headrace value` name the channel that harms, and do its forecasts hold? On real texts.

1. Ten sources of 300 rows each from the VADER channels, mixed: all labels of one, or a fifth, are wrong, or none. How
   often is that one ranked last, and named as harmful, and how often is an honest one?
2. The same through real workspaces: import, split, embed, value.
3. Learning curves of rows up to a quarter or half, continued to all: how often does the interval hold the error that
   came, on the same test rows, and on others?
4. Seconds for 10,000 rows of ten channels whose vectors are kept.

Texts of Banking77 and CLINC150 are read from the folder of data, and left out where it is not there.

Run: python -m bench.value [--seeds 100] [--workspaces 3] [--data FOLDER]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import corpora, valuation
from bench.reporting import Measured, table, write
from bench.valuation import N_EACH, N_SOURCES, Known, narrow, part, spoiled
from headrace import valuing
from headrace.data import channels, importing
from headrace.records import Interval
from headrace.stats import ridge_probe
from headrace.stats.intervals import wilson
from headrace.stats.valuation import Rows
from headrace.valuing import curves, frozen
from headrace.valuing.sources import Material, Source
from headrace.workspace import init

BAD_SHARES = {"all": 1.0, "a fifth": 0.2, "none": 0.0}
N_TEST_EACH = 60
BAD = f"c{N_SOURCES - 1}"
HARMFUL = ("harms", "contradicts")


def world(train: Rows, test: Rows, k: int, seed: int, bad_share: float) -> Material:
    """Ten like channels, of which the last has bad labels, on its test rows too."""
    rng = np.random.default_rng(seed)
    names = [f"c{i}" for i in range(N_SOURCES)]
    sides = []
    for rows, n_each in ((train, N_EACH), (test, N_TEST_EACH)):
        owners = np.repeat(np.arange(N_SOURCES), n_each)
        drawn = part(rows, rng.permutation(len(rows.targets))[: len(owners)], owners)
        is_bad = (owners == N_SOURCES - 1) & (rng.random(len(owners)) < bad_share)
        sides.append(Rows(drawn.vectors, spoiled(drawn.targets, is_bad, k, rng), owners))
    sources = [Source(name, "examples") for name in names]
    return Material(sources, names, dict.fromkeys(sources, N_EACH), sides[0], sides[0].owners, sides[1], k)


def planted(train: Rows, test: Rows, k: int, n_seeds: int) -> Iterator[Measured]:
    for label, share in BAD_SHARES.items():
        found = [frozen.by_source(world(train, test, k, seed, share)) for seed in range(n_seeds)]
        yield from _told(f"ten sources, {label} of one's labels wrong", found, share)


def workspaces(data: Path, n: int) -> Iterator[Measured]:
    """The same rows through the whole of it."""
    corpus = corpora.load("vader", data)
    rows = [(row.text, row.target) for row in corpus.rows]
    labels = tuple(corpus.task.labels)
    for label, share in BAD_SHARES.items():
        found = []
        for seed in range(n):
            with tempfile.TemporaryDirectory() as folder:
                found.append(_valued(Path(folder), rows, labels, seed, share)["sources"])
        yield from _told(f"workspaces of ten channels, {label} of one's labels wrong", found, share)


def _valued(folder: Path, rows: Sequence[Any], labels: tuple[str, ...], seed: int, bad_share: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    drawn = [rows[i] for i in rng.permutation(len(rows))[: N_SOURCES * N_EACH]]
    with init(folder / "ws", task="tone", labels=labels) as ws:
        for place in range(N_SOURCES):
            name, path = f"c{place}", folder / f"{place}.jsonl"
            with path.open("w") as file:
                for text, said in drawn[place * N_EACH : (place + 1) * N_EACH]:
                    if name == BAD and rng.random() < bad_share:
                        said = labels[(labels.index(said) + int(rng.integers(1, len(labels)))) % len(labels)]
                    file.write(json.dumps({"text": text, "label": said}) + "\n")
            channels.add(ws, name)
            importing.import_rows(ws, name, path)
        return valuing.value(ws)


def _told(what: str, found: Sequence[Sequence[dict[str, Any]]], share: float) -> Iterator[Measured]:
    n = len(found)
    honest = [one["verdict"] in HARMFUL for sources in found for one in sources if one["source"] != BAD or not share]
    if share:
        last = [sources[-1]["source"] == BAD for sources in found]
        named = [sources[-1]["source"] == BAD and sources[-1]["verdict"] in HARMFUL for sources in found]
        yield _share(f"{what}: it is ranked last, of {n}", last, "target: 0.95")
        yield _share(f"{what}: it is named as harmful", named)
    yield _share(f"{what}: an honest one is named", honest)


def _share(what: str, hits: Sequence[bool], beside: str | None = None) -> Measured:
    ends = wilson(sum(hits), len(hits))
    assert ends is not None
    return Measured(what, sum(hits) / len(hits), "share", beside, low=ends.low, high=ends.high)


def back_tests(known: Known, seeds: int) -> Iterator[Measured]:
    """Each channel of VADER and CLINC150, the whole of each corpus, and digits: seen up to a part, then all."""
    same: list[tuple[Interval, float]] = []
    other: list[tuple[Interval, float]] = []
    for name, (train, test, k) in {**valuation._of_channels(known), **known, "digits": valuation._digits()}.items():
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(train.targets))
            halves = np.array_split(np.random.default_rng(seed).permutation(len(test.targets)), 2)
            seen_on, later_on = (part(test, half) for half in halves)
            for last in (0.25, 0.5):
                mine = part(train, order[: int(last * len(order))])
                seen = ridge_probe.points(mine.vectors, mine.targets, seen_on.vectors, seen_on.targets, k, seed=seed)
                forecast = curves.forecast(seen, len(order))
                assert forecast is not None, name
                fit = ridge_probe.sums(train.vectors, train.targets, k)
                for rows, found in ((seen_on, same), (later_on, other)):
                    found.append((forecast, float((fit.answers(rows.vectors) != rows.targets).mean())))
    yield _held("forecasts that hold the error that came, same test rows", same, "target: 0.8")
    yield _held("forecasts that hold the error that came, other test rows", other)


def _held(what: str, found: Sequence[tuple[Interval, float]], beside: str | None = None) -> Measured:
    width = np.median([(one.high - one.low) / 2 for one, _ in found]) * 100
    label = f"{what}, of {len(found)} (level .9, median half-width {width:.1f} points)"
    return _share(label, [one.low <= truth <= one.high for one, truth in found], beside)


def seconds(train: Rows, test: Rows, k: int) -> Measured:
    """Of all that `value` computes from vectors that are at hand."""
    rng = np.random.default_rng(0)
    owners = rng.integers(0, N_SOURCES, 10_000)
    rows = part(train, rng.integers(0, len(train.targets), 10_000), owners)
    test_owners = rng.integers(0, N_SOURCES, len(test.targets))
    names = [f"c{i}" for i in range(N_SOURCES)]
    sources = [Source(name, "examples") for name in names]
    n_rows = {source: int((owners == i).sum()) for i, source in enumerate(sources)}
    given = Material(sources, names, n_rows, rows, owners, Rows(test.vectors, test.targets, test_owners), k)
    started = time.process_time()
    frozen.by_source(given)
    curves.by_channel(given)
    what = f"10,000 rows of ten channels, {len(test.targets)} test rows: sources and curves"
    return Measured(what, time.process_time() - started, "s of one core", "target: 60")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="worlds of ten sources")
    parser.add_argument("--workspaces", type=int, default=3, help="of each kind")
    corpora.add_data_option(parser)
    given = parser.parse_args()
    known: Known = {}
    for name in valuation.TEXTS:
        if corpora.is_there(name, given.data):
            known[name] = valuation.embedded(name, given.data)
        else:
            print(f"without {name}: not in {given.data}")
    train, test, k = known["vader"]
    rows = [seconds(train, test, k)]
    rows += back_tests({name: (*narrow(*sides), n) for name, (*sides, n) in known.items()}, 2)
    print(table(rows), flush=True)
    rows += planted(*narrow(train, test), k, given.seeds)
    print(table(rows), flush=True)
    if given.workspaces:
        rows += workspaces(given.data, given.workspaces)
    write("value", rows, list(range(given.seeds))[:3])


if __name__ == "__main__":
    main()
