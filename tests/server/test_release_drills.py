"""The drills of bench/release_drills.py in small: from a candidate with a known fault to the line in the ledger."""

import pytest

from bench.drills.releases import DRILLS, runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["one class swapped", "a third of the errors gone"])
def test_a_candidate_gets_what_it_deserves(name: str) -> None:
    (drill,) = [drill for drill in DRILLS if drill.name == name]
    (ran,) = runs(drill, 1)
    assert ran.verdict == drill.wanted, ran
    assert ran.n_failed == 0
    assert ran.n_candidate == 0  # nobody saw it: a shadow
    assert ran.n_labels > 0
