"""Labels that point into a text, moved to where things are after the door."""

from collections.abc import Mapping
from typing import Any

from headrace.personal.policies import Cleaned


def moved_target(target: Any, became: Cleaned) -> Any:
    """Spans of entities, or the answers to a question, as they are in the text that is kept.

    A span that meets a piece that was replaced takes all of what stands there now.
    """
    if isinstance(target, Mapping):
        return {**target, "answers": [_answer(one, became) for one in target["answers"]]}
    return [[*became.moved(start, end), label] for start, end, label in target]


def moved_spans(spans: Any, became: Cleaned) -> Any:
    """The same of spans as sources write them, objects with `start` and `end`; others stay as they are."""
    return [_span(one, became) for one in spans] if isinstance(spans, list) else spans


def _span(one: Any, became: Cleaned) -> Any:
    if not isinstance(one, Mapping) or not all(isinstance(one.get(end), int) for end in ("start", "end")):
        return one
    start, end = became.moved(one["start"], one["end"])
    return {**one, "start": start, "end": end, **({"text": became.text[start:end]} if "text" in one else {})}


def _answer(one: Mapping[str, Any], became: Cleaned) -> dict[str, Any]:
    start, end = became.moved(one["start"], one["start"] + len(one["text"]))
    return {**one, "start": start, "text": became.text[start:end]}
