"""Bring a workspace back from a backup of either kind: checked and finished beside, before anything is replaced."""

import os
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from headrace import auditing, config_sources
from headrace.artifacts import MANIFEST as _ARTIFACT
from headrace.artifacts import sync
from headrace.backups import generations, sealed
from headrace.backups.copying import (
    DATABASE,
    FORM,
    MANIFEST,
    chains_of,
    check_names,
    check_plain,
    check_sound,
    listed,
    place_of,
    plain,
    sync_tree,
    unfinished,
)
from headrace.backups.generations import BASE, FOLLOWED, Kept, Pool
from headrace.config_sources import FILE_NAME, value_of
from headrace.errors import AlreadyExists, BadInput, HeadraceError, NotFound, WrongState
from headrace.lineage import erasing, receipts, tombstones
from headrace.lineage.tombstones import Tombstone
from headrace.personal import secret
from headrace.secret_files import secrets_in
from headrace.store import at_rest, channels, keys, wal
from headrace.store import backups as rows
from headrace.store.wal import n_frames_of
from headrace.workspace import STATE_FOLDER, Workspace, is_served, open_workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_ELSEWHERE = {"store.url": "", "artifacts.url": ""}
"""Settings under which a restored workspace reads its own files, wherever those of its origin are."""
_FILES = ("sign.private_key", "sign.public_keys", "access.certificate", "access.private_key")
"""Settings that name files which no backup holds."""
_ERASURES_KEY = f"{tombstones.KEYS}/{tombstones.KEY_FILE}"


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    path: str
    n_files: int
    n_bytes: int
    made_at: str
    """The instant that it is a copy of."""
    erased_again: list[str]
    """Ids of erasures newer than the backup."""
    revoked_again: list[str]
    """Ids of access keys that the replaced workspace had revoked since."""
    ended_again: list[str]
    """Ids of access keys that it had given an earlier end since, as `key rotate` does."""
    put_aside: str | None
    """Where the workspace is that was there before."""
    was_another: bool
    """Whether that is no earlier or later state of this one: its keys, receipts and erasures stay with it."""
    settings_to_change: list[str]
    """Settings of headrace.toml that name other places than the restored files, or files that are in no backup."""
    missing: list[str]
    """Digests of artifacts that the backup does not have, and says so."""
    seconds: float


@dataclass(frozen=True)
class Content:
    """What a backup holds; every byte of it was checked."""

    made_at: str
    files: Mapping[str, Path]
    """By their names in a backup of one moment, the database included."""
    chains: Mapping[str, int | None]
    missing: list[str]
    logs: list[tuple[Path, int]] = field(default_factory=list)
    """What came after the database: SQLite's logs, and how many bytes of each count."""


def restore(
    source: Path | str,
    destination: Path | str,
    *,
    replace: bool = False,
    erasures: Path | str | None = None,
    at: datetime | None = None,
) -> Restored:
    """Make a workspace of a backup, without what was erased since.

    Args:
        replace: take the place of a workspace that is there; that one is put aside, not deleted. Its erasures are
            applied, too.
        erasures: an erasures.jsonl of the same workspace that is newer than the backup, its key in `keys` beside it.
        at: of a backup that follows, the instant to go back to, with a time zone; None: the newest.

    Raises:
        NotFound: no backup there, or none of that instant; or a key of the erasures is missing.
        Damaged: a file of the backup is missing, added or changed, is a link, or has a name that leads elsewhere.
        BadInput: a backup of one moment has no other instant; the destination is a link.
        AlreadyExists: the destination is there and `replace` was not said.
        WrongState: a server answers from the destination, or a backup follows it.
        Unusable: the destination cannot be written.
    """
    began, backup, to = time.monotonic(), plain(source), plain(destination)
    content, given = verify(backup, at=at), None if erasures is None else plain(erasures)
    with unfinished(to) as room:
        _finish_renames(to)
        _check_place(to, replace=replace)
        folder, is_same = room / "workspace", _is_same(content, to)
        _lay_out(content, folder, to if is_same else None)
        with open_workspace(folder, overrides=_ELSEWHERE) as ws:
            _check_whole(ws, content, backup)
            newer, folders = _newer(ws, _own_erasures(content, room / "own"), to, given, is_same=is_same)
            again = erasing.apply(ws, newer, [ws.state_folder, *folders])
            with ws.store.write() as conn:
                revoked, ended = _ended_again(conn, to, ws.clock())
                said = {"made_at": content.made_at, "n_erased_again": len(again)}
                said |= {"revoked_again": revoked, "ended_again": ended}
                auditing.note(ws, conn, "restore", to.name, facts=said)
        sync_tree(folder)
        aside = _take_place(folder, to)
    sync(to.parent)
    return Restored(
        path=str(to),
        n_files=len(content.files),
        n_bytes=sum(path.stat().st_size for path in content.files.values()) + sum(n for _, n in content.logs),
        made_at=content.made_at,
        erased_again=[one.id for one in again],
        revoked_again=revoked,
        ended_again=ended,
        put_aside=aside,
        was_another=aside is not None and not is_same,
        settings_to_change=_settings_to_change(to),
        missing=content.missing,
        seconds=round(time.monotonic() - began, 2),
    )


