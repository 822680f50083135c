"""Do release decisions keep their word? Thousands of simulated releases, with a look after every request.

How often an equal candidate is called better (whoever looks may stop when it suits him: a release counts as soon as any
of its looks says so), how soon a worse one is found and with how many labels, what a broken one costs until a guardrail
fires, how soon requests that do not reach their arm are noticed, and whether a channel is protected from a mean that
improves. Beside them the z and chi-square tests of textbooks, looked at as often.

Run: python -m bench.release [--releases 10000] [--requests 20000] [--only NAME ...]
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from bench import release_policy
from bench.release_policy import PROMOTE, REJECT, ChannelWorld
from bench.release_worlds import (
    Found,
    blocks,
    first,
    joined,
    limit_fewest,
    most_events,
    naive_fewest,
    no_worse,
    paired_fewest,
    pairs_of,
    sample_ratio_looks,
)
from bench.reporting import Measured, table, write
from headrace.stats.intervals import wilson

ALPHA, GUARDRAIL_ALPHA = 0.05, 0.001
SEED = 20261122
N_FOR_QUANTILES = 2000  # releases where no rare event is counted, but how long it takes
N_BAD_MOST = 400  # no guardrail waits for so many bad answers
WRONG = "upper end at most 0.055"


@dataclass(frozen=True)
class Size:
    n_releases: int
    n_requests: int


def share_row(what: str, n_hits: float, n: int, beside: str | None = None) -> Measured:
    """A share of the releases with its 95 % interval (Wilson)."""
    interval = wilson(n_hits, n)
    assert interval is not None
    return Measured(what, interval.estimate, "", beside, low=interval.low, high=interval.high)


def time_rows(what: str, found: Found, *, spent: str, targets: dict[str, str], n_requests: int) -> Iterator[Measured]:
    """Median and 95th percentile of requests, and what was spent by then; the rest of the releases are not decided."""
    if found.share < 1:
        yield Measured(f"{what}: found within {n_requests:,} requests", found.share, "")
    for name, q in (("median", 0.5), ("p95", 0.95)):
        if math.isfinite(found.quantile(q)):
            yield Measured(f"{what}: requests, {name}", found.quantile(q), "", targets.get(f"requests {name}"))
        yield Measured(f"{what}: {spent}, {name}", found.spent(q), "", targets.get(f"{spent} {name}"))


def run_pairs(win: Any, loss: Any, size: Size, seed: int, *, harm: bool = False) -> tuple[Found, float]:
    """When the paired e-process says "better" (or "worse"), and how many releases a peeked z-test says so of."""
    win, loss = (np.broadcast_to(np.asarray(rate, dtype=float), size.n_requests) for rate in (win, loss))
    n_most = most_events(size.n_requests, float((win + loss).max()))
    fewest, naive = paired_fewest(n_most, ALPHA), naive_fewest(n_most)
    parts, n_naive = [], 0
    for rng, n in blocks(size.n_releases, seed):
        at_request, wins, losses = pairs_of(rng, n, win, loss)
        told, labels = (losses if harm else wins), wins + losses
        parts.append(first(told >= fewest[labels], at_request, labels, size.n_requests))
        looks = (told >= naive[labels]) & (at_request <= size.n_requests)
        n_naive += int(looks.any(axis=1).sum())
    return joined(parts), n_naive / size.n_releases


def no_false_promotion(size: Size) -> Iterator[Measured]:
    for number, (name, win, loss) in enumerate(_equal_candidates(size.n_requests)):
        found, naive = run_pairs(win, loss, size, SEED + number)
        what = f"equal candidate, {name}: called better"
        yield share_row(what, found.share * size.n_releases, size.n_releases, WRONG)
        yield Measured(f"{what}, by a peeked z-test", naive, "")
    channels = release_policy.Refutations(round(0.06 * size.n_requests), 5, ALPHA)
    n_hits = sum(int(channels.any(rng, n).sum()) for rng, n in blocks(size.n_releases, SEED))
    yield share_row("equal candidate, 6% differ: any of 5 channels called better", n_hits, size.n_releases, WRONG)


def _equal_candidates(n_requests: int) -> Iterator[tuple[str, Any, Any]]:
    """Name, and the share of requests won and lost. Of two versions that are right p of the time, at most 2 (1 - p) of
    the requests can tell them apart."""
    for accuracy, differ in [(0.5, 0.01), (0.5, 0.06), (0.5, 0.2), (0.9, 0.01), (0.9, 0.06), (0.9, 0.2), (0.99, 0.01)]:
        yield f"accuracy {accuracy:g}, {differ:.0%} differ", differ / 2, differ / 2
    yield "accuracy 0.99, 2% differ (the most that can)", 0.01, 0.01
    falling = np.linspace(0.95, 0.6, n_requests)
    yield "accuracy falling from .95 to .60", (1 - falling) / 4, (1 - falling) / 4
    won = np.where(np.arange(n_requests) // 500 % 2, 0.02, 0.03)
    yield "worse by 2 points every other 500 requests", won, 0.06 - won
    yield "accuracy 0.9, 6% differ, 30% of them labelled", 0.03 * 0.3, 0.03 * 0.3


def power(size: Size) -> Iterator[Measured]:
    at_six = {"requests median": "at most 1100", "requests p95": "at most 3200", "labels median": "at most 80"}
    targets = {(0.02, 0.06): at_six} | {(0.1, differ): {"requests p95": "at most 300"} for differ in (0.12, 0.15, 0.2)}
    for drop, differ in [(0.02, 0.04), (0.02, 0.06), (0.02, 0.1), (0.1, 0.12), (0.1, 0.15), (0.1, 0.2)]:
        found, _ = run_pairs((differ - drop) / 2, (differ + drop) / 2, size, SEED + 1, harm=True)
        wanted = targets.get((drop, differ), {})
        what = f"worse by {100 * drop:.0f} points, {differ:.0%} differ"
        yield from time_rows(what, found, spent="labels", targets=wanted, n_requests=size.n_requests)


def non_inferiority(size: Size) -> Iterator[Measured]:
    for margin, n_requests in ((0.01, size.n_requests), (0.005, 5 * size.n_requests)):
        for name, gain, share in [
            ("worse by the margin", -margin, 1.0),
            ("worse by the margin, 30% labelled", -margin, 0.3),
            ("equal", 0.0, 1.0),
            ("equal, 30% labelled", 0.0, 0.3),
            ("better by half a point", 0.005, 1.0),
        ]:
            rates = (share * (0.06 + gain) / 2, share * (0.06 - gain) / 2)
            rule = {"margin": margin, "alpha": ALPHA, "share": share}
            n_releases = size.n_releases if gain == -margin else min(size.n_releases, N_FOR_QUANTILES)
            parts = [no_worse(rng, n, n_requests, rates, **rule) for rng, n in blocks(n_releases, SEED + 2)]
            found = joined(parts)
            what = f"no worse by {100 * margin:g} points, 6% differ, {name}"
            if gain == -margin:
                yield share_row(f"{what}: shown", found.share * size.n_releases, size.n_releases, WRONG)
            else:
                yield from time_rows(what, found, spent="labels", targets={}, n_requests=n_requests)


def guardrails(size: Size) -> Iterator[Measured]:
    """The limit alone, and with the control slice too: at the level of guardrails, and at that of the release."""
    n_requests = min(5000, size.n_requests)
    limit = limit_fewest(n_requests, 0.01, GUARDRAIL_ALPHA)
    slices = {alpha: paired_fewest(2 * n_requests, alpha) for alpha in (GUARDRAIL_ALPHA, ALPHA)}
    for candidate, baseline in [(0.01, 0.01), (0.05, 0.05), (0.05, 0.01), (0.1, 0.01), (0.5, 0.01), (1.0, 0.01)]:
        parts: dict[str, list[Found]] = {}
        for rng, n in blocks(size.n_releases, SEED + 3):
            gaps = rng.geometric(candidate, size=(n, min(most_events(n_requests, candidate), N_BAD_MOST)))
            at_request, bad = gaps.cumsum(axis=1), np.arange(1, gaps.shape[1] + 1)
            others = rng.binomial(gaps, baseline).cumsum(axis=1)
            is_above = bad >= limit[np.minimum(at_request, n_requests)]
            parts.setdefault("limit", []).append(first(is_above, at_request, bad, n_requests))
            for alpha, fewest in slices.items():
                fires = is_above & (bad >= fewest[np.minimum(bad + others, 2 * n_requests)])
                parts.setdefault(f"limit, and slice at {alpha:g}", []).append(first(fires, at_request, bad, n_requests))
        for rule, found in parts.items():
            yield from _guardrail_rows(rule, candidate, baseline, joined(found), n_requests)


def _guardrail_rows(rule: str, candidate: float, baseline: float, found: Found, n_requests: int) -> Iterator[Measured]:
    what = f"guardrail ({rule}), {candidate:.0%} of answers bad, limit 1%, control {baseline:.0%}"
    if candidate == baseline:
        beside = "at most 0.01" if candidate <= 0.01 else None
        yield share_row(
            f"{what}: fired within {n_requests:,}", found.share * len(found.n_spent), len(found.n_spent), beside
        )
        return
    yield Measured(f"{what}: bad answers until it fires, mean", float(found.n_spent.mean()), "", "at most 15")
    yield Measured(f"{what}: requests, median", found.quantile(0.5), "")
    yield Measured(f"{what}: requests, p95", found.quantile(0.95), "")


def sample_ratio(size: Size) -> Iterator[Measured]:
    for planned, true in [
        ((0.5, 0.5), (0.5, 0.5)),
        ((0.98, 0.01, 0.01), (0.98, 0.01, 0.01)),
        ((0.5, 0.5), (0.52, 0.48)),
        ((0.5, 0.5), (0.55, 0.45)),
        ((0.5, 0.5), (0.6, 0.4)),
        ((0.98, 0.01, 0.01), (0.982, 0.01, 0.008)),
    ]:
        parts, n_naive, every = [], 0, np.arange(1, size.n_requests + 1)
        n_releases = size.n_releases if planned == true else min(size.n_releases, N_FOR_QUANTILES)
        for rng, n in blocks(n_releases, SEED + 4):
            drawn = rng.random((n, size.n_requests), dtype=np.float32)
            arms = np.searchsorted(np.cumsum(true)[:-1], drawn).astype("i1")
            looks = sample_ratio_looks(arms, planned) >= math.log(1 / GUARDRAIL_ALPHA)
            parts.append(first(looks, np.broadcast_to(every, looks.shape), every, size.n_requests))
            if planned == true:
                n_naive += int(_chi_square(arms == 0, planned[0]).any(axis=1).sum())
        found = joined(parts)
        what = f"sample ratio, planned {_ratio(planned)}, true {_ratio(true)}"
        if planned == true:
            row = share_row(f"{what}: fired", found.share * n_releases, n_releases, "at most 0.001")
            yield from (row, Measured(f"{what}: fired, by a peeked chi-square at .0005", n_naive / n_releases, ""))
        else:
            wanted = {"requests p95": "at most 3500"} if true[0] == 0.55 else {}
            rows = time_rows(what, found, spent="spent", targets=wanted, n_requests=size.n_requests)
            yield from (row for row in rows if "spent" not in row.what)


def _chi_square(is_first: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """A chi-square test of the first arm's share at .0005, after every 100 requests."""
    n = np.arange(100, is_first.shape[1] + 1, 100)
    counts = is_first.cumsum(axis=1, dtype=np.int32)[:, n - 1]
    crossed: NDArray[np.bool_] = (counts - n * share) ** 2 / (n * share * (1 - share)) > 12.116
    return crossed


