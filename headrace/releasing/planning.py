"""`release plan`: before a release starts, how many requests and labels it will take, how long, and at what cost.

It rests on how often candidate and control disagree on held-out rows, overall and in each channel, and on the traffic
that the prediction log has seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from headrace.errors import BadInput, WrongState
from headrace.release import controls
from headrace.release.policies import POLICIES, Policy, options_of
from headrace.releasing import gating
from headrace.stats import planning
from headrace.store import channels, predictions
from headrace.workspace import Workspace

Report = Callable[..., None]
_WINDOW = timedelta(days=7)
"""Of the prediction log, from which the traffic to come is taken."""
_LEAST_SPAN = timedelta(hours=1)
"""A log of less than that is taken for one of that: a minute says little about a day."""
_FEWEST_DIFFERENCES = 5
"""With fewer, a channel's own share of disagreements says little: that of all rows stands for it."""
_POINT = 0.01


@dataclass(frozen=True)
class _Question:
    """What a plan is asked for."""

    policy: str
    drop: float
    """In shares of 1."""
    alpha: float
    price: float | None
    label_share: float
    shares: tuple[float, float] | None
    """Of the requests, that control and candidate answer; None: both answer all of them (shadow)."""
    margin: float
    """Accuracy that a candidate may lose, in shares of 1; 0: none."""
    ask_share: float
    """Of the disagreements, that reviewers are asked about for the margin."""


def plan(
    ws: Workspace,
    candidate: str,
    *,
    drop: float = 2.0,
    price: float | None = None,
    label_share: float = 1.0,
    policy: str | None = None,
    task: str | None = None,
    report: Report = lambda *_args, **_facts: None,
) -> dict[str, Any]:
    """How many requests and labels a release of a version will take to find a drop, or show a gain, of some points.

    Args:
        drop: points of accuracy (hundredths) that the candidate is worse; below 0 for a gain.
        price: of one label, in any currency.
        label_share: of the answers that could use a label, how many get one.
        policy: how the release would decide; None: release.policy.

    Returns:
        What was asked, `shares` (of the requests, that control and candidate answer; None where both answer all), `all`
        and `channels`: each with what was seen on held-out rows (`n_rows`, `disagreement_share`, ...), `plan` (the
        fields of `stats.planning.Plan`, or None with a `reason`), `requests_per_day`, `days_median` and `days_p90`
        (None without traffic so far), and with a `release.margin` `no_worse`: the plan until a shadow that is as good
        as the control is shown not to be worse by that.

    Raises:
        NotFound: no such version or policy.
        WrongState: no version is in charge, or the candidate itself is.
        BadInput: a number that cannot be, or the candidate's snapshot has no test rows.
    """
    _check(drop, price, label_share)
    name = ws.task_name(task)
    policy = policy or ws.settings.release.policy
    version, control = controls.find_version(ws, name, candidate), controls.serving(ws, name).control
    limits, shares = ws.settings.release, _shares(ws, policy)
    asked = _Question(policy, drop * _POINT, limits.alpha, price, label_share, shares, limits.margin, limits.ask_share)
    if version.id == control.id:
        raise WrongState("the candidate is already in charge", value=version.name, next_step="Name another version")
    compared = gating.measured(ws, control, version, report)["comparison"]
    per_day = _requests_per_day(ws, name)
    with ws.store.read() as conn:
        n_channels = len(channels.listing(conn))
    overall = compared["overall"]
    return {
        "task": name,
        "candidate": version.name,
        "control": control.name,
        "policy": policy,
        "drop_points": drop,
        "alpha": asked.alpha,
        "price_per_label": price,
        "label_share": label_share,
        "shares": asked.shares,
        "all": _part(asked, overall, overall, sum(per_day.values()), 1),
        "channels": {
            channel: _part(asked, part, overall, per_day.get(channel, 0.0), max(1, n_channels))
            for channel, part in compared["channels"].items()
        },
    }


def _check(drop: float, price: float | None, label_share: float) -> None:
    if not 0 < abs(drop) <= 100:
        raise BadInput("the drop is in points, up to 100 and not 0", value=drop, next_step="Such as --drop 2")
    if price is not None and price < 0:
        raise BadInput("a price is 0 or more", value=price, next_step="Such as --price 0.1")
    if not 0 < label_share <= 1:
        raise BadInput(
            "a share of labels is above 0, up to 1", value=label_share, next_step="Such as --label-share 0.5"
        )


