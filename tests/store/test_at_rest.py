"""A database whose pages are encrypted. Catches: a text that can be read in a file of it, a wrong key that is taken for
damage or for a fresh database, a backup that nobody can open or that is plain, an import that spills its rows."""

import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import LABELS
from headrace.backups import backup, restore
from headrace.config_sources import FILE_NAME
from headrace.data.importing import import_rows
from headrace.errors import BadConfig, Damaged, MissingExtra, Unusable
from headrace.store import at_rest, examples
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_channel

pytest.importorskip("sqlcipher3", reason="needs headrace[encrypted]")

PLANTED = b"a sentence that nobody else has"


def key_in(folder: Path, name: str = "headrace.key") -> Path:
    path = folder / name
    path.write_text(secrets.token_hex(48) + "\n")
    return path


@pytest.fixture
def root(workspace: Workspace, tmp_path: Path) -> Path:
    """A workspace with a key, not opened yet with it."""
    workspace.close()
    (workspace.state_folder / "headrace.db").unlink()
    path = workspace.root / FILE_NAME
    path.write_text(path.read_text() + f'[store]\nkey_file = "{key_in(tmp_path)}"\n')
    return workspace.root


def with_rows(ws: Workspace, folder: Path) -> None:
    plant_channel(ws, "web")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{PLANTED.decode()} {i}", "label": "positive"}}\n' for i in range(50)))
    import_rows(ws, "web", rows)


def files_with_it(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and PLANTED in path.read_bytes()]


def n_examples(ws: Workspace) -> int:
    with ws.store.read() as conn:
        return sum(1 for _ in examples.labelled_rows(conn, "tone"))


@pytest.mark.parametrize("named_in", ["file", "environment"])
def test_no_byte_of_the_database_or_its_backup_can_be_read(
    root: Path, tmp_path: Path, named_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named_in == "environment":
        monkeypatch.setenv("HEADRACE_STORE__KEY_FILE", str(tmp_path / "headrace.key"))
        path = root / FILE_NAME
        path.write_text(path.read_text().partition("[store]")[0])
    with open_workspace(root) as ws:
        with_rows(ws, tmp_path)
        database = ws.state_folder / "headrace.db"
        assert Path(f"{database}-wal").stat().st_size > 0
        assert files_with_it(root) == []
        backup(ws, tmp_path / "backup")
    assert not database.read_bytes().startswith(b"SQLite format 3")
    assert files_with_it(root) == files_with_it(tmp_path / "backup") == []
    restore(tmp_path / "backup", tmp_path / "again")
    with open_workspace(tmp_path / "again") as again:
        assert n_examples(again) == 50
        again.store.scrub()
    assert files_with_it(tmp_path / "again") == []


def test_the_wrong_key_and_none_are_refused_and_change_nothing(root: Path, tmp_path: Path) -> None:
    with open_workspace(root) as ws:
        with_rows(ws, tmp_path)
    before = (root / ".headrace" / "headrace.db").read_bytes()
    with pytest.raises(Unusable, match="cannot be read with this key"):
        open_workspace(root, overrides={"store.key_file": str(key_in(tmp_path, "other.key"))})
    with pytest.raises(Damaged, match="key_file"):
        open_workspace(root, overrides={"store.key_file": ""})
    assert (root / ".headrace" / "headrace.db").read_bytes() == before
    with open_workspace(root) as ws:
        assert n_examples(ws) == 50


def test_a_key_for_a_database_that_has_none_is_refused_and_changes_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Catches: a sound database that is called damaged."""
    workspace.close()
    database = workspace.state_folder / "headrace.db"
    before = database.read_bytes()
    with pytest.raises(Unusable, match=r"is not encrypted.*headrace init"):
        open_workspace(workspace.root, overrides={"store.key_file": str(key_in(tmp_path))})
    assert database.read_bytes() == before


def test_a_workspace_is_encrypted_as_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a database that `init` makes without the key."""
    key_file = key_in(tmp_path)
    monkeypatch.setenv("HEADRACE_STORE__KEY_FILE", str(key_file))
    init(tmp_path / "shop", task="tone", labels=LABELS).close()
    monkeypatch.delenv("HEADRACE_STORE__KEY_FILE")
    with (tmp_path / "shop" / FILE_NAME).open("a") as file:
        file.write(f'[store]\nkey_file = "{key_file}"\n')
    with open_workspace(tmp_path / "shop") as ws:
        with_rows(ws, tmp_path)
        assert n_examples(ws) == 50
    assert files_with_it(tmp_path / "shop") == []


@pytest.mark.parametrize(
    ("key_file", "error", "said"),
    [
        ("beside.key", BadConfig, "absolute"),
        ("/nowhere/headrace.key", Unusable, "Put the key back"),
        ("{tmp}/short.key", BadConfig, "Put the key back"),
    ],
)
def test_a_key_that_cannot_be_used_is_said_plainly(
    workspace: Workspace, tmp_path: Path, key_file: str, error: type[Exception], said: str
) -> None:
    """Catches: no advice but to make another key, for what only the old one opens."""
    (tmp_path / "short.key").write_text("abc")
    with pytest.raises(error, match=said):
        open_workspace(workspace.root, overrides={"store.key_file": key_file.format(tmp=tmp_path)})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    with pytest.raises(MissingExtra, match="encrypted"):
        at_rest.dbapi("/a.key")
    assert at_rest.dbapi("").__name__ == "sqlite3"


def test_writers_of_two_processes_take_turns(root: Path) -> None:
    """The pragmas and the lock hold as they do without a key."""
    code = (
        "import sys; from headrace.workspace import open_workspace as o; from planted import plant_channel as p\n"
        "with o(sys.argv[1]) as ws:\n    for i in range(15): p(ws, f'{sys.argv[2]}{i}')"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with open_workspace(root) as ws:
        other = subprocess.Popen([sys.executable, "-c", code, str(root), "b"], env=env)
        threads = [threading.Thread(target=plant_channel, args=(ws, f"a{i}")) for i in range(15)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert other.wait(60) == 0
        with ws.store.read() as conn:
            assert conn.exec_driver_sql("SELECT count(*) FROM channels").scalar() == 30
            assert conn.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
