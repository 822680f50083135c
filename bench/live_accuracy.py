"""Does live accuracy hold the truth, and is drift found, along the whole path from the prediction log to the answer?

Simulated traffic of three channels with accuracies of their own; audits are drawn by doubt, as the server draws them;
users tell of 5 % of the wrong answers and of 1 % of the right ones. Many runs go through the sums alone, some through a
real store: log, review queue, answers, `feedback.accuracy.live`. Then the same for drift: a million requests without a
change through `feedback.drift.watch`, then classes that come three times as often, and more wrong answers.

Run: python -m bench.live_accuracy [--runs 2000] [--stored 50] [--quiet 1000000]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.feedback import accuracy, drift, filling, reviews
from headrace.records import Interval
from headrace.release import controls
from headrace.stats import audits
from headrace.stats.intervals import wilson
from headrace.store import reviews as review_rows
from headrace.workspace import Workspace, init, open_workspace

SPOKEN_RIGHT, SPOKEN_WRONG = 0.01, 0.05
ACCURACIES = {"web": 0.93, "phone": 0.85, "mail": 0.9}
SHARES = {"web": 0.6, "phone": 0.3, "mail": 0.1}
N_REQUESTS, AUDITED = 20_000, 0.05
N_STORED, AUDITED_STORED = 4_000, 0.15
SKIPPED_WRONG, SKIPPED_RIGHT = 0.2, 0.05
LABELS = tuple(f"c{k}" for k in range(10))
N_BEFORE, N_AFTER = 2_000, 600
N_AUDIT_RUN = 60_000
_STEP = 50_000


@dataclass(frozen=True)
class Traffic:
    """Answers of one channel (N): right or not, confidence, probability of an audit, whether it was drawn."""

    right: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    probability: NDArray[np.float64]
    is_drawn: NDArray[np.bool_]
    is_told: NDArray[np.bool_]


def traffic(rng: np.random.Generator, channel: str, n: int, audited: float) -> Traffic:
    mean = ACCURACIES[channel]
    confidence = rng.beta(5 * mean, 5 * (1 - mean), n).round(6)
    doubt = np.sqrt(confidence * (1 - confidence))
    p = audits.probabilities(doubt, audits.scale_of(doubt, audited))
    right = rng.random(n) < confidence
    told = rng.random(n) < np.where(right, SPOKEN_RIGHT, SPOKEN_WRONG)
    return Traffic(right, confidence, p, rng.random(n) < p, told)


class Coverage:
    """How often intervals hold the truth."""

    def __init__(self, truth: float) -> None:
        self.truth, self.found = truth, list[Interval]()

    def add(self, interval: Interval | None) -> None:
        assert interval is not None
        self.found.append(interval)

    def rows(self, name: str, beside: str = "target: 0.94 to 0.96") -> list[Measured]:
        held = sum(one.low <= self.truth <= one.high for one in self.found)
        ends = wilson(held, len(self.found))
        assert ends is not None
        widths = [one.high - one.low for one in self.found]
        errors = [abs(one.estimate - self.truth) for one in self.found]
        return [
            Measured(
                f"{name}: 95 % intervals that hold the truth", ends.estimate, "share", beside, None, ends.low, ends.high
            ),
            Measured(f"{name}: mean width", 100 * float(np.mean(widths)), "points"),
            Measured(f"{name}: mean distance from the truth", 100 * float(np.mean(errors)), "points"),
        ]


def by_sums(n_runs: int, seed: int) -> list[Measured]:
    """Many runs of the sums: each channel, all together, unanswered audits, and what volunteers say."""
    rng, truth = np.random.default_rng(seed), sum(SHARES[name] * ACCURACIES[name] for name in SHARES)
    whole, one, naive, n_audits = Coverage(truth), Coverage(ACCURACIES["web"]), Coverage(truth), []
    bounded, alike = Coverage(truth), Coverage(truth)
    for _ in range(n_runs):
        parts = {name: traffic(rng, name, int(share * N_REQUESTS), AUDITED) for name, share in SHARES.items()}
        tallies = {name: _tally(part, part.is_drawn, part.right) for name, part in parts.items()}
        whole.add(accuracy.together(list(tallies.values())))
        one.add(accuracy.together([tallies["web"]]))
        n_audits.append(sum(sums.n_audited for sums in tallies.values()))
        told, right = (sum(counted) for counted in zip(*map(_told, parts.values()), strict=True))
        naive.add(wilson(right, told))
        ends = [_with_gaps(rng, part) for part in parts.values()]
        answered, wrong, good = (accuracy.together([end[k] for end in ends]) for k in range(3))
        alike.add(answered)
        bounded.add(audits.between(answered, wrong, good))
    rows = [Measured("audits of a run", float(np.mean(n_audits)), f"of {N_REQUESTS:,} answers")]
    rows += whole.rows("all channels") + one.rows("one channel") + naive.rows("volunteered feedback", "must fail")
    rows += alike.rows("wrong answers' audits answered less often, taken to be alike", "must fail")
    return rows + bounded.rows("wrong answers' audits answered less often, bounds", "target: 0.94 or more")


def _tally(part: Traffic, is_answered: NDArray[np.bool_], right: NDArray[Any]) -> audits.Tally:
    return audits.tally(part.probability, is_answered, right.astype(np.float64), part.confidence)


def _told(part: Traffic) -> tuple[int, int]:
    return int(part.is_told.sum()), int((part.is_told & part.right).sum())


def _with_gaps(rng: np.random.Generator, part: Traffic) -> tuple[audits.Tally, audits.Tally, audits.Tally]:
    """Sums of the answered audits, and with the others taken to be wrong or right."""
    skipped = part.is_drawn & (rng.random(len(part.right)) < np.where(part.right, SKIPPED_RIGHT, SKIPPED_WRONG))
    wrong, good = (np.where(skipped, end, part.right) for end in (0.0, 1.0))
    return (
        _tally(part, part.is_drawn & ~skipped, part.right),
        _tally(part, part.is_drawn, wrong),
        _tally(part, part.is_drawn, good),
    )


@contextmanager
def workspace(n_tasks: int, labels: Sequence[str]) -> Iterator[Workspace]:
    """A workspace of many tasks, so that runs do not meet."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "ws"
        with init(root, task="t0", labels=tuple(labels)) as ws:
            known = ", ".join(f'"{label}"' for label in labels)
            more = "".join(f'[tasks."t{k}"]\nlabels = [{known}]\n' for k in range(1, n_tasks))
            (ws.root / "headrace.toml").write_text((ws.root / "headrace.toml").read_text("utf-8") + more, "utf-8")
        with open_workspace(root) as ws:
            yield ws


