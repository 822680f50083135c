"""A workspace: a folder with headrace.toml, and the four handles that every stage function takes."""

import fcntl
import getpass
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from headrace import config_sources
from headrace.artifacts import ArtifactStore
from headrace.config import Settings, TaskTable
from headrace.config_sources import Shown
from headrace.errors import AlreadyExists, BadConfig, NotFound, Unusable, nearest
from headrace.store import Store, open_store

STATE_FOLDER = ".headrace"
_SERVED = "serve.lock"


def utc_now() -> datetime:
    return datetime.now(UTC)


def os_user() -> str:
    """`user:NAME` of who runs this process, or `user:NUMBER` where the machine has no name for it."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"user:{os.getuid()}"


@dataclass(frozen=True)
class Workspace:
    """Settings, store, artifacts and clock of one folder. Close it when done, or use it as a context manager."""

    root: Path
    settings: Settings
    shown: list[Shown]
    """Every setting with where it came from."""
    store: Store
    artifacts: ArtifactStore
    clock: Callable[[], datetime] = utc_now
    actor: str = field(default_factory=os_user)
    """Who acts, as the audit log names it: the user of this machine, or the id of a key."""

    @property
    def state_folder(self) -> Path:
        return self.root / STATE_FOLDER

    @cached_property
    def config_hash(self) -> str:
        return self.settings.hash()

    def task_name(self, name: str | None = None) -> str:
        """The given task, or the only one.

        Raises:
            NotFound: no such task in headrace.toml.
            BadConfig: none was given and there is not exactly one.
        """
        known = sorted(self.settings.tasks)
        if name is None:
            if len(known) == 1:
                return known[0]
            raise BadConfig(
                "which task is not clear",
                value=known,
                next_step="Name one with --task, or add [tasks.NAME] to the file",
            )
        if name not in known:
            raise NotFound("no such task in headrace.toml", value=name, next_step=nearest(name, known))
        return name

    def task(self, name: str | None = None) -> TaskTable:
        return self.settings.tasks[self.task_name(name)]

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def init(
    root: Path | str,
    *,
    task: str,
    task_type: str = "text-classification",
    labels: tuple[str, ...] = (),
    catalogue: str = "",
) -> Workspace:
    """Make a workspace: headrace.toml with one task, and the state folder beside it.

    Raises:
        AlreadyExists: there is one already.
        BadConfig: the name of the task or of a label cannot be used.
        Unusable: the folder cannot be written.
    """
    config_sources.check_task_name(task)
    root = Path(root)
    path = root / config_sources.FILE_NAME
    if path.exists():
        raise AlreadyExists(
            "there is a workspace already", value=str(path), next_step="Use it, or choose another folder"
        )
    text = f'[tasks."{task}"]\ntype = "{task_type}"\n'
    if labels:
        text += f"labels = [{', '.join(_quoted(label) for label in labels)}]\n"
    if catalogue:
        text += f"catalogue = {_quoted(catalogue)}\n"
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / STATE_FOLDER).mkdir(mode=0o700, exist_ok=True)
        (root / STATE_FOLDER / ".gitignore").write_text("*\n", "utf-8")
        draft = root / STATE_FOLDER / f"{config_sources.FILE_NAME}.{os.getpid()}"
        draft.write_text(text, "utf-8")
        os.replace(draft, path)  # whole or not at all
    except OSError as error:
        raise Unusable(
            f"the folder cannot be written: {error.strerror}", value=str(root), next_step="Choose another folder"
        ) from None
    return open_workspace(root)


def open_workspace(
    root: Path | str = ".", *, overrides: Mapping[str, object] | None = None, is_look: bool = False
) -> Workspace:
    """Open the workspace at `root`.

    Args:
        overrides: dotted setting to value, such as `{"finetune.epochs": 1}`; stronger than environment and file.
        is_look: leave who may read the state folder as it is; else others on the machine no longer may.

    Raises:
        NotFound: no headrace.toml there.
        BadConfig: it, or the environment, says something unknown.
    """
    root = Path(root).absolute()
    if not (root / config_sources.FILE_NAME).exists():
        raise NotFound("no workspace here (headrace.toml is missing)", value=str(root), next_step="Run: headrace init")
    settings, shown = config_sources.load(root, overrides=overrides)
    state = root / STATE_FOLDER
    if not is_look:
        _keep_to_owner(state)
    store = open_store(
        settings.store.url or f"sqlite:///{state / 'headrace.db'}",
        lock_path=state / "store.lock",
        busy_timeout_s=settings.store.busy_timeout_s,
        key_file=settings.store.key_file,
    )
    artifacts = ArtifactStore(settings.artifacts.url or str(state / "artifacts"), scratch=state / "scratch")
    return Workspace(root=root, settings=settings, shown=shown, store=store, artifacts=artifacts)


@contextmanager
def serving(ws: Workspace) -> Iterator[None]:
    """While inside, `is_served` tells other processes so. Several may be inside; one that is killed is no longer."""
    handle = os.open(ws.state_folder / _SERVED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_served(root: Path) -> bool:
    """Whether a process is inside `serving` of the workspace there."""
    try:
        handle = os.open(root / STATE_FOLDER / _SERVED, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _keep_to_owner(state: Path) -> None:
    """Have nobody else on the machine read a state folder, which holds every text; a group that may write stays."""
    with suppress(OSError):  # another's, or on a disk without rights
        mode = stat.S_IMODE(state.stat().st_mode)
        if mode & stat.S_IRWXO:
            state.chmod(mode & ~stat.S_IRWXO if mode & stat.S_IWGRP else 0o700)


def _quoted(text: str) -> str:
    if any(c in text for c in '"\\\n\r\t') or not text.isprintable():
        raise BadConfig(
            "a label may hold no quotes, backslashes or control characters", value=text, next_step="Choose another name"
        )
    return f'"{text}"'
