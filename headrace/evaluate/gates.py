"""What a candidate must pass before it meets traffic. Pure: figures in, verdicts with reasons out."""

from typing import Any

_FEWEST_ROWS = 6
"""Of fewer rows all could be losses by chance: 2 * .5 ** 5 is above .05 (sign test), whatever their redraws say."""
Gate = dict[str, Any]
"""`{"gate", "passed", "figure", "limit", "reason"}`."""


def no_harm(compared: dict[str, Any], *, max_drop_share: float) -> list[Gate]:
    """One gate for all rows and one for each channel of a comparison (see evaluate/comparison.py).

    A gate fails where the main metric drops by more than `max_drop_share` and the drop's interval excludes 0, on six
    rows or more.

    A candidate that is truly as good fails one gate by chance in 0.3 to 3.7 % of cases (measured: 20 to 1000 rows, 6 or
    20 % of answers different, 400 draws each), so with four channels and all rows up to about one time in six.
    """
    metric = compared["main_metric"]
    parts = {"no harm overall": compared["overall"]}
    parts |= {f"no harm in channel {name}": part for name, part in compared["channels"].items()}
    return [_no_harm(name, metric, part, max_drop_share) for name, part in parts.items()]


def _no_harm(name: str, metric: str, part: dict[str, Any], max_drop_share: float) -> Gate:
    difference = part["difference"]
    estimate, low, high = (difference[key] for key in ("estimate", "low", "high"))
    gate = {"gate": name, "figure": estimate, "limit": -max_drop_share}
    if estimate is None:
        reason = f"{metric} cannot be compared on {part['n']} rows: {difference['reason']}; traffic must tell"
        return gate | {"passed": True, "reason": reason}
    shown = f"{metric} changes by {estimate:+.4f} ({low:+.4f} to {high:+.4f}) on {part['n']} rows"
    if estimate < -max_drop_share and high < 0 and part["n"] >= _FEWEST_ROWS:
        return gate | {"passed": False, "reason": f"{shown}: a drop of more than {max_drop_share:g} that is not chance"}
    if estimate < -max_drop_share:
        return gate | {"passed": True, "reason": f"{shown}: a drop that may be chance; traffic must tell"}
    return gate | {"passed": True, "reason": shown}


def agreement(found: dict[str, Any], *, min_agreement_share: float) -> list[Gate]:
    """The exported artifact answers as its checkpoint does (see evaluate/agreement.py)."""
    share = found["share"]
    gate = {"gate": "agreement with the checkpoint", "figure": share, "limit": min_agreement_share}
    if share is None:
        return [gate | {"passed": False, "reason": "there are no rows to measure it on"}]
    reason = f"the exported model answers {share:.2%} of {found['n']} rows as its checkpoint does"
    return [
        gate | {"passed": share >= min_agreement_share, "reason": f"{reason}; asked for is {min_agreement_share:.2%}"}
    ]
