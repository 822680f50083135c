"""Backups. Catches: a copy taken while others write that lacks what was there, or is not sound; a damaged one that is
restored, or that costs the workspace that was there; a secret that leaves the machine; an erasure that comes back.
"""

import json
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import LABELS, sentences, write_jsonl
from furnished import NAME, OTHERS, Furnished, furnish, holders
from headrace import backups, retention, signing
from headrace.access import keys
from headrace.backups import copying, sealed
from headrace.cli.main import app
from headrace.data import importing, snapshot
from headrace.errors import AlreadyExists, BadConfig, BadInput, Damaged, NotFound, Unavailable, Unusable, WrongState
from headrace.lineage import erasing, receipts, tombstones
from headrace.release import controls, ledger
from headrace.store import wal
from headrace.workspace import Workspace, init, open_workspace, serving
from stub_model import plant_stub


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Furnished]:
    root = tmp_path_factory.mktemp("origin") / "ws"
    with init(root, task="tone", labels=LABELS) as ws:
        made = furnish(ws, root)
        controls.ensure_control(ws, "tone", actor="serve")
    return root, made


@pytest.fixture
def root(origin: tuple[Path, Furnished], tmp_path: Path) -> Path:
    shutil.copytree(origin[0], tmp_path / "ws")
    return tmp_path / "ws"


