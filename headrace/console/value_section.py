"""The report's part on value: what each source adds, and what more labels would bring."""

from collections.abc import Mapping
from typing import Any

from headrace.console import figures
from headrace.console.facts import TaskFacts
from headrace.console.markup import Html, Part, element, join, table

PREDICTOR = "value"
_REPROACHES = {
    "harms": "test rows are answered better without it",
    "contradicts": "its labels are what the others would say less often than by chance",
}
_MOST_SOURCES = 40
_MOST_CURVES = 8


def of_sources(facts: TaskFacts, prefix: str) -> Html | None:
    """The newest values that `headrace value` kept; None where nobody asked for them."""
    known = [e for e in facts.evaluations if e.predictor == PREDICTOR]
    if not known or not known[-1].results["sources"]:
        return None
    found = known[-1].results
    title = element("h3", "What each channel adds")
    return join(title, element("p", _note(found)), _sources(found), _curves(found, prefix))


def _note(found: Mapping[str, Any]) -> str:
    said = (
        f"Points of right answers on {found['n_test_rows']:,} test rows that the rows of a source add, by logistic "
        "regression on frozen vectors with and without them, with 95 % intervals. Agreement: how often models that "
        "never saw a row of the source give its label."
    )
    for one in found["sources"]:
        if one["source"] in found["harmful"]:
            said += f" {one['source']} {one['verdict']}: {_REPROACHES[one['verdict']]}."
    return said


def _sources(found: Mapping[str, Any]) -> Html:
    rows: list[list[Part]] = [
        [
            one["source"],
            f"{one['n_rows']:,}",
            _points(one["for"]["itself"]),
            _points(one["for"]["others"]),
            "" if one["agreement"]["estimate"] is None else f"{one['agreement']['estimate']:.3f}",
            one["verdict"] if one["whom"] is None else f"{one['verdict']} {one['whom']}",
        ]
        for one in found["sources"][:_MOST_SOURCES]
    ]
    head: list[Part] = ["source", "rows", "for itself", "for the others", "agreement", "verdict"]
    return table(head, rows, caption="Sources, the best agreement first", numbers=(1, 2, 3, 4))


def _points(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return ""
    points = part["points"]
    return f"{points['estimate']:+.2f} ({points['low']:+.2f} to {points['high']:+.2f})"


def _curves(found: Mapping[str, Any], prefix: str) -> Html | None:
    drawn = {one["channel"] or "all channels": one for one in found["curves"] if "reason" not in one}
    if not drawn:
        return None
    shown = dict(list(drawn.items())[:_MOST_CURVES])
    figure = figures.forecasts(shown, name=f"{prefix}-forecasts")
    gains = [one for one in drawn.values() if one["channel"] is not None]
    caption = "Learning curves on frozen vectors, each channel's with the others' rows as they are."
    if gains:
        best = max(gains, key=lambda one: one["gain_points"]["estimate"])
        gain = best["gain_points"]
        caption += (
            f" {best['n_more']} more labels bring most to {best['channel']}: {gain['estimate']:.2f} points "
            f"({gain['low']:.2f} to {gain['high']:.2f})."
        )
    return element("figure", figure, element("figcaption", caption))
