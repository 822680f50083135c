"""Assignment by hash: stable, in proportion, and monotone when a weight grows."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BadInput
from headrace.release.assignment import assign
from headrace.release.policies.canary import Canary

HALF = {"control": 1.0, "candidate": 1.0}


def test_the_same_unit_meets_the_same_arm_in_another_process() -> None:
    # Catches a use of hash(), which Python salts per process.
    call = "[assign('r', 's', str(i), {'x': 1, 'y': 2}) for i in range(9)]"
    code = f"from headrace.release.assignment import assign; print({call})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == str([assign("r", "s", str(i), {"x": 1, "y": 2}) for i in range(9)])


def test_units_meet_arms_in_proportion() -> None:
    arms = [assign("r", "s", f"unit-{i}", {"control": 9, "candidate": 1}) for i in range(10_000)]
    n_candidates = sum(arm == "candidate" for arm, _ in arms)
    assert abs(n_candidates - 1000) < 5 * math.sqrt(900)
    assert {p for _, p in arms} == {0.9, 0.1}


@given(st.text(max_size=20), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_growing_candidate_takes_units_and_gives_none_back(unit: str, a: float, b: float) -> None:
    small, large = sorted((a, b))
    before, _ = assign("r", "s", unit, {"control": 1 - small, "candidate": small})
    after, _ = assign("r", "s", unit, {"control": 1 - large, "candidate": large})
    assert (before, after) != ("candidate", "control")


@given(st.text(max_size=20), st.floats(0.1, 50), st.floats(0.1, 50))
def test_a_canarys_slices_take_units_and_give_none_away(unit: str, a: float, b: float) -> None:
    # Catches a unit of the baseline that goes to the candidate when the ramp rises: a unit counts once, so the
    # candidate would get fewer new ones than the baseline, and equal arms would look unequal.
    steps = [Canary.weights({"ramp": [percent]}) for percent in sorted((a, b))]
    before, after = (assign("r", "s", unit, weights)[0] for weights in steps)
    assert before in ("control", after)


def test_release_salt_and_unit_are_kept_apart() -> None:
    # Catches joining the parts without a separator, which would repeat one release's assignment in another.
    one = [assign("r1", "", str(i), HALF)[0] for i in range(64)]
    two = [assign("r", "1", str(i), HALF)[0] for i in range(64)]
    assert one != two


def test_an_arm_without_weight_is_never_met() -> None:
    assert {assign("r", "s", str(i), {"control": 1, "candidate": 0})[0] for i in range(500)} == {"control"}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": math.nan}, {"a": math.inf}])
def test_unusable_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="weights of arms"):
        assign("r", "s", "u", weights)
