"""The power goes at any moment of a real run. Catches: a commit that is acknowledged before it is on the disk; a log
that is taken into the database, or begun anew, in an order that a torn write makes worthless."""

import shutil
from pathlib import Path

import pytest

from bench.drills import power


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which records writes and syncs")
def test_whatever_part_was_written_the_database_is_sound_and_has_what_was_acknowledged() -> None:
    assert [figure for figure in power.run(n_states=100, n_writes=40) if not figure.is_met] == []


def test_the_replay_sees_a_missing_sync(tmp_path: Path) -> None:
    """Of a log whose syncs were left out, some states lack what was acknowledged."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace, which records writes and syncs")
    calls, before = power._recorded(tmp_path, 12)
    unsynced = [call for call in calls if call.kind != "sync"]
    rng = power.random.Random(1)
    moments = sorted(rng.choices(range(1, len(unsynced) + 1), k=60))
    found = [power._look(files, acked, tmp_path) for files, acked, _ in power._states(unsynced, before, moments, rng)]
    assert any(n_missing or faults for faults, n_missing in found)
