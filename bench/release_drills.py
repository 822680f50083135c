"""Are bad candidates rolled back and good ones promoted, through a real server? Twenty releases of each kind.

Targets: every bad candidate is rejected, of the good ones 19 of 20 are promoted, no request fails, and from the moment
when enough had happened to tell, the server decides and follows within a second. A canary promotes what is not found
worse, so "+1 point" shows that a good candidate is not held back. "A third of the errors gone" and "+10 points, A/B"
are promoted because they are told to be better, and an equal one in the shadow as seldom as release.alpha says.
"Seen by users": answers of the candidate that went to users; a shadow's do not.

The figures of kinds that did not run stay those of the newest report.

Run: python -m bench.release_drills [--runs 20] [--only "5 % errors" ...]     all: about a quarter of an hour
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.drills.releases import DRILLS, Drill, Ran, runs
from bench.reporting import RESULTS, Measured, write

NAME = "release_drills"
SEED = 1
_WORDS = {"reject": "rolled back", "promote": "promoted", "hold": "not promoted"}
_GOOD_SHARE = 0.95
_WITHIN_S = 1.0
_ALPHA, _ALPHA_LEVEL = 0.05, 0.99
"""Of wrong promotions; so many of n releases are too many as chance brings in one of a hundred such benches."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=[drill.name for drill in DRILLS], metavar="KIND")
    given = parser.parse_args()
    rows: list[Measured] = []
    failed, done = [], []
    try:
        for drill in DRILLS:
            if given.only and drill.name not in given.only:
                continue
            began_at = time.monotonic()
            found = runs(drill, given.runs, seed=SEED)
            rows += measured(drill, found)
            done.append(drill.name)
            if not is_met(drill, found):
                failed.append(drill.name)
            print(f"{drill.name}: {time.monotonic() - began_at:.0f} s; {found[-1].reason}", flush=True)
    finally:  # also of a run that somebody ends
        if rows:
            write(NAME, [*earlier(done), *rows], [SEED])
    if failed:
        print(f"missed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def earlier(but: Sequence[str]) -> list[dict[str, Any]]:
    """The newest figures of other kinds."""
    path = RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if row["what"].partition(": ")[0] not in but and math.isfinite(row["value"])]


def n_right(drill: Drill, found: list[Ran]) -> int:
    if drill.wanted == "hold":
        return sum(ran.verdict != "promote" for ran in found)
    return sum(ran.verdict == drill.wanted for ran in found)


def n_needed(drill: Drill, n: int) -> float:
    """Of n releases, that are to end as they should."""
    return {"reject": float(n), "promote": _GOOD_SHARE * n, "hold": float(n - _most_by_chance(n))}[drill.wanted]


def _most_by_chance(n: int) -> int:
    """The most of n equal candidates that are promoted at level alpha, but for one time in a hundred."""
    chances = itertools.accumulate(math.comb(n, k) * _ALPHA**k * (1 - _ALPHA) ** (n - k) for k in range(n + 1))
    return next(k for k, chance in enumerate(chances) if chance >= _ALPHA_LEVEL)


def is_met(drill: Drill, found: list[Ran]) -> bool:
    is_quick = all(ran.to_follow_s <= _WITHIN_S for ran in found)
    return n_right(drill, found) >= n_needed(drill, len(found)) and is_quick and not any(ran.n_failed for ran in found)


def measured(drill: Drill, found: list[Ran]) -> list[Measured]:
    """The figures of one kind."""
    name, word = drill.name, _WORDS[drill.wanted]
    requests = [float(ran.n_requests) for ran in found]
    rows = [
        Measured(f"{name}: {word}", n_right(drill, found), f"of {len(found)}"),
        Measured(f"{name}: requests until then, median", statistics.median(requests), ""),
        Measured(f"{name}: requests until then, most", max(requests), ""),
        Measured(f"{name}: labels, median", statistics.median(ran.n_labels for ran in found), ""),
        Measured(f"{name}: requests without an answer", sum(ran.n_failed for ran in found), "of all"),
        Measured(f"{name}: wrong answers of the candidate seen by users, median",
                 statistics.median(ran.n_bad for ran in found), ""),
        Measured(f"{name}: seconds until then, median", statistics.median(ran.seconds for ran in found), "s"),
    ]  # fmt: skip
    if drill.wanted == "reject":
        decided = [ran.to_decide_s for ran in found if ran.to_decide_s is not None]
        if decided:
            middle = statistics.median(decided)
            rows.append(
                Measured(f"{name}: from evidence to decision", middle, "s", low=min(decided), high=max(decided))
            )
        longest = max(ran.to_follow_s for ran in found)
        rows.append(Measured(f"{name}: from decision to the last answer, longest", longest, "s"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
