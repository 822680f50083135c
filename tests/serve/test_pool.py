"""The pool and its real worker process. Catches: calls lost in a crash, a hung worker kept, a queue without bound."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace.config import ServeTable
from headrace.errors import Damaged, TooLate, Unavailable
from headrace.serve import process
from headrace.serve.pool import Pool
from headrace.serve.process import Call, Key, WorkerProcess
from headrace.workspace import Workspace
from stub_model import install_plugin, stub_artifact

WAIT_S = 20


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    for name, value in install_plugin(tmp_path / "site").items():
        monkeypatch.setenv(name, value)


def loaded(pool: Pool, ws: Workspace, digest: str) -> str:
    pool.load(digest, ws.artifacts.get(digest))
    return digest


@pytest.fixture
def pool(plugin: None) -> Iterator[Pool]:
    with Pool(ServeTable(timeout_s=2, max_queue_rows=10, batch_tokens=64)) as running:
        running.start()
        yield running
    assert running.pids == []


def eventually(check: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_answers_come_in_order_from_the_weights_that_were_asked(pool: Pool, workspace: Workspace) -> None:
    first, second = (loaded(pool, workspace, stub_artifact(workspace, answer=a)) for a in ("neutral", "positive"))
    texts = ["negative", "?", "positive " + "long " * 50, "stub:fail"]
    asked = [(digest, pool.predict(digest, texts)) for digest in (first, second)]
    for digest, future in asked:
        answer = future.result(WAIT_S)
        said = [row["output"]["label"] if "output" in row else "error" for row in answer.rows]
        assert answer.digest == digest
        assert said == ["negative", "neutral" if digest == first else "positive", "positive", "error"]
    pool.unload(first)
    with pytest.raises(Unavailable):
        pool.predict(first, texts)
    assert pool.predict(second, ["?"]).result(WAIT_S).rows[0]["output"]["label"] == "positive"


def test_requests_that_wait_go_as_one_batch(pool: Pool, workspace: Workspace, tmp_path: Path) -> None:
    log = tmp_path / "batches"
    digest = loaded(pool, workspace, stub_artifact(workspace, log=str(log)))
    futures = [pool.predict(digest, ["stub:slow"]), *(pool.predict(digest, [f"t{i}"]) for i in range(5))]
    for future in futures:
        future.result(WAIT_S)
    assert len(log.read_text().splitlines()) <= 3


def test_batches_of_a_model_that_does_several_at_once_do_not_wait_for_one_that_hangs(
    pool: Pool, workspace: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "batches"
    log.touch()
    digest = loaded(pool, workspace, stub_artifact(workspace, n_at_once=2, log=str(log)))
    hanging = pool.predict(digest, ["stub:hang"])
    eventually(lambda: "stub:hang" in log.read_text())
    assert pool.predict(digest, ["positive"]).result(WAIT_S).rows[0]["output"]["label"] == "positive"
    with pytest.raises(TooLate):
        hanging.result(WAIT_S)
    eventually(lambda: pool.n_starts == 2 and pool.is_loaded(digest))  # though it was never silent
    assert pool.predict(digest, ["positive"]).result(WAIT_S).rows[0]["output"]["label"] == "positive"


def test_a_killed_worker_fails_what_it_had_and_comes_back_with_its_models(pool: Pool, workspace: Workspace) -> None:
    digest = loaded(pool, workspace, stub_artifact(workspace))
    under_way = pool.predict(digest, ["stub:slow stub:slow"])
    os.kill(pool.pids[0], signal.SIGKILL)
    with pytest.raises(Unavailable):
        under_way.result(WAIT_S)
    eventually(lambda: pool.is_loaded(digest) and pool.n_starts == 2)
    assert pool.predict(digest, ["?"]).result(WAIT_S).digest == digest


def test_a_worker_that_comes_back_is_told_to_load_what_is_in_charge_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker, asked = WorkerProcess([], environment={}, silence_s=1, on_batches=lambda _: None), []
    keys = [("before", None), ("before", "b"), ("now", None), ("now", "bad"), ("now", "good"), ("other", None)]
    for digest, adapter in keys:
        worker.remember(digest, Path(), adapter)
    worker.put_first(["now", "other"])

    def answered(key: Key, _: Path) -> Call:
        asked.append(key)
        call = Call(1, 0, deadline=0, sent_at=0)
        if key[1] == "bad":
            call.done.set_exception(Damaged("of no use"))
        else:
            call.done.set_result({})
        return call

    monkeypatch.setattr(worker, "_ask_to_load", answered)
    with caplog.at_level(logging.WARNING, "headrace.pool"):
        worker._greet()
    first = [("now", None), ("other", None), ("now", "bad"), ("now", "good")]
    assert asked == [*first, ("before", None), ("before", "b")]
    assert "adapter bad of artifact now is not served" in caplog.text
    assert not worker.is_loaded("now", "bad")
    assert all(worker.is_loaded(*key) for key in keys if key[1] != "bad")


def test_a_worker_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    worker = WorkerProcess(["/no/such/program"], environment={}, silence_s=1, on_batches=lambda _: None)
    with caplog.at_level(logging.WARNING, "headrace.pool"):
        worker.start()
        eventually(lambda: caplog.text.count("No such file or directory: '/no/such/program'; a new one starts") > 1)
    waiting = worker.ask({}, n_rows=1, deadline=time.monotonic() + WAIT_S)
    worker.stop()
    with pytest.raises(Unavailable, match="restarting"):
        waiting.done.result(0)


def test_a_worker_that_does_not_end_when_told_to_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_CLOSE_TIMEOUT_S", 0.1)
    worker = WorkerProcess(["/bin/sleep", "60"], environment={}, silence_s=60, on_batches=lambda _: None)
    worker.start()
    eventually(lambda: worker.pid is not None)
    sleeper = psutil.Process(worker.pid)
    worker.stop()
    assert not sleeper.is_running()
    assert worker.pid is None


def test_a_worker_that_hangs_is_replaced(pool: Pool, workspace: Workspace) -> None:
    digest = loaded(pool, workspace, stub_artifact(workspace))
    before = pool.pids
    with pytest.raises(TooLate, match="in time"):
        pool.predict(digest, ["stub:hang"]).result(WAIT_S)
    eventually(lambda: pool.is_loaded(digest) and pool.pids not in (before, []))
    assert pool.predict(digest, ["?"]).result(WAIT_S).digest == digest


def test_what_a_library_forks_off_the_worker_ends_with_it(pool: Pool, workspace: Workspace) -> None:
    digest = loaded(pool, workspace, stub_artifact(workspace))
    pool.predict(digest, ["stub:fork"]).result(WAIT_S)
    (fork,) = psutil.Process(pool.pids[0]).children()
    os.kill(pool.pids[0], signal.SIGKILL)
    eventually(lambda: pool.is_loaded(digest) and pool.n_starts == 2)
    eventually(lambda: not fork.is_running())


def test_a_full_queue_refuses_and_keeps_room_for_those_who_wait(pool: Pool, workspace: Workspace) -> None:
    digest = loaded(pool, workspace, stub_artifact(workspace))
    futures = [pool.predict(digest, ["stub:slow"]), pool.predict(digest, ["a"] * 4, background=True)]
    with pytest.raises(Unavailable):
        pool.predict(digest, ["a"], background=True)
    futures.append(pool.predict(digest, ["a"] * 5))
    with pytest.raises(Unavailable, match="too many rows"):
        pool.predict(digest, ["a"])
    assert [len(future.result(WAIT_S).rows) for future in futures] == [1, 4, 5]
    assert pool.n_waiting == 0


def test_an_artifact_that_cannot_be_loaded_says_so_and_harms_no_other(pool: Pool, workspace: Workspace) -> None:
    good = loaded(pool, workspace, stub_artifact(workspace))
    with pytest.raises(Damaged, match="of no use"):
        loaded(pool, workspace, stub_artifact(workspace, unloadable=True))
    assert pool.predict(good, ["?"]).result(WAIT_S).digest == good


def test_closing_fails_what_waits_and_leaves_no_process(plugin: None, workspace: Workspace) -> None:
    with Pool(ServeTable(timeout_s=30)) as pool:
        pool.start()
        digest = loaded(pool, workspace, stub_artifact(workspace))
        pid, future = pool.pids[0], pool.predict(digest, ["stub:hang"])
    assert not psutil.pid_exists(pid)
    with pytest.raises(Unavailable):
        future.result(0)
    with pytest.raises(Unavailable):
        pool.predict(digest, ["?"])


def test_a_worker_that_was_away_while_a_model_was_loaded_has_it_when_it_is_back(
    plugin: None, workspace: Workspace
) -> None:
    with Pool(ServeTable(timeout_s=5, n_workers=2)) as pool:
        pool.start()
        loaded(pool, workspace, stub_artifact(workspace))
        os.kill(pool.pids[0], signal.SIGKILL)
        late = loaded(pool, workspace, stub_artifact(workspace, answer="positive"))
        eventually(lambda: all(worker.is_loaded(late) for worker in pool._workers))
        assert pool.n_starts == 3
