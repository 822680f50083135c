"""`release plan`: before a release starts, how many requests and labels it will take, how long, and at what cost.

It rests on how often candidate and control disagree on held-out rows, overall and in each channel, and on the traffic
that the prediction log has seen.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from headrace.config import ReleaseTable
from headrace.errors import BadInput, WrongState
from headrace.release import controls
from headrace.release.policies import POLICIES, Policy, canary, options_of
from headrace.releasing import gating
from headrace.stats import planning
from headrace.stats.planning import Stage
from headrace.store import channels, predictions
from headrace.workspace import Workspace

T = TypeVar("T")
Report = Callable[..., None]
_WINDOW = timedelta(days=7)
"""Of the prediction log, from which the traffic to come is taken."""
_LEAST_SPAN = timedelta(hours=1)
"""A log of less than that is taken for one of that: a minute says little about a day."""
_FEWEST_DIFFERENCES = 5
"""With fewer, a channel's own share of disagreements says little: that of all rows stands for it."""
_POINT = 0.01
_DAY_S = 86_400


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
    """Of the requests, that control and candidate answer at the start; None: both answer all of them (shadow)."""
    stages: tuple[Stage, ...]
    """Of a canary, with the requests of all channels until each is over."""
    margin: float
    """Accuracy that a candidate may lose, in shares of 1; 0: none."""
    ask_share: float
    """Of the disagreements, that reviewers are asked about for the margin."""
    floor_share: float
    """Least share of an arm (bandit)."""


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
        What was asked, `labels` ("asked": reviewers give them, about a share of the differences), `shares` (of the
        requests, that control and candidate answer at the start; None where both answer all), `promotion` of a canary
        (None else; see `_promotion`), `all` and `channels` (see `_part`).

    Raises:
        NotFound: no such version or policy.
        WrongState: no version is in charge, or the candidate itself is.
        BadInput: a number that cannot be, or the candidate's snapshot has no test rows.
    """
    _check(drop, price, label_share)
    name = ws.task_name(task)
    policy = policy or ws.settings.release.policy
    version, control = controls.find_version(ws, name, candidate), controls.serving(ws, name).control
    per_day = _requests_per_day(ws, name)
    asked = _question(ws, policy, drop, price, label_share, sum(per_day.values()))
    if version.id == control.id:
        raise WrongState("the candidate is already in charge", value=version.name, next_step="Name another version")
    compared = gating.measured(ws, control, version, report)["comparison"]
    with ws.store.read() as conn:
        n_channels = max(1, len(channels.listing(conn)))
    overall = compared["overall"]
    shares = _traffic_shares(per_day, compared["channels"])
    return {
        "task": name,
        "candidate": version.name,
        "control": control.name,
        "policy": policy,
        "drop_points": drop,
        "alpha": asked.alpha,
        "price_per_label": price,
        "label_share": label_share,
        "labels": "asked" if _asks(policy, ws.settings.release) else "all",
        "shares": asked.shares,
        "promotion": _promotion(asked, _n_labels(ws), sum(per_day.values())),
        "all": _part(asked, overall, overall, sum(per_day.values()), 1),
        "channels": {
            channel: _part(_of_channel(asked, shares[channel]), part, overall, per_day.get(channel, 0.0), n_channels)
            for channel, part in compared["channels"].items()
        },
    }


def _check(drop: float, price: float | None, label_share: float) -> None:
    if not 0 < abs(drop) <= 100:
        raise BadInput("the drop is in points, up to 100 and not 0", value=drop, next_step="Such as --drop 2")
    if price is not None and not 0 <= price < math.inf:
        raise BadInput("a price is a number of 0 or more", value=price, next_step="Such as --price 0.1")
    if not 0 < label_share <= 1:
        raise BadInput(
            "a share of labels is above 0, up to 1", value=label_share, next_step="Such as --label-share 0.5"
        )


def _question(
    ws: Workspace, policy: str, drop: float, price: float | None, label_share: float, per_day: float
) -> _Question:
    limits = ws.settings.release
    rule: Policy = POLICIES.get(policy)
    weights = rule.weights(options_of(limits, ()))
    control = "baseline" if "baseline" in weights else "control"
    return _Question(
        policy=policy,
        drop=drop * _POINT,
        alpha=limits.alpha,
        price=price,
        label_share=label_share * (limits.ask_share if _asks(policy, limits) else 1.0),
        shares=(weights[control], weights["candidate"]) if "candidate" in weights else None,
        stages=_stages(limits, _n_labels(ws), label_share, per_day) if control == "baseline" else (),
        margin=limits.margin,
        ask_share=limits.ask_share,
        floor_share=limits.floor_share,
    )


def _asks(policy: str, limits: ReleaseTable) -> bool:
    """Whether only labels count that reviewers were asked for."""
    return policy == "shadow" and limits.labels == "asked"


def _n_labels(ws: Workspace) -> int:
    """Of either arm before a canary takes charge."""
    with ws.store.read() as conn:
        return canary.n_labels(ws.settings.release.min_labels, len(channels.listing(conn)))


def _stages(limits: ReleaseTable, n_labels: int, label_share: float, per_day: float) -> tuple[Stage, ...]:
    """The ramp with the requests that each stage takes: until both arms and the clock say so, and the last until both
    arms have their labels.
    """
    shares, least = [percent / 100 for percent in limits.ramp], limits.dwell_s / _DAY_S * per_day
    n_requests = [max(limits.dwell_requests / share, least) for share in shares]
    labels = label_share * sum(n * share for n, share in zip(n_requests, shares, strict=True))
    n_requests[-1] += max(0.0, n_labels - labels) / (shares[-1] * label_share)
    return tuple(Stage(share, n) for share, n in zip(shares, n_requests, strict=True))


def _of_channel(asked: _Question, share: float) -> _Question:
    """The question about one channel, whose requests are that share of all."""
    return replace(asked, stages=tuple(Stage(stage.share, stage.n_requests * share) for stage in asked.stages))


def _traffic_shares(per_day: Mapping[str, float], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Channel to its share of the requests; without traffic so far, of the held-out rows."""
    sizes = {name: per_day.get(name, 0.0) if per_day else part["n"] for name, part in parts.items()}
    total = sum(per_day.values()) or sum(sizes.values())
    return {name: size / total for name, size in sizes.items()}


