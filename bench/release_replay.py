"""Do releases decide rightly on real answers? Versions trained on VADER's channels, replayed with the raters as truth.

The project's own loop makes versions of few and of more rows, and one of another order of rows (a second seed). Each
answers held-out sentences once; right is what the raters' mean says. Then pairs of them are replayed in random orders,
which all ways to decide see alike, until each has decided or the sentences are used up. The answer is known: which of
the two is right more often on all of these sentences.

- `shadow`: the rules of headrace.release.policies.shadow; labels for disagreements only.
- `naive`: z of the same pairs every 20 sentences, decided at |z| > 1.645; labels for disagreements only.
- `fixed`: McNemar's exact test once, after 2,000 sentences, at .05 on either side; labels for disagreements only.
- `group-sequential`: the same as five looks (headrace.stats.fixed_horizon); labels for disagreements only.
- `unpaired`: each sentence to one of both by a coin, betting (headrace.stats.confidence_sequences); labels for all.

In `swapped`, a coin decides for each sentence which of the two answers is called the candidate's: neither is better,
whatever is decided is wrong. In `a channel ruined`, the candidate is the better version, but answers one channel as the
worst one does.

Run: python -m bench.release_replay [--orders 2000] [--seed 1] [--anew]
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace
from bench import processes, release_policy
from bench.reporting import Measured, write
from bench.sentiment import LABELS, example, share_of
from headrace.stats import confidence_sequences, fixed_horizon
from headrace.stats.intervals import wilson
from headrace.stats.paired import mcnemar

OUTPUTS = processes.WORK / "release_replay.json"
TRAIN_SHARE = 0.35  # of the groups of sentences, from which versions take their rows
N_HELD_OUT = 8000
VERSIONS = {  # rows to train on, seed
    "worst": (300, 1),
    "middle": (1500, 1),
    "best": (5000, 1),
    "best, other seed": (5000, 2),
}
ALPHA = 0.05
Z = 1.645  # of .05 on one side, at one look
N_FIXED = 2000
N_BETWEEN = 5  # sentences from look to look of the unpaired way, which it makes no difference to
CENTRE = 0.8  # as the policy `ab` has it
RUINED = "tweets"
SEPARATOR = " · "  # a line of a table of docs/benchmarks.md
Bools = NDArray[np.bool_]
Decided = tuple[str, int]
"""benefit, harm or undecided, and after how many sentences."""


@dataclass(frozen=True)
class Outputs:
    """What versions answered to held-out sentences (N,), and what is right."""

    channels: NDArray[np.str_]
    truth: NDArray[np.str_]
    answers: Mapping[str, NDArray[np.str_]]
    seconds: Mapping[str, float]


def outputs(*, is_anew: bool) -> Outputs:
    """Those kept by an earlier run, and those of versions trained now."""
    wanted = json.loads(json.dumps({"versions": VERSIONS, "train_share": TRAIN_SHARE, "n_held_out": N_HELD_OUT}))
    prepare = example()
    rows = [{**row, "channel": name} for name in prepare.CHANNELS for row in prepare.rows(name)]
    rows.sort(key=lambda row: share_of(row["id"]))
    train = [row for row in rows if share_of(row["group"]) < TRAIN_SHARE]
    held_out = [row for row in rows if share_of(row["group"]) >= TRAIN_SHARE][:N_HELD_OUT]
    made: dict[str, Any] = {"made_by": wanted, "answers": {}, "seconds": {}}
    if OUTPUTS.exists() and not is_anew and (kept := json.loads(OUTPUTS.read_text("utf-8")))["made_by"] == wanted:
        made = kept
    made["channels"] = [row["channel"] for row in held_out]
    made["truth"] = [prepare.label_of(row["mean"]) for row in held_out]
    OUTPUTS.parent.mkdir(parents=True, exist_ok=True)
    for name, (n_rows, seed) in VERSIONS.items():
        if name not in made["answers"]:
            started = time.perf_counter()
            made["answers"][name] = _answers(train[:n_rows], held_out, seed)
            made["seconds"][name] = round(time.perf_counter() - started, 1)
            print(f"{name}: trained and answered in {made['seconds'][name]} s", flush=True)
            OUTPUTS.write_text(json.dumps(made), "utf-8")
    return _read(made)


def _read(kept: Mapping[str, Any]) -> Outputs:
    answers = {name: np.array(given) for name, given in kept["answers"].items()}
    return Outputs(np.array(kept["channels"]), np.array(kept["truth"]), answers, kept["seconds"])


def _answers(train: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]], seed: int) -> list[str]:
    """Labels of the held-out rows by a version made of the training rows, in a workspace of its own."""
    label_of = example().label_of
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        headrace.init(root, task="sentiment", labels=LABELS).close()
        settings = {"finetune.epochs": 2, "finetune.seed": seed, "split.test_share": 0.05}
        with headrace.open_workspace(root, overrides=settings) as ws:
            for channel in sorted({row["channel"] for row in train}):
                headrace.add_channel(ws, channel, licence="MIT")
                path = Path(folder) / f"{channel}.jsonl"
                mine = [row for row in train if row["channel"] == channel]
                lines = [
                    {**{k: row[k] for k in ("id", "group", "text")}, "label": label_of(row["mean"])} for row in mine
                ]
                path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
                headrace.import_rows(ws, channel, path)
            made = headrace.train(ws)
            said = headrace.predict(ws, [row["text"] for row in held_out], version=made["version"])
    return [answer["label"] for answer in said]


@dataclass(frozen=True)
class Pair:
    """Two versions on the same sentences (N,): who is right, where they differ, and the channel's number."""

    name: str
    control: Bools
    candidate: Bools
    differ: Bools
    channel: NDArray[np.int64]
    is_swapped: bool = False

    @property
    def gain(self) -> float:
        return 0.0 if self.is_swapped else float(self.candidate.mean() - self.control.mean())

    def ordered(self, order: NDArray[np.int64], rng: np.random.Generator) -> "Pair":
        control, candidate = self.control[order], self.candidate[order]
        if self.is_swapped:
            swap = rng.random(len(order)) < 0.5
            control, candidate = np.where(swap, candidate, control), np.where(swap, control, candidate)
        return Pair(self.name, control, candidate, self.differ[order], self.channel[order], self.is_swapped)


