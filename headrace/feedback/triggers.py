"""Whether a new version is due: enough new labels that count, answers that have become worse, or age.

A count of events is none of the three: what came back is as good as those who sent it, so only labels that trust lets
through are counted, by their weight, and of drift only what audits say has made answers worse. Without a single new
label that counts nothing is due, since the same rows give the same version. Facts are gathered by headrace/trusting.py.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from headrace.config import FeedbackTable

_DAY_S = 86_400.0
Kind = Literal["labels", "drift", "schedule", "none"]


@dataclass(frozen=True)
class Facts:
    """What is known when it is asked whether a new version is due."""

    newest: str
    """The version that was made last, in charge or not."""
    newest_at: datetime
    now: datetime
    n_new_labels: int
    """By what they are worth; 0 where a version was made of the rows of now."""
    n_held_back: int = 0
    """Examples with new feedback that does not count for now."""
    alarms: tuple[str, ...] = ()
    """In words: those that came since the newest version and of which audits say that answers are worse."""


@dataclass(frozen=True)
class Trigger:
    """Whether to make a new version, and why."""

    fires: bool
    kind: Kind
    reason: str


def judge(facts: Facts, settings: FeedbackTable) -> Trigger:
    """The rule. Pure."""
    new = f"{facts.n_new_labels:,} new labels that count since {facts.newest}"
    if facts.n_new_labels >= settings.min_new_labels:
        return Trigger(True, "labels", f"{new}, feedback.min_new_labels is {settings.min_new_labels:,}")
    if facts.alarms and settings.drift_triggers and facts.n_new_labels:
        return Trigger(True, "drift", f"answers are worse: {facts.alarms[0]}; {new}")
    age_days = (facts.now - facts.newest_at).total_seconds() / _DAY_S
    if settings.retrain_days and age_days >= settings.retrain_days and facts.n_new_labels:
        return Trigger(True, "schedule", f"{facts.newest} is {age_days:.1f} days old; {new}")
    held_back = f"; those of {facts.n_held_back:,} examples are held back" if facts.n_held_back else ""
    worse = "answers are worse, but there is nothing new to learn from: " if facts.alarms else ""
    return Trigger(False, "none", f"{worse}{new}, a new version needs {settings.min_new_labels:,}{held_back}")
