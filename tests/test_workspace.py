"""Workspaces: made whole or not at all, opened from where they are. Catches: a half headrace.toml, a task or label that
breaks the file, an overridden setting that does not reach the stages."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import AlreadyExists, BadConfig, NotFound, Unusable, WrongState
from headrace.workspace import Workspace, init, open_workspace, os_user

few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_what_init_makes_can_be_opened_elsewhere(tmp_path: Path) -> None:
    init(tmp_path / "a", task="tone", labels=("x", "y")).close()
    shutil.move(tmp_path / "a", tmp_path / "b")
    with open_workspace(tmp_path / "b") as ws:
        assert ws.task_name() == "tone"
        assert ws.task().labels == ("x", "y")
        assert (tmp_path / "b" / ".headrace" / ".gitignore").read_text() == "*\n"
    assert not (tmp_path / "a").exists()


def test_a_relative_root_is_not_lost_by_moving_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(tmp_path, task="tone", labels=("x", "y")).close()
    monkeypatch.chdir(tmp_path)
    with open_workspace() as ws:
        monkeypatch.chdir("/")
        assert ws.root == tmp_path
        assert ws.artifacts.new_folder().is_relative_to(tmp_path)


@few
@given(task=st.text(max_size=70), labels=st.lists(st.text(max_size=10), max_size=3))
def test_any_name_makes_a_workspace_that_opens_or_nothing(tmp_path: Path, task: str, labels: list[str]) -> None:
    shutil.rmtree(tmp_path / "ws", ignore_errors=True)
    try:
        init(tmp_path / "ws", task=task, labels=tuple(labels)).close()
    except BadConfig:
        assert not (tmp_path / "ws").exists()
        return
    with open_workspace(tmp_path / "ws") as ws:
        assert ws.task(task).labels == tuple(labels)


@pytest.mark.parametrize("at", ["replace", "mkdir"])
def test_a_kill_in_the_middle_leaves_no_workspace_and_init_runs_again(at: str, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    code = (
        "import os, sys; from pathlib import Path; from headrace.workspace import init; kill = lambda *_a, **_k: "
        f"os.kill(os.getpid(), 9); setattr(os, {at!r}, kill); init(sys.argv[1], task='tone', labels=('a', 'b'))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(root)], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(NotFound, match="headrace init"):
        open_workspace(root)
    with init(root, task="tone", labels=("a", "b")) as ws:
        assert ws.task_name() == "tone"


def test_what_it_holds_is_for_its_owner_or_a_group_that_works_in_it(tmp_path: Path) -> None:
    with init(tmp_path / "ws", task="tone", labels=("a", "b")) as made:
        state = made.state_folder
        rights = [stat.S_IMODE(state.stat().st_mode)]
    for mode in (0o755, 0o775, 0o750):
        state.chmod(mode)
        open_workspace(tmp_path / "ws").close()
        rights.append(stat.S_IMODE(state.stat().st_mode))
    assert rights == [0o700, 0o700, 0o770, 0o750]


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path, task="tone", labels=("x", "y")).close()
    before = (tmp_path / "headrace.toml").read_bytes()
    with pytest.raises(AlreadyExists, match="Use it"):
        init(tmp_path, task="mood", labels=("a", "b"))
    assert (tmp_path / "headrace.toml").read_bytes() == before


def test_overrides_are_settings_and_change_the_hash(workspace: Workspace) -> None:
    with open_workspace(workspace.root, overrides={"finetune.epochs": "7"}) as ws:
        assert ws.settings.finetune.epochs == 7
        assert ws.config_hash != workspace.config_hash
        assert [one.key for one in ws.shown if one.source == "command line"] == ["finetune.epochs"]


def test_which_task_is_meant(tmp_path: Path) -> None:
    init(tmp_path, task="tone", labels=("x", "y")).close()
    with (tmp_path / "headrace.toml").open("a") as file:
        file.write('[tasks.mood]\nlabels = ["a", "b"]\n')
    with open_workspace(tmp_path) as ws:
        assert ws.task("mood").labels == ("a", "b")
        with pytest.raises(BadConfig, match=r"'mood', 'tone'.*--task"):
            ws.task()
        with pytest.raises(NotFound, match="Did you mean 'mood'"):
            ws.task("moods")


@pytest.mark.parametrize("root", ["/proc/x", "/proc/version/x"])
def test_a_folder_that_cannot_be_written(root: str) -> None:
    with pytest.raises(Unusable, match=root):
        init(root, task="tone", labels=("a", "b"))


def test_a_settings_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").mkdir()
    with pytest.raises(BadConfig, match="Is a directory"):
        open_workspace(tmp_path)


def test_a_workspace_without_its_state_folder_is_an_empty_one(workspace: Workspace) -> None:
    """As after a clone: headrace.toml is kept in git, .headrace is not."""
    workspace.close()
    shutil.rmtree(workspace.state_folder)
    with open_workspace(workspace.root) as ws, ws.store.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM channels").scalar() == 0


def test_a_database_of_newer_code_is_let_be(workspace: Workspace) -> None:
    with workspace.store.write() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = 'm9999'")
    workspace.close()
    before = (workspace.state_folder / "headrace.db").read_bytes()
    with pytest.raises(WrongState, match="m9999"):
        open_workspace(workspace.root)
    assert (workspace.state_folder / "headrace.db").read_bytes() == before


def test_many_processes_may_open_it_first(tmp_path: Path) -> None:
    """All of them bring the tables into being; none may see half of them."""
    init(tmp_path, task="tone", labels=("a", "b")).close()
    shutil.rmtree(tmp_path / ".headrace")
    code = "import sys; from headrace.workspace import open_workspace; open_workspace(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ.copy()) for _ in range(4)]
    for process in started:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()


def test_who_acts_has_a_number_where_the_machine_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert os_user() == "user:3999999999"