def pairs(made: Outputs) -> list[Pair]:
    names = sorted(set(made.channels))
    channel = np.array([names.index(name) for name in made.channels])

    def pair(name: str, control: NDArray[np.str_], candidate: NDArray[np.str_], *, is_swapped: bool = False) -> Pair:
        right = control == made.truth, candidate == made.truth
        return Pair(name, *right, control != candidate, channel, is_swapped)

    worst, middle, best, other = (made.answers[name] for name in VERSIONS)
    ruined = np.where(made.channels == RUINED, worst, best)
    return [
        pair("better", middle, best),
        pair("worse", best, middle),
        pair("much worse", best, worst),
        pair("other seed", best, other),
        pair("a channel ruined", middle, ruined),
        pair("swapped: better", middle, best, is_swapped=True),
        pair("swapped: other seed", best, other, is_swapped=True),
    ]


class Shadow:
    """The policy's rules, as bench.release_policy has them on arrays."""

    def __init__(self, n_most: int, n_channels: int) -> None:
        self.tables = release_policy.Tables(n_most, n_channels, ALPHA)

    def __call__(self, pair: Pair, _rng: np.random.Generator) -> Decided:
        where = np.flatnonzero(pair.control != pair.candidate)
        channels, won, at_request = pair.channel[where][None], pair.candidate[where][None], where[None] + 1
        (verdict,), _, (when,) = release_policy.verdicts(channels, won, at_request, self.tables)
        if verdict == release_policy.HOLD or when > len(pair.control):
            return "undecided", len(pair.control)
        return ("benefit" if verdict == release_policy.PROMOTE else "harm"), int(when)


def _wins_and_losses(pair: Pair) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (pair.candidate & ~pair.control).cumsum(), (pair.control & ~pair.candidate).cumsum()


def _first(benefit: Bools, harm: Bools) -> Decided:
    decided = benefit | harm
    if not decided.any():
        return "undecided", len(decided)
    at = int(decided.argmax())
    return ("harm" if harm[at] else "benefit"), at + 1


def naive(pair: Pair, _rng: np.random.Generator) -> Decided:
    wins, losses = _wins_and_losses(pair)
    z = (wins - losses) / np.sqrt(np.maximum(1, wins + losses))
    looks = np.arange(1, len(z) + 1) % 20 == 0
    return _first(looks & (z > Z), looks & (z < -Z))


