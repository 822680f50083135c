"""The report's part about the newest release: how it stands per channel, its guardrails, its evidence over time."""

from headrace.console import figures
from headrace.console.facts import TaskFacts
from headrace.console.markup import Html, Part, element, join, table

_MOST_CHANNELS = 40
_MOST_CURVES = 9  # of one candidate, all channels together among them


def release(facts: TaskFacts, prefix: str) -> Html | None:
    """The open release, or the curves of the last one; None where neither has anything to show."""
    if facts.tried is None:
        return None
    parts: list[Part] = []
    if facts.release is not None:
        parts += [_verdict(facts), *_stands(facts), _guardrails(facts)]
    parts += _curves(facts, prefix)
    if not parts:
        return None
    name = "The open release" if facts.release is not None else f"The last release, {facts.tried.state}"
    return join(element("h3", name), *parts)


def _verdict(facts: TaskFacts) -> Html:
    state = facts.state
    shares = ", ".join(f"{arm} {share:.3g}" for arm, share in state["weights"].items())
    kind = "reject" if state["verdict"] == "reject" or state["health"] in ("unhealthy", "guardrail fired") else ""
    stuck = " It is stuck." if state["is_stuck"] else ""
    since = f" since {state['waits_since'][:16].replace('T', ' ')} UTC" if state["waits_since"] else ""
    waits = f" It waits for {state['waits_for']}{since}." if state["waits_for"] else ""
    return element(
        "p",
        element("b", f"{state['health'].capitalize()}: {state['verdict']}."),
        f" {state['reason']}.{waits}{stuck} Policy {state['policy']}, shares {shares}, stage {state['stage'] + 1}.",
        class_=f"verdict {kind}",
    )


def _stands(facts: TaskFacts) -> list[Part]:
    """A table of each candidate."""
    found: list[Part] = []
    for arm, stands in facts.state["arms"].items():
        channels = sorted(stands["channels"].items(), key=lambda item: (-item[1]["n_labelled"], item[0]))
        rows: list[list[Part]] = [
            [
                name,
                facts.state["ended"].get(name, part["verdict"]),
                f"{part['n_requests']:,}",
                f"{part['n_labelled']:,}",
                _points(part["gain"]),
                _points(part["pooled_gain"]),
                shown(part["e_benefit"]),
                shown(part["e_harm"]),
                shown(part["e_needed"]),
                part["says"],
            ]
            for name, part in [("all channels", stands["all"]), *channels[:_MOST_CHANNELS]]
        ]
        head: list[Part] = [
            "channel", "so far", "requests", "labels", "points gained", "pooled", "better", "worse", "needed",
            "in words",
        ]  # fmt: skip
        caption = (
            f"{stands['version']} ({arm}): evidence that it is better or worse, and what it takes to tell. Pooled: "
            "what a channel with few labels is likely to gain, which is near what all do; it decides nothing"
        )
        found.append(table(head, rows, caption=caption, numbers=(2, 3, 4, 5, 6, 7, 8), wide=(9,)))
        if len(channels) > _MOST_CHANNELS:
            found.append(element("p", f"{len(channels) - _MOST_CHANNELS:,} channels with fewer labels are not shown."))
    return found


def _guardrails(facts: TaskFacts) -> Html | None:
    met = [rail for rail in facts.state["guardrails"] if rail["n_requests"]]
    if not met:
        return None
    rows: list[list[Part]] = [
        [
            rail["arm"],
            rail["guardrail"],
            f"{rail['n_events']:,} of {rail['n_requests']:,}",
            f"{rail['n_events_control']:,} of {rail['n_requests_control']:,}",
            f"{rail['limit']:.3g}",
            shown(rail["e"]),
            shown(rail["e_needed"]),
            "fired" if rail["fired"] else "quiet",
        ]
        for rail in met
    ]
    head: list[Part] = ["arm", "guardrail", "candidate", "control", "limit", "evidence", "needed", ""]
    return table(head, rows, caption="Guardrails: what would roll the candidate back", numbers=(2, 3, 4, 5, 6))


def _curves(facts: TaskFacts, prefix: str) -> list[Part]:
    assert facts.tried is not None
    options, found = facts.tried.options, list[Part]()
    n_channels = max(1, len(options.get("channels", ())))
    for arm, curves in facts.curves.items():
        if len(curves["all"]["n_labelled"]) < 2:
            continue
        by_labels = sorted(curves["channels"].items(), key=lambda item: (-item[1]["n_labelled"][-1], item[0]))
        named = {"all channels": curves["all"], **dict(by_labels[: _MOST_CURVES - 1])}
        needed = {name: (1 if name == "all channels" else n_channels) / options["alpha"] for name in named}
        figure = figures.evidence_over_time(named, needed, name=f"{prefix}-{arm}-over-time")
        caption = (
            f"Evidence that {facts.name_of(facts.tried.version_of(arm))} is better or worse, after each label. The "
            "dashed line is what it takes; for one channel alone, as long as no other has reached its own. A curve "
            "that passes it has decided, whatever it does later."
        )
        left_out = len(by_labels) + 1 - len(named)
        more = f" {left_out:,} channels with fewer labels are not drawn." if left_out else ""
        found.append(element("figure", figure, element("figcaption", caption + more)))
    return found


def _points(gain: float | None) -> str:
    return "" if gain is None else f"{100 * gain:+.1f}"


def shown(e: float) -> str:
    """An e-value in few digits."""
    return f"{e:.1e}" if e >= 1e6 else f"{e:,.0f}" if e >= 100 else f"{e:.2g}"
