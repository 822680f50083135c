"""Does a margin keep its word? Thousands of shadow releases whose differences reviewers are asked about.

How often a candidate that is worse by the margin is promoted, by a look after every input, also with reviewers who say
the reverse now and then; and how many inputs and answers it takes to show that one that is as good, or better, is no
worse. Answers that come late only leave out looks, or make losses of what waits, so they cannot raise the first number.
Beside it what counts labelled pairs alone: all answers labelled with one chance, the differences alone, and corrections
of what looks wrong to users. And what becomes of a worse one without a margin, by the labels that count
(release.labels).

Run: python -m bench.noninferiority [--releases 10000] [--inputs 20000]
"""

import argparse
from collections.abc import Iterator
from itertools import product

import numpy as np
from rich.progress import track

from bench import release_policy
from bench.release import share_row, time_rows
from bench.release_policy import PROMOTE, REJECT, ChannelWorld
from bench.release_worlds import Found, blocks, joined, no_worse
from bench.reporting import Measured, write

ALPHA = 0.05
SEED = 20261123
N_FOR_QUANTILES = 2000
N_INPUTS_OF_A_LEVEL = 5000  # `bench.release` has longer ones; few releases are decided wrongly so late
WANTED = "upper end at most 0.055"
Rates = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=10_000)
    parser.add_argument("--inputs", type=int, default=20_000)
    given = parser.parse_args()
    rows: list[Measured] = []
    for section in track((level, power, labelled_alone, unasked), description="simulating"):
        rows += section(given.releases, given.inputs)
    write("noninferiority", rows, [SEED])


def level(n_releases: int, n_inputs: int) -> Iterator[Measured]:
    """Reviewers who are wrong in a share e show a loss 1 - 2 e times as large, so the level is that of a larger one."""
    n_inputs = min(n_inputs, N_INPUTS_OF_A_LEVEL)
    for (margin, differ), share, wrong in product(
        ((0.01, 0.01), (0.01, 0.06), (0.01, 0.2), (0.02, 0.2)), (1.0, 0.25), (0.0, 0.1, 1 / 3)
    ):
        for loss in sorted({margin, margin / (1 - 2 * wrong)}):
            if loss > differ:
                continue
            n = n_releases if not wrong else min(n_releases, N_FOR_QUANTILES)
            found = _run(_seen(differ, -loss, wrong), n, n_inputs, margin=margin, share=share)
            what = (
                f"worse by {100 * loss:.4g} points, margin {100 * margin:g}, {differ:.0%} differ, {share:.0%} asked "
                f"about, {wrong:.0%} of the answers wrong: shown"
            )
            beside = WANTED if loss > margin or not wrong else None
            yield share_row(what, found.share * n, n, beside)


def power(n_releases: int, n_inputs: int) -> Iterator[Measured]:
    for (margin, differ), gain, share in product(
        ((0.01, 0.06), (0.02, 0.06), (0.02, 0.2)), (0.0, 0.01, 0.02), (1.0, 0.25)
    ):
        n = min(n_releases, N_FOR_QUANTILES)
        found = _run(_seen(differ, gain, 0.0), n, n_inputs, margin=margin, share=share)
        what = f"better by {100 * gain:g} points, margin {100 * margin:g}, {differ:.0%} differ, {share:.0%} asked about"
        yield from time_rows(what, found, spent="answers", targets={}, n_requests=n_inputs)


def labelled_alone(n_releases: int, n_inputs: int) -> Iterator[Measured]:
    """What was counted before: labelled pairs, whoever labelled them."""
    n, n_times = n_releases, min(n_releases, N_FOR_QUANTILES)
    for (margin, differ), gain in product(((0.01, 0.06), (0.02, 0.2)), (0.0, 0.01, 0.02)):
        world = f"better by {100 * gain:g} points, margin {100 * margin:g}, {differ:.0%} differ"
        for name, labelled in (("5% of all", (0.05, 0.05)), ("all that differ", (0.0, 1.0))):
            found = _by_labels(_seen(differ, gain, 0.0), labelled, n_times, n_inputs, margin=margin)
            what = f"labelled pairs alone, {name}, {world}"
            yield from time_rows(what, found, spent="labels that tell", targets={}, n_requests=n_inputs)
    win, _ = _seen(0.06, -0.04, 0.0)
    found = _by_labels((win, 0.0), (0.0, 0.2), n, n_inputs, margin=0.01)
    what = "labelled pairs alone, users correct a fifth of what is wrong, worse by 4 points, margin 1, 6% differ: shown"
    yield share_row(what, found.share * n, n)


def unasked(n_releases: int, n_inputs: int) -> Iterator[Measured]:
    """The whole policy without a margin. Users see the control's answer alone, and correct a fifth of its errors: wins
    come by themselves, losses do not. Reviewers are asked about all that differs."""
    for loss in (0.0, 0.02, 0.04):
        win, lost = _seen(0.06, -loss, 0.0)
        for name, world in (("all", ChannelWorld(1.0, win / 5, 0.0)), ("asked", ChannelWorld(1.0, win, lost))):
            ended = release_policy.run((world,), n_releases=n_releases, n_requests=n_inputs, alpha=ALPHA, seed=SEED)
            what = f'release.labels = "{name}", users correct a fifth of the errors, worse by {100 * loss:g} points'
            for verdict, word in ((PROMOTE, "promoted"), (REJECT, "rejected")):
                beside = WANTED if name == "asked" and verdict == PROMOTE else None
                yield share_row(f"{what}: {word}", int((ended.verdicts == verdict).sum()), n_releases, beside)
            yield Measured(f"{what}: labels that tell, median", float(np.median(ended.n_labels)), "")


def _seen(differ: float, gain: float, wrong: float) -> Rates:
    """Shares of the inputs that are won and lost, as reviewers see it."""
    win, loss = (differ + gain) / 2, (differ - gain) / 2
    return win * (1 - wrong) + loss * wrong, loss * (1 - wrong) + win * wrong


def _run(rates: Rates, n_releases: int, n_inputs: int, *, margin: float, share: float) -> Found:
    asked = (rates[0] * share, rates[1] * share)
    rule = {"margin": margin, "share": share, "alpha": ALPHA}
    return joined([no_worse(rng, n, n_inputs, asked, **rule) for rng, n in blocks(n_releases, SEED)])


def _by_labels(rates: Rates, labelled: tuple[float, float], n_releases: int, n_inputs: int, *, margin: float) -> Found:
    """The same of the pairs that get a label.

    Args:
        labelled: shares of the equal and of the differing answers that get one.
    """
    equal, differing = labelled
    share = equal * (1 - sum(rates)) + differing * sum(rates)
    among = (rates[0] * differing / share, rates[1] * differing / share)
    n_labels = round(n_inputs * share)
    rule = {"margin": margin, "share": 1.0, "alpha": ALPHA}
    found = joined([no_worse(rng, n, n_labels, among, **rule) for rng, n in blocks(n_releases, SEED)])
    return Found(found.n_requests / share, found.n_spent)


if __name__ == "__main__":
    main()
