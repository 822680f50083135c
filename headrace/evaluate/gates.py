"""What a candidate must pass before it meets traffic. Pure: figures in, verdicts with reasons out.

A candidate that is truly as good as the control fails the gate on all rows by chance in 0.3 to 3.7 % of cases
(measured: 20 to 1000 rows, 6 or 20 % of answers different, 400 draws each), any gate on a channel in 5 % at most, and
any gate on a class in 5 % at most, however many there are: both are corrected by Holm's method.
"""

from collections.abc import Collection, Iterator, Mapping
from statistics import NormalDist
from typing import Any

from headrace.stats import paired

HARM = "no harm"
"""How the names of the gates begin that compare answers to held-out rows."""
LEVEL = 0.05
"""Chance that any channel's gate fails though nothing is worse; the same for the classes."""
_FEWEST_ROWS = 6
"""Of fewer rows all could be losses by chance: 2 * .5 ** 5 is above .05 (sign test), whatever their redraws say."""
MOST_TOLD = 0.05
"""Training rows of a channel with personal data that may be told to be such, at 0.1 % of others taken for them."""
_REMEMBERED = 0.001
"""Chance below which as many are told because something is remembered."""
Gate = dict[str, Any]
"""`{"gate", "passed", "figure", "limit", "reason", "channel"}`; `channel` is the one it is about, or None."""


def no_harm(compared: Mapping[str, Any], *, max_drop_share: float) -> list[Gate]:
    """One gate for all rows and one for each channel of a comparison (see evaluate/comparison.py).

    A gate fails where the main metric drops by more than `max_drop_share` and the drop's interval excludes 0, on six
    rows or more; a channel's, where it also does after Holm's correction over the channels.
    """
    metric, channels = compared["main_metric"], compared["channels"]
    adjusted = paired.holm({name: _chance(part["difference"]) for name, part in channels.items()})
    overall = _no_harm(f"{HARM} overall", metric, compared["overall"], max_drop_share, 0.0)
    gates = [overall | {"channel": None}]
    for name, part in channels.items():
        gate = _no_harm(f"{HARM} in channel {name}", metric, part, max_drop_share, adjusted[name])
        gates.append(gate | {"channel": name})
    return gates


def _chance(difference: Mapping[str, Any]) -> float:
    """One-sided p-value of a drop, from its interval as if the estimate were normal."""
    estimate, low, high = (difference[key] for key in ("estimate", "low", "high"))
    if estimate is None or high <= low:
        return 0.0 if estimate is not None and high < 0 else 1.0
    n_errors = NormalDist().inv_cdf((1 + difference["level"]) / 2)
    return NormalDist().cdf(2 * n_errors * estimate / (high - low))


def _no_harm(name: str, metric: str, part: Mapping[str, Any], max_drop_share: float, chance: float) -> Gate:
    """
    Args:
        chance: p-value of the drop after correction; 0 where there is nothing to correct for.
    """
    difference = part["difference"]
    estimate, low, high = (difference[key] for key in ("estimate", "low", "high"))
    gate = {"gate": name, "figure": estimate, "limit": -max_drop_share}
    if estimate is None:
        reason = f"{metric} cannot be compared on {part['n']} rows: {difference['reason']}; traffic must tell"
        return gate | {"passed": True, "reason": reason}
    shown = f"{metric} changes by {estimate:+.4f} ({low:+.4f} to {high:+.4f}) on {part['n']} rows"
    if estimate < -max_drop_share and high < 0 and part["n"] >= _FEWEST_ROWS and chance <= LEVEL:
        return gate | {"passed": False, "reason": f"{shown}: a drop of more than {max_drop_share:g} that is not chance"}
    if estimate < -max_drop_share:
        return gate | {"passed": True, "reason": f"{shown}: a drop that may be chance; traffic must tell"}
    return gate | {"passed": True, "reason": shown}


def no_harm_in_classes(compared: Mapping[str, Any], *, max_drop_share: float) -> list[Gate]:
    """A gate for each class that is harmed, overall or in a channel (see evaluate/classes.py); else one for all.

    A class is harmed where answers about it become wrong on more than `max_drop_share` of the rows that speak about
    it, and McNemar's exact test says so after Holm's correction over the classes whose test could come out at all.
    """
    parts = {name: part for name, _, part in _parts(compared)}
    about = {name: channel for name, channel, _ in _parts(compared)}
    p_values = {name: paired.mcnemar(part["losses"], part["wins"]) for name, part in parts.items()}
    n_differing = {name: part["wins"] + part["losses"] for name, part in parts.items()}
    tested = paired.worth_testing(n_differing, alpha=LEVEL)
    adjusted = paired.holm({name: p_values[name] for name in tested})
    shares = {name: (part["wins"] - part["losses"]) / part["n"] for name, part in parts.items()}
    harmed = [name for name in tested if adjusted[name] <= LEVEL and shares[name] < -max_drop_share]
    if not harmed:
        return [_no_class_harmed(compared, shares, tested, max_drop_share)]
    return [
        {
            "gate": f"{HARM} in {name}",
            "passed": False,
            "figure": shares[name],
            "limit": -max_drop_share,
            "reason": f"{parts[name]['losses']} answers about it become wrong and {parts[name]['wins']} right, of "
            f"{parts[name]['n']} rows: p = {adjusted[name]:.2g} after correction for {len(tested)} such tests",
            "channel": about[name],
        }
        for name in sorted(harmed, key=lambda name: (adjusted[name], name))
    ]


