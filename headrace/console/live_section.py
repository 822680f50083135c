"""The report's part about live traffic: how often answers are right by audits, and what has changed."""

from typing import Any

from headrace.console.facts import TaskFacts
from headrace.console.markup import Html, Part, element, join, table
from headrace.feedback.accuracy import Part as Counted
from headrace.records import Interval

_MOST_CHANNELS = 100


def live(facts: TaskFacts, _prefix: str) -> Html | None:
    """Live accuracy and drift; None where neither has anything to show."""
    overall = facts.live.overall
    parts: list[Part] = []
    if overall is not None and overall.n_requests:
        parts += _accuracy(facts, overall)
    if facts.drift["watched"]:
        parts += _drift(facts.drift)
    return join(element("h3", "Live answers"), *parts) if parts else None


def _accuracy(facts: TaskFacts, overall: Counted) -> list[Part]:
    channels = sorted(facts.live.channels.items(), key=lambda item: (-item[1].n_requests, item[0]))
    rows: list[list[Part]] = [
        [
            name,
            part.version,
            f"{part.n_requests:,}",
            f"{part.n_audits:,}",
            f"{part.n_unanswered:,}",
            part.reason if part.accuracy is None else _ends(part.accuracy),
            "" if part.volunteered.share_right is None else f"{part.volunteered.share_right:.1%}",
            part.volunteered.bias,
        ]
        for name, part in [("all channels", overall), *channels[:_MOST_CHANNELS]]
    ]
    head: list[Part] = [
        "channel", "version", "answers", "audits", "unanswered", "right, by audits", "volunteers say", "who are",
    ]  # fmt: skip
    until = f"{facts.live.until:%Y-%m-%d %H:%M} UTC"
    caption = f"Answers up to {until}, whose audits had {facts.live.window_days:g} days; 95 % intervals"
    found: list[Part] = [table(head, rows, caption=caption, numbers=(2, 3, 4), wide=(5, 7))]
    if len(channels) > _MOST_CHANNELS:
        found.append(element("p", f"{len(channels) - _MOST_CHANNELS:,} channels with fewer answers are not shown."))
    return found


def _drift(drift: dict[str, Any]) -> list[Part]:
    until = drift["looked_until"][:16].replace("T", " ")
    alarms: list[Part] = [
        element(
            "p",
            element("b", "Something has changed: "),
            f"{alarm['in_words']}.",
            class_=f"verdict {'reject' if alarm['evidence']['effect']['accuracy'] == 'affected' else ''}",
        )
        for alarm in drift["alarms"]
    ]
    return [*alarms, element("p", f"Changes were looked for up to {until} UTC.", class_="quiet")]


def _ends(found: Interval) -> str:
    return f"{found.estimate:.1%} ({found.low:.1%} to {found.high:.1%})"
