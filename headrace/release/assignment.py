"""Which arm a unit belongs to: a hash decides, so the same unit meets the same arm on every server and every day."""

import hashlib
import json
import math
from collections.abc import Mapping

from headrace.errors import BadInput


def assign(release_id: str, salt: str, unit: str, weights: Mapping[str, float]) -> tuple[str, float]:
    """The arm of a unit in a release, and the probability with which units meet that arm.

    Args:
        weights: arm to weight, not negative, in any unit; arms take their shares of [0, 1) in this order, so raising
            the last arm's weight moves units into it and none out.

    Raises:
        BadInput: a weight is negative or not finite, or none is above zero.
    """
    total = math.fsum(weights.values())
    if not math.isfinite(total) or total <= 0 or any(weight < 0 for weight in weights.values()):
        raise BadInput(
            "weights of arms must be finite, not negative, and one above zero",
            value=dict(weights),
            next_step='Give weights such as {"control": 0.9, "candidate": 0.1}',
        )
    place = _place(release_id, salt, unit) * total
    arms = [arm for arm, weight in weights.items() if weight > 0]
    below = 0.0
    for arm in arms:
        below += weights[arm]
        if place < below:
            break
    return arm, weights[arm] / total


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """The probability of each arm that units can meet, in the order of the weights."""
    total = math.fsum(weights.values())
    return {arm: weight / total for arm, weight in weights.items() if weight > 0}


def _place(*parts: str) -> float:
    """A number in [0, 1) from 53 bits of SHA-256; JSON keeps ("a", "bc") apart from ("ab", "c")."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
