"""What a smaller model may lose: verdicts on a comparison, and the choice among candidates. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.stats.pooling import pooled

POINT = 0.01
"""Of the main metric, which runs to 1."""
_Z = 1.96  # of 95 % intervals
_AS_FAST_SHARE = 0.03  # rates of the same artifact, measured in turn, differ by less
Verdict = dict[str, Any]
"""`{"n", "points", "low", "high", "judged_by", "judged_points", "within", "reason"}`; points below 0 are lost."""


def judged(compared: Mapping[str, Any], *, max_drop: float) -> dict[str, Verdict]:
    """Verdicts on a comparison (see evaluate/comparison.py) for all rows, "overall", and each channel.

    All rows are judged by their own estimate, a channel too where its interval lies on one side of the budget. The
    interval of a small channel reaches to both sides: such a one is judged by its pooled estimate, which is drawn
    towards that of the other channels by how unsure it is. How often that is right: docs/compress.md.

    Args:
        max_drop: points that may be lost.
    """
    channels = compared["channels"]
    figures = {name: _figure(part) for name, part in channels.items()}
    found = {"overall": _overall(compared, max_drop)}
    shrunk = pooled([f["points"] or 0.0 for f in figures.values()], [f["error"] for f in figures.values()])
    if all(figure["points"] is None for figure in figures.values()):  # nothing to pool but all rows
        shrunk = [found["overall"]["points"] or 0.0] * len(figures)
    for (name, figure), together in zip(figures.items(), shrunk, strict=True):
        found[name] = _channel(figure, together, max_drop)
    return found


def chosen(candidates: Sequence[Mapping[str, Any]]) -> int:
    """Place of the fastest candidate that is within the budget; of those as fast but for noise, the smallest.

    Args:
        candidates: each with `within`, `speed_times` and `n_bytes`.
    """
    able = [i for i, one in enumerate(candidates) if one["within"]]
    fastest = max(candidates[i]["speed_times"] for i in able)
    as_fast = [i for i in able if candidates[i]["speed_times"] >= (1 - _AS_FAST_SHARE) * fastest]
    return min(as_fast, key=lambda i: (candidates[i]["n_bytes"], i))


def points(compared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The differences of a comparison in points, "overall" and by channel."""
    parts = {"overall": compared["overall"], **compared["channels"]}
    shown = ("n", "points", "low", "high")
    return {name: {key: figure[key] for key in shown} for name, figure in ((n, _figure(p)) for n, p in parts.items())}


def _figure(part: Mapping[str, Any]) -> dict[str, Any]:
    """Points with interval and standard error; a few rows on which nothing differs are not sure of that either."""
    difference, n = part["difference"], part["n"]
    if difference["estimate"] is None:
        return {"n": n, "points": None, "low": None, "high": None, "error": float("inf")}
    estimate, low, high = (difference[key] / POINT for key in ("estimate", "low", "high"))
    least = 1 / n / POINT  # of one row
    error = max((high - low) / 2 / _Z, least)
    return {"n": n, "points": estimate, "low": low, "high": high, "error": error}


def _overall(compared: Mapping[str, Any], max_drop: float) -> Verdict:
    figure = _figure(compared["overall"])
    if figure["points"] is None:
        reason = f"{compared['main_metric']} cannot be compared on {figure['n']} rows"
        return _verdict(figure, "none", None, False, reason)
    within = figure["points"] >= -max_drop
    return _verdict(figure, "own", figure["points"], within, _reason(figure["points"], within, max_drop))


def _channel(figure: Mapping[str, Any], together: float, max_drop: float) -> Verdict:
    least = _Z * figure["error"]
    tells = figure["points"] is not None and (
        min(figure["low"], figure["points"] - least) >= -max_drop
        or max(figure["high"], figure["points"] + least) < -max_drop
    )
    by, judged_points = ("own", figure["points"]) if tells else ("pooled", together)
    within = judged_points >= -max_drop
    few = "" if tells else f"; {figure['n']} rows are too few to tell alone, so the channels are pooled"
    return _verdict(figure, by, judged_points, within, _reason(judged_points, within, max_drop) + few)


def _verdict(figure: Mapping[str, Any], by: str, judged_points: float | None, within: bool, reason: str) -> Verdict:
    shown = {key: figure[key] for key in ("n", "points", "low", "high")}
    return {**shown, "judged_by": by, "judged_points": judged_points, "within": within, "reason": reason}


def _reason(found: float, within: bool, max_drop: float) -> str:
    return f"{found:+.2f} points, {'within' if within else 'beyond'} the budget of {max_drop:g}"
