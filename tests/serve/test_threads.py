"""Processes and threads. Catches: cores left idle or used twice, more processes than pay, a measurement that is lost or
believed on another machine, one that blocks the end of a server."""

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace.config import ServeTable
from headrace.records import Input
from headrace.serve import threads
from headrace.serve.pool import Size
from headrace.serve.threads import FILE_NAME, best, candidates, choose, usable_cores
from headrace.workspace import Workspace
from stub_model import install_plugin, stub_artifact


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    for name, value in install_plugin(tmp_path / "site").items():
        monkeypatch.setenv(name, value)


def sizes(n_cores: int, **settings: int) -> list[tuple[int, int]]:
    found = candidates(ServeTable(**settings), [list(range(n_cores))])
    assert all(size.n_workers * size.n_threads <= n_cores or len(found) == 1 for size in found)
    return [(size.n_workers, size.n_threads) for size in found]


def test_all_cores_are_tried_in_equal_blocks() -> None:
    assert sizes(1) == [(1, 1)]
    assert sizes(2) == [(1, 2), (2, 1)]
    assert sizes(12) == [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2)]
    assert sizes(7) == [(1, 7), (7, 1)]


def test_what_the_settings_say_is_kept_to() -> None:
    assert sizes(8, n_workers=3) == [(3, 2)]
    assert sizes(8, n_threads=2) == [(1, 2), (2, 2), (4, 2)]
    assert sizes(2, n_workers=4, n_threads=3) == [(4, 3)]


def test_processes_are_bound_to_cores_of_one_node_of_memory() -> None:
    one, two, *_ = candidates(ServeTable(), [[0, 1, 4, 5], [2, 3, 6, 7]])
    assert one.cores == ()
    assert two.cores == ((0, 1, 4, 5), (2, 3, 6, 7))


def test_cores_of_this_machine_are_found() -> None:
    assert all(usable_cores())
    assert threads._core_numbers("0-2,5\n") == [0, 1, 2, 5]


def test_more_processes_must_be_clearly_faster() -> None:
    assert best([(1, 4, 100.0), (2, 2, 109.0), (4, 1, 90.0)]) == (1, 4)
    assert best([(4, 1, 140.0), (2, 2, 120.0), (1, 4, 100.0)]) == (4, 1)


