"""One real server for tests that only ask it; tests that kill or stop one start their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_channel
from stub_model import Server, install_plugin, plant_stub, running


@pytest.fixture(scope="session")
def plugin_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install_plugin(tmp_path_factory.mktemp("site"))


def new_workspace(root: Path) -> Path:
    """A workspace with two tasks (one without a version), two channels and one version."""
    with init(root, task="tone", labels=("negative", "neutral", "positive")) as ws:
        (root / "headrace.toml").write_text(
            (root / "headrace.toml").read_text()
            + '[tasks."unborn"]\nlabels = ["a", "b"]\n[feedback.metrics.clicks]\nkind = "number"\n',
            "utf-8",
        )
        for name in ("web", "phone"):
            plant_channel(ws, name)
        plant_stub(ws)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return new_workspace(tmp_path / "ws")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    """A server with small limits, shared by the tests of a file."""
    root = new_workspace(tmp_path_factory.mktemp("served") / "ws")
    with running(root, plugin_env, serve__max_rows=20, data__max_chars=500, serve__timeout_s=5) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Server) -> Iterator[Client]:
    with Client(served.url, timeout_s=20) as connected:
        yield connected


@pytest.fixture(scope="module")
def served_workspace(served: Server) -> Iterator[Workspace]:
    """The workspace of the server, opened by another process, as the command line does."""
    with open_workspace(served.root) as ws:
        yield ws