def by_the_store(n_runs: int, seed: int) -> list[Measured]:
    """Some runs along the whole path; audits are drawn by the hash of each answer's id."""
    import audited
    import planted

    rng, truth = np.random.default_rng(seed), sum(SHARES[name] * ACCURACIES[name] for name in SHARES)
    found, naive, seconds = Coverage(truth), Coverage(truth), []
    with workspace(n_runs, ("a", "b")) as ws:
        channels = {name: planted.plant_channel(ws, name) for name in SHARES}
        later = replace(ws, clock=lambda: planted.NOON + timedelta(days=8))
        for k in range(n_runs):
            version = planted.plant_version(ws, task=f"t{k}")
            controls.ensure_control(later, f"t{k}")
            right_of: dict[str, bool] = {}
            for name, share in SHARES.items():
                part = traffic(rng, name, int(share * N_STORED), AUDITED_STORED)
                told = np.where(part.is_told, np.where(part.right, "a", "b"), "")
                answers = [
                    audited.Answer("a", c, told=said or None, probability=p)
                    for c, p, said in zip(
                        part.confidence.tolist(), part.probability.tolist(), told.tolist(), strict=True
                    )
                ]
                ids = audited.plant_log(ws, channels[name], version, answers)
                right_of |= dict(zip(ids, part.right.tolist(), strict=True))
            _answer_audits(later, f"t{k}", right_of)
            started = time.perf_counter()
            live = accuracy.live(later, f"t{k}")
            seconds.append(time.perf_counter() - started)
            assert live.overall is not None
            found.add(live.overall.accuracy)
            naive.add(wilson(live.overall.volunteered.n_right, live.overall.volunteered.n))
    name = f"through the store, {n_runs} runs"
    rows = found.rows(name, "target: 0.94 to 0.96") + naive.rows(f"{name}, volunteered feedback", "must fail")
    return [
        *rows,
        Measured(f"{name}: time of one figure of {N_STORED:,} answers", 1000 * float(np.median(seconds)), "ms"),
    ]


def _answer_audits(ws: Workspace, task: str, right_of: dict[str, bool]) -> None:
    """Fill the review queue and answer its audits, each a day after its question."""
    import planted

    filling.fill(ws, task)
    asked = reviews.listing(ws, task)
    with ws.store.write(durable=False) as conn:
        for review in asked:
            if review.reason == "audit":
                said = "a" if right_of[str(review.prediction_id)] else "b"
                at = planted.NOON + timedelta(days=1)
                review_rows.settle(
                    conn, review.id, state="answered", answer=said, labeller="auditor", key_id=None, at=at
                )


@dataclass(frozen=True)
class World:
    """Where answers of one task come from."""

    shares: NDArray[np.float64]
    wrong: float

    def answers(self, rng: np.random.Generator, n: int, audited_share: float) -> list[Any]:
        import audited

        classes = rng.choice(len(LABELS), n, p=self.shares)
        confidence, drawn = rng.beta(9, 1, n).round(6).tolist(), (rng.random(n) < audited_share).tolist()
        wrong = (rng.random(n) < self.wrong).tolist()
        return [
            audited.Answer(
                LABELS[k], c, (LABELS[k - 1] if bad else LABELS[k]) if d else None, probability=audited_share
            )
            for k, c, d, bad in zip(classes.tolist(), confidence, drawn, wrong, strict=True)
        ]


