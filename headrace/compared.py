"""Inputs that both arms of a shadow release answered, as counted for its margin: frozen, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Compared:
    """Inputs of one channel that both arms of a shadow release answered; of disjoint ones counts add up."""

    n: int = 0
    """All of them. What is not counted below says nothing: equal answers, and different ones nobody was asked about."""
    wins: int = 0
    """A reviewer who was asked about the difference says that the candidate alone is right."""
    losses: int = 0
    """The reverse; also a difference that was asked about and skipped: it might have been one."""
    n_waiting: int = 0
    """Differences that are asked about and have no answer yet."""

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(
            self.n + other.n,
            self.wins + other.wins,
            self.losses + other.losses,
            self.n_waiting + other.n_waiting,
        )


@dataclass(frozen=True)
class Asked:
    """What reviewers say of the differences that a shadow release asks about, by channel."""

    settled: Mapping[str, Compared]
    """Of all inputs up to the first that waits for an answer; where channels are decided alone, of its channel."""
    looked_at: Mapping[str, Compared]
    """Of all inputs up to now."""
