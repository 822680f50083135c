"""Artifacts are whole or absent, and checked. Catches: a changed byte that passes, a half folder under a digest, a put
that overwrites or collides, a remote store that gives back something else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.artifacts import MANIFEST, ArtifactStore, digest_of, manifest_of, verify
from headrace.errors import Damaged, MissingExtra, NotFound, Unusable

names = st.text("abcXYZ-_.0é", min_size=1, max_size=8).filter(lambda name: name.strip("."))
contents = st.dictionaries(names, st.binary(max_size=40), min_size=1, max_size=4)
few = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), scratch=tmp_path / "scratch")


def put(store: ArtifactStore, files: dict[str, bytes]) -> str:
    folder = store.new_folder()
    for name, content in files.items():
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / name).write_bytes(content)
    return store.put(folder)[0]


def in_it(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST}


@few
@given(files=contents)
def test_what_is_put_comes_back_and_putting_it_again_changes_nothing(
    store: ArtifactStore, tmp_path: Path, files: dict[str, bytes]
) -> None:
    digest = put(store, files)
    place = store.get(digest)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(place.rglob("*"))]
    assert in_it(place) == files
    assert put(store, files) == digest
    assert [(path, path.stat().st_mtime_ns) for path in sorted(place.rglob("*"))] == before
    assert list((tmp_path / "scratch").iterdir()) == []


@few
@given(files=contents, data=st.data())
def test_any_changed_byte_is_found(store: ArtifactStore, files: dict[str, bytes], data: st.DataObject) -> None:
    digest = put(store, files)
    place = store.get(digest)
    changeable = sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(changeable))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(Damaged, match="Export the version again"):
        store.get(digest)
    shutil.rmtree(place)


@few
@given(files=contents, data=st.data())
def test_any_added_or_missing_file_is_found(store: ArtifactStore, files: dict[str, bytes], data: st.DataObject) -> None:
    digest = put(store, files)
    place = store.get(digest)
    if data.draw(st.booleans(), label="add"):
        folder = data.draw(st.sampled_from([place, place / "sub"]))
        name = data.draw(names.filter(lambda name: name not in files) | st.just(f"{MANIFEST}.bak"))
        (folder / name).write_bytes(b"")
    else:
        data.draw(st.sampled_from(sorted(path for path in place.rglob("*") if path.is_file()))).unlink()
    with pytest.raises(Damaged):
        verify(place, digest)
    shutil.rmtree(place)


def test_a_second_manifest_below_is_found(store: ArtifactStore) -> None:
    digest = put(store, {"a": b"1"})
    shutil.copy(store.get(digest) / MANIFEST, store.get(digest) / "sub" / MANIFEST)
    with pytest.raises(Damaged, match=f"sub/{MANIFEST}"):
        store.get(digest)


def test_another_artifact_under_its_digest_is_found(store: ArtifactStore) -> None:
    one, two = put(store, {"a": b"1"}), put(store, {"a": b"2"})
    place = store.get(one)
    shutil.rmtree(place)
    shutil.copytree(store.get(two), place)
    with pytest.raises(Damaged, match="not the one its digest names"):
        store.get(one)


def test_a_damaged_artifact_is_mended_by_putting_it_again(store: ArtifactStore, tmp_path: Path) -> None:
    digest = put(store, {"a": b"1"})
    (store.get(digest) / "sub" / "a").write_bytes(b"2")
    assert put(store, {"a": b"1"}) == digest
    assert in_it(store.get(digest)) == {"a": b"1"}


def test_an_unknown_digest_is_told(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match=r"sha256:0000.*headrace history"):
        store.get(f"sha256:{'0' * 64}")


def test_many_at_once_put_the_same(store: ArtifactStore, tmp_path: Path) -> None:
    digests: list[str] = []
    folders = [store.new_folder() for _ in range(8)]
    for folder in folders:
        (folder / "a").write_bytes(b"1" * 100_000)
    threads = [threading.Thread(target=lambda f=folder: digests.append(store.put(f)[0])) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(set(digests)) == 1
    assert in_it(store.get(digests[0])) == {"a": b"1" * 100_000}


KILLED = """
import os, sys
from pathlib import Path
from headrace import artifacts
store = artifacts.ArtifactStore(sys.argv[1] + "/artifacts", scratch=Path(sys.argv[1] + "/scratch"))
folder = store.new_folder()
(folder / "a").write_bytes(b"1" * 1000)
place = sys.argv[2]
module, name = (os, place) if hasattr(os, place) else (artifacts, place)
setattr(module, name, lambda *_: os.kill(os.getpid(), 9))
store.put(folder)
"""


@pytest.mark.parametrize("at", ["digest_of", "_sync_tree", "rename"])
def test_a_kill_in_the_middle_leaves_nothing_under_the_digest(at: str, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), at], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    store = ArtifactStore(str(tmp_path / "artifacts"), scratch=tmp_path / "scratch")
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    mine = store.new_folder()
    assert list((tmp_path / "scratch").iterdir()) == [mine]  # the dead one's is gone
    (mine / "a").write_bytes(b"1" * 1000)
    digest, n_bytes = store.put(mine)
    assert n_bytes == 1000
    assert store.get(digest).exists()


BUILDING = """
import sys
from pathlib import Path
from headrace.artifacts import ArtifactStore
store = ArtifactStore(sys.argv[1] + "/artifacts", scratch=Path(sys.argv[1] + "/scratch"))
print(store.new_folder(), flush=True)
sys.stdin.read()
"""


def test_a_folder_stays_as_long_as_its_process_lives(store: ArtifactStore, tmp_path: Path) -> None:
    """Dead but not yet waited for is dead: in a container without an init, nobody waits."""
    command = [sys.executable, "-c", BUILDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        mine = store.new_folder()
        assert theirs.exists()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        store.new_folder()
        assert mine.exists()
        assert not theirs.exists()


def test_a_folder_that_goes_before_it_is_looked_at_stands_in_nobodys_way(store: ArtifactStore, tmp_path: Path) -> None:
    """A link to nowhere is listed and cannot be opened, as a folder whose builder gives it up just then."""
    (tmp_path / "scratch" / "new-gone").symlink_to("nowhere")
    assert store.new_folder().is_dir()
    store.clear_scratch()


@pytest.mark.parametrize("url", ["memory://bucket/artifacts", "file://{folder}/remote"])
def test_a_remote_store_gives_back_what_was_put(url: str, tmp_path: Path) -> None:
    url = url.format(folder=tmp_path)
    here = ArtifactStore(url, scratch=tmp_path / "here")
    digest = put(here, {"a": b"1", "b": b"2"})
    elsewhere = ArtifactStore(url, scratch=tmp_path / "elsewhere")
    assert in_it(elsewhere.get(digest)) == {"a": b"1", "b": b"2"}
    assert put(elsewhere, {"a": b"1", "b": b"2"}) == digest
    with pytest.raises(NotFound):
        elsewhere.get(f"sha256:{'0' * 64}")


def test_a_damaged_remote_artifact_is_found_and_not_kept(tmp_path: Path) -> None:
    here = ArtifactStore(f"file://{tmp_path}/remote", scratch=tmp_path / "here")
    digest = put(here, {"a": b"1"})
    (remote,) = (tmp_path / "remote").rglob("a")
    remote.write_bytes(b"2")
    elsewhere = ArtifactStore(f"file://{tmp_path}/remote", scratch=tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(Damaged, match="sub/a"):
            elsewhere.get(digest)
    remote.write_bytes(b"1")
    assert in_it(elsewhere.get(digest)) == {"a": b"1"}


def test_a_remote_manifest_cannot_write_outside(tmp_path: Path) -> None:
    here = ArtifactStore(f"file://{tmp_path}/remote", scratch=tmp_path / "here")
    digest = put(here, {"a": b"1"})
    (manifest,) = (tmp_path / "remote").rglob(MANIFEST)
    evil = manifest.read_text().replace("sub/a", "../../../evil")
    manifest.write_text(evil)
    elsewhere = ArtifactStore(f"file://{tmp_path}/remote", scratch=tmp_path / "elsewhere")
    with pytest.raises(Damaged, match="not the one its digest names"):
        elsewhere.get(digest)
    digest = digest_of(json.loads(evil))  # of somebody who can write the database, too
    name = digest.removeprefix("sha256:")
    folder = tmp_path / "remote" / name[:2] / name
    folder.parent.mkdir()
    manifest.parent.rename(folder)
    assert (folder / MANIFEST).exists()
    with pytest.raises(Damaged, match="out of its folder"):
        elsewhere.get(digest)
    assert not list(tmp_path.rglob("evil"))


def test_the_digest_is_of_names_and_bytes_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"1")
    os.utime(tmp_path / "two" / "a", (0, 0))
    assert digest_of(manifest_of(tmp_path / "one")) == digest_of(manifest_of(tmp_path / "two"))
    os.rename(tmp_path / "two" / "a", tmp_path / "two" / "b")
    assert digest_of(manifest_of(tmp_path / "one")) != digest_of(manifest_of(tmp_path / "two"))


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("/proc/version", Unusable, "artifacts.url"),
        ("nope://x", Unusable, "nope://x"),
        ("s3://bucket/folder", MissingExtra, r"headrace\[s3\]"),
    ],
)
def test_a_store_that_cannot_be_opened(
    url: str, kind: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("s3"):
        monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    with pytest.raises(kind, match=says):
        ArtifactStore(url, scratch=tmp_path / "scratch")