QUIET = World(np.full(10, 0.1), 0.08)
HELD_OUT = {"estimate": 0.92, "low": 0.915, "high": 0.925}


def no_change(n_requests: int, n_tasks: int, seed: int) -> list[Measured]:
    """Alarms of all streams while nothing changes, two channels a task."""
    import audited
    import planted

    rng, n_alarms, seconds = np.random.default_rng(seed), 0, 0.0
    by_stream: dict[str, int] = {}
    with workspace(n_tasks, LABELS) as ws:
        own = [planted.plant_channel(ws, name) for name in ("web", "phone")]
        for k in range(n_tasks):
            version = _in_charge(ws, f"t{k}")
            shares = rng.dirichlet(np.full(len(LABELS), 3.0))
            n_done, n_each = 0, n_requests // n_tasks
            while n_done < n_each:
                n = min(_STEP, n_each - n_done)
                start = planted.NOON + timedelta(seconds=n_done)
                for channel, share in zip(own, (0.7, 0.3), strict=True):
                    answers = World(shares, 0.08).answers(rng, int(share * n), 0.01)
                    audited.plant_log(ws, channel, version, answers, start=start, every_s=1 / share)
                n_done += n
                began = time.perf_counter()
                end = start + timedelta(seconds=n + 100)
                for alarm in drift.watch(replace(ws, clock=lambda end=end: end), f"t{k}"):
                    n_alarms += 1
                    by_stream[alarm.stream] = by_stream.get(alarm.stream, 0) + 1
                seconds += time.perf_counter() - began
    what = ", ".join(f"{name} {n}" for name, n in sorted(by_stream.items())) or "none"
    return [
        Measured(
            f"no change, {n_requests:,} requests through the store: false alarms", n_alarms, "alarms", "target: 10"
        ),
        Measured(f"no change: of which ({what})", n_alarms, "alarms"),
        Measured("a request in a look at drift", 1e6 * seconds / n_requests, "us"),
    ]


def changes(n_runs: int, seed: int) -> list[Measured]:
    """Requests until an alarm of classes through the store, and audits until one of errors."""
    import audited
    import planted

    rng, delays, labels = np.random.default_rng(seed), list[float](), list[float]()
    shifted, worse = World(np.repeat([0.15, 0.05], 5), 0.08), World(np.full(10, 0.1), 0.16)
    with workspace(2 * n_runs, LABELS) as ws:
        web = planted.plant_channel(ws, "web")
        for k in range(n_runs):
            version = _in_charge(ws, f"t{k}")
            answers = QUIET.answers(rng, N_BEFORE, 0.01) + shifted.answers(rng, N_AFTER, 0.01)
            audited.plant_log(ws, web, version, answers)
            delays.append(_seconds_until(ws, f"t{k}", "classes", N_BEFORE, N_AFTER))
            version = _in_charge(ws, f"t{n_runs + k}")
            answers = QUIET.answers(rng, N_BEFORE, 0.1) + worse.answers(rng, 20_000, 0.1)
            audited.plant_log(ws, web, version, answers)
            labels.append(0.1 * _seconds_until(ws, f"t{n_runs + k}", "errors", N_BEFORE, 20_000))
    return [
        _delay(
            "five of ten classes three times as often, through the store: requests until the alarm", delays, "requests"
        ),
        _delay("errors from 8 to 16 %, through the store: audits until the alarm", labels, "labels"),
    ]


def _seconds_until(ws: Workspace, task: str, stream: str, n_before: int, n_after: int) -> float:
    """Answers come every second."""
    import planted

    end = planted.NOON + timedelta(seconds=n_before + n_after + 100)
    for alarm in drift.watch(replace(ws, clock=lambda: end), task):
        if alarm.stream == stream and alarm.channel is None:
            return (alarm.at - planted.NOON).total_seconds() - n_before
    return float(n_after)


def _in_charge(ws: Workspace, task: str) -> Any:
    import planted

    version = planted.plant_version(ws, task=task)
    planted.plant_evaluation(ws, version, {"overall": {"intervals": {"accuracy": HELD_OUT}}})
    controls.ensure_control(replace(ws, clock=lambda: planted.NOON - timedelta(seconds=1)), task)
    return version


def _delay(what: str, values: Sequence[float], unit: str) -> Measured:
    low, middle, high = (float(v) for v in np.percentile(values, [5, 50, 95]))
    return Measured(what, middle, unit, low=low, high=high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--stored", type=int, default=50)
    parser.add_argument("--quiet", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    rows = by_sums(given.runs, given.seed) + by_the_store(given.stored, given.seed)
    rows += no_change(given.quiet, max(1, given.quiet // 100_000), given.seed) + changes(given.changes, given.seed)
    write("live_accuracy", rows, [given.seed])


if __name__ == "__main__":
    main()