def test_a_measurement_is_made_once_per_artifact(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [[(Size(1, 2), 10.0), (Size(2, 1), 20.0)], [(Size(1, 2), 20.0), (Size(2, 1), 10.0)]]
    monkeypatch.setattr(threads, "usable_cores", lambda: [[0, 1]])
    monkeypatch.setattr(threads, "measure", lambda *_: rates.pop(0))
    monkeypatch.setattr(threads.psutil, "getloadavg", lambda: (0.0, 0.0, 0.0))
    chosen = [choose(ServeTable(), tmp_path, digest, tmp_path, threading.Event()) for digest in ("a", "a", "b", "a")]
    assert [(size.n_workers, size.n_threads) for size in chosen] == [(2, 1), (2, 1), (1, 2), (2, 1)]
    (tmp_path / FILE_NAME).write_text("cut o")
    rates.append([(Size(1, 2), 10.0)])
    assert choose(ServeTable(), tmp_path, "a", tmp_path, threading.Event()).n_workers == 1


def test_what_was_measured_in_a_busy_moment_is_measured_again_in_a_calmer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_cores = threads.os.cpu_count() or 1
    loads = [n_cores * share for share in (0.9, 0.95, 0.8, 0.4, 0.1)]
    fast = iter([(1, 20.0), (2, 20.0), (1, 20.0)])  # of the three that are to be measured
    monkeypatch.setattr(threads, "usable_cores", lambda: [[0, 1]])
    monkeypatch.setattr(threads.psutil, "getloadavg", lambda: (loads.pop(0), 0.0, 0.0))
    monkeypatch.setattr(threads, "measure", lambda *_: [(Size(n, 2 // n), rate) for n, rate in [next(fast)]])
    chosen = [choose(ServeTable(), tmp_path, "a", tmp_path, threading.Event()).n_workers for _ in range(5)]
    assert chosen == [1, 1, 2, 1, 1]


def test_a_result_of_an_earlier_version_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: [[0, 1]])
    monkeypatch.setattr(threads, "measure", lambda *_: [(Size(2, 1), 10.0)])
    key = threads._key(ServeTable(), "a", [[0, 1]])
    (tmp_path / FILE_NAME).write_text(json.dumps({key: [[1, 2, 10.0]]}))
    assert choose(ServeTable(), tmp_path, "a", tmp_path, threading.Event()).n_workers == 2


def test_a_trial_keeps_all_streams_of_the_engine_busy() -> None:
    together = threading.Barrier(3)

    class Engine:
        n_at_once = 3

        def logits(self, inputs: Sequence[Input]) -> np.ndarray:
            together.wait(10)  # fails, and so does the trial, unless three ask at once
            return np.zeros((len(inputs), 2), np.float32)

    with ThreadPoolExecutor(3) as loops:
        assert threads._work(Engine(), ["a", "b"], loops, 0.0) > 0


def test_a_stub_is_measured_with_real_processes(
    plugin: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = stub_artifact(workspace)
    monkeypatch.setattr(threads, "usable_cores", lambda: [[0, 1]])
    folder = workspace.artifacts.get(digest)
    assert choose(ServeTable(), folder, digest, workspace.state_folder, threading.Event()).n_workers in (1, 2)
    (measured,) = json.loads((workspace.state_folder / FILE_NAME).read_text()).values()
    assert [row[:2] for row in measured["rates"]] == [[1, 2], [2, 1]]
    assert all(row[2] > 0 for row in measured["rates"])
    assert measured["load_share"] >= 0


def test_a_model_that_cannot_be_measured_gets_one_process(
    plugin: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = stub_artifact(workspace, unloadable=True)
    monkeypatch.setattr(threads, "usable_cores", lambda: [[0, 1]])
    folder = workspace.artifacts.get(digest)
    assert choose(ServeTable(), folder, digest, workspace.state_folder, threading.Event()) == Size(1, 2)
    assert not (workspace.state_folder / FILE_NAME).exists()


@pytest.mark.parametrize(("n_processes", "then"), [(2, "read go"), (1, "exec <&- >&-")], ids=["another", "itself"])
def test_a_process_of_a_trial_that_has_failed_is_followed_no_further(n_processes: int, then: str) -> None:
    """Catches: a thread that ends with a traceback, also where closing the pipe fails once more."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(["/bin/sh", "-c", f"echo ready; {then}"], stdin=pipe, stdout=pipe, text=True)
    together, said = threading.Barrier(n_processes), list[dict[str, float]]()
    if n_processes > 1:
        together.abort()
    else:
        process.wait()
    threads._follow(process, together, said)
    process.wait()
    assert said == []
    assert process.stdin is not None
    assert process.stdin.closed


@pytest.mark.parametrize("says", ["processor : 0\n", None])
def test_a_processor_that_linux_does_not_name_is_named_by_its_kind(
    says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(*_: object) -> str:
        if says is None:
            raise FileNotFoundError
        return says

    with monkeypatch.context() as patched:
        patched.setattr(threads.Path, "read_text", read_text)
        patched.setattr(threads.platform, "processor", lambda: "")
        patched.setattr(threads.platform, "machine", lambda: "riscv64")
        assert threads._cpu() == "riscv64"


def test_a_server_that_is_stopped_does_not_wait_for_a_measurement(
    plugin: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, stop = stub_artifact(workspace, load_s=60), threading.Event()
    monkeypatch.setattr(threads, "usable_cores", lambda: [[0, 1]])
    threading.Timer(0.3, stop.set).start()
    began_at = time.monotonic()
    choose(ServeTable(), workspace.artifacts.get(digest), digest, workspace.state_folder, stop)
    assert time.monotonic() - began_at < 10
