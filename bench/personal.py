"""What finding personal data costs, what it finds, and what masking does to answers.

Speed: texts a second on one core, of four kinds: short texts as customers write them, the same with a number that is
nobody's, with a value in every tenth, with a value in each. Found: of values planted in texts, how many are gone (of
whatever kind they were taken for); of what was found, how much was planted. Quality: a regression on frozen vectors of
the base model, with and without the door, on corpora as they are and with a value planted in every second text.

Run: python -m bench.personal [--n-each 1500] [--rows 3000] [--seeds 1 2 3]
"""

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import corpora, personal_material
from bench.reporting import Measured, write
from headrace import vectors
from headrace.config import TaskTable
from headrace.personal import finding
from headrace.personal.policies import Door
from headrace.records import SnapshotRow
from headrace.stats import intervals, linear_probe
from headrace.workspace import Workspace, init, open_workspace

WANTED = {"rows a second": 20_000, "recall": 0.99, "precision": 0.98, "points lost": 0.5}
_CORPORA = ("banking77", "clinc150", "vader")
_TEXTS = (
    "the service was really good today and it works fine for all of us", "why is my card not here yet?",
    "the app is slow since the update, please mend it", "i want my money back", "great film, would see it again",
    "can you tell me when my order will arrive, it has been a week now and nobody answers me",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n-each", type=int, default=1500, help="texts with a value of each kind")
    parser.add_argument("--rows", type=int, default=3000, help="training rows of each corpus; half as many test rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    corpora.add_data_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "ws"
        init(root, task="t", labels=("a", "b")).close()
        measured = [*_speed(root, options.n_each), *_found(options.seeds, options.n_each)]
        for name in _CORPORA:
            if corpora.is_there(name, options.data):
                measured += _quality(root, name, options)
    write("personal", measured, seeds=options.seeds)


def _speed(root: Path, n_each: int) -> list[Measured]:
    """Texts a second through the door, one core, the best of three: what others run beside takes from the rest."""
    rng = random.Random(0)
    planted = [row.text for row in personal_material.rows(0, n_each) if row.kind]
    hard = [row.text for row in personal_material.rows(0, n_each) if not row.kind]
    short = [rng.choice(_TEXTS) for _ in range(20_000)]
    mixes = {
        "short": short,
        "with a number that is nobody's": hard,
        "a value in every tenth": [planted[i % len(planted)] if i % 10 == 0 else text for i, text in enumerate(short)],
        "a value in each": planted,
    }
    measured = []
    for policy in ("off", "mask", "replace"):
        with open_workspace(root, overrides={"privacy.personal": policy}) as ws:
            door = Door(ws)
            for name, texts in mixes.items():
                rate = max(_rate(door, texts) for _ in range(3))
                measured.append(
                    Measured(f"{policy}: {name}", rate, "rows/s", "asked for", rate / WANTED["rows a second"])
                )
    return measured


def _rate(door: Door, texts: Sequence[str]) -> float:
    began = time.process_time()
    for text in texts:
        door.clean("c", text)
    return len(texts) / (time.process_time() - began)


def _found(seeds: Sequence[int], n_each: int) -> list[Measured]:
    n_planted: Counter[str] = Counter()
    n_gone: Counter[str] = Counter()
    n_named: Counter[str] = Counter()
    n_false: Counter[str] = Counter()
    n_found = 0
    for row in (row for seed in seeds for row in personal_material.rows(seed, n_each)):
        start = row.text.find(row.value) if row.kind else -1
        end = start + len(row.value)
        found = finding.find(row.text)
        of_value = [one for one in found if row.kind and one.start < end and start < one.end]
        n_found += len(found)
        n_false.update(one.kind for one in found if one not in of_value)
        n_planted[row.kind] += 1
        covered = sum(one.end - one.start for one in of_value)
        n_gone[row.kind] += bool(row.kind) and covered >= end - start
        n_named[row.kind] += any(one.kind == row.kind for one in of_value)
    kinds = [kind for kind in n_planted if kind]
    all_planted = sum(n_planted[kind] for kind in kinds)
    recall = intervals.wilson(sum(n_gone[kind] for kind in kinds), all_planted)
    precision = intervals.wilson(n_found - n_false.total(), n_found)
    by = f"check digits by {personal_material.validators()}"
    measured = [
        Measured(f"recall, {all_planted} values ({by})", recall.estimate, "share", low=recall.low, high=recall.high),
        Measured(f"precision, {n_found} finds", precision.estimate, "share", low=precision.low, high=precision.high),
    ]
    for kind in sorted(kinds):
        share = intervals.wilson(n_gone[kind], n_planted[kind])
        measured.append(Measured(f"recall, {kind}", share.estimate, "share", low=share.low, high=share.high))
    measured += [Measured(f"named as another kind, {k}", 1 - n_named[k] / n_planted[k], "share") for k in sorted(kinds)]
    return measured + [Measured(f"false finds, {kind}", n, "finds") for kind, n in sorted(n_false.items())]


def _quality(root: Path, name: str, options: argparse.Namespace) -> list[Measured]:
    """Points of accuracy that masking and replacing cost, on a corpus as it is and with values planted."""
    lost: dict[str, list[float]] = {}
    shares: list[float] = []
    for seed in options.seeds:
        corpus = corpora.load(name, options.data, seed=seed)
        rng = random.Random(seed)
        train = rng.sample(corpus.side("train"), min(options.rows, len(corpus.side("train"))))
        test = rng.sample(corpus.side("test"), min(options.rows // 2, len(corpus.side("test"))))
        given = [row.text for row in (*train, *test)]
        planted = [_with_value(text, rng) if rng.random() < 0.5 else text for text in given]
        masked = _through(root, "mask", given)
        shares.append(sum(a != b for a, b in zip(given, masked, strict=True)) / len(given))
        versions = {
            "as it is": (given, {"mask": masked}),
            "a value in every second": (planted, {p: _through(root, p, planted) for p in ("mask", "replace", "hash")}),
        }
        for case, (raw, cleaned) in versions.items():
            before = _accuracy(root, corpus.task, train, test, raw)
            for policy, texts in cleaned.items():
                loss = 100 * (before - _accuracy(root, corpus.task, train, test, texts))
                lost.setdefault(f"{name}, {case}: {policy}", []).append(loss)
    measured = [Measured(f"{name}: texts that the door changes", statistics.fmean(shares), "share")]
    for case, losses in lost.items():
        measured.append(
            Measured(f"{case}, points lost", statistics.fmean(losses), "points", low=min(losses), high=max(losses))
        )
    return measured


def _with_value(text: str, rng: random.Random) -> str:
    kind = rng.choice(sorted(set(finding.KINDS)))
    words = text.split(" ")
    words.insert(rng.randrange(len(words) + 1), personal_material.value_of(kind, rng))
    return " ".join(words)


def _through(root: Path, policy: str, texts: Sequence[str]) -> list[str]:
    with open_workspace(root, overrides={"privacy.personal": policy}) as ws:
        door = Door(ws)
        return [door.clean("c", text).text for text in texts]


def _accuracy(
    root: Path, task: TaskTable, train: Sequence[SnapshotRow], test: Sequence[SnapshotRow], texts: Sequence[str]
) -> float:
    labels = sorted({row.target for row in train})
    targets = np.array([labels.index(row.target) if row.target in labels else -1 for row in (*train, *test)])
    with open_workspace(root) as ws:
        found = _vectors(ws, texts)
    weights = linear_probe.fit(found[: len(train)], targets[: len(train)], len(labels))
    answers = linear_probe.log_probs(weights, found[len(train) :]).argmax(axis=1)
    return float((answers == targets[len(train) :]).mean())


def _vectors(ws: Workspace, texts: Sequence[str]) -> Any:
    return vectors.of_inputs(ws, list(texts), task="t")


if __name__ == "__main__":
    main()