def _ratio(shares: tuple[float, ...]) -> str:
    return ":".join(f"{100 * share:g}" for share in shares)


def channels(size: Size) -> Iterator[Measured]:
    """The policy `shadow` as a whole."""
    for name, worlds in _policy_worlds().items():
        is_ruined, is_equal = "ruined" in name, "equal" in name
        n_requests = size.n_requests if is_equal else min(size.n_requests, 5000)
        ended = release_policy.run(
            worlds, n_releases=size.n_releases, n_requests=n_requests, alpha=ALPHA, seed=SEED + 5
        )
        for verdict, word in ((PROMOTE, "promoted"), (REJECT, "rejected")):
            beside = "at least 0.95" if is_ruined and verdict == REJECT else None
            beside = WRONG if is_equal and verdict == PROMOTE else beside
            n_hits = int((ended.verdicts == verdict).sum())
            yield share_row(f"policy shadow, {name}: {word}", n_hits, size.n_releases, beside)
        if not is_equal:
            gain = sum(w.share * (w.win - w.loss) for w in worlds)
            yield Measured(f"policy shadow, {name}: gain of the mean", 100 * gain, "points")
            found = Found(ended.n_requests, ended.n_labels)
            rows = time_rows(f"policy shadow, {name}", found, spent="labels", targets={}, n_requests=n_requests)
            yield from (row for row in rows if "found within" not in row.what)