@pytest.fixture(scope="module")
def a_backup(origin: tuple[Path, Furnished], tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("backup") / "b"
    with open_workspace(origin[0]) as ws:
        backups.backup(ws, to)
    return to


def test_what_is_restored_is_what_was_there(origin: tuple[Path, Furnished], a_backup: Path, tmp_path: Path) -> None:
    made = backups.restore(a_backup, tmp_path / "again")
    assert (made.erased_again, made.put_aside, made.settings_to_change) == ([], None, [])
    with open_workspace(origin[0]) as before, open_workspace(tmp_path / "again") as after:
        assert after.config_hash == before.config_hash
        assert ledger.verify(after) == ledger.verify(before)
        assert list(retention.read(after)) == list(retention.read(before))
        frozen = snapshot.latest(after)
        assert frozen is not None
        assert frozen == snapshot.latest(before)
        assert snapshot.rows(after, frozen) == snapshot.rows(before, frozen)
        with before.store.read() as old, after.store.read() as new:
            for table in ("examples", "labels", "feedback", "predictions", "reviews", "ledger", "erasures"):
                query = f"SELECT * FROM {table} ORDER BY 1"
                assert new.exec_driver_sql(query).all() == old.exec_driver_sql(query).all(), table


def test_secrets_caches_and_logs_stay_at_home(root: Path, tmp_path: Path) -> None:
    with open_workspace(root) as ws:
        receipts.make_key(ws)
        backups.backup(ws, tmp_path / "b")
    files = [path.relative_to(tmp_path / "b").as_posix() for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert not [name for name in files if name.endswith(".pem") or name.startswith(("cache", "logs", "runs", "locks"))]
    assert {Path(name).suffix for name in files if name.startswith("keys/")} == {".key", ".pub"}
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "b" / "keys" / "erasures.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["ws/b", "ws/.headrace/b", "link/b", "ws/../link/../ws/b"])
def test_a_backup_is_never_inside_of_its_workspace(root: Path, tmp_path: Path, name: str) -> None:
    """Catches: one that is lost with what it is a backup of."""
    (tmp_path / "link").symlink_to(root)
    with open_workspace(root) as ws, pytest.raises(BadInput, match="inside"):
        backups.backup(ws, tmp_path / name)
    with open_workspace(tmp_path / "link") as ws, pytest.raises(BadInput, match="inside"):
        backups.backup(ws, tmp_path / name)
    assert not (root / "b").exists()


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_anywhere_is_seen_before_anything_is_touched(
    a_backup: Path, tmp_path: Path, place: float, flip: int, data: st.DataObject
) -> None:
    names = sorted(path.relative_to(a_backup) for path in a_backup.rglob("*") if path.is_file())
    path = a_backup / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    where = int(place * len(content))
    try:
        path.write_bytes(content[:where] + bytes([content[where] ^ flip]) + content[where + 1 :])
        try:
            found = backups.verify(a_backup)
        except Damaged:
            found = None
    finally:
        path.write_bytes(content)
    assert found is None


@pytest.mark.parametrize("harm", ["missing", "added", "cut", "no manifest", "manifest cut", "not sound"])
def test_a_damaged_backup_replaces_nothing(a_backup: Path, root: Path, tmp_path: Path, harm: str) -> None:
    shutil.copytree(a_backup, tmp_path / "b")
    database, manifest = tmp_path / "b" / copying.DATABASE, tmp_path / "b" / backups.MANIFEST
    if harm == "missing":
        next((tmp_path / "b" / "artifacts").rglob("*.parquet")).unlink()
    elif harm == "added":
        (tmp_path / "b" / "predictions" / "more.parquet").write_bytes(b"x")
    elif harm == "cut":
        os.truncate(database, database.stat().st_size - 4096)
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "manifest cut":
        os.truncate(manifest, 100)
    else:  # written like that, hashes and all
        conn = sqlite3.connect(database)
        columns = "task, labeller_id, value, score, origin, import_id, feedback_id, created_at"
        one = f"SELECT 'lbl_x', 'none', {columns} FROM labels LIMIT 1"
        conn.execute(f"INSERT INTO labels (id, example_id, {columns}) {one}")
        conn.commit()
        conn.close()
        facts = sealed.read(manifest)
        facts["files"] = copying.listed(tmp_path / "b")
        sealed.write(manifest, facts)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(NotFound if harm == "no manifest" else Damaged):
        backups.restore(tmp_path / "b", root, replace=True)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "ws"]


def test_what_is_there_is_refused_or_put_aside(a_backup: Path, root: Path, tmp_path: Path) -> None:
    with open_workspace(root) as ws, pytest.raises(AlreadyExists):
        backups.backup(ws, a_backup)
    with pytest.raises(AlreadyExists, match="--replace"):
        backups.restore(a_backup, root)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(AlreadyExists, match="no workspace"):
        backups.restore(a_backup, tmp_path / "other", replace=True)
    made = backups.restore(a_backup, root, replace=True)
    assert made.put_aside is not None
    with open_workspace(made.put_aside) as old, open_workspace(root) as new:
        assert ledger.verify(old) == ledger.verify(new)


def test_refused_while_a_server_answers_or_a_backup_follows(a_backup: Path, root: Path) -> None:
    with open_workspace(root) as ws:
        with serving(ws), pytest.raises(WrongState, match="server"):
            backups.restore(a_backup, root, replace=True)
        with wal.following(ws.state_folder / wal.LOCK), pytest.raises(WrongState, match="follows"):
            backups.restore(a_backup, root, replace=True)
    (root / ".headrace" / "server.json").write_text(json.dumps({"pid": os.getpid()}))  # after a crash: number reused
    assert backups.restore(a_backup, root, replace=True).put_aside is not None


def test_a_link_is_not_replaced(a_backup: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    with pytest.raises(BadInput, match="is a link"):
        backups.restore(a_backup, tmp_path / "current", replace=True)
    assert (tmp_path / "current").is_symlink()


def test_links_in_a_backup_are_refused(a_backup: Path, tmp_path: Path) -> None:
    """Written like that, hashes and all: they need no key."""
    shutil.copytree(a_backup, tmp_path / "b")
    (tmp_path / "b" / "predictions" / "more.parquet").symlink_to(tmp_path / "b" / "headrace.toml")
    facts = sealed.read(tmp_path / "b" / backups.MANIFEST)
    sealed.write(tmp_path / "b" / backups.MANIFEST, {**facts, "files": copying.listed(tmp_path / "b")})
    with pytest.raises(Damaged, match="neither a file"):
        backups.restore(tmp_path / "b", tmp_path / "again")


def test_what_was_erased_since_is_erased_again_where_it_is_replaced(a_backup: Path, root: Path) -> None:
    with open_workspace(root) as ws:
        tombstones.key_of(ws.state_folder)
    shutil.copy2(a_backup / "keys" / "erasures.key", root / ".headrace" / "keys" / "erasures.key")  # as if of this one
    with open_workspace(root) as ws:
        done = erasing.erase(ws, labeller=NAME, channel="web")
    made = backups.restore(a_backup, root, replace=True)
    assert made.erased_again == [done.id]
    assert holders(root, NAME) == []
    assert holders(root, OTHERS)
    with open_workspace(root) as ws:
        assert [(one["id"], one["state"]) for one in erasing.listing(ws)] == [(done.id, "done")]
        assert receipts.verify(ws, ws.state_folder / "receipts" / f"{done.id}.json")["id"] == done.id
        backups.backup(ws, root.with_name("later"))
    assert backups.restore(root.with_name("later"), root.with_name("last")).erased_again == []


def test_a_key_that_was_revoked_since_is_revoked_again_where_it_is_replaced(root: Path, tmp_path: Path) -> None:
    with open_workspace(root) as ws:
        old, new = (keys.create(ws, name, scopes=["predict"]).record.id for name in ("old", "new"))
        backups.backup(ws, tmp_path / "b")
        keys.revoke(ws, old)
    assert backups.restore(tmp_path / "b", root, replace=True).revoked_again == [old]
    with open_workspace(root) as ws:
        assert {key.id: keys.standing(key, ws.clock()) for key in keys.listing(ws)} == {old: "revoked", new: "valid"}
    (root / ".headrace" / "headrace.db").write_bytes(b"x" * 10_000)  # what is replaced may be of no use at all
    assert backups.restore(tmp_path / "b", root, replace=True).revoked_again == []
    (root / "headrace.toml").write_text("no settings")
    assert backups.restore(tmp_path / "b", root, replace=True).revoked_again == []


def test_a_key_ends_no_later_than_it_did_where_it_is_replaced(root: Path, tmp_path: Path) -> None:
    """Catches a key that was rotated away, and counts again without an end."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    with open_workspace(root) as ws:
        rotated, later, same = (keys.create(ws, name, scopes=["predict"]).record.id for name in ("a", "b", "c"))
        ending = keys.create(ws, "d", scopes=["predict"], expires_at=soon).record.id
        backups.backup(ws, tmp_path / "b")
        keys.rotate(ws, rotated, overlap=timedelta())
        keys.rotate(ws, later, overlap=timedelta(hours=2))
        before = {key.id: key.expires_at for key in keys.listing(ws)}
    assert sorted(backups.restore(tmp_path / "b", root, replace=True).ended_again) == sorted([rotated, later])
    with open_workspace(root) as ws:
        found = {key.id: key for key in keys.listing(ws)}
        assert {name: key.expires_at for name, key in found.items()} == {
            name: before[name] for name in (rotated, later, same, ending)
        }
        assert keys.standing(found[rotated], ws.clock()) == "expired"


def test_signatures_are_checked_after_a_restore(tmp_path: Path) -> None:
    """Catches a documented setup whose restored server does not start: the private key is in no backup."""
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        signing.make_key(ws)
    with (tmp_path / "ws" / "headrace.toml").open("a") as file:
        file.write(f'\n[sign]\nprivate_key = ".headrace/{signing.PRIVATE_KEY}"\npolicy = "require"\n')
    with open_workspace(tmp_path / "ws") as ws:
        version = plant_stub(ws)
        signing.sign_again(ws, version)
        backups.backup(ws, tmp_path / "b")
    made = backups.restore(tmp_path / "b", tmp_path / "again")
    assert made.settings_to_change == [f"sign.private_key = .headrace/{signing.PRIVATE_KEY}"]
    with open_workspace(tmp_path / "again") as ws:
        assert signing.folder_of(ws, version, version.artifact).is_dir()
        assert all(one.is_signed for one in signing.verify(ws, version))
        with pytest.raises(BadConfig, match=r"sign\.private_key"):
            signing.sign_again(ws, version)


def test_lines_cut_off_the_audit_log_are_found_by_a_backup(root: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()  # one turn, and the last one
    with open_workspace(root) as ws:
        backups.backup(ws, tmp_path / "b")
        backups.follow(ws, tmp_path / "f", stop=stop)
    with closing(sqlite3.connect(root / ".headrace" / "headrace.db")) as conn:
        conn.execute("DROP TRIGGER audit_log_no_DELETE")
        conn.execute("DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)")
        conn.commit()
    verify = ["audit", "verify", "--workspace", str(root)]
    assert CliRunner().invoke(app, verify).exit_code == 0
    for folder in ("b", "f"):
        found = CliRunner().invoke(app, [*verify, "--backup", str(tmp_path / folder)])
        assert found.exit_code == 1
        assert "was noted elsewhere" in found.output


def test_a_labeller_who_came_back_after_the_erasure_stays(root: Path, tmp_path: Path) -> None:
    from headrace.feedback.intake import give

    with open_workspace(root) as ws:
        erasing.erase(ws, labeller=NAME, channel="web")
        prediction = next(one for one in retention.read(ws) if one.text == OTHERS and one.unit == "else")
        with ws.store.read() as conn:
            stored = conn.exec_driver_sql("SELECT id FROM predictions WHERE text = ?", (OTHERS,)).scalars().all()
        assert prediction
        give(ws, stored[-1], correction="neutral", labeller=NAME)
        backups.backup(ws, tmp_path / "b")
    backups.restore(tmp_path / "b", tmp_path / "again")
    assert holders(tmp_path / "again", NAME)


def test_without_the_key_nothing_is_restored(a_backup: Path, root: Path, tmp_path: Path) -> None:
    (root / ".headrace" / "keys" / "erasures.key").unlink(missing_ok=True)
    with open_workspace(root) as ws:
        erasing.erase(ws, labeller=NAME, channel="web")
    lone = tmp_path / "erasures.jsonl"
    shutil.copy2(root / ".headrace" / tombstones.FILE, lone)
    with pytest.raises(NotFound, match="key of these erasures"):
        backups.restore(a_backup, tmp_path / "again", erasures=lone)
    assert not (tmp_path / "again").exists()
    with pytest.raises(NotFound, match="no such file"):
        backups.restore(a_backup, tmp_path / "again", erasures=tmp_path / "none.jsonl")


def test_an_artifact_that_the_workspace_itself_lacks_is_named(a_backup: Path) -> None:
    manifest = json.loads((a_backup / backups.MANIFEST).read_text())
    assert len(manifest["missing"]) == 3  # the planted version's, which have no files


def test_settings_that_name_other_places_are_told(root: Path, tmp_path: Path) -> None:
    toml = root / "headrace.toml"
    toml.write_text(toml.read_text() + f'\n[store]\nurl = "sqlite:///{tmp_path / "elsewhere.db"}"\n')
    with open_workspace(root) as ws:
        from headrace.data import channels

        channels.add(ws, "solo")
        importing.import_rows(ws, "solo", write_jsonl(tmp_path / "solo.jsonl", sentences(30, channel="solo")))
        backups.backup(ws, tmp_path / "b")
    made = backups.restore(tmp_path / "b", tmp_path / "again")
    assert made.settings_to_change == [f"store.url = sqlite:///{tmp_path / 'elsewhere.db'}"]
    with open_workspace(tmp_path / "again", overrides={"store.url": ""}) as ws:
        assert [one.name for one in channels.listing(ws)] == ["solo"]


def test_another_database_has_its_own_means(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace.store, "_is_sqlite", False)
    with pytest.raises(WrongState, match="pg_dump"):
        backups.backup(workspace, tmp_path / "b")
    assert list(tmp_path.glob("b*")) == []
    assert list(tmp_path.glob(".b*")) == []


WRITER = """
    import sys, time
    from headrace.ids import new_id
    from headrace.records import Channel
    from headrace.store import channels
    from headrace.workspace import open_workspace

    with open_workspace(sys.argv[1]) as ws:
        n, started = 0, time.monotonic()
        while True:
            with ws.store.write() as conn:
                channels.add(conn, Channel(new_id("channel"), f"c{n:06d}", "x" * 500, "", "", ws.clock()))
            n += 1
            print(n, flush=True)
            time.sleep(max(0.0, started + n / 500 - time.monotonic()))
"""


@pytest.mark.slow
def test_a_backup_beside_a_writer_is_one_moment_with_all_that_was_there_before(root: Path, tmp_path: Path) -> None:
    code = [sys.executable, "-c", textwrap.dedent(WRITER), str(root)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            with open_workspace(root) as ws:
                for number in range(4):
                    time.sleep(0.3)
                    with ws.store.read() as conn:
                        query = "SELECT count(*) FROM channels WHERE name LIKE 'c0%'"
                        n_before = conn.exec_driver_sql(query).scalar_one()
                    backups.backup(ws, tmp_path / f"b{number}")
                    backups.restore(tmp_path / f"b{number}", tmp_path / f"r{number}")
                    with open_workspace(tmp_path / f"r{number}") as again, again.store.read() as conn:
                        names = conn.exec_driver_sql("SELECT name FROM channels WHERE name LIKE 'c0%' ORDER BY 1")
                        found = list(names.scalars())
                    assert len(found) >= n_before > 0
                    assert found == [f"c{n:06d}" for n in range(len(found))]  # no hole
        finally:
            writer.kill()


def test_a_disk_without_room_to_rewrite_the_database_is_told_of(workspace: Workspace) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(Unusable, match="cannot be used"):
            workspace.store.scrub()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    workspace.store.scrub()


def test_a_reader_that_stays_keeps_the_log_from_being_emptied(root: Path) -> None:
    """And is told of, instead of a promise that is not kept."""
    with open_workspace(root, overrides={"store.busy_timeout_s": 0.2}) as ws:
        reader = sqlite3.connect(root / ".headrace" / "headrace.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM channels").fetchone()
        with ws.store.write() as conn:
            conn.exec_driver_sql("UPDATE channels SET owner = 'somebody'")
        with pytest.raises(Unavailable, match="reader"):
            ws.store.scrub()
        reader.close()
        ws.store.scrub()
        assert (root / ".headrace" / "headrace.db-wal").stat().st_size == 0
