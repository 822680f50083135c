"""The plan and the state of a release as people read them."""

from typing import Any

from headrace.cli.rendering import table

_RISKS = {
    "traffic": "is a server running, do clients name this task, and has it loaded the candidate (GET /v1/models)?",
    "labels": "headrace review next asks for some; corrections that users send count where release.labels says so",
    "differences": "both answer alike where labels came: more labels, or stop it, as it changes little",
    "evidence": "labels have stopped coming; without them it stays undecided",
}
_REVIEW = "differences wait for a reviewer: headrace review next"
_SURE = 0.8  # of the releases: what plans are made for


def show_plan(found: dict[str, Any]) -> None:
    points = found["drop_points"]
    what = f"a drop of {points:g} points" if points > 0 else f"a gain of {-points:g} points"
    parts = {"all": found["all"], **found["channels"]}
    rows = [(name, one["n_rows"], f"{one['disagreement_share']:.1%}", *_planned(one)) for name, one in parts.items()]
    head = ("channel", "held-out rows", "answers differ", "requests", "labels", "cost", "days")
    table(head, rows, title=f"{found['candidate']} beside {found['control']} ({found['policy']}): to find {what}")
    print("Half of such releases need no more than the first number, nine in ten no more than the second.")
    if found["labels"] == "asked":
        print("Labels are answers of reviewers, who are asked about differences (release.labels): headrace review next")
    if found["promotion"] is not None:
        _show_promotion(found, what)
    if (shown := found["all"]["no_worse"]) is not None:
        requests, labels = (_pair(shown[f"{what}_median"], shown[f"{what}_p90"]) for what in ("n_requests", "n_labels"))
        print(f"To show that one as good is not worse by the margin: {requests} requests, {labels} labels.")
    elif found["all"]["no_worse_reason"] is not None:
        print(f"That it is not worse by the margin will not be shown: {found['all']['no_worse_reason']}.")
    for name, part in parts.items():
        if part["plan"] is None:
            print(f"{name}: no plan, since {part['reason']}.")
    if found["price_per_label"] is None:
        print("What it would cost: add --price, of one label.")
    if not found["all"]["requests_per_day"]:
        print("Days are not known: the prediction log has seen no traffic in the last week.")


def _show_promotion(found: dict[str, Any], what: str) -> None:
    """Of a canary: when it takes charge, and whether the drop would show before."""
    promotion, share = found["promotion"], found["all"]["found_share"]
    first = promotion["stages"][0]
    days = "" if promotion["days"] is None else f" ({_amount(promotion['days'])} days)"
    points = 100 * promotion["margin"]
    margin = f", or as many as exclude a drop of {points:g} points" if points else ""
    print(
        f"If nothing speaks against it, it takes charge after {promotion['n_requests']:,} requests{days}, "
        f"{first['n_requests']:,} of them in the first stage ({first['share']:.3g} of the requests), and with "
        f"{promotion['n_labels']:,} labelled answers{margin}."
    )
    if share is not None and found["drop_points"] > 0:
        print(f"Of such releases, {share:.0%} find {what} before that.", end=" " if share < _SURE else "\n")
        if share < _SURE:
            print("To find more: longer stages (release.dwell_requests), or --policy shadow.")


def _planned(part: dict[str, Any]) -> list[str]:
    """Requests, labels, cost and days of a part, each as median and 90 % quantile."""
    plan = part["plan"] or {}
    pairs = [(plan.get(f"{what}_median"), plan.get(f"{what}_p90")) for what in ("n_requests", "n_labels", "cost")]
    pairs.append((part["days_median"], part["days_p90"]))
    return [_pair(low, high) for low, high in pairs]


