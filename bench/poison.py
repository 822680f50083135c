"""What does poisoned feedback do to the next version? All the way: store, known answers, bursts, caps, snapshot, probe.

Rows of the VADER channels: 1,500 are imported with their labels; about 1,500 others a crowd of 100 simulated honest
people gives five corrections each, right in 65 to 95 % of them, through the tables of predictions and feedback. Hostile
accounts are added until they cast 10 to 50 % of all votes. The answers of 2.4 % of the asked rows are known, and the
first three questions of everybody are among them. Then, by the functions that `improve` calls: labels of corrections,
suspension of bursts, settlement, snapshot. Measured are the targets of that snapshot that came from feedback, against
the truth, and a logistic regression on frozen vectors of its training rows by their weights, on the test side; beside
it the same without any gate: every vote counts alike, majority. Then the same where each row is asked about once, so
that nobody can be outvoted ("alone").

Run: python -m bench.poison [--seeds 1 2 3] [--shares .1 .3 .5]
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import crowd
from bench.reporting import Measured, write
from bench.sentiment import LABELS, rows_by_side, share_of
from headrace import trusting, vectors
from headrace.data import channels, snapshot
from headrace.data.importing import import_rows
from headrace.feedback import known, trust
from headrace.ids import new_id
from headrace.records import Channel, ModelVersion, SnapshotRow
from headrace.stats import linear_probe
from headrace.stats.annotators import UNKNOWN, Ints, Votes
from headrace.store import predictions, schema
from headrace.store.noun import insert_many, origin
from headrace.store.predictions import LogRow
from headrace.tasks.inputs import text_hash
from headrace.tasks.text_classification import confusion_of, macro_f1
from headrace.workspace import Workspace, init

N_IMPORTED, N_ASKED = 1_500, 1_500
N_HONEST, N_VOTES = 100, 5
SHARES = (0.1, 0.3, 0.5)
KINDS = (*crowd.KINDS, "burst")
_START = datetime(2026, 3, 1, tzinfo=UTC)
_DAYS = 30
_SIZES = {"sybil": 15}
_SIZE = 200


@dataclass(frozen=True)
class Outcome:
    """What one crowd did to one snapshot."""

    accuracy: float
    """Of targets that came from feedback; known answers are not counted."""
    kept: float
    """Share of the examples with feedback that became rows."""
    macro_f1: float
    raw_macro_f1: float
    """Where every vote counts alike."""
    honest_gated: float
    """Share of honest people whose votes do not count."""
    hostile_counted: float
    """Share of the votes that count which are hostile."""
    seconds: float
    """Of the settlement."""


@dataclass(frozen=True)
class World:
    """Rows to import and rows to ask about, the same for every attack."""

    imported: Sequence[SnapshotRow]
    asked: Sequence[SnapshotRow]
    cache: Path
    """A folder of vectors, computed once."""

    @property
    def truth(self) -> Ints:
        return np.array([LABELS.index(row.target) for row in self.asked])


def world(folder: Path) -> World:
    """Rows of all channels, drawn by hash, no text twice."""
    found = {row.text: row for side in rows_by_side().values() for row in side}
    drawn = sorted(found.values(), key=lambda row: share_of(f"poison {row.key}"))
    imported, asked = drawn[:N_IMPORTED], drawn[N_IMPORTED : N_IMPORTED + N_ASKED]
    with init(folder / "vectors", task="tone", labels=LABELS) as ws:
        vectors.of_inputs(ws, [row.text for row in (*imported, *asked)])
        return World(imported, asked, ws.state_folder / "cache")


def honest(truth: Ints, first: Ints, *, n_votes: int, seed: int) -> Votes:
    """Some votes on each item by different people, and three on known ones by each of them first."""
    rng = np.random.default_rng(seed)
    accuracy = rng.uniform(0.65, 0.95, N_HONEST)
    items = np.concatenate([rng.choice(first, N_HONEST * crowd.N_FIRST), np.repeat(np.arange(len(truth)), n_votes)])
    drawn = [rng.permutation(N_HONEST)[:n_votes] for _ in range(len(truth))]
    who = np.concatenate([np.repeat(np.arange(N_HONEST), crowd.N_FIRST), *drawn])
    wrong = (truth[items] + rng.integers(1, len(LABELS), len(items))) % len(LABELS)
    said = np.where(rng.random(len(items)) < accuracy[who], truth[items], wrong)
    return Votes(items, who, said, len(truth), N_HONEST, len(LABELS))


def run(one: World, kind: str | None, share: float, *, seed: int, folder: Path, n_votes: int = N_VOTES) -> Outcome:
    """A workspace with this crowd's feedback, settled and frozen."""
    truth = one.truth
    is_known = crowd.some_known(truth, crowd.KNOWN_SHARE, seed=seed)
    first = np.flatnonzero(is_known != UNKNOWN)
    votes = honest(truth, first, n_votes=n_votes, seed=seed)
    n_honest = len(votes)
    if kind is not None:
        flips = "flip" if kind == "burst" else kind
        size = _SIZES.get(kind, _SIZE)
        votes = crowd.attacked(votes, truth, flips, share, size=size, seed=seed, first=first)
    with init(folder, task="tone", labels=LABELS) as made:
        ws = replace(made, clock=lambda: _START + timedelta(days=_DAYS + 1))
        shutil.copytree(one.cache, ws.state_folder / "cache")
        _fill(ws, one, votes, n_honest, in_burst=kind == "burst", seed=seed)
        known.add(ws, [(one.asked[i].text, one.asked[i].target) for i in first])
        trusting.collect(ws)
        started = time.perf_counter()
        settled = trusting.settlement(ws)
        seconds = time.perf_counter() - started
        frozen = trusting.frozen(ws, settled)
        raw, _ = snapshot.current(ws, "tone")
        return _outcome(ws, one, snapshot.rows(ws, frozen), raw, settled, first, seconds)


