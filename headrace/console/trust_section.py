"""The part of the report about whose feedback counts."""

from headrace.console.facts import TaskFacts
from headrace.console.markup import Html, Part, element, join, table
from headrace.records import Interval

_MOST_SOURCES = 50


def trusted(facts: TaskFacts, _prefix: str) -> Html | None:
    """Every source with what is known of it, those with the most labels first, and what is suspended."""
    if not facts.sources:
        return None
    ordered = sorted(facts.sources, key=lambda one: (one.source.labeller is not None, -one.n_labels, str(one.source)))
    rows: list[list[Part]] = [
        [str(one.source), one.n_labels, _ends(one.accuracy), f"{one.weight:g}", one.reason]
        for one in ordered[:_MOST_SOURCES]
    ]
    head: list[Part] = ["source", "labels", "right on known answers", "counts", "because"]
    left_out = len(ordered) - len(rows)
    more = element("p", f"{left_out:,} more sources: headrace trust list") if left_out else None
    caption = "Channels and labellers whose feedback became labels, and what a label of each counts"
    return join(
        element("h3", "Whose feedback counts"), table(head, rows, caption=caption, numbers=(1,)), more, _held(facts)
    )


def _held(facts: TaskFacts) -> Html | None:
    in_force = [one for one in facts.suspensions if one.lifted_at is None]
    if not in_force:
        return None
    rows: list[list[Part]] = [
        [one.id, one.channel if one.labeller is None else f"{one.channel}/{one.labeller}", one.reason]
        for one in in_force
    ]
    caption = "Suspended feedback. Nothing of it is deleted: headrace trust lift ID --because ..."
    return table(["suspension", "source", "reason"], rows, caption=caption)


def _ends(found: Interval | None) -> str:
    return "not asked" if found is None else f"{found.estimate:.0%} ({found.low:.0%} to {found.high:.0%})"
