"""What is wrong with a workspace, and what to do about it. Looks only: nothing is changed, mended or deleted.

A part (database, artifacts, keys, ...) is a function that yields findings. The database is looked at first, by itself:
where that is damaged or of other code, opening the workspace would fail or change it, and parts that need it open are
left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace import config_sources
from headrace.config import StoreTable
from headrace.doctor import database, environment, rows, stored
from headrace.doctor.finding import Finding, of_error
from headrace.errors import HeadraceError, NotFound
from headrace.workspace import Workspace, open_workspace

_BEFORE: dict[str, Callable[[Path, StoreTable], Iterator[Finding]]] = {
    "disk": environment.disk,
    "libraries": environment.libraries,
    "clock": environment.time_zone,
    "database": database.look,
}
"""Of the folder and what is set of the store; before the workspace is opened."""
_INSIDE: dict[str, Callable[[Workspace], Iterator[Finding]]] = {
    "chains": rows.chains,
    "artifacts": stored.artifacts,
    "keys": rows.keys,
    "secrets": stored.secrets,
    "signatures": stored.signatures,
    "clock": rows.clock,
    "backups": stored.backup,
    "work": rows.work,
}


@dataclass(frozen=True)
class Examined:
    """What was looked at, and what was found."""

    findings: list[Finding]
    looked_at: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Parts that could not be looked at, because of a finding."""

    @property
    def is_well(self) -> bool:
        return not any(one.severity == "error" for one in self.findings)


def examine(root: Path | str = ".") -> Examined:
    """Look at everything of the workspace at `root`; the worst findings first.

    Raises:
        NotFound: there is no workspace.
    """
    root = Path(root).absolute()
    if not (root / config_sources.FILE_NAME).exists():
        raise NotFound("no workspace here (headrace.toml is missing)", value=str(root), next_step="Run: headrace init")
    try:
        settings, _ = config_sources.load(root)
    except HeadraceError as fault:
        return Examined([of_error("settings", fault)], [], [*_BEFORE, *_INSIDE])
    found = [one for part in _BEFORE.values() for one in part(root, settings.store)]
    looked_at, left_out = list(_BEFORE), []
    if any(one.severity != "note" and one.part == "database" for one in found):
        left_out = list(_INSIDE)
    else:
        try:
            with open_workspace(root, is_look=True) as ws:
                found += [one for part in _INSIDE.values() for one in part(ws)]
            looked_at += [name for name in _INSIDE if name not in looked_at]
        except HeadraceError as fault:
            found, left_out = [*found, of_error("workspace", fault)], list(_INSIDE)
    order = ("error", "warning", "note")
    return Examined(sorted(found, key=lambda one: order.index(one.severity)), looked_at, left_out)