def _pair(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"{_amount(low)} / {_amount(high)}"


def show_status(state: dict[str, Any]) -> None:
    if state["control"] is None:
        print(f"No version of {state['task']} is in charge yet.")
        return
    print(f"{state['control']} is in charge of {state['task']}{_since(state) if state['release'] is None else ''}.")
    for channel, version in state["channels"].items():
        print(f"{version} is in charge of channel {channel}.")
    if state["release"] is None:
        print("No release is open.")
        return
    print(_opened(state))
    for arm, found in state["arms"].items():
        parts = {"all": found["all"], **found["channels"]}
        rows = [(name, state["ended"].get(name, one["verdict"]), *_evidence(one)) for name, one in parts.items()]
        head = (
            "channel",
            "so far",
            "requests",
            "labels",
            "differ",
            "gain",
            "pooled",
            "e better",
            "e worse",
            "e needed",
        )
        table(head, rows, title=f"{found['version']} ({arm})")
    if any(part["pooled_gain"] is not None for found in state["arms"].values() for part in found["channels"].values()):
        print(
            "Gains are in points. Pooled: what a channel with few labels is likely to gain, which is near what all do."
        )
    met = [rail for rail in state["guardrails"] if rail["n_requests"]]
    if met:
        rows = [_rail(rail) for rail in met]
        table(("arm", "guardrail", "candidate", "control", "limit", "e", "e needed", ""), rows, title="Guardrails")
    for found in state["arms"].values():
        print(f"{found['version']}: {found['all']['says']}.")
    print(f"{state['health'].capitalize()}: {state['verdict']}. {state['reason']}.")
    if state["n_repeated_labels"]:
        print(f"{state['n_repeated_labels']:,} more labelled answers do not count: one of each unit does.")
    if state["waits_since"] is not None:
        print(_wait(state))
    if state["days_left"] is not None and state["verdict"] == "hold":
        print(f"At the pace so far that is about {_amount(state['days_left'])} days.")


def _wait(state: dict[str, Any]) -> str:
    """What it waits for, since when, and where that is long, what to look at."""
    told = f"waits for {state['waits_for']} since {_minute(state['waits_since'])}"
    if not state["is_stuck"]:
        return f"It {told}."
    n_waiting = sum(found["all"]["n_waiting"] for found in state["arms"].values())
    is_asked = n_waiting and state["waits_for"] in ("labels", "evidence")
    step = f"{n_waiting:,} {_REVIEW}" if is_asked else _RISKS.get(state["waits_for"])
    return f"Stuck: it {told}{'' if step is None else f'; {step}'}."


def _minute(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC"


def _since(state: dict[str, Any]) -> str:
    return f" since {_minute(state['since'])}"


def _opened(state: dict[str, Any]) -> str:
    where = "" if state["scope"] is None else f" in {', '.join(state['scope'])}"
    shares = ", ".join(f"{arm} {share:.3g}" for arm, share in state["weights"].items())
    stage = f", stage {state['stage'] + 1}" if state["stage"] or len(state["weights"]) > 1 else ""
    return f"{state['release']} ({state['policy']}) is open{_since(state)}{where}: {shares}{stage}."


def _evidence(part: dict[str, Any]) -> tuple[object, ...]:
    gain, pooled = (None if value is None else f"{100 * value:+.1f}" for value in (part["gain"], part["pooled_gain"]))
    es = (_amount(part[key]) for key in ("e_benefit", "e_harm", "e_needed"))
    return part["n_requests"], part["n_labelled"], part["n_differing"], gain, pooled, *es


def _rail(rail: dict[str, Any]) -> tuple[object, ...]:
    candidate = f"{rail['n_events']} of {rail['n_requests']:,}"
    control = f"{rail['n_events_control']} of {rail['n_requests_control']:,}"
    state = "FIRED" if rail["fired"] else "quiet"
    limit = f"{rail['limit']:.3g}"
    return (
        rail["arm"],
        rail["guardrail"],
        candidate,
        control,
        limit,
        _amount(rail["e"]),
        _amount(rail["e_needed"]),
        state,
    )


def _amount(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if value >= 1e9 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
