"""What goes wrong while something else goes wrong: the handlers of backups and of the doctor, each brought about.

Catches: a traceback instead of a sentence; a half generation that stays; a damaged artifact that stops a backup.
"""

import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from headrace import backups, doctor
from headrace.backups import copying, following, generations, sealed
from headrace.errors import Damaged, Unusable
from headrace.store import wal
from headrace.store.engine import Store
from headrace.store.wal import LogLost
from headrace.workspace import Workspace
from stub_model import plant_stub


def follow_once(ws: Workspace, to: Path) -> backups.Followed:
    stop = threading.Event()
    stop.set()  # one turn, and the last one
    return backups.follow(ws, to, stop=stop)


def test_a_folder_that_cannot_be_made_is_told(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match="cannot be written"):
        backups.backup(workspace, tmp_path / "file" / "b")
    with pytest.raises(Unusable, match="cannot be written"):
        backups.follow(workspace, tmp_path / "file" / "f")
    with pytest.raises(Unusable, match="copy cannot be written"):
        workspace.store.copy_to(tmp_path / "none" / "copy.db")


@pytest.mark.parametrize("failing", ["copy_to", "add_log"])
def test_a_generation_that_cannot_begin_leaves_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    owner = Store if failing == "copy_to" else generations.Generation

    def fail(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(owner, failing, fail)
        follow_once(workspace, tmp_path / "f")
    assert generations.all_numbers(tmp_path / "f") == []
    assert follow_once(workspace, tmp_path / "f").n_generations == 1


def test_a_lost_log_begins_a_new_generation(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, n_calls = generations.Generation.add_log, []

    def lose_once(*args: object) -> bool:
        n_calls.append(1)
        if len(n_calls) == 2:
            raise LogLost("it is gone")
        return add(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(generations.Generation, "add_log", lose_once)
    told: list[backups.Followed] = []
    stop = threading.Event()

    def tell(one: backups.Followed) -> None:
        told.append(one)
        if len(told) == 2:
            stop.set()

    backups.follow(workspace, tmp_path / "f", stop=stop, report=tell)
    assert [one.n_generations for one in told] == [1, 2]


def test_unfinished_and_damaged_generations_are_deleted(workspace: Workspace, tmp_path: Path) -> None:
    follow_once(workspace, tmp_path / "f")
    (tmp_path / "f" / "generation-000007").mkdir()
    first = generations.folder_of(tmp_path / "f", 1)
    assert backups.anchor_of(tmp_path / "f") == ""  # nothing was noted yet
    (first / generations.BASE).write_bytes(b"x" * 5000)
    with pytest.raises(Damaged, match="database of the backup"):
        backups.anchor_of(tmp_path / "f")
    follow_once(workspace, tmp_path / "f")
    assert generations.all_numbers(tmp_path / "f") == [8]


def test_a_damaged_artifact_does_not_stop_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(following._log, "warning", lambda said, *_: told.append(said))
    sound, damaged = plant_stub(workspace, seed=1), plant_stub(workspace, seed=2)
    (workspace.artifacts.get(damaged.artifact) / "stub.json").write_text("{}")
    done = follow_once(workspace, tmp_path / "f")
    assert damaged.artifact in done.missing
    assert sound.artifact not in done.missing
    assert "not in the backup" in told[0]
    made = backups.restore(tmp_path / "f", tmp_path / "again")
    assert damaged.artifact in made.missing


def test_a_file_that_goes_away_meanwhile_is_left_out(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = following.kept_files
    monkeypatch.setattr(
        following, "kept_files", lambda ws: {**kept(ws), "predictions/gone.parquet": tmp_path / "gone.parquet"}
    )
    follow_once(workspace, tmp_path / "f")
    assert "predictions/gone.parquet" not in backups.verify(tmp_path / "f").files


def test_backups_of_another_form_or_without_what_they_name_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    backups.backup(workspace, tmp_path / "b")
    manifest = tmp_path / "b" / backups.MANIFEST
    facts = sealed.read(manifest)
    sealed.write(manifest, {**facts, "chains": {**facts["chains"], "ledger": 3}})
    with pytest.raises(Damaged, match="ledger"):
        backups.restore(tmp_path / "b", tmp_path / "again")
    sealed.write(manifest, {**facts, "form": 1})
    with pytest.raises(Exception, match="another form"):
        backups.restore(tmp_path / "b", tmp_path / "again")
    follow_once(workspace, tmp_path / "f")
    (workspace.state_folder / "backup.json").write_text("cut")
    assert copying.last(workspace) is None
    head = generations.folder_of(tmp_path / "f", 1) / generations.HEAD
    facts = sealed.read(head)
    (head.parent / "log-000001").write_bytes(b"x" * 100)
    sealed.write(head, {**facts, "logs": [copying.entry_of(head.parent / "log-000001")]})
    steps = head.parent / generations.STEPS
    step = {**json.loads(steps.read_text().splitlines()[-1]), "n_logs": 1, "n_bytes": 100}
    steps.write_text(json.dumps(step) + "\n")
    sealed.write(head, {**sealed.read(head), "steps": copying.entry_of(steps)})
    with pytest.raises(Damaged, match="log of the backup"):
        backups.restore(tmp_path / "f", tmp_path / "again")


def test_a_log_without_an_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="log cannot be read"):
        wal.Log(tmp_path / "none.db")
    (tmp_path / "odd.db-shm").write_bytes(bytes(96))
    with pytest.raises(LogLost, match="version"):
        wal.Log(tmp_path / "odd.db").mark()


def test_the_doctor_of_a_workspace_that_does_not_open(workspace: Workspace) -> None:
    with FileLock(workspace.state_folder / "import.lock"):  # an import runs: it is not left over
        assert [one for one in doctor.examine(workspace.root).findings if one.part == "work"] == []
    (workspace.state_folder / "server.json").write_text(json.dumps({"host": "box.lan"}))
    assert any("no key" in one.problem for one in doctor.examine(workspace.root).findings)
    (workspace.state_folder / "artifacts").rename(workspace.root / "elsewhere")
    (workspace.state_folder / "artifacts").write_text("")
    found = doctor.examine(workspace.root)
    assert not found.is_well
    assert any("artifact store" in one.problem for one in found.findings)
