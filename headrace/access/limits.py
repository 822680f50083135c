"""How much may be asked: requests over time, and rows in a day. Pure: the time, and what was there, is passed in.

A rate is a bucket of tokens: full at first, filled at the rate, and each request takes one. In any time of t seconds no
more than `rate * t + burst` requests find one. A bucket is one number, the time at which it will be full again (the
"generic cell rate algorithm", ITU-T I.371), so that ten thousand keys take no room to speak of.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_NOTHING_S = 1e-6  # sums of many steps are off by less


@dataclass(frozen=True)
class Rate:
    """Requests over time."""

    per_s: float
    burst: float
    """That may come at once; 1 at least."""

    @classmethod
    def over(cls, per_s: float, burst_s: float) -> "Rate":
        """A rate of which `burst_s` seconds may come at once."""
        return cls(per_s, max(1.0, per_s * burst_s))


@dataclass(frozen=True)
class Standing:
    """What is left of a limit."""

    left: int
    full_in_s: int
    """Whole seconds until nothing is used up."""


class Buckets:
    """One bucket for each name. Times are on a monotonic clock."""

    def __init__(self) -> None:
        self._full_at: dict[Hashable, float] = {}

    def wait_s(self, name: Hashable, rate: Rate, now: float) -> float:
        """How long until a request finds a token; 0: now."""
        wait_s = self._full_at.get(name, now) - now - (rate.burst - 1) / rate.per_s
        return wait_s if wait_s > _NOTHING_S else 0.0

    def take(self, name: Hashable, rate: Rate, now: float) -> None:
        """Take the token of a request that need not wait."""
        self._full_at[name] = max(self._full_at.get(name, now), now) + 1 / rate.per_s

    def standing(self, name: Hashable, rate: Rate, now: float) -> Standing:
        missing_s = max(0.0, self._full_at.get(name, now) - now - _NOTHING_S)
        return Standing(max(0, math.floor(rate.burst - missing_s * rate.per_s)), math.ceil(missing_s))


class Days:
    """Rows of today (UTC) by name: those that the store knows, those that are not there yet, and those under way."""

    def __init__(self) -> None:
        self._day = date.min
        self._rows: Counter[Hashable] = Counter()
        self._under_way: Counter[Hashable] = Counter()

    def is_of(self, now: datetime) -> bool:
        """Whether what is known is about the day of this instant."""
        return now.astimezone(UTC).date() == self._day

    def begin(self, now: datetime, rows: Mapping[Hashable, int]) -> None:
        """Start from what is known of the day of this instant; what is under way stays under way."""
        self._day, self._rows = now.astimezone(UTC).date(), Counter(rows)

    def used(self, name: Hashable) -> int:
        return self._rows[name] + self._under_way[name]

    def admit(self, name: Hashable, n_rows: int) -> None:
        """Rows are under way: until `settle` they count as if they were answered."""
        self._under_way[name] += n_rows

    def settle(self, name: Hashable, n_rows: int, n_answered: int) -> None:
        """Of rows that were under way, so many were answered."""
        self._under_way[name] -= n_rows
        if not self._under_way[name]:
            del self._under_way[name]
        if n_answered:
            self._rows[name] += n_answered


def midnight_in_s(now: datetime) -> float:
    """Seconds until the next day (UTC) begins; above 0."""
    return (day_start(now) + timedelta(days=1) - now).total_seconds()


def day_start(now: datetime) -> datetime:
    """When the day (UTC) of an instant began."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
