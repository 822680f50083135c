"""Does the interval of the audited accuracy hold the truth as often as it says, while feedback is biased?

Simulated traffic whose true accuracy is .9 and whose confidences are useful, useless, or too sure of themselves;
feedback is volunteered for 1 % of the right answers and 5 % of the wrong ones. Shown beside each other: what the
volunteers say, the plain mean of audits, audits with the confidences' help (PPI++), audits that follow doubt, intervals
that may be looked at all the time, answers that come late, and two arms with different habits of feedback.

Run: python -m bench.audits [--runs 2000]
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.records import Interval
from headrace.stats import audits
from headrace.stats.audits import Tally
from headrace.stats.intervals import wilson

TRUTH = 0.9
N_REQUESTS = 10_000
AUDITED = 0.1  # so about 1,000 audits a run
SPOKEN_RIGHT, SPOKEN_WRONG = 0.01, 0.05
N_LOOKS = 20
Traffic = tuple[NDArray[np.float64], NDArray[np.float64]]
Draw = Callable[[np.random.Generator], Traffic]


def useful(rng: np.random.Generator) -> Traffic:
    """Right or wrong, and the confidence: of calibrated ones whose mean is the accuracy."""
    confidence = rng.beta(4.5, 0.5, N_REQUESTS)
    return (rng.random(N_REQUESTS) < confidence).astype(np.float64), confidence


def overconfident(rng: np.random.Generator) -> Traffic:
    right, confidence = useful(rng)
    return right, confidence**0.1  # hardly below 1, and bent


def useless(rng: np.random.Generator) -> Traffic:
    return (rng.random(N_REQUESTS) < TRUTH).astype(np.float64), rng.random(N_REQUESTS)


def _doubt(proxy: NDArray[np.float64]) -> NDArray[np.float64]:
    doubt: NDArray[np.float64] = np.sqrt(proxy * (1 - proxy)) + 0.02
    return doubt


class Seen:
    """Intervals of many runs."""

    def __init__(self) -> None:
        self.all: list[Interval] = []

    def add(self, interval: Interval | None) -> None:
        assert interval is not None
        self.all.append(interval)

    def coverage(self, truth: float) -> float:
        return float(np.mean([one.low <= truth <= one.high for one in self.all]))

    def width(self) -> float:
        return float(np.mean([one.high - one.low for one in self.all]))

    def errors(self, truth: float) -> NDArray[np.float64]:
        return np.array([one.estimate - truth for one in self.all])

    def rows(self, name: str, truth: float, beside: str | None = "target: 0.94 to 0.96") -> list[Measured]:
        share, n = self.coverage(truth), len(self.all)
        ends = wilson(share * n, n)
        assert ends is not None
        errors = self.errors(truth)
        return [
            Measured(
                f"{name}: 95 % intervals that hold the truth", share, "share", beside, low=ends.low, high=ends.high
            ),
            Measured(f"{name}: bias", float(errors.mean()) * 100, "points"),
            Measured(f"{name}: mean distance from the truth", float(np.abs(errors).mean()) * 100, "points"),
        ]


def of_proxy(name: str, draw: Draw, n_runs: int, seed: int, *, by_doubt: bool = False) -> list[Measured]:
    rng = np.random.default_rng(seed)
    plain, helped, naive, correlation = Seen(), Seen(), Seen(), []
    scale = audits.scale_of(_doubt(draw(rng)[1]), AUDITED)
    for _ in range(n_runs):
        right, proxy = draw(rng)
        p = audits.probabilities(_doubt(proxy), scale) if by_doubt else np.full(N_REQUESTS, AUDITED)
        is_audited = rng.random(N_REQUESTS) < p
        helped.add(audits.estimate(audits.tally(p, is_audited, right, proxy)))
        plain.add(audits.estimate(audits.tally(p, is_audited, right)))
        spoken = rng.random(N_REQUESTS) < np.where(right == 1, SPOKEN_RIGHT, SPOKEN_WRONG)
        naive.add(wilson(float(right[spoken].sum()), float(spoken.sum())))
        correlation.append(np.corrcoef(right, proxy)[0, 1])
    ratio, rho2 = helped.width() / plain.width(), float(np.mean(correlation)) ** 2
    kind = f"{name}{', audits by doubt' if by_doubt else ''}"
    rows = helped.rows(kind, TRUTH)
    rows.append(Measured(f"{kind}: width beside that of audits alone", ratio, "", "audits alone", ratio))
    if not by_doubt:
        rows += plain.rows(f"{name}: audits alone", TRUTH)
        worth = f"of 1 / (1 - rho^2): {1 / (1 - rho2):.3f}"
        rows.append(Measured(f"{name}: audits that one with the proxy is worth", 1 / ratio**2, "", worth))
    if draw is useful and not by_doubt:
        rows += naive.rows("volunteered feedback", TRUTH, "must fail")
    return rows


def at_all_times(n_runs: int, seed: int) -> list[Measured]:
    """Share of runs in which the interval holds the truth at every look."""
    rng, held = np.random.default_rng(seed), {"for all times": 0, "for one look": 0}
    step = N_REQUESTS // N_LOOKS
    for _ in range(n_runs):
        right, proxy = useful(rng)
        is_audited, p = rng.random(N_REQUESTS) < AUDITED, np.full(N_REQUESTS, AUDITED)
        sums: Tally | None = None
        good = dict.fromkeys(held, True)
        for start in range(0, N_REQUESTS, step):
            s = slice(start, start + step)
            part = audits.tally(p[s], is_audited[s], right[s], proxy[s])
            sums = part if sums is None else sums + part
            found = {
                "for all times": audits.estimate_always(sums, n_sharpest=5000),
                "for one look": audits.estimate(sums),
            }
            for name, one in found.items():
                good[name] &= one is None or one.low <= TRUTH <= one.high
        for name, is_good in good.items():
            held[name] += is_good
    return [
        Measured(f"intervals {name}: runs that hold the truth at all of {N_LOOKS} looks", n / n_runs, "share")
        for name, n in held.items()
    ]


def late(n_runs: int, seed: int) -> list[Measured]:
    """Wrong answers are told of within the hour, right ones within ten; asked at the end of 20 hours."""
    rng, there, ripe = np.random.default_rng(seed), Seen(), Seen()
    for _ in range(n_runs):
        right, _ = useful(rng)
        asked_at = rng.uniform(0, 20, N_REQUESTS)
        answered_at = asked_at + rng.uniform(0, np.where(right == 1, 10, 1))
        is_audited, p = rng.random(N_REQUESTS) < AUDITED, np.full(N_REQUESTS, AUDITED)
        is_ripe, in_time = audits.matured(asked_at, answered_at, now_s=20, window_s=10)
        arrived = is_audited & (answered_at <= 20)
        there.add(audits.estimate(audits.tally(p, arrived, right)))
        ripe.add(audits.estimate(audits.tally(p[is_ripe], (is_audited & in_time)[is_ripe], right[is_ripe])))
    return there.rows("late answers, all that are there", TRUTH, "must fail") + ripe.rows(
        "late answers, ripe ones", TRUTH
    )


def two_arms(n_runs: int, seed: int) -> list[Measured]:
    """Arms of accuracy .9 and .92; users of the second tell of twice as many of its errors."""
    rng, audited, told = np.random.default_rng(seed), Seen(), Seen()
    for _ in range(n_runs):
        ends, volunteers = [], []
        for accuracy, spoken_wrong in ((0.9, SPOKEN_WRONG), (0.92, 2 * SPOKEN_WRONG)):
            right = (rng.random(N_REQUESTS) < accuracy).astype(np.float64)
            is_audited = rng.random(N_REQUESTS) < AUDITED
            ends.append(audits.estimate(audits.tally(np.full(N_REQUESTS, AUDITED), is_audited, right)))
            spoken = rng.random(N_REQUESTS) < np.where(right == 1, SPOKEN_RIGHT, spoken_wrong)
            volunteers.append(wilson(float(right[spoken].sum()), float(spoken.sum())))
        for seen, (one, other) in ((audited, ends), (told, volunteers)):
            assert one is not None
            assert other is not None
            seen.add(audits.difference(one, other))
    return audited.rows("difference of two arms, audited", 0.02) + told.rows(
        "difference of two arms, volunteered", 0.02, "must fail"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows: list[Measured] = []
    for name, draw in (("useful proxy", useful), ("useless proxy", useless), ("overconfident proxy", overconfident)):
        rows += of_proxy(name, draw, given.runs, given.seed)
    rows += of_proxy("useful proxy", useful, given.runs, given.seed, by_doubt=True)
    rows += late(given.runs, given.seed) + two_arms(given.runs, given.seed) + at_all_times(given.runs // 4, given.seed)
    write("audits", rows, [given.seed])


if __name__ == "__main__":
    main()
