"""Versions that change under load. Catches: a failed request in a swap, an answer under another version's name, a bad
artifact that takes over, old versions kept in memory."""

import threading
from pathlib import Path

import psutil
import pytest

from bench.drills import artifacts
from headrace.client import Client
from headrace.errors import HeadraceError
from headrace.release import releases
from headrace.workspace import Workspace, open_workspace
from server.loading import eventually
from stub_model import Server, plant_stub, running

SAYS = {"tone/1": "neutral", "tone/2": "positive"}
NEVER_DONE = "never done loading"


class Asking(threading.Thread):
    """Asks again and again until told to stop; what versions said, and every failure."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._url, self._enough = server.url, threading.Event()
        self.said: list[tuple[str, str, str]] = []
        self.failures: list[HeadraceError] = []
        self.start()

    def run(self) -> None:
        with Client(self._url) as client:
            while not self._enough.wait(0.005):
                try:
                    answer = client.predict("tone", "web", ["well"])
                except HeadraceError as error:
                    self.failures.append(error)
                    continue
                self.said.append((answer["model_version"], answer["predictions"][0]["label"], answer["artifact"]))

    def stop(self) -> None:
        self._enough.set()
        self.join(20)


def in_charge(server: Server) -> str:
    with Client(server.url) as client:
        return next(line["model_version"] for line in client.models() if line["arm"] == "control")


def swap(ws: Workspace, server: Server, name: str) -> None:
    releases.promote(ws, name, task="tone")
    eventually(lambda: in_charge(server) == name)


@pytest.mark.slow
def test_every_answer_under_swaps_is_of_the_version_that_it_names(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env, serve__n_workers=2) as server, open_workspace(root) as ws:
        second = plant_stub(ws, answer="positive")
        asking = [Asking(server) for _ in range(2)]
        for name in ("tone/2", "tone/1") * 4:
            swap(ws, server, name)
        for one in asking:
            one.stop()
        assert server.figure("swaps_total", task="tone") == 8
    said = [line for one in asking for line in one.said]
    assert [one.failures for one in asking] == [[], []]
    assert all(SAYS[version] == label for version, label, _ in said)
    assert {version for version, _, _ in said} == set(SAYS)
    assert {artifact for version, _, artifact in said if version == "tone/2"} == {second.artifact}


@pytest.mark.parametrize("harm", [harm for harm in artifacts.HARMS if harm != NEVER_DONE])
def test_a_bad_artifact_does_not_take_over(root: Path, plugin_env: dict[str, str], harm: str) -> None:
    with running(root, plugin_env) as server:
        figures = artifacts.bad_artifact(server, harm, within_s=20)
        assert [figure for figure in figures if not figure.is_met] == []
        assert in_charge(server) == "tone/1"


@pytest.mark.slow
def test_a_version_that_is_never_done_loading_is_given_up(root: Path, plugin_env: dict[str, str]) -> None:
    brief = "import headrace.serve.process as p; p.LOAD_TIMEOUT_S = 6"
    with running(root, plugin_env, prelude=brief) as server:
        figures = artifacts.bad_artifact(server, NEVER_DONE, within_s=40)
        assert [figure for figure in figures if not figure.is_met] == []


def test_a_version_that_takes_long_to_load_holds_nobody_up(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server, open_workspace(root) as ws:
        plant_stub(ws, answer="positive", load_s=1.0)
        asking = Asking(server)
        swap(ws, server, "tone/2")
        asking.stop()
        n_threads = psutil.Process(server.worker_pid()).num_threads()
    assert asking.failures == []
    assert n_threads < 20
    assert len([line for line in asking.said if line[0] == "tone/1"]) > 20  # while the other one loaded