def _fill(ws: Workspace, one: World, votes: Votes, n_honest: int, *, in_burst: bool, seed: int) -> None:
    """Imports, answers to all that is asked about, and a correction for each vote."""
    channel, version = channels.add(ws, "web"), plant_version(ws)
    source = ws.root / "rows.csv"
    _write(source, one.imported)
    import_rows(ws, "web", source)
    ids = _answers(ws, channel, version, one.asked)
    rng = np.random.default_rng(seed)
    at = rng.uniform(0, _DAYS * 86_400, len(votes))
    if in_burst:
        at[n_honest:] = _DAYS * 86_400 + rng.uniform(0, 3_000, len(votes) - n_honest)
    order = np.argsort(at)
    columns = ("id", "prediction_id", "correction", "labeller", "at")
    rows = [
        (
            new_id("feedback"),
            ids[votes.items[v]],
            LABELS[votes.classes[v]],
            f"{'honest' if votes.annotators[v] < N_HONEST else 'hostile'}-{votes.annotators[v]}",
            _START + timedelta(seconds=float(at[v])),
        )
        for v in order
    ]
    blank = dict.fromkeys(("metric", "value", "comment", "idempotency_key", "event"))
    same = {"kind": "correction", "used": False, **blank, **origin(ws.config_hash)}
    with ws.store.write() as conn:
        insert_many(conn, schema.feedback, columns, rows, same)


def _write(path: Path, rows: Sequence[SnapshotRow]) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "text", "label"])
        lines.writerows([row.key, row.text, row.target] for row in rows)


def _answers(ws: Workspace, channel: Channel, version: ModelVersion, asked: Sequence[SnapshotRow]) -> list[str]:
    output = {"label": LABELS[0], "confidence": 0.5, "scores": {}}
    rows = [
        LogRow(
            new_id("prediction"), new_id("request"), 0, "tone", channel.id, None, "control", None, version.id,
            version.artifact, None, row.text, None, text_hash(row.text), output, 1.0, None, _START,
        )
        for row in asked
    ]  # fmt: skip
    with ws.store.write() as conn:
        predictions.add_rows(conn, rows, config_hash=ws.config_hash)
    return [row.id for row in rows]