def verify(folder: Path | str, *, at: datetime | None = None) -> Content:
    """What a backup holds, every byte checked.

    Raises:
        NotFound: there is no backup, or none of that instant.
        Damaged: see `restore`, or the database is not sound.
        BadInput: an instant of a backup of one moment.
    """
    folder = plain(folder)
    if (folder / FOLLOWED).exists():
        check_plain(folder)
        return _followed(folder, at)
    if at is not None:
        raise BadInput(
            "this backup is of one moment", value=str(folder), next_step="Leave --at out, or use one made with --follow"
        )
    facts = sealed.read(folder / MANIFEST)
    _check_form(facts, folder / MANIFEST)
    check_plain(folder)
    check_names(facts["files"], folder)
    found = listed(folder)
    for name in sorted(facts["files"].keys() | found.keys()):
        if facts["files"].get(name) != found.get(name):
            raise sealed.damaged("a file of the backup is not as it was written", folder / name)
    with closing(at_rest.connect(_immutable(folder / DATABASE), _key_file(folder), uri=True)) as copy:
        check_sound(copy, folder / DATABASE)
    files = {name: folder / name for name in found}
    return Content(facts["made_at"], files, facts["chains"], facts["missing"])


def newest_at(folder: Path | str) -> datetime:
    """The instant that the newest content of a backup is of, without a look at the rest of it.

    Raises:
        NotFound: there is no backup.
        Damaged: what says so cannot be read.
    """
    folder = plain(folder)
    if not (folder / FOLLOWED).exists():
        return datetime.fromisoformat(sealed.read(folder / MANIFEST)["made_at"])
    newest = generations.folder_of(folder, generations.newest(folder))
    return datetime.fromisoformat(sealed.read(newest / generations.HEAD)["at"])


def anchor_of(folder: Path | str, *, key_file: str = "") -> str:
    """Number and hash of the newest line of the audit log in a backup, for `auditing.verify`; empty without any.

    Of a backup that follows: in the whole copy that its newest generation began with.

    Args:
        key_file: of the key that the database is encrypted with.

    Raises:
        NotFound: there is no backup.
        Damaged: what says so cannot be read.
    """
    folder = plain(folder)
    if not (folder / FOLLOWED).exists():
        return str(sealed.read(folder / MANIFEST)["audit_log"])
    base = generations.folder_of(folder, generations.newest(folder)) / BASE
    try:
        with closing(at_rest.connect(_immutable(base), key_file, uri=True)) as copy:
            return rows.audit_anchor(copy)
    except at_rest.errors() as error:
        raise sealed.damaged(f"the database of the backup cannot be read: {error}", base) from None


def _immutable(database: Path) -> str:
    return f"file:{quote(str(database))}?mode=ro&immutable=1"


def _followed(folder: Path, at: datetime | None) -> Content:
    """The content of a backup that follows, as it was at an instant."""
    newest, pool = generations.newest(folder), Pool(folder / "files")
    numbers = [number for number in sorted(generations.all_numbers(folder), reverse=True) if number < newest]
    for number in (newest, *numbers):
        kept = generations.read(generations.folder_of(folder, number))
        _check_form(kept.facts, kept.folder)
        steps = [step for step in kept.steps if at is None or datetime.fromisoformat(step["at"]) <= at]
        if steps:
            return _at_step(kept, steps[-1], pool, kept.facts["at"] if at is None else steps[-1]["at"])
    raise NotFound("the backup does not go back so far", value=f"{at:%Y-%m-%d %H:%M:%S %Z}", next_step="Leave out --at")


