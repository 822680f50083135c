"""Does the wheel gain from honest feedback, unharmed by the rest? Ten rounds of the closed loop on real raters.

VADER's four channels; a user is a rater of the sentence and says what he or she said of it (bench/wheel_world.py). The
wheel starts from 400 labelled sentences. In each round 1,600 more are asked, a share of the answers gets feedback, and
a few are reviewed: audits at random, and the sentences on which an open release's versions differ.

- `headrace`: the store, labels, trust, snapshots, gates, shadow releases and ledger of the package; what stands in for
  fine-tuning is logistic regression on the base model's frozen vectors, so that hundreds of versions can be made.
- `raw`: the same model trained on all corrections in every round, without trust, gates or a release.
- `random`: the same, with as many labels of as many raters on sentences drawn at random, none of them hostile.
- `ceiling`: all sentences so far, labelled by their raters' mean.

Then the same with a hostile channel: some of its labellers say the opposite (10, 30 and 50 % of its feedback), each of
them under one name (flip), under a name of its own for each word (sybil), with one lie in four (drip), or all in one
round (burst). Accuracy is that on 4,700 sentences that no version saw. Targets: no promoted version is significantly
worse than the one before, overall or in a channel (McNemar, Holm over the channels, .05), and the hostile runs end
within a point of the clean ones.

It takes two hours of two cores. A world that ended leaves a line in --parts, so a bench that is killed goes on where it
was, as long as it is of the same commit.

Run: python -m bench.wheel [--seeds 1 2 3 4 5] [--shares 0.2 0.05] [--attacks flip-30% ...] [--rounds 10]
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import processes, wheel_headrace
from bench.reporting import Measured, commit, write
from bench.sentiment import LABELS
from bench.wheel_world import (
    ATTACKS,
    HOSTILE_CHANNEL,
    N_ROUNDS,
    Attack,
    Said,
    Sentences,
    World,
    feedback,
    reviewed_at_random,
    world,
)
from bench.wheel_world import sentences as all_sentences
from headrace.stats import linear_probe, paired

Bools = NDArray[np.bool_]
LEVEL = 0.05
MEMORY = Path("/dev/shm")  # where it is: the wheel writes much, and power loss is not what this is about


@dataclass(eq=False)
class Played:
    """One way through one world."""

    right: list[Bools] = field(default_factory=list)
    """Which measured sentences the version in charge answers rightly, round by round, the start first."""
    n_promoted: int = 0
    n_labels: int = 0
    steps: list[str] = field(default_factory=list)
    """What each round came to."""
    worse: list[str] = field(default_factory=list)
    """Promotions after which some part is significantly worse than before."""

    def ended(self, hostile: Bools) -> "Ended":
        """What the figures are of; `hostile` are the measured sentences of the hostile channel."""
        accuracies = [float(right.mean()) for right in self.right]
        in_hostile = float(self.right[-1][hostile].mean())
        return Ended(accuracies, in_hostile, self.n_promoted, self.n_labels, self.steps, len(self.worse))


@dataclass(frozen=True)
class Ended:
    """What one way through one world came to; `accuracies` are those at the start and after each round."""

    accuracies: Sequence[float]
    in_hostile: float
    n_promoted: int
    n_labels: int
    steps: Sequence[str]
    n_worse: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.05])
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS))
    parser.add_argument("--rounds", type=int, default=N_ROUNDS)
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="worlds")
    parser.add_argument("--parts", type=Path, default=processes.WORK / "wheel.jsonl", help="worlds that ended")
    options = parser.parse_args()
    all_sentences()  # vectors are computed once, before there are several processes
    worlds = list(product(options.seeds, options.shares, ("none", *options.attacks)))
    parts = processes.Parts(options.parts, ("seed", "share", "attack", "rounds", "commit"))
    of_now = (options.rounds, commit().removesuffix("+"))
    _work_off([one for one in worlds if (*one, *of_now) not in parts.read()], parts, of_now, options.at_once)
    done = parts.read()
    found: dict[tuple[float, str, str], list[Ended]] = {}
    for seed, share, attack in worlds:
        for way, ended in done[seed, share, attack, *of_now]["ways"].items():
            found.setdefault((share, attack, way), []).append(Ended(**ended))
    write("wheel", _figures(found, options.shares, options.attacks), options.seeds)
    return 0


def _work_off(
    worlds: Sequence[tuple[int, float, str]], parts: processes.Parts, of_now: tuple[int, str], at_once: int
) -> None:
    n_rounds, made_by = of_now
    print(f"{len(worlds)} worlds", flush=True)
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        started = {pool.submit(_play, *one, n_rounds): one for one in worlds}
        for ready in as_completed(started):
            (seed, share, attack), ways = started[ready], ready.result()
            known = {"seed": seed, "share": share, "attack": attack, "rounds": n_rounds, "commit": made_by}
            parts.add({**known, "ways": {way: asdict(ended) for way, ended in ways.items()}})
            ends = ", ".join(f"{way} {ended.accuracies[-1]:.3f}" for way, ended in ways.items())
            print(f"seed {seed}, {share:.0%}, {attack}: {ends}; {' | '.join(ways['headrace'].steps)}", flush=True)


def _play(seed: int, share: float, attack_name: str, n_rounds: int) -> dict[str, Ended]:
    """All ways through one world; the same feedback for those that take it."""
    processes.quiet()
    of, of_seed, attack = all_sentences(), world(seed), ATTACKS.get(attack_name)
    rng = np.random.default_rng([seed, 1])
    told = [feedback(of, asked, share, attack, number, rng) for number, asked in enumerate(of_seed.rounds[:n_rounds])]
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        ours, n_reviewed = headrace(of, of_seed, told, attack, Path(folder), seed)
    played = {"headrace": ours, "raw": _raw(of, of_seed, told)}
    if attack is None:
        budget = [len(said) + n for said, n in zip(told, n_reviewed, strict=True)]
        drawn = [reviewed_at_random(of, asked, n, rng) for asked, n in zip(of_seed.rounds, budget, strict=False)]
        played |= {"random": _raw(of, of_seed, drawn), "ceiling": _ceiling(of, of_seed, n_rounds)}
    hostile = of.channels[of_seed.measured] == of.names.index(HOSTILE_CHANNEL)
    return {way: one.ended(hostile) for way, one in played.items()}


def headrace(
    of: Sentences, of_seed: World, told: Sequence[Sequence[Said]], attack: Attack | None, folder: Path, seed: int
) -> tuple[Played, list[int]]:
    """The package itself; also how many reviews each round took."""
    played, n_reviewed = Played(), []
    with wheel_headrace.Wheel(folder, of, of_seed, attack, seed=seed) as wheel:
        played.right.append(wheel.right())
        for asked, said in zip(of_seed.rounds, told, strict=False):
            turned = wheel.turn(asked, said)
            played.steps.append(turned.said)
            right = wheel.right()
            if turned.is_promoted:
                played.n_promoted += 1
                played.worse += worse(of, of_seed, played.right[-1], right)
            played.right.append(right)
            played.n_labels += len(said) + turned.n_reviewed
            n_reviewed.append(turned.n_reviewed)
    return played, n_reviewed


def worse(of: Sentences, of_seed: World, before: Bools, after: Bools) -> list[str]:
    """All, and the channels, in which a version is significantly worse than the one before it."""
    channels = of.channels[of_seed.measured]
    chances = {"all": _chance(before, after)}
    by_channel = {name: _chance(before[channels == i], after[channels == i]) for i, name in enumerate(of.names)}
    chances |= paired.holm(by_channel)
    return [name for name, chance in chances.items() if chance < LEVEL]


def _chance(before: Bools, after: Bools) -> float:
    """One-sided p-value of a loss: the exact test of McNemar on the sentences that changed."""
    wins, losses = int((after & ~before).sum()), int((before & ~after).sum())
    return paired.mcnemar(losses, wins)


def _raw(of: Sentences, of_seed: World, told: Sequence[Sequence[Said]]) -> Played:
    """Every correction is a label, and every version is shipped."""
    played, places, labels = Played(), list(of_seed.start), list(of.truth[of_seed.start])
    played.right.append(_right_of(of, of_seed, places, labels))
    for said in told:
        places += [one.sentence for one in said]
        labels += [one.label for one in said]
        played.n_labels += len(said)
        played.right.append(_right_of(of, of_seed, places, labels))
        played.n_promoted += 1
        played.worse += worse(of, of_seed, played.right[-2], played.right[-1])
    return played


def _ceiling(of: Sentences, of_seed: World, n_rounds: int) -> Played:
    played = Played()
    for n in range(n_rounds + 1):
        places = np.concatenate([of_seed.start, *of_seed.rounds[:n]])
        played.right.append(_right_of(of, of_seed, list(places), list(of.truth[places])))
        played.n_labels = len(places) - len(of_seed.start)
    return played


def _right_of(of: Sentences, of_seed: World, places: Sequence[int], labels: Sequence[int]) -> Bools:
    weights = linear_probe.fit(of.vectors[list(places)], np.array(labels), len(LABELS), penalty=wheel_headrace.PENALTY)
    answers = linear_probe.log_probs(weights, of.vectors[of_seed.measured]).argmax(axis=1)
    return np.asarray(answers == of.truth[of_seed.measured])


def _figures(
    found: Mapping[tuple[float, str, str], Sequence[Ended]], shares: Sequence[float], attacks: Sequence[str]
) -> list[Measured]:
    rows = []
    for share, attack, way in product(shares, ("none", *attacks), ("headrace", "raw", "random", "ceiling")):
        if (runs := found.get((share, attack, way))) is None:
            continue
        clean = found[share, "none", way]
        gaps = [100 * (run.accuracies[-1] - c.accuracies[-1]) for run, c in zip(runs, clean, strict=True)]
        figures = {
            "accuracy at the start": ([run.accuracies[0] for run in runs], ""),
            "accuracy at the end": ([run.accuracies[-1] for run in runs], ""),
            f"accuracy at the end in {HOSTILE_CHANNEL}": ([run.in_hostile for run in runs], ""),
            "end beside the clean run's": (gaps, "points"),
            "labels": ([float(run.n_labels) for run in runs], ""),
            "versions shipped": ([float(run.n_promoted) for run in runs], ""),
            "parts significantly worse after a shipment": ([float(run.n_worse) for run in runs], ""),
        }  # fmt: skip
        for name, (values, unit) in figures.items():
            what = f"feedback {share:.0%}, {attack} · {way} · {name}"
            rows.append(Measured(what, float(np.mean(values)), unit, low=min(values), high=max(values)))
        for at in range(len(runs[0].accuracies)) if attack == "none" else ():
            mean = float(np.mean([run.accuracies[at] for run in runs]))
            rows.append(Measured(f"feedback {share:.0%}, rounds · {way} · after round {at}", mean, ""))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