def _shares(ws: Workspace, policy: str) -> tuple[float, float] | None:
    """Of the requests, that control and candidate answer; with a ramp, in its last stage."""
    options = options_of(ws.settings.release, ())
    rule: Policy = POLICIES.get(policy)
    weights = rule.weights(options)
    if "candidate" not in weights:
        return None
    if "baseline" in weights:
        return options["ramp"][-1] / 100, options["ramp"][-1] / 100
    return weights["control"], weights["candidate"]


def _requests_per_day(ws: Workspace, task: str) -> dict[str, float]:
    """Inputs a day by channel, as the prediction log of the last days has them."""
    now = ws.clock()
    with ws.store.read() as conn:
        seen = predictions.asked_since(conn, task, now - _WINDOW)
    if not seen:
        return {}
    span = max(now - min(first for _, first in seen.values()), _LEAST_SPAN)
    return {channel: n / (span / timedelta(days=1)) for channel, (n, _) in seen.items()}


def _part(
    asked: _Question, part: Mapping[str, Any], overall: Mapping[str, Any], per_day: float, n_hypotheses: int
) -> dict[str, Any]:
    """The plan of all rows or of one channel."""
    is_own = part["n_disagreements"] >= _FEWEST_DIFFERENCES
    taken = part if is_own else overall
    no_worse = _no_worse(asked, *_rates(taken)[:2], n_hypotheses)
    seen = {
        "n_rows": part["n"],
        "n_disagreements": part["n_disagreements"],
        "disagreement_share": part["n_disagreements"] / part["n"],
        "taken_from": "its own rows" if is_own or part is overall else "all rows, since its own disagree too seldom",
        "requests_per_day": round(per_day, 1),
        "no_worse": None if no_worse is None else asdict(no_worse),
    }
    try:
        found = asdict(_planned(asked, *_rates(taken), n_hypotheses))
    except ValueError as error:
        return {**seen, "plan": None, "reason": str(error), "days_median": None, "days_p90": None}
    median, p90 = (round(found[f"n_requests_{at}"] / per_day, 2) if per_day else None for at in ("median", "p90"))
    return {**seen, "plan": found, "reason": None, "days_median": median, "days_p90": p90}


@lru_cache(maxsize=1000)
def _no_worse(
    asked: _Question, disagreement_share: float, both_wrong_share: float, n_hypotheses: int
) -> planning.Plan | None:
    if not asked.margin or asked.shares is not None:
        return None
    return planning.no_worse(
        disagreement_share,
        asked.margin,
        asked.alpha / n_hypotheses,
        share=asked.ask_share,
        both_wrong_share=both_wrong_share,
        price_per_label=asked.price,
    )


def _rates(part: Mapping[str, Any]) -> tuple[float, float, float]:
    """Shares of rows: that the two disagree on; of those, that neither has right; that the control has right.

    Rounded, so that channels which differ by little share a plan.
    """
    n_telling = part["wins"] + part["losses"]
    n_differing = max(part["n_disagreements"], n_telling)
    both_wrong = max(0.0, 1 - n_telling / n_differing) if n_differing else 0.0
    return round(n_differing / part["n"], 3), round(both_wrong, 2), round(part["n_right_a"] / part["n"], 2)


@lru_cache(maxsize=1000)
def _planned(
    asked: _Question, disagreement_share: float, both_wrong_share: float, accuracy: float, n_hypotheses: int
) -> planning.Plan:
    """
    Raises:
        ValueError: nothing can be planned; the message says why.
    """
    if asked.shares is not None:
        return planning.unpaired(
            accuracy,
            asked.drop,
            asked.alpha,
            control_share=asked.shares[0],
            candidate_share=asked.shares[1],
            label_share=asked.label_share,
            n_hypotheses=n_hypotheses,
            price_per_label=asked.price,
        )
    telling = disagreement_share * (1 - both_wrong_share)
    if abs(asked.drop) > telling:
        points = f"{abs(asked.drop) / _POINT:g} points"
        raise ValueError(f"just one of the two is right on {telling:.1%} of the rows, which is less than {points}")
    return planning.paired(
        disagreement_share,
        asked.drop,
        asked.alpha,
        both_wrong_share=both_wrong_share,
        label_share=asked.label_share,
        n_hypotheses=n_hypotheses,
        price_per_label=asked.price,
    )
