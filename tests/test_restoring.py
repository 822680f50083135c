"""Restores over a workspace that is there. Catches: one that was killed and costs what was there, or gives back what
was revoked and erased; keys of one workspace beside the rows of another.
"""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import LABELS, write_jsonl
from furnished import NAME, furnish, holders
from headrace import backups
from headrace.access import keys
from headrace.backups import copying
from headrace.cli.main import app
from headrace.data import channels, importing
from headrace.errors import AlreadyExists
from headrace.lineage import erasing, tombstones
from headrace.personal import mapping, secret
from headrace.secret_files import write_secret
from headrace.workspace import init, open_workspace


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin") / "ws"
    with init(root, task="tone", labels=LABELS) as ws:
        furnish(ws, root)
    return root


@pytest.fixture
def root(origin: Path, tmp_path: Path) -> Path:
    shutil.copytree(origin, tmp_path / "ws")
    return tmp_path / "ws"


KILLED = """
    import os, sys
    from headrace import backups

    rename, calls = os.rename, []

    def killed(*paths):
        calls.append(paths)
        os._exit(9) if len(calls) == int(sys.argv[3]) else rename(*paths)

    os.rename = killed
    backups.restore(sys.argv[1], sys.argv[2], replace=True)
"""


@pytest.mark.parametrize("n_th", [1, 2, 3])
def test_a_restore_that_was_killed_at_a_rename_is_finished_by_the_same_command(
    root: Path, tmp_path: Path, n_th: int
) -> None:
    """Catches a revoked key that counts again, an erasure that is undone, secrets in folders that nobody removes."""
    with open_workspace(root) as ws:
        key = keys.create(ws, "app", scopes=["predict"]).record.id
        backups.backup(ws, tmp_path / "b")
        keys.revoke(ws, key)
        erased = erasing.erase(ws, labeller=NAME, channel="web")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "b"), str(root), str(n_th)]
    assert subprocess.run(command, check=False).returncode == 9
    made = backups.restore(tmp_path / "b", root, replace=True)
    with open_workspace(root) as ws:
        assert [keys.standing(one, ws.clock()) for one in keys.listing(ws)] == ["revoked"]
        assert [one["id"] for one in erasing.listing(ws)] == [erased.id]
    assert holders(root, NAME) == []
    aside = sorted(path.name for path in tmp_path.iterdir() if path.name not in ("b", "ws"))
    assert len(aside) == (2 if n_th == 3 else 1), "the third killed one had taken the place"
    assert all(name.startswith("ws.before-") for name in aside)
    assert made.put_aside is not None
    assert Path(made.put_aside).name in aside


def test_a_killed_restore_is_put_back_also_where_the_next_is_refused(root: Path, tmp_path: Path) -> None:
    """Catches a workspace that stays away under another name until somebody says --replace."""
    with open_workspace(root) as ws:
        backups.backup(ws, tmp_path / "b")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "b"), str(root), "2"]
    assert subprocess.run(command, check=False).returncode == 9
    assert not root.exists()
    with pytest.raises(AlreadyExists, match="--replace"):
        backups.restore(tmp_path / "b", root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "ws"]


def test_what_another_restore_to_the_same_place_works_in_is_left(root: Path, tmp_path: Path) -> None:
    """Catches a living process whose folder is taken for a dead one's."""
    with open_workspace(root) as ws:
        backups.backup(ws, tmp_path / "b")
    with copying.unfinished(tmp_path / "again") as room:
        backups.restore(tmp_path / "b", tmp_path / "again")
        assert room.exists()


def test_another_workspace_keeps_its_keys_and_erasures_to_itself(root: Path, tmp_path: Path) -> None:
    """Catches rows under the keys of a stranger: other surrogates for the same, tombstones that nothing can apply."""
    with open_workspace(root) as ws:
        secret.secret_of(ws.state_folder)
        erasing.erase(ws, labeller=NAME, channel="web")
        backups.backup(ws, tmp_path / "b")
    with init(tmp_path / "other", task="tone", labels=LABELS) as other:
        channels.add(other, "web")
        rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "so", "label": LABELS[0]}])
        importing.import_rows(other, "web", rows)
        secret.secret_of(other.state_folder)
        write_secret(other.state_folder / mapping.FILE, b"[]")
        erasing.erase(other, channel="web")
    done = CliRunner().invoke(app, ["restore", str(tmp_path / "b"), str(tmp_path / "other"), "--replace"])
    assert "another workspace" in done.output
    state = tmp_path / "other" / ".headrace"
    for name in (secret.FILE, "keys/erasures.key"):
        assert (state / name).read_bytes() == (root / ".headrace" / name).read_bytes()
    assert not (state / mapping.FILE).exists()
    assert not (state / "keys" / "receipts.pem").exists()
    assert len(tombstones.read(state / tombstones.FILE)) == 1
    with open_workspace(tmp_path / "other") as ws:
        backups.backup(ws, tmp_path / "later")
    assert backups.restore(tmp_path / "later", tmp_path / "last").erased_again == []


def test_its_own_keys_stay_where_a_workspace_is_replaced(root: Path, tmp_path: Path) -> None:
    """Catches a mapping that is lost by going back, and surrogates that do not agree with the rows that come back."""
    with open_workspace(root) as ws:
        kept = secret.secret_of(ws.state_folder)
        backups.backup(ws, tmp_path / "b")
        write_secret(ws.state_folder / mapping.FILE, b"[]")
        (ws.state_folder / secret.FILE).write_bytes(b"x" * 32)
    made = backups.restore(tmp_path / "b", root, replace=True)
    assert not made.was_another
    assert (root / ".headrace" / mapping.FILE).read_bytes() == b"[]"
    assert (root / ".headrace" / secret.FILE).read_bytes() == kept


def test_erasures_count_also_where_their_key_was_made_anew(root: Path, tmp_path: Path) -> None:
    """Catches somebody who comes back since the workspace that is replaced lost a key, and so passes for a stranger."""
    with open_workspace(root) as ws:
        backups.backup(ws, tmp_path / "b")
        (ws.state_folder / "keys" / "erasures.key").unlink()
        erased = erasing.erase(ws, labeller=NAME, channel="web")
    assert backups.restore(tmp_path / "b", root, replace=True).erased_again == [erased.id]
    assert holders(root, NAME) == []
