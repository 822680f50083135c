"""Content-addressed folders of files: put once, never overwritten, checked when read.

An artifact is a folder. Its digest is the SHA-256 of its manifest, which lists every file with its size and SHA-256.
The manifest is written last, so a folder without one was never finished and is not an artifact. Local folders are read
in place; an artifact in a remote store (any fsspec URL) is copied to the cache first.

Folders are built in `scratch`, each locked by the process that builds it. The lock goes with the process, so what a
kill leaves is known, and removed when the next folder is begun.
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from headrace.errors import Damaged, MissingExtra, NotFound, Unusable
from headrace.files.names import inside, plain_files

MANIFEST = "headrace-manifest.json"
_MAX_MANIFEST_BYTES = 4 * 2**20


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(folder: Path) -> dict[str, Any]:
    """Size and hash of every file below `folder`.

    Raises:
        Damaged: there is a link, or something else that is no file.
    """
    files = [(name, path) for name, path in plain_files(folder) if name != MANIFEST]
    return {"files": {name: {"n_bytes": path.stat().st_size, "sha256": file_hash(path)} for name, path in files}}


def digest_of(manifest: dict[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _text_of(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, sort_keys=True, indent=1)


def verify(folder: Path, digest: str) -> None:
    """Check every byte of an artifact folder against its digest.

    Raises:
        Damaged: a file is missing, added or changed, or the manifest is another one.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError:
        raise Damaged("an artifact has no readable manifest", value=str(folder), next_step=_AGAIN) from None
    manifest = _parsed(text, digest)
    found = manifest_of(folder)
    for name in sorted(manifest["files"].keys() | found["files"].keys()):
        if manifest["files"].get(name) != found["files"].get(name):
            raise Damaged(f"a file of artifact {digest} does not match its hash", value=name, next_step=_AGAIN)


def _parsed(text: bytes, digest: str) -> dict[str, Any]:
    """The manifest that a digest names, before anything in it is believed."""
    try:
        manifest: dict[str, Any] = json.loads(text)
        if digest_of(manifest) != digest or text != _text_of(manifest).encode():
            raise Damaged("an artifact's manifest is not the one its digest names", value=digest, next_step=_AGAIN)
    except (ValueError, RecursionError):
        raise Damaged("an artifact has no readable manifest", value=digest, next_step=_AGAIN) from None
    return manifest


_AGAIN = "Export the version again, or restore the workspace from a backup"


