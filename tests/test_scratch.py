"""Room for unfinished artifacts. Catches: folders that killed processes left growing for ever, and the removal of one
that a living process is filling."""

import os
import subprocess
import sys
from pathlib import Path

from headrace.artifacts import ArtifactStore


def test_what_dead_processes_left_is_removed_and_what_living_ones_fill_is_kept(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"), scratch=tmp_path / "scratch")
    mine = store.new_folder()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / "scratch" / f"new-{dead.pid}-0"
    left.mkdir()
    (left / "model.bin").write_bytes(b"half")
    others = tmp_path / "scratch" / f"new-{os.getppid()}-0"
    others.mkdir()
    store.new_folder()
    assert mine.exists()
    assert others.exists()
    assert not left.exists()