def _promotion(asked: _Question, n_labels: int, per_day: float) -> dict[str, Any] | None:
    """When a canary takes charge if nothing speaks against it: `n_requests`, `n_labels` (of both arms), `cost`, `days`
    (None without traffic so far), the `margin` that labels have to exclude besides (0: none), and `stages`, each with
    the candidate's `share`, `n_requests` and `days`.
    """
    if not asked.stages:
        return None

    def days(n: float) -> float | None:
        return round(n / per_day, 2) if per_day else None

    total = math.fsum(stage.n_requests for stage in asked.stages)
    stages = [
        {"share": stage.share, "n_requests": math.ceil(stage.n_requests), "days": days(stage.n_requests)}
        for stage in asked.stages
    ]
    cost = None if asked.price is None else round(2 * n_labels * asked.price, 2)
    return {
        "n_requests": math.ceil(total), "n_labels": 2 * n_labels, "cost": cost, "days": days(total),
        "margin": asked.margin, "stages": stages,
    }  # fmt: skip


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
    """The plan of all rows or of one channel.

    Returns:
        What was seen on held-out rows (`n_rows`, `disagreement_share`, ...), `plan` (the fields of
        `stats.planning.Plan`, or None with a `reason`), `found_share` (of a canary: chance that the drop is found
        before the promotion), `requests_per_day`, `days_median` and `days_p90` (None without traffic so far), and with
        a `release.margin` `no_worse`: the plan until a shadow that is as good as the control is shown not to be worse
        by that (None with a `no_worse_reason` where that cannot be planned).
    """
    is_own = part["n_disagreements"] >= _FEWEST_DIFFERENCES
    taken = part if is_own else overall
    no_worse, no_worse_reason = _or_reason(lambda: _no_worse(asked, *_rates(taken)[:2], n_hypotheses))
    found, reason = _or_reason(lambda: _planned(asked, *_rates(taken), n_hypotheses, part is overall))
    plan, found_share = found or (None, None)
    days: tuple[float | None, float | None] = None, None
    if plan is not None and per_day:
        days = round(plan.n_requests_median / per_day, 2), round(plan.n_requests_p90 / per_day, 2)
    return {
        "n_rows": part["n"],
        "n_disagreements": part["n_disagreements"],
        "disagreement_share": part["n_disagreements"] / part["n"],
        "taken_from": "its own rows" if is_own or part is overall else "all rows, since its own disagree too seldom",
        "requests_per_day": round(per_day, 1),
        "no_worse": None if no_worse is None else asdict(no_worse),
        "no_worse_reason": no_worse_reason,
        "plan": None if plan is None else asdict(plan),
        "reason": reason,
        "found_share": found_share,
        "days_median": days[0],
        "days_p90": days[1],
    }


def _or_reason(planned: Callable[[], T]) -> tuple[T | None, str | None]:
    """A plan, or why there is none."""
    try:
        return planned(), None
    except ValueError as error:
        return None, str(error)


@lru_cache(maxsize=1000)
def _no_worse(
    asked: _Question, disagreement_share: float, both_wrong_share: float, n_hypotheses: int
) -> planning.Plan | None:
    """
    Raises:
        ValueError: it takes too many; the message says so.
    """
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
    asked: _Question,
    disagreement_share: float,
    both_wrong_share: float,
    accuracy: float,
    n_hypotheses: int,
    is_all: bool,
) -> tuple[planning.Plan, float | None]:
    """The plan, and of a canary the chance that the drop is found before the promotion.

    Raises:
        ValueError: nothing can be planned; the message says why.
    """
    common: dict[str, Any] = {"label_share": asked.label_share, "price_per_label": asked.price}
    if asked.policy == "bandit":
        if not is_all:
            raise ValueError("a bandit is planned for all channels together")
        return planning.best_of_two(accuracy, asked.drop, asked.alpha, floor=asked.floor_share, **common), None
    common["n_hypotheses"] = n_hypotheses
    if asked.stages:
        return planning.ramped(accuracy, asked.drop, asked.alpha, stages=asked.stages, **common)
    if asked.shares is not None:
        control, candidate = asked.shares
        return planning.unpaired(
            accuracy, asked.drop, asked.alpha, control_share=control, candidate_share=candidate, **common
        ), None
    telling = disagreement_share * (1 - both_wrong_share)
    if abs(asked.drop) > telling:
        points = f"{abs(asked.drop) / _POINT:g} points"
        raise ValueError(f"just one of the two is right on {telling:.1%} of the rows, which is less than {points}")
    return planning.paired(
        disagreement_share, asked.drop, asked.alpha, both_wrong_share=both_wrong_share, **common
    ), None