def _policy_worlds() -> dict[str, tuple[ChannelWorld, ...]]:
    def even(*shares: float) -> tuple[ChannelWorld, ...]:
        return tuple(ChannelWorld(share, 0.03, 0.03) for share in shares)

    def ruined(drop: float, share: float, gain: float) -> tuple[ChannelWorld, ...]:
        good = ChannelWorld((1 - share) / 4, 0.02 + gain, 0.02)
        return (ChannelWorld(share, 0.02, 0.02 + drop), good, good, good, good)

    return {
        "5 equal channels": even(0.2, 0.2, 0.2, 0.2, 0.2),
        "5 equal channels of 60, 25, 10, 4 and 1 %": even(0.6, 0.25, 0.1, 0.04, 0.01),
        "5 channels better by 2 points": tuple(ChannelWorld(0.2, 0.04, 0.02) for _ in range(5)),
        "1 of 5 ruined (-40 points, the others +12)": ruined(0.4, 0.2, 0.12),
        "1 of 5 ruined (-20 points, the others +7)": ruined(0.2, 0.2, 0.07),
        "1 of 5 ruined (-20 points, the others +12)": ruined(0.2, 0.2, 0.12),
        "1 of 5 ruined (-10 points, the others +3.5)": ruined(0.1, 0.2, 0.035),
        "1 of 5 ruined (-40 points, the others +3; 5 % of requests)": ruined(0.4, 0.05, 0.03),
    }


SECTIONS: dict[str, Callable[[Size], Iterator[Measured]]] = {
    "false promotion": no_false_promotion,
    "power": power,
    "non-inferiority": non_inferiority,
    "guardrails": guardrails,
    "sample ratio": sample_ratio,
    "channels": channels,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="print these, write nothing")
    given = parser.parse_args()
    size, started, rows = Size(given.releases, given.requests), time.perf_counter(), list[Measured]()
    for name in track(given.only or SECTIONS, description="simulating"):
        rows += SECTIONS[name](size)
    rows.append(Measured(f"{size.n_releases:,} releases of {size.n_requests:,} requests", _since(started), "s"))
    if given.only:
        print(table(rows))
    else:
        write("release", rows, [SEED])


def _since(started: float) -> float:
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