class ArtifactStore:
    """Artifacts under one URL. `scratch` is local room for unfinished folders, on the same disk as a local store."""

    def __init__(self, url: str, *, scratch: Path) -> None:
        self._scratch = scratch
        self._lock_path = scratch.with_name("artifacts.lock")
        self._building: dict[Path, int] = {}
        """Folders that this process builds, with the open handles that lock them."""
        self._remote = _remote_filesystem(url)
        self._local = scratch / "cache" if self._remote else Path(url)
        try:
            self._local.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(
                f"the artifact store cannot be opened: {error.strerror}", value=url, next_step="Check artifacts.url"
            ) from None

    def new_folder(self) -> Path:
        """A fresh empty folder to build an artifact in; removes what dead processes left of theirs."""
        with FileLock(self._lock_path):  # or a folder could go between its making and its locking
            for left in self._scratch.glob("new-*"):
                _remove_if_left(left)
            folder = self._scratch / f"new-{uuid.uuid4().hex}"
            folder.mkdir()
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
        for gone in [path for path in self._building if not path.exists()]:  # given up by their builders
            os.close(self._building.pop(gone))
        self._building[folder] = handle
        return folder

    def put(self, folder: Path) -> tuple[str, int]:
        """Move a finished folder into the store; returns its digest and its size in bytes.

        What is there already under that digest stays, unless it is damaged.
        """
        manifest = manifest_of(folder)
        digest = digest_of(manifest)
        (folder / MANIFEST).write_text(_text_of(manifest), "utf-8")
        n_bytes = sum(entry["n_bytes"] for entry in manifest["files"].values())
        place = self._place(digest)
        self._move(folder, place, digest)
        if self._remote:
            self._upload(place, digest, manifest)
        return digest, n_bytes

    def get(self, digest: str) -> Path:
        """The folder of an artifact, every byte checked.

        Raises:
            NotFound: no such artifact.
            Damaged: its bytes do not match its digest.
        """
        place = self._place(digest)
        if not place.exists() and self._remote:
            self._download(digest, place)
        if not place.exists():
            raise NotFound("no such artifact", value=digest, next_step="`headrace history` lists what there is")
        verify(place, digest)
        return place

    def look(self, digest: str) -> Path | None:
        """The folder of an artifact whose bytes are not checked, to look something up in it; None where there is none.

        Checking reads every byte, which is most of the time of a look into a large one.
        """
        place = self._place(digest)
        if not place.exists() and self._remote:
            self._download(digest, place)
        return place if (place / MANIFEST).exists() else None

    def remove(self, digest: str) -> None:
        """Delete the files of an artifact, here and in a remote store; fine if there are none."""
        with FileLock(self._lock_path):
            if self._place(digest).exists():
                shutil.rmtree(self._place(digest))
        if self._remote and self._remote[0].exists(self._key(digest)):
            self._remote[0].rm(self._key(digest), recursive=True)

    def digests(self) -> list[str]:
        """Of all artifacts that are here, recorded anywhere or not."""
        found = [path.name for path in self._local.glob("??/*") if path.is_dir()]
        if self._remote:
            filesystem, root = self._remote
            found += [PurePosixPath(key).parent.name for key in filesystem.glob(f"{root}/*/*/{MANIFEST}")]
        return sorted({f"sha256:{name}" for name in found})

    def clear_scratch(self) -> None:
        """Remove what dead processes left of folders that they built."""
        with FileLock(self._lock_path):
            for left in self._scratch.glob("new-*"):
                _remove_if_left(left)

    def _move(self, folder: Path, place: Path, digest: str) -> None:
        _sync_tree(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock_path):
            if place.exists() and _is_damaged(place, digest):
                os.rename(place, self._scratch / f"new-{uuid.uuid4().hex}")
            if place.exists():
                shutil.rmtree(folder)
            else:
                os.rename(folder, place)
        sync(place.parent)
        handle = self._building.pop(folder, None)
        if handle is not None:
            os.close(handle)

    def _place(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._local / name[:2] / name

    def _key(self, digest: str) -> str:
        assert self._remote is not None
        name = digest.removeprefix("sha256:")
        return str(PurePosixPath(self._remote[1]) / name[:2] / name)

    def _upload(self, place: Path, digest: str, manifest: dict[str, Any]) -> None:
        assert self._remote is not None
        filesystem, key = self._remote[0], self._key(digest)
        for name in [*manifest["files"], MANIFEST]:  # the manifest last: until then it is not an artifact
            filesystem.makedirs(str(PurePosixPath(key, name).parent), exist_ok=True)
            filesystem.put_file(str(place / name), f"{key}/{name}")

    def _download(self, digest: str, place: Path) -> None:
        assert self._remote is not None
        filesystem, key = self._remote[0], self._key(digest)
        if not filesystem.exists(f"{key}/{MANIFEST}"):
            return
        if filesystem.size(f"{key}/{MANIFEST}") > _MAX_MANIFEST_BYTES:
            raise Damaged("an artifact's manifest is larger than any", value=digest, next_step=_AGAIN)
        manifest = _parsed(filesystem.cat_file(f"{key}/{MANIFEST}"), digest)
        folder = self.new_folder()
        for name in [*manifest["files"], MANIFEST]:
            target = inside(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(f"{key}/{name}", str(target))
        verify(folder, digest)
        self._move(folder, place, digest)


def _remote_filesystem(url: str) -> tuple[Any, str] | None:
    """The fsspec file system and its root, or None for a local path."""
    if "://" not in url:
        return None
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        if url.startswith("s3://"):
            raise MissingExtra("s3", library="s3fs", purpose="artifacts.url s3://") from None
        raise Unusable(
            f"artifacts.url cannot be opened: {error}", value=url, next_step="Install its fsspec driver with pip"
        ) from None
    except ValueError as error:
        raise Unusable(
            f"artifacts.url cannot be opened: {error}",
            value=url,
            next_step="Use a path, s3://BUCKET/FOLDER or another URL that fsspec knows",
        ) from None
    return filesystem, path


def _is_damaged(folder: Path, digest: str) -> bool:
    try:
        verify(folder, digest)
    except Damaged:
        return True
    return False


def _remove_if_left(folder: Path) -> None:
    """Remove a folder whose builder is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # its builder gave it up just now
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # its builder lives
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or to a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