def _at_step(kept: Kept, step: Mapping[str, Any], pool: Pool, made_at: str) -> Content:
    for entry in generations.entries_of(kept, pool):  # of other instants too: a sound backup is sound as a whole
        generations.check(pool.place(entry), entry)
    listing = pool.read_json(step["listing"])
    check_names(listing, kept.folder)
    files = {name: pool.place(entry) for name, entry in listing.items()} | {DATABASE: kept.folder / BASE}
    n_logs = step["n_logs"]
    paths = [kept.folder / generations.log_name(number) for number in range(1, n_logs + 1)]
    sizes = [entry["n_bytes"] for entry in kept.facts["logs"][:n_logs]]
    logs = list(zip(paths, [*sizes[:-1], step["n_bytes"]] if sizes else [], strict=True))
    return Content(made_at, files, kept.facts["chains"], step["missing"], logs)


def _check_form(facts: Mapping[str, Any], path: Path) -> None:
    if facts.get("form") != FORM:
        raise NotFound(
            "this backup has another form than this headrace reads",
            value=f"{path}: form {facts.get('form')}, not {FORM}",
            next_step="Use the headrace that made it",
        )


def _check_place(to: Path, *, replace: bool) -> None:
    if to.is_symlink():
        target = os.path.realpath(to)
        raise BadInput("the destination is a link", value=str(to), next_step=f"Name the folder itself: {target}")
    if to.exists() and not replace:
        raise AlreadyExists(
            "something is there already", value=str(to), next_step="Choose another folder, or say --replace"
        )
    if not _is_taken(to):
        return
    if not (to / FILE_NAME).exists():
        raise AlreadyExists("what is there is no workspace", value=str(to), next_step="Choose another folder")
    if is_served(to):
        raise WrongState("a server answers from this workspace", value=str(to), next_step="Stop it, then restore again")
    if wal.is_followed(to / STATE_FOLDER / wal.LOCK):
        raise WrongState(
            "a backup follows this workspace, and would go on with the one that is put aside",
            value=str(to),
            next_step="Stop it (headrace backup --follow), restore, then start it again",
        )


def _is_taken(to: Path) -> bool:
    return to.exists() and any(to.iterdir())


def _is_same(content: Content, to: Path) -> bool:
    """Whether a backup is of the workspace that is there: by the key of erasures, which each makes once for itself."""
    there, own = to / STATE_FOLDER / _ERASURES_KEY, content.files.get(_ERASURES_KEY)
    return own is not None and there.exists() and there.read_bytes() == own.read_bytes()