def fixed(pair: Pair, _rng: np.random.Generator) -> Decided:
    wins, losses = (int(counts[N_FIXED - 1]) for counts in _wins_and_losses(pair))
    if mcnemar(wins, losses) <= ALPHA:
        return "benefit", N_FIXED
    return ("harm" if mcnemar(losses, wins) <= ALPHA else "undecided"), N_FIXED


class GroupSequential:
    """Looks after each fifth of the sentences; the disagreements among them are about as many each."""

    def __init__(self) -> None:
        self.at = N_FIXED * np.arange(1, 6) // 5
        self.needed = fixed_horizon.z_boundaries(tuple(self.at / N_FIXED), alpha=ALPHA)

    def __call__(self, pair: Pair, _rng: np.random.Generator) -> Decided:
        wins, losses = (counts[self.at - 1] for counts in _wins_and_losses(pair))
        z = (wins - losses) / np.sqrt(np.maximum(1, wins + losses))
        found, look = _first(z >= self.needed, z <= -self.needed)
        return found, int(self.at[look - 1])


class Unpaired:
    """Betting on the difference of two arms that each sentence meets one of."""

    def __init__(self) -> None:
        values = confidence_sequences.estimates(0.5, CENTRE)
        above, below = confidence_sequences.bets(0.5, CENTRE).stakes()[:, 0]
        self.logs = np.log1p(np.stack([np.outer(values, above), -np.outer(values, below)], axis=1))  # (4, 2, S)

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Decided:
        is_candidate = rng.random(len(pair.control)) < 0.5
        is_right = np.where(is_candidate, pair.candidate, pair.control)
        cells = np.eye(4)[2 * is_candidate + is_right].cumsum(axis=0)[N_BETWEEN - 1 :: N_BETWEEN]
        capitals = (cells @ self.logs.reshape(4, -1)).reshape(len(cells), 2, -1)
        found = confidence_sequences.log_e(capitals) >= math.log(1 / ALPHA)
        decision, look = _first(found[:, 0], found[:, 1])
        return decision, look * N_BETWEEN


def replays(pair: Pair, *, n_orders: int, seed: int) -> list[Measured]:
    """All ways to decide on one pair."""
    ways: dict[str, Callable[[Pair, np.random.Generator], Decided]] = {
        "shadow": Shadow(int(pair.differ.sum()), int(pair.channel.max()) + 1),
        "naive": naive,
        "fixed": fixed,
        "group-sequential": GroupSequential(),
        "unpaired": Unpaired(),
    }
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[str, int, int]]] = {name: [] for name in ways}
    for _ in range(n_orders):
        replayed = pair.ordered(rng.permutation(len(pair.control)), rng)
        for name, way in ways.items():
            decision, n = way(replayed, rng)
            found[name].append((decision, n, n if name == "unpaired" else int(replayed.differ[:n].sum())))
    rows = [
        Measured(f"{pair.name}: gain in accuracy", 100 * pair.gain, "points"),
        Measured(f"{pair.name}: disagreement", 100 * float(pair.differ.mean()), "%"),
    ]
    for name, decisions in found.items():
        rows += _figures(f"{pair.name}{SEPARATOR}{name}{SEPARATOR}", decisions)
    return rows


def _figures(what: str, decisions: Sequence[tuple[str, int, int]]) -> list[Measured]:
    rows = []
    for verdict in ("benefit", "harm"):
        share = wilson(sum(found == verdict for found, _, _ in decisions), len(decisions))
        assert share is not None
        ends = {"low": 100 * share.low, "high": 100 * share.high}
        rows.append(Measured(f"{what}{verdict} found", 100 * share.estimate, "%", **ends))
    for i, name in ((1, "sentences"), (2, "labels")):
        counts = [decision[i] for decision in decisions]
        rows.append(Measured(f"{what}{name}, median", float(np.median(counts)), ""))
        rows.append(Measured(f"{what}{name}, p90", float(np.quantile(counts, 0.9)), ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--anew", action="store_true", help="train again, even where answers were kept")
    given = parser.parse_args()
    made = outputs(is_anew=given.anew)
    rows = [
        Measured(f"accuracy of {name}", float((answers == made.truth).mean()), "")
        for name, answers in made.answers.items()
    ]
    for pair in pairs(made):
        rows += replays(pair, n_orders=given.orders, seed=given.seed)
        print(f"{pair.name}: done", flush=True)
    write("release_replay", rows, [given.seed])


if __name__ == "__main__":
    main()