def _parts(compared: Mapping[str, Any]) -> Iterator[tuple[str, str | None, Mapping[str, int]]]:
    """What is tested, the channel it is about, and its counts."""
    yield from ((f"class {name}", None, part) for name, part in compared["overall"].items())
    for channel, classes in compared["channels"].items():
        yield from ((f"class {name} of channel {channel}", channel, part) for name, part in classes.items())


def _no_class_harmed(
    compared: Mapping[str, Any], shares: Mapping[str, float], tested: list[str], max_drop_share: float
) -> Gate:
    lowest = min(tested, key=lambda name: shares[name], default=None)
    if not compared["n_classes"]:
        told = "the task has no classes"
    elif lowest is None:
        told = f"on none of {compared['n_classes']} classes do enough answers differ to tell; traffic must"
    else:
        told = f"of {compared['n_classes']} classes none is harmed; lowest is {shares[lowest]:+.4f} in {lowest}"
    figure = None if lowest is None else shares[lowest]
    gate = {"gate": f"{HARM} in a class", "passed": True, "figure": figure, "limit": -max_drop_share}
    return gate | {"reason": told, "channel": None}


def agreement(found: Mapping[str, Any], *, min_agreement_share: float) -> list[Gate]:
    """The exported artifact answers as its checkpoint does (see evaluate/agreement.py)."""
    share = found["share"]
    gate = {"gate": "agreement with the checkpoint", "figure": share, "limit": min_agreement_share, "channel": None}
    if share is None:
        return [gate | {"passed": False, "reason": "there are no rows to measure it on"}]
    reason = f"the exported model answers {share:.2%} of {found['n']} rows as its checkpoint does"
    return [
        gate | {"passed": share >= min_agreement_share, "reason": f"{reason}; asked for is {min_agreement_share:.2%}"}
    ]


def membership(found: Mapping[str, Any] | None, channels: Collection[str]) -> list[Gate]:
    """A gate for each channel whose texts are looked at for personal data: its training rows cannot be told from others
    (see evaluate/membership.py).

    It fails where more than `MOST_TOLD` are told, and so many not by chance.
    """
    gates: list[Gate] = []
    for name in sorted(channels) if found is not None else ():
        part = found["channels"].get(name) if found is not None else None
        if part is None or part["share"] is None or not part["n_others"]:
            continue
        is_known = part["chance"] < _REMEMBERED
        told = f"{part['share']:.2%} of {part['n_members']} training rows are told by their loss"
        gates.append(
            {
                "gate": f"membership in channel {name}",
                "passed": not (is_known and part["share"] > MOST_TOLD),
                "figure": part["share"],
                "limit": MOST_TOLD,
                "reason": f"{told} (p = {part['chance']:.2g}); at most {MOST_TOLD:.0%} may be",
                "channel": name,
            }
        )
    return gates


def size(n_bytes: int, control_bytes: int, *, max_times: float, max_bytes: int) -> list[Gate]:
    """The candidate's files are at most so many times the control's, and at most so many bytes.

    Args:
        max_bytes: 0 is no limit.
    """
    times = n_bytes / control_bytes
    shown = f"{n_bytes / 1e6:.1f} MB, {times:.2f} times the control's {control_bytes / 1e6:.1f} MB"
    told = f"{shown}; at most {max_times:g} times may be"
    gates: list[Gate] = [
        {"gate": "size", "passed": times <= max_times, "figure": round(times, 4), "limit": max_times, "reason": told}
    ]
    if max_bytes:
        told = f"{n_bytes / 1e6:.1f} MB; at most {max_bytes / 1e6:.1f} MB may be"
        passed = n_bytes <= max_bytes
        gates.append({"gate": "size in bytes", "passed": passed, "figure": n_bytes, "limit": max_bytes, "reason": told})
    return [gate | {"channel": None} for gate in gates]


def latency(ms_per_row: float, control_ms_per_row: float, *, n_rows: int, max_times: float) -> list[Gate]:
    """The candidate takes at most so many times the control's time for the same rows, measured in turn."""
    times = ms_per_row / control_ms_per_row
    reason = (
        f"{ms_per_row:.3g} ms a row, {times:.2f} times the control's {control_ms_per_row:.3g} ms, on {n_rows} rows "
        f"measured in turn; at most {max_times:g} times may be"
    )
    gate = {"gate": "latency", "passed": times <= max_times, "figure": round(times, 4), "limit": max_times}
    return [gate | {"reason": reason, "channel": None}]