def _own_erasures(content: Content, folder: Path) -> Path:
    """The erasures that a backup knows of, and their key, in a folder."""
    for name in (tombstones.FILE, _ERASURES_KEY):
        if name in content.files:
            (folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy2(content.files[name], folder / name)
    return folder


def _newer(
    ws: Workspace, own: Path, to: Path, given: Path | None, *, is_same: bool
) -> tuple[list[Tombstone], list[Path]]:
    """Every erasure that is known of the workspace, by id, and the folders that may hold the keys.

    Args:
        is_same: the workspace that is there is this one, so that its channels of later are this one's, too.
    """
    if given is not None and not given.exists():
        raise NotFound(
            "no such file of erasures", value=str(given), next_step=f"It is {STATE_FOLDER}/{tombstones.FILE}"
        )
    with ws.store.read() as conn:
        ids = {channel.id for channel in channels.listing(conn)}
    there = to / STATE_FOLDER / tombstones.FILE
    paths = [own / tombstones.FILE, there, *([] if given is None else [given])]
    several = [(path, one) for path in paths for one in tombstones.read(path)]
    found = {one.id: one for path, one in several if path != there or is_same or one.channel_id in ids}
    return [found[name] for name in sorted(found)], [path.parent for path in paths]


def _lay_out(content: Content, folder: Path, later: Path | None) -> None:
    """The files of a backup where a workspace has them, with keys and receipts of a later state of it that is there."""
    state = folder / STATE_FOLDER
    folder.mkdir(mode=0o700)
    for name in (tombstones.KEYS, receipts.FOLDER):
        if later is not None and (later / STATE_FOLDER / name).exists():
            shutil.copytree(later / STATE_FOLDER / name, state / name)
    (state / tombstones.KEYS).mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, path in content.files.items():
        inside = Path(name)
        if name == FILE_NAME or inside.parts[0] == "root":
            target = folder / (inside if name == FILE_NAME else Path(*inside.parts[1:]))
        else:
            target = state / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == secret.FILE or not target.exists():  # that one is what the rows were written with
            shutil.copy2(path, target)
    for path in secrets_in(state):  # a backup that follows keeps no rights of files
        path.chmod(0o600)
    (state / ".gitignore").write_text("*\n", "utf-8")
    for log, n_bytes in content.logs:
        _replay(state / DATABASE, log, n_bytes, _key_file(folder))
    with closing(at_rest.connect(state / DATABASE, _key_file(folder))) as copy:
        check_sound(copy, state / DATABASE)


def _key_file(folder: Path) -> str:
    """Of the key that the database of a backup, or of a workspace, is encrypted with; empty: it is plain."""
    return str(value_of(folder, "store.key_file") or "")


def _replay(database: Path, log: Path, n_bytes: int, key_file: str) -> None:
    """Have SQLite take a log into the database, whose checksums it checks."""
    laid = Path(f"{database}-wal")
    shutil.copyfile(log, laid)
    os.truncate(laid, n_bytes)
    try:
        n_frames = n_frames_of(laid)
        with closing(at_rest.connect(database, key_file, isolation_level=None)) as conn:
            conn.execute("PRAGMA journal_mode=WAL")
            taken = conn.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    except at_rest.errors(ValueError) as error:
        raise sealed.damaged(f"a log of the backup cannot be read: {error}", log) from None
    if taken != (0, n_frames, n_frames):
        raise sealed.damaged(f"of a log of the backup only {taken[1]} of {n_frames} pages are sound", log)


def _check_whole(ws: Workspace, content: Content, backup: Path) -> None:
    """
    Raises:
        Damaged: a chain is broken that was not, or an artifact is missing that was there.
    """
    for name, first_broken in chains_of(ws).items():
        if first_broken != content.chains[name]:
            raise sealed.damaged(f"line {first_broken} of the {name} of the backup is not as it was written", backup)
    with ws.store.read() as conn:
        raw: Any = conn.connection.driver_connection
        needed = rows.artifacts_in(raw)
    for digest in needed:
        if digest not in content.missing and f"{place_of(digest)}/{_ARTIFACT}" not in content.files:
            raise sealed.damaged(f"the backup lacks artifact {digest}", backup)


def _ended_again(conn: "Connection", root: Path, now: datetime) -> tuple[list[str], list[str]]:
    """Have access keys end as they do in a workspace that is there: ids of those revoked, and of those that end sooner.

    As far as that can be read at all.
    """
    path = root / STATE_FOLDER / DATABASE
    if not path.exists():
        return [], []
    try:
        with closing(at_rest.connect(f"file:{quote(str(path))}?mode=ro", _key_file(root), uri=True)) as there:
            revoked, ends = rows.revoked_keys_in(there), rows.ends_of_keys_in(there)
    except (HeadraceError, ValueError):  # its settings, or its key, are of no use either
        return [], []
    ended = [one for one, at in ends.items() if keys.expire(conn, one, at)]
    return [one for one in revoked if keys.revoke(conn, one, now)], ended


def _settings_to_change(root: Path) -> list[str]:
    _, shown = config_sources.load(root)
    named = {one.key: one.value for one in shown if one.value}
    names: dict[str, Any] = {key: named[key] for key in _FILES if key in named}
    files = {key: [value] if isinstance(value, str) else value for key, value in names.items()}
    lost = [key for key, paths in files.items() if not all((root / path).exists() for path in paths)]
    return [f"{key} = {value}" for key, value in named.items() if key in _ELSEWHERE or key in lost]


def _finish_renames(to: Path) -> None:
    """Mend what a restore to the same place left when it was killed between two renames."""
    leaving = _leaving(to)
    if leaving.exists():
        os.rename(leaving, _aside(to) if _is_taken(to) else to)


def _take_place(folder: Path, to: Path) -> str | None:
    """Give the folder its name; where what was there is now. At each moment `_finish_renames` knows how far it came."""
    if not _is_taken(to):
        os.rename(folder, to)
        return None
    leaving, aside = _leaving(to), _aside(to)
    os.rename(to, leaving)
    os.rename(folder, to)
    os.rename(leaving, aside)
    return str(aside)


def _leaving(to: Path) -> Path:
    """What is there while another takes its place."""
    return to.with_name(f"{to.name}.being-replaced")


def _aside(to: Path) -> Path:
    return to.with_name(f"{to.name}.before-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:4]}")
