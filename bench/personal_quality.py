"""What masking personal data does to answers.

A regression on frozen vectors of the base model, with and without the door, on corpora as they are and with a value
planted in every second text.

Run: python -m bench.personal_quality [--rows 3000] [--seeds 1 2 3]
"""

import argparse
import random
import statistics
import tempfile
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
from headrace.stats import linear_probe
from headrace.workspace import Workspace, init, open_workspace

_CORPORA = ("banking77", "clinc150", "vader")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=3000, help="training rows of each corpus; half as many test rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    corpora.add_data_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "ws"
        init(root, task="t", labels=("a", "b")).close()
        there = [name for name in _CORPORA if corpora.is_there(name, options.data)]
        measured = [one for name in there for one in _quality(root, name, options)]
    write("personal_quality", measured, seeds=options.seeds)


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