def plant_version(ws: Workspace) -> ModelVersion:
    """A version that answers refer to."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import planted

    return planted.plant_version(ws)


def _outcome(
    ws: Workspace,
    one: World,
    rows: Sequence[SnapshotRow],
    raw: Sequence[SnapshotRow],
    settled: Any,
    first: Ints,
    seconds: float,
) -> Outcome:
    truth = {row.text: row.target for row in one.asked}
    is_known = {one.asked[i].text for i in first}
    back = [row for row in rows if row.origin == "feedback" and row.text not in is_known]
    n_back = sum(row.origin == "feedback" and row.text not in is_known for row in raw)
    sources = [source for source in trust.judge(ws) if source.source.labeller is not None]
    gated = {s.source for s in sources if s.weight == 0} | set(settled.gated) - {
        source for source, weight in settled.gated.items() if weight > 0
    }
    counted = [vote.labeller.startswith("hostile") for vote in settled.counted]
    return Outcome(
        accuracy=float(np.mean([row.target == truth[row.text] for row in back])) if back else float("nan"),
        kept=len(back) / max(1, n_back),
        macro_f1=_probe(ws, rows),
        raw_macro_f1=_probe(ws, raw),
        honest_gated=sum(str(source.labeller).startswith("honest") for source in gated) / N_HONEST,
        hostile_counted=float(np.mean(counted)) if counted else 0.0,
        seconds=seconds,
    )


def _probe(ws: Workspace, rows: Sequence[SnapshotRow]) -> float:
    """Macro-F1 on the test side of a logistic regression on frozen vectors, by the weights of the training rows."""
    train, test = ([row for row in rows if row.side == side] for side in ("train", "test"))
    found = [vectors.of_inputs(ws, [row.text for row in part]) for part in (train, test)]
    targets = [np.array([LABELS.index(row.target) for row in part]) for part in (train, test)]
    weights = np.array([row.weight for row in train])
    fitted = linear_probe.fit(found[0], targets[0], len(LABELS), row_weights=weights, penalty=1.0)
    guess: NDArray[Any] = linear_probe.log_probs(fitted, found[1]).argmax(axis=1)
    return float(macro_f1(confusion_of(targets[1], guess, len(LABELS))))


def sweep(
    one: World,
    seeds: Sequence[int],
    shares: Sequence[float],
    kinds: Sequence[str],
    folder: Path,
    *,
    n_votes: int = N_VOTES,
) -> list[Measured]:
    name = "" if n_votes > 1 else "alone, "
    clean = {s: run(one, None, 0.0, seed=s, folder=folder / f"clean-{n_votes}-{s}", n_votes=n_votes) for s in seeds}
    quiet = f"{name}nobody hostile"
    rows = [
        Measured(f"{quiet}: accuracy of settled targets", _mean([c.accuracy for c in clean.values()]), ""),
        Measured(f"{quiet}: macro-F1 of the probe", _mean([c.macro_f1 for c in clean.values()]), ""),
        Measured(f"{quiet}: macro-F1, every vote alike", _mean([c.raw_macro_f1 for c in clean.values()]), ""),
        Measured(f"{quiet}: examples kept", _mean([c.kept for c in clean.values()]), "share"),
        Measured(f"{quiet}: honest gated", _mean([c.honest_gated for c in clean.values()]), "share"),
    ]
    for kind in kinds:
        by_share = {}
        for share in shares:
            by_share[share] = []
            for seed in seeds:
                place = folder / f"{kind}-{share}-{seed}"
                by_share[share].append(run(one, kind, share, seed=seed, folder=place, n_votes=n_votes))
                shutil.rmtree(place)
            print(f"{name}{kind}", share, by_share[share][0], flush=True)
        rows += _rows(f"{name}{kind}", by_share, clean, seeds, n_votes=n_votes)
    rows.append(Measured(f"{quiet}: seconds of a settlement", max(c.seconds for c in clean.values()), "s"))
    return rows


def _rows(
    kind: str, by_share: dict[float, list[Outcome]], clean: dict[int, Outcome], seeds: Sequence[int], *, n_votes: int
) -> list[Measured]:
    """The worst share of each attack: every figure by itself."""
    rows = []

    def worst(what: str, unit: str, values: dict[float, list[float]], target: str | None, *, least: bool) -> None:
        pick = min if least else max
        share = pick(values, key=lambda one: _mean(values[one]))
        low, high = min(values[share]), max(values[share])
        beside = f"{target + '; ' if target else ''}at {share:.0%} of the votes"
        rows.append(Measured(f"{kind}: {what}", _mean(values[share]), unit, beside, low=low, high=high))

    def each(figure: str) -> dict[float, list[float]]:
        return {share: [getattr(one, figure) for one in found] for share, found in by_share.items()}

    def lost(figure: str) -> dict[float, list[float]]:
        before = [clean[seed].macro_f1 for seed in seeds]
        return {s: [100 * (b - v) for b, v in zip(before, own, strict=True)] for s, own in each(figure).items()}

    worst("accuracy of settled targets", "", each("accuracy"), "target: .93" if n_votes > 1 else None, least=True)
    worst("points of macro-F1 lost by the probe", "points", lost("macro_f1"), "target: 1", least=False)
    worst("points of macro-F1 lost, every vote alike", "points", lost("raw_macro_f1"), None, least=False)
    worst("honest people gated", "share", each("honest_gated"), "target: .02", least=False)
    worst("examples kept", "share", each("kept"), None, least=True)
    worst("hostile votes among those that count", "share", each("hostile_counted"), None, least=False)
    return rows


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one = world(Path(folder))
        rows = sweep(one, given.seeds, given.shares, given.kinds, Path(folder))
        alone = [kind for kind in given.kinds if kind in ("flip", "drip", "targeted")]
        rows += sweep(one, given.seeds, [max(given.shares)], alone, Path(folder), n_votes=1)
    write("poison", rows, given.seeds)


if __name__ == "__main__":
    main()
