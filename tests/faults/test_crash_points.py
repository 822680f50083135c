"""A process killed at a system call by which it writes: a few of the points, `bench.behaviour --only R1` has all.

Catches: what was acknowledged and is gone; two in charge, or nobody; an artifact without all its files; a chain with a
hole; a backup, a migration or an erasure that a kill leaves half done.
"""

import shutil

import pytest

from bench.drills import crash_points


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which kills at a system call")
def test_whatever_call_it_is_killed_at_nothing_that_was_acknowledged_is_lost() -> None:
    figures = crash_points.run(n_points=9)
    assert [figure for figure in figures if not figure.is_met] == []
    assert sum(figure.value for figure in figures if figure.what.endswith(": points")) >= 9
