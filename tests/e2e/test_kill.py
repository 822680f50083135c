"""A few points of the kill drill (tests/kill_drill.py has the whole of it).

Catches: what a kill -9 leaves half done, in sight, or in the way of the same command.
"""

import random
from pathlib import Path

import pytest

from kill_drill import KINDS, drill_points, make_drills, reference_of

N_POINTS = 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "loop"])  # tests/test_wheel.py kills that
def test_after_a_kill_the_same_command_finishes(kind: str, tmp_path: Path) -> None:
    (drill,) = make_drills(tmp_path, (kind,))
    reference = reference_of(drill)
    rng = random.Random()  # other moments in every run of the tests; the message says which
    faults = [(at, found) for at, found in drill_points(drill, reference, N_POINTS, rng) if found]
    assert faults == []
