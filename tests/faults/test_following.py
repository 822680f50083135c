"""Backups that follow. Catches: a commit that is acknowledged and in no backup a second later; a log that others reset
and that is lost unseen; a log that grows because nobody takes it in; an erased person in a generation that stays; a
damaged backup that replaces something.
"""

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.drills import following as drill
from conftest import LABELS
from furnished import ASKED, CORE, NAME, OLD_ASKED, OTHERS, furnish, holders
from headrace import auditing, backups
from headrace.access import keys
from headrace.backups import Followed, following, generations, sealed
from headrace.errors import AlreadyExists, BadInput, Damaged, NotFound, WrongState
from headrace.lineage import erasing
from headrace.store import engine, wal
from headrace.workspace import Workspace, init, open_workspace
from stub_model import stub_artifact

SOON_S = 10


@contextmanager
def followed(root: Path, to: Path) -> Iterator[list[Followed]]:
    """A thread that follows, as the process of the command does; what it reported."""
    stop, told, failed = threading.Event(), [], []

    def run() -> None:
        try:
            with open_workspace(root) as ws:
                told.append(backups.follow(ws, to, stop=stop, report=told.append))
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: bool(told or failed))
        yield told
    finally:
        stop.set()
        thread.join(SOON_S)
        assert not thread.is_alive()
        if failed:
            raise failed[0]


def eventually(holds: object) -> None:
    until = time.monotonic() + SOON_S
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)


def write(ws: Workspace, first: int, n: int = 1) -> None:
    for number in range(first, first + n):
        with ws.store.write() as conn:
            auditing.note(ws, conn, "drill", str(number), facts={"padding": "x" * 300})


def written(root: Path) -> list[int]:
    with open_workspace(root) as ws:
        assert auditing.verify(ws)["first_broken"] is None
        return [int(line.object) for line in auditing.listing(ws, action="drill")]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with init(tmp_path / "ws", task="tone", labels=LABELS) as made:
        yield made


def test_what_comes_while_it_follows_is_restored_to_any_instant(ws: Workspace, tmp_path: Path) -> None:
    write(ws, 0, 5)
    before = datetime.now(UTC)
    with followed(ws.root, tmp_path / "f") as told:
        write(ws, 5, 5)
        time.sleep(0.6)
        between = datetime.now(UTC)
        digest = recorded_artifact(ws)
        write(ws, 10, 300)  # more than the log holds before it is taken into the database
        time.sleep(0.6)
        backups.restore(tmp_path / "f", tmp_path / "live")  # while it goes on
    assert written(tmp_path / "live") == list(range(310))
    made = backups.restore(tmp_path / "f", tmp_path / "end")
    assert written(tmp_path / "end") == list(range(310))
    assert (made.missing, told[-1].missing) == ([], [])
    with open_workspace(tmp_path / "end") as again:
        assert drill.bytes_below(again.artifacts.get(digest)) == drill.bytes_below(ws.artifacts.get(digest))
    backups.restore(tmp_path / "f", tmp_path / "then", at=between)
    assert written(tmp_path / "then") == list(range(10))
    with pytest.raises(NotFound, match="so far"):
        backups.restore(tmp_path / "f", tmp_path / "none", at=before - timedelta(minutes=1))
    assert timedelta(0) <= datetime.now(UTC) - backups.newest_at(tmp_path / "f") < timedelta(minutes=1)


def recorded_artifact(ws: Workspace) -> str:
    digest = stub_artifact(ws)
    with ws.store.write() as conn:
        conn.exec_driver_sql(
            "INSERT INTO artifacts (digest, kind, n_bytes, facts, created_at) VALUES (?, 'stub', 1, '{}', ?)",
            (digest, "2026-03-01 12:00:00.000000"),
        )
    return digest


