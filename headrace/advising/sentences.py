"""What a mentor says: a sentence with its number, its interval and the command that shows it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.records import Interval

Verdict = Literal["act", "fine", "not known"]
"""Whether there is something to do about it."""


@dataclass(frozen=True)
class Sentence:
    """One piece of advice, or one thing that was checked and is fine."""

    about: str
    """What was looked at, in a word that stays."""
    verdict: Verdict
    text: str
    """With the number and its interval in it."""
    number: float | None
    """None where it could not be had; the text says why."""
    unit: str
    interval: Interval | None
    command: str
    """Shows the number."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What stands behind it, such as the ids of rows."""

    def as_json(self) -> dict[str, Any]:
        ends = self.interval
        return {
            "about": self.about,
            "verdict": self.verdict,
            "text": self.text,
            "number": self.number,
            "unit": self.unit,
            "low": None if ends is None else ends.low,
            "high": None if ends is None else ends.high,
            "level": None if ends is None else ends.level,
            "command": self.command,
            "facts": self.facts,
        }


def say(
    about: str, verdict: Verdict, text: str, interval: Interval, *, unit: str, command: str, **facts: Any
) -> Sentence:
    """A sentence about a measured number.

    Args:
        text: `{}` in it is where the number and its interval go.
    """
    return Sentence(
        about, verdict, text.replace("{}", shown(interval, unit)), interval.estimate, unit, interval, command, facts
    )


def not_known(about: str, why: str, *, command: str) -> Sentence:
    return Sentence(about, "not known", why, None, "", None, command)


def advice(task: str, mentor: str, sentences: Sequence[Sentence]) -> dict[str, Any]:
    """As the verbs and the SDK answer: what there is to do first."""
    order = {"act": 0, "not known": 1, "fine": 2}
    said = sorted(sentences, key=lambda one: order[one.verdict])
    return {"task": task, "mentor": mentor, "sentences": [one.as_json() for one in said]}


def shown(found: Interval, unit: str) -> str:
    """Such as `3.1 % [2.0, 4.4]`, or `1.2 points [.4, 2.1]`."""
    times, name = (100.0, "%") if unit == "share" else (1.0, unit)
    middle, low, high = (_digits(times * value) for value in (found.estimate, found.low, found.high))
    return f"{middle}{f' {name}' if name else ''} [{low}, {high}]"


def _digits(value: float) -> str:
    """Two decimals at most, and three digits of what is small or great."""
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2g}"
