"""Counts of what the arms of open releases answered in this server process: what guardrails look at.

Guardrails compare arms as if every request had drawn its arm by itself, but all requests of a unit meet the same arm.
So a kind of event counts once per unit in a release, and a unit that sends what no model can answer does not look like
a bad model. The unit itself is counted once too, in the arm that it met first: it is one draw of an arm, also when the
shares change and it stays, or goes.
"""

import math
import statistics
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.records import Traffic

_MAX_UNITS = 100_000  # of one kind; enough to decide on
_N_TIMES, _RENEW_EVERY, _PERCENTILE = 512, 32, 95
_LEAST_SLOWER_S = 0.005  # a shorter wait is nobody's harm, and within what a busy machine adds to either arm
Place = tuple[str, str, int]
"""Arm, id of the channel, stage."""


@dataclass(frozen=True)
class Seen:
    """What came of one request to one arm."""

    seconds: float | None = None
    """That the arm worked on it, without the wait for its turn; None where it did not answer."""
    failed: bool = False
    late: bool = False
    """No answer in time, or no room."""
    abstained: bool = False


class SlowLimit:
    """From how long on an answer is slow: some times what all but 5 % of the control's latest answers took.

    The limit at a moment hangs on earlier answers only, so equal arms are as likely to be slow.
    """

    def __init__(self, times: float) -> None:
        self._times = times
        self._latest: deque[float] = deque(maxlen=_N_TIMES)
        self._n = 0
        self.seconds = math.inf

    def note(self, seconds: float) -> None:
        """An answer of the control."""
        self._latest.append(seconds)
        self._n += 1
        if self._n % _RENEW_EVERY == 0:
            usual = statistics.quantiles(self._latest, n=100)[_PERCENTILE - 1]
            self.seconds = max(self._times * usual, usual + _LEAST_SLOWER_S)


class _Counts:
    """Of one release."""

    def __init__(self, slowdown: float) -> None:
        self.totals: dict[Place, Traffic] = defaultdict(Traffic)
        self.changed: set[Place] = set()
        self.slow = SlowLimit(slowdown)
        self._units: dict[tuple[str, str], set[int]] = defaultdict(set)
        """Kind and arm ("": all that are compared) to hashes of units that count already."""

    def is_new(self, kind: str, arm: str, unit: str | None) -> bool:
        """Whether an event counts: a unit's first of its kind. None is a unit of its own."""
        if unit is None:
            return True
        known = self._units[kind, arm]
        if hash(unit) in known or len(known) >= _MAX_UNITS:
            return False
        known.add(hash(unit))
        return True


class TrafficCounts:
    """The running totals of this process, by release. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._releases: dict[str, _Counts] = {}

    def note(
        self,
        release_id: str,
        place: Place,
        unit: str | None,
        seen: Seen,
        *,
        is_control: bool,
        slowdown: float,
        is_apart: bool = False,
    ) -> None:
        """Count a request.

        Args:
            is_control: the answer says what is usual, see `SlowLimit`.
            slowdown: times what is usual from which on an answer is slow.
            is_apart: the arm is compared with none that units come from or go to, so they count in it anew.
        """
        with self._lock:
            counts = self._releases.setdefault(release_id, _Counts(slowdown))
            is_slow = seen.seconds is not None and seen.seconds > counts.slow.seconds
            if is_control and seen.seconds is not None:
                counts.slow.note(seen.seconds)
            events = {
                "n_errors": seen.failed, "n_timeouts": seen.late, "n_slow": is_slow, "n_abstained": seen.abstained,
                "n_units": True,
            }  # fmt: skip
            arm = place[0] if is_apart else ""
            new = {kind: int(happened and counts.is_new(kind, arm, unit)) for kind, happened in events.items()}
            counts.totals[place] += Traffic(n_requests=1, **new)
            counts.changed.add(place)

    def take_changed(self) -> dict[str, dict[Place, Traffic]]:
        """Totals that changed since the last time, by release."""
        with self._lock:
            found = {
                release_id: {place: counts.totals[place] for place in counts.changed}
                for release_id, counts in self._releases.items()
                if counts.changed
            }
            for counts in self._releases.values():
                counts.changed.clear()
            return found

    def give_back(self, release_id: str, places: Iterable[Place]) -> None:
        """What was taken could not be kept: take it again next time."""
        with self._lock:
            if release_id in self._releases:
                self._releases[release_id].changed.update(places)

    def forget_all_but(self, release_ids: Iterable[str]) -> None:
        """Let go of releases that ended."""
        kept = set(release_ids)
        with self._lock:
            self._releases = {name: counts for name, counts in self._releases.items() if name in kept}


def abstains(answers: Iterable[Any]) -> bool:
    """Whether at least half of the answers of a request say nothing: an empty list, text or object of empty ones."""
    said = [any(one.values()) if isinstance(one, Mapping) else one not in (None, "", [], ()) for one in answers]
    return bool(said) and 2 * sum(said) <= len(said)