def test_one_that_begins_again_has_the_artifacts_of_before_at_once(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = recorded_artifact(ws)
    with followed(ws.root, tmp_path / "f"):
        pass
    monkeypatch.setattr(following._Mirror, "_copy_artifacts", lambda *_: None)  # a machine that dies before it is done
    write(ws, 0, 5)
    with followed(ws.root, tmp_path / "f") as told:
        pass
    assert told[0].n_generations == 1
    assert [one.missing for one in told] == [[], []]
    made = backups.restore(tmp_path / "f", tmp_path / "end")
    assert made.missing == []
    with open_workspace(tmp_path / "end") as again:
        assert drill.bytes_below(again.artifacts.get(digest)) == drill.bytes_below(ws.artifacts.get(digest))


def test_an_artifact_that_comes_while_files_are_listed_is_listed_or_missing(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: neither, so that the generation is refused as not whole."""
    digest = recorded_artifact(ws)
    pool = generations.Pool(tmp_path / "files")
    mirror = following._Mirror(ws, pool, {})
    monkeypatch.setattr(mirror, "_copy_artifacts", lambda digests: None)
    mirror.renew_artifacts(is_new=True)
    add = pool.add_json

    def add_late(value: object) -> generations.Entry:
        following._Mirror._copy_artifacts(
            mirror, [digest]
        )  # done between the look at files and that at what is missing
        return add(value)

    monkeypatch.setattr(pool, "add_json", add_late)
    listing, missing = mirror.said()
    mirror.close()
    assert missing == [digest]
    assert pool.read_json(listing) == {}


def test_commits_do_not_wait_for_an_artifact_that_is_being_copied(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a backup that stands still for as long as a large artifact takes."""
    begun, may_go_on, add = threading.Event(), threading.Event(), generations.Pool.add

    def add_slowly(pool: generations.Pool, path: Path) -> generations.Entry:
        if threading.current_thread().name.startswith("headrace-artifacts"):
            begun.set()
            assert may_go_on.wait(3 * SOON_S)
        return add(pool, path)

    monkeypatch.setattr(generations.Pool, "add", add_slowly)
    with followed(ws.root, tmp_path / "f") as told:
        try:
            digest = recorded_artifact(ws)
            assert begun.wait(SOON_S)
            write(ws, 0, 5)
            at = datetime.now(UTC)
            eventually(lambda: backups.newest_at(tmp_path / "f") > at)
            assert backups.restore(tmp_path / "f", tmp_path / "live").missing == [digest]
            assert written(tmp_path / "live") == list(range(5))
        finally:
            may_go_on.set()
    assert told[-1].missing == []
    assert backups.restore(tmp_path / "f", tmp_path / "end").missing == []


@pytest.mark.parametrize("is_wanted", [True, False])
def test_of_a_half_copied_artifact_nothing_is_deleted_unless_it_was_erased(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_wanted: bool
) -> None:
    """Catches: a listing with files that a generation that ended took along; files of an erased one that stay."""
    digest, pool = recorded_artifact(ws), generations.Pool(tmp_path / "files")
    mirror, sync, n_swept = following._Mirror(ws, pool, {}), generations.sync, 0

    def sweep_before(path: Path) -> None:
        """Beside every draft that is whole, and not in its place yet."""
        nonlocal n_swept
        if path.is_file():
            mirror._wanted = [digest] if is_wanted else []
            mirror.forget_all_but([])
            n_swept += 1
        sync(path)

    monkeypatch.setattr(generations, "sync", sweep_before)
    mirror.renew_artifacts(is_new=True)
    mirror.wait()
    monkeypatch.undo()
    there = {path.name for path in (tmp_path / "files").rglob("*") if path.is_file()}
    listing, missing = mirror.said()
    mirror.close()
    assert (n_swept > 1, missing) == (is_wanted, [])
    assert {entry["sha256"] for entry in pool.read_json(listing).values()} == there
    assert bool(there) == is_wanted


def test_a_log_that_others_reset_begins_a_new_generation(ws: Workspace, tmp_path: Path) -> None:
    with followed(ws.root, tmp_path / "f") as told:
        write(ws, 0, 5)
        other = sqlite3.connect(ws.state_folder / "headrace.db", isolation_level=None)
        until = time.monotonic() + 4 * SOON_S
        while len(told) < 2:  # until one of them comes between a commit and its copy
            write(ws, sum(1 for _ in auditing.listing(ws)))
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            write(ws, sum(1 for _ in auditing.listing(ws)))
            assert time.monotonic() < until
        other.close()
    n = len(auditing.listing(ws, action="drill"))
    backups.restore(tmp_path / "f", tmp_path / "again")
    assert written(tmp_path / "again") == list(range(n))


def test_one_that_is_stuck_does_not_make_the_log_grow_for_ever(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(engine, "_FOLLOWED_PAGES", 100)
    monkeypatch.setattr(wal, "_PATIENCE_S", 0.1)
    log, sizes = ws.state_folder / "headrace.db-wal", []
    with wal.following(ws.state_folder / "follow.lock"):
        for number in range(60):
            write(ws, number)
            sizes.append(log.stat().st_size // 4096)
        assert 100 <= max(sizes) < 130
        with pytest.raises(WrongState, match="follows"), ws.store.followed():
            pass
    write(ws, 60, 30)  # nobody follows any more
    assert log.stat().st_size // 4096 < 40


def test_a_folder_that_goes_away_and_comes_back(ws: Workspace, tmp_path: Path) -> None:
    with followed(ws.root, tmp_path / "f") as told:
        (tmp_path / "f").rename(tmp_path / "gone")
        write(ws, 0, 20)
        time.sleep(0.5)
        (tmp_path / "gone").rename(tmp_path / "f")
        eventually(lambda: backups.newest_at(tmp_path / "f") > datetime.now(UTC) - timedelta(seconds=1.2))
    assert told[-1].n_generations == 1
    backups.restore(tmp_path / "f", tmp_path / "again")
    assert written(tmp_path / "again") == list(range(20))


def test_what_was_erased_is_in_no_generation_that_stays(tmp_path: Path) -> None:
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        made = furnish(ws, tmp_path / "ws")
        with followed(ws.root, tmp_path / "f"):
            pass
        with followed(ws.root, tmp_path / "f") as told:  # the one before stays
            assert len(generations.all_numbers(tmp_path / "f")) == 2
            for words in (NAME, ASKED, OLD_ASKED, CORE):
                assert holders(tmp_path / "f", words), words
            erasing.erase(ws, labeller=NAME, channel="web", keep_files=True)
            erasing.erase(ws, example=made.example, keep_files=True)
            ws.store.scrub()
            eventually(lambda: len(told) >= 2 and len(generations.all_numbers(tmp_path / "f")) == 1)
    backups.restore(tmp_path / "f", tmp_path / "again")
    for words in (NAME, ASKED, OLD_ASKED, CORE):
        assert holders(tmp_path / "f", words) == [], words
        assert holders(tmp_path / "again", words) == [], words
    assert holders(tmp_path / "again", OTHERS)


def test_a_generation_without_a_commit_of_its_own_has_no_files_of_the_one_before(tmp_path: Path) -> None:
    """Whoever follows may read the list of artifacts for the last time before an erasure, and the log when all is in
    the base."""
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        made = furnish(ws, tmp_path / "ws")
        pool = following._claim(tmp_path / "f", "this one")
        with ws.store.followed() as log, following._Follower(ws, tmp_path / "f", pool, log, lambda _: None) as follower:
            follower.finish()
            assert holders(tmp_path / "f", CORE)
            erasing.erase(ws, example=made.example, keep_files=True)
            follower._take(follower._begun(ws))
            assert holders(tmp_path / "f", CORE) == []
            erasing.erase(ws, labeller=NAME, channel="web", keep_files=True)
            follower.finish()  # told to stop just after an erasure
            assert holders(tmp_path / "f", NAME) == []


def test_a_workspace_that_is_replaced_is_not_followed_on(ws: Workspace, tmp_path: Path) -> None:
    """Catches one that says "complete as of" of a folder that nobody writes to any more."""

    def replace() -> None:
        with followed(ws.root, tmp_path / "f") as told:
            ws.root.rename(tmp_path / "aside")
            shutil.copytree(tmp_path / "aside", ws.root)
            time.sleep(1)
            assert len(told) == 1

    with pytest.raises(WrongState, match="moved or replaced"):
        replace()


def test_what_is_restored_is_for_its_owner_alone(ws: Workspace, tmp_path: Path) -> None:
    keys.create(ws, "app", scopes=["predict"])
    with followed(ws.root, tmp_path / "f"):
        pass
    backups.restore(tmp_path / "f", tmp_path / "again")
    state = tmp_path / "again" / ".headrace"
    rights = {path: stat.S_IMODE((state / path).stat().st_mode) for path in ("", "keys", "pepper", "keys/erasures.key")}
    assert rights == {"": 0o700, "keys": 0o700, "pepper": 0o600, "keys/erasures.key": 0o600}


@pytest.mark.parametrize("name", ["../../../out.txt", "root/../../../out.txt", "{absolute}/out.txt"])
def test_names_that_lead_elsewhere_are_refused(a_follow: Path, tmp_path: Path, name: str) -> None:
    """Written like that, hashes and all: they need no key."""
    shutil.copytree(a_follow, tmp_path / "f")
    number = generations.newest(tmp_path / "f")
    folder, pool = generations.folder_of(tmp_path / "f", number), generations.Pool(tmp_path / "f" / "files")
    kept = generations.read(folder)
    listing = pool.read_json(kept.steps[-1]["listing"])
    listing[name.format(absolute=tmp_path)] = listing["headrace.toml"]
    kept.steps[-1]["listing"] = pool.add_json(listing)
    (folder / generations.STEPS).write_text("".join(json.dumps(step) + "\n" for step in kept.steps))
    sealed.write(folder / generations.HEAD, {**kept.facts, "steps": generations.entry_of(folder / generations.STEPS)})
    with pytest.raises(Damaged, match="leads out"):
        backups.restore(tmp_path / "f", tmp_path / "far" / "down" / "again")
    assert list(tmp_path.rglob("out.txt")) == []
    assert not (tmp_path / "far").exists()


def test_folders_of_others_are_refused(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    with pytest.raises(AlreadyExists, match="already"):
        backups.follow(ws, tmp_path / "thesis")
    with followed(ws.root, tmp_path / "f"):
        pass
    with init(tmp_path / "other", task="tone", labels=LABELS) as other, pytest.raises(AlreadyExists, match="another"):
        backups.follow(other, tmp_path / "f")
    with pytest.raises(BadInput, match="inside"):
        backups.follow(ws, ws.root / "f")
    backups.backup(ws, tmp_path / "b")
    with pytest.raises(BadInput, match="one moment"):
        backups.restore(tmp_path / "b", tmp_path / "again", at=datetime.now(UTC))


@pytest.fixture(scope="module")
def a_follow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    with init(folder / "ws", task="tone", labels=LABELS) as ws:
        furnish(ws, folder / "ws")
        with followed(ws.root, folder / "f"):
            write(ws, 0, 3)
            time.sleep(0.6)
            write(ws, 3, 3)
    return folder / "f"


@given(
    place=st.floats(0, 1, exclude_max=True),
    harm=st.sampled_from(["flipped", "cut", "missing"]),
    flip=st.integers(1, 255),
    data=st.data(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_cut_or_missing_file_is_refused(
    a_follow: Path, tmp_path: Path, place: float, harm: str, flip: int, data: st.DataObject
) -> None:
    """Of all that counts: each file has a hash in another one, and the first holds its own."""
    path = data.draw(st.sampled_from(sorted(path for path in a_follow.rglob("*") if path.is_file())))
    content = path.read_bytes()
    where = int(place * len(content))
    try:
        if harm == "cut":
            os.truncate(path, where)
        elif harm == "missing":
            path.unlink()
        else:
            path.write_bytes(content[:where] + bytes([content[where] ^ flip]) + content[where + 1 :])
        try:
            backups.verify(a_follow)
            refused = False
        except (Damaged, NotFound):
            refused = True
    finally:
        path.write_bytes(content)
    assert refused


def test_a_damaged_one_replaces_nothing(a_follow: Path, ws: Workspace, tmp_path: Path) -> None:
    """Also where every hash fits: the log's own checksums and the chains are looked at, too."""
    shutil.copytree(a_follow, tmp_path / "f")
    (found,) = (tmp_path / "f").glob("generation-*")
    log = found / "log-000001"
    content = bytearray(log.read_bytes())
    content[-100] ^= 1
    log.write_bytes(content)
    head = found / generations.HEAD
    facts = sealed.read(head)
    facts["logs"][0] = generations.entry_of(log)
    sealed.write(head, facts)
    before = {path: path.read_bytes() for path in ws.root.rglob("*") if path.is_file()}
    with pytest.raises(Damaged, match="pages are sound"):
        backups.restore(tmp_path / "f", ws.root, replace=True)
    assert {path: path.read_bytes() for path in ws.root.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "ws"]


@pytest.mark.slow
def test_the_drill_in_small() -> None:
    """How fast it is, the bench says: here others may use the machine."""
    missed = [figure for figure in drill.run(seconds=4, restore_every_s=2) if not figure.is_met]
    assert [f for f in missed if f.unit not in ("1/s", "s") and not (f.unit == "s before" and f.value < SOON_S)] == []


def test_the_command_follows_until_it_is_told_to_stop(ws: Workspace, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace", "backup", "--follow", str(tmp_path / "f"), "--workspace", str(ws.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "complete as of" in process.stdout.readline()
            write(ws, 0, 3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON_S) == 0
        finally:
            process.kill()
    backups.restore(tmp_path / "f", tmp_path / "again")
    assert written(tmp_path / "again") == [0, 1, 2]
