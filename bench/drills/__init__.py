"""Drills of a real server in trouble: each brings one kind about, and says what came of it in figures.

`python -m bench.behaviour` runs them at full size, tests/server/ at a small one. The model is the stub of the tests,
whose speed is known and which misbehaves when told to. Names such as R7 are those of the list of requirements in
docs/reliability.md.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stub_model import Server

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the stub model, and servers that serve it


@dataclass(frozen=True)
class Figure:
    """What a drill saw, beside what was asked for; without either bound it is only told."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        """False also for a value that is no number: what could not be seen is not met."""
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below

    @property
    def asked(self) -> str | None:
        if self.at_most is not None:
            return f"at most {self.at_most:g} {self.unit}".strip() if self.at_most else f"0 {self.unit}".strip()
        return None if self.at_least is None else f"at least {self.at_least:g} {self.unit}".strip()


@contextmanager
def served(says: dict[str, object] | None = None, **settings: object) -> Iterator["Server"]:
    """A server of a new workspace with two channels, whose one version is a stub that `says` describes."""
    from headrace.workspace import open_workspace
    from server.conftest import new_workspace
    from stub_model import install_plugin, plant_stub, running

    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        site = Path(name) / "site"
        site.mkdir()
        env, root = install_plugin(site), new_workspace(Path(name) / "ws")
        if says:
            with open_workspace(root) as ws:
                plant_stub(ws, **says)
        with running(root, env, **settings) as server:
            yield server
