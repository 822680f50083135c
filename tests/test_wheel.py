"""The loop that runs by itself. Catches: a label that is lost or a version that is never tried because a process died,
two releases at once, two processes at once, a ledger that fills with "nothing new", a loop that cannot be stopped or
that gives up, a release that is never decided and stands in the way, a version that is due for ever and never made."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from conftest import LABELS, sentences, write_jsonl
from headrace import reviewing, wheel
from headrace.data import channels, importing, snapshot
from headrace.errors import JobFailed, WrongState
from headrace.feedback import labels
from headrace.lineage import erasing
from headrace.records import Decision
from headrace.release import controls, ledger
from headrace.store import schema
from headrace.workspace import Workspace, open_workspace, utc_now
from released import relabel
from wheel_drill import N_CORRECTIONS, OVERRIDES, correct, make, stand_in, turn

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("wheel") / "ws")


@pytest.fixture
def ws(template: Path, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(template, tmp_path / "ws")
    with open_workspace(tmp_path / "ws", overrides=OVERRIDES) as opened:
        yield opened


def kinds(ws: Workspace) -> list[str]:
    return [line.kind for line in ledger.history(ws, "tone")]


def states(ws: Workspace) -> list[str]:
    with ws.store.read() as conn:
        return list(conn.execute(select(schema.releases.c.state)).scalars())


def faults(ws: Workspace, *, n_labels: int) -> list[str]:
    """What is wrong with a workspace after the wheel has turned to a standstill."""
    with ws.store.read() as conn:
        made = conn.execute(select(schema.model_versions.c.snapshot_id)).scalars().all()
        n_kept = len(conn.execute(select(schema.labels.c.id).where(schema.labels.c.origin == "feedback")).all())
        check = conn.exec_driver_sql("PRAGMA integrity_check").scalar()
    found = {
        "labels": n_kept != n_labels or labels.count_new(ws) != 0,
        "releases": Counter(states(ws))["open"] > 1,
        "versions": max(Counter(made).values()) > 1,
        "ledger": ledger.verify(ws)["first_broken"] is not None,
        "starts": kinds(ws).count("start") != len(states(ws)),
        "database": check != "ok",
        "left over": any((ws.state_folder / "locks").glob("loop-*.*[0-9]")),
    }
    return [name for name, is_wrong in found.items() if is_wrong]


def test_turns_go_from_corrections_to_a_promotion_and_then_wait(ws: Workspace) -> None:
    first = turn(ws)
    assert [step.step for step in first] == ["collect", "review", "watch", "due", "shadow"]
    assert first[0].facts["n_labels"] == N_CORRECTIONS
    assert "feedback.min_new_labels is 20" in first[3].said
    n_lines = len(kinds(ws))
    assert [step.step for step in turn(ws)][-1] == "hold"
    assert len(kinds(ws)) == n_lines  # that nothing is decided is no decision
    serving = controls.serving(ws, "tone")
    correct(ws, serving.control, 120, seed=2, release=serving.release)
    third = turn(ws)
    assert [step.step for step in third][3:5] == ["promote", "due"]  # those 120 corrections are new labels
    assert controls.serving(ws, "tone").control.number == 2
    assert faults(ws, n_labels=N_CORRECTIONS + 120) == []
    promoted = [line for line in ledger.history(ws, "tone") if line.kind == "promote"]
    assert promoted[-1].actor == "loop"


@pytest.mark.parametrize("when", ["before anything was tried", "while it is tried"])
def test_after_an_erasure_it_goes_on(ws: Workspace, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    suspects = reviewing.suspects
    if when == "while it is tried":
        turn(ws)
        erasing.erase(ws, labeller="user-0", channel="web")
    else:
        newest = snapshot.latest(ws, "tone")
        assert newest is not None
        erasing.erase(ws, example=snapshot.rows(ws, newest, "train")[0].example_id)
    newest = snapshot.latest(ws, "tone")
    assert newest is not None
    assert newest.erased_at is not None
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, ws)
        patch.setattr(reviewing, "suspects", suspects)
        steps = [step.step for step in wheel.run(ws, once=True)]
    tried = ["hold"] if when == "while it is tried" else ["due", "shadow"]
    assert steps == ["collect", "review", "watch", *tried]
    assert faults(ws, n_labels=N_CORRECTIONS - 6 * (when == "while it is tried")) == []


def test_rows_that_were_erased_do_not_stand_against_new_ones(ws: Workspace, tmp_path: Path) -> None:
    """Sixty came, a hundred and twenty went: a version is due, and is made."""
    channels.add(ws, "later")
    importing.import_rows(ws, "later", write_jsonl(tmp_path / "later.jsonl", sentences(60, seed=5, channel="later")))
    erasing.erase(ws, channel="web")
    assert [step.step for step in turn(ws)][3:] == ["due", "shadow"]


def test_without_anything_new_it_waits_and_says_for_what(ws: Workspace) -> None:
    turn(ws)
    with ws.store.write() as conn:
        conn.execute(schema.releases.update().values(state="rejected"))
    last = turn(ws)[-1]
    assert (last.step, last.facts) == ("wait", {})
    assert "a new version needs 20" in last.said


def test_rows_that_were_labelled_anew_make_a_version_and_those_of_a_version_that_was_made_do_not(
    ws: Workspace, tmp_path: Path
) -> None:
    turn(ws)
    said = []
    for _ in LABELS:  # the last time they have the labels again that they had in version 2
        with ws.store.write() as conn:
            conn.execute(schema.releases.update().values(state="rejected"))
        relabel(ws, tmp_path, n=60)
        said.append([step.step for step in turn(ws)][3:])
    assert said == [["due", "shadow"], ["due", "shadow"], ["wait"]]


@pytest.mark.parametrize(("kind", "least"), [("labels", None), ("drift", 1), ("schedule", 1)])
def test_a_version_for_its_labels_needs_as_many_as_when_made_by_hand(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str, least: int | None
) -> None:
    asked = []

    def improve(*_: Any, min_new_labels: int | None, **__: Any) -> dict[str, Any]:
        asked.append(min_new_labels)
        return {"step": "waiting", "n_new_labels": 0}

    monkeypatch.setattr(wheel.loop, "improve", improve)
    monkeypatch.setattr(wheel.triggers, "judge", lambda *_: wheel.triggers.Trigger(True, kind, "a test"))
    turn(ws)
    assert asked == [least]


def test_a_release_that_goes_into_its_next_stage_is_left_to_its_traffic(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn(ws)
    correct(ws, controls.serving(ws, "tone").control, 40, seed=3)  # so that something is due
    further = Decision("advance", "more traffic", weights={"control": 0.9, "candidate": 0.1})
    monkeypatch.setattr(wheel.judging, "decision_of", lambda *_, **__: further)
    assert [step.step for step in turn(ws)][3:] == ["advance"]
    assert kinds(ws)[-1] == "advance"
    assert states(ws) == ["open"]


def test_a_second_process_is_told_who_is_at_it(ws: Workspace) -> None:
    running = wheel.run(ws, once=True)
    next(running)
    with open_workspace(ws.root) as other, pytest.raises(WrongState, match=f"process {os.getpid()} on "):
        next(wheel.run(other, once=True))
    running.close()
    assert turn(ws)


@pytest.mark.parametrize("content", [None, "", '{"pid": '], ids=["gone", "empty", "half"])
def test_a_second_process_is_told_also_where_nothing_says_who_is_at_it(ws: Workspace, content: str | None) -> None:
    running = wheel.run(ws, once=True)
    next(running)
    (holder,) = (ws.state_folder / "locks").glob("loop-*.json")
    holder.unlink()
    if content is not None:
        holder.write_text(content)
    with (
        open_workspace(ws.root) as other,
        pytest.raises(WrongState, match=r"runs the loop of this task: not known\. L"),
    ):
        next(wheel.run(other, once=True))
    running.close()


def test_a_release_that_nobody_decides_gives_way_to_newer_labels(ws: Workspace) -> None:
    turn(ws)
    later = dataclasses.replace(ws, clock=lambda: utc_now() + timedelta(days=15))
    assert turn(later)[-1].step == "hold"  # nothing newer is due
    correct(ws, controls.serving(ws, "tone").control, 40, seed=3)
    steps = turn(later)
    assert [step.step for step in steps][3:] == ["stop", "due", "shadow"]
    assert "release.max_days" in steps[3].said
    assert sorted(states(ws)) == ["open", "stopped"]
    assert faults(ws, n_labels=N_CORRECTIONS + 40) == []


def test_a_turn_that_fails_is_told_of_and_tried_again_and_what_was_due_stays_due(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, ws)
    train, stop = wheel.loop.train, threading.Event()

    def fail(*_: Any, **__: Any) -> Any:
        raise JobFailed("no room", value="disk")

    monkeypatch.setattr(wheel.loop, "train", fail)
    with pytest.raises(JobFailed):
        list(wheel.run(ws, once=True))
    monkeypatch.setattr(wheel.triggers, "judge", lambda *_: wheel.triggers.Trigger(False, "none", "nothing new"))
    steps = []
    for step in wheel.run(ws, interval_s=0.01, stop=stop):
        steps.append(step)
        if step.step == "error":
            monkeypatch.setattr(wheel.loop, "train", train)
        if step.step == "shadow":
            stop.set()
    said = [step.step for step in steps]
    assert said[3:5] == ["due", "error"]
    assert said[-2:] == ["due", "shadow"]
    assert (steps[3].said, steps[4].facts) == ("goes on with what was begun", {"code": "job_failed"})


@given(st.floats(0, 1e6), st.floats(0.1, 1e4), st.floats(0, 1e6))
def test_turns_begin_on_a_grid_that_does_not_wander(begun_at: float, interval_s: float, took_s: float) -> None:
    at = wheel._next(begun_at, interval_s, begun_at + took_s)
    n = (at - begun_at) / interval_s
    assert n == pytest.approx(round(n), abs=1e-3)
    assert n > 1 - 1e-3
    assert at - (begun_at + took_s) >= -1e-3
    assert at - (begun_at + took_s) <= interval_s * (1 + 1e-3)


def test_sigterm_ends_the_verb_between_two_steps(template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "ws")
    code = (
        "from headrace import reviewing\n"
        "reviewing.suspects = lambda *_, **__: []\n"  # which take a model
        "from headrace.cli.main import main\n"
        "main()\n"
    )
    words = ["loop", "run", "--interval-s", "600", "--json", "-w", tmp_path / "ws"]
    many = ["--set", "feedback.min_new_labels=1000"]
    process = subprocess.Popen([sys.executable, "-c", code, *words, *many], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if '"step": "wait"' in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with open_workspace(tmp_path / "ws") as ws:
        assert states(ws) == []
        assert not list((ws.state_folder / "locks").glob("*.json"))


def drilled(root: Path, *kill_at: int) -> int:
    drill = Path(__file__).with_name("wheel_drill.py")
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, drill, root, *map(str, kill_at)], capture_output=True, text=True, env=env, timeout=TIMEOUT_S
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize("point", range(2))
def test_after_a_kill_at_any_write_it_goes_on_to_the_same_end(ws: Workspace, point: int) -> None:
    rng = random.Random()  # other writes in every run of the tests; the message says which
    kill_at = rng.randrange(1 + 8 * point, 9 + 8 * point)
    drilled(ws.root, kill_at)
    steps = [step.step for step in turn(ws)]
    assert controls.serving(ws, "tone").release is not None, (kill_at, steps)
    assert states(ws) == ["open"], kill_at
    assert faults(ws, n_labels=N_CORRECTIONS) == [], kill_at
    serving = controls.serving(ws, "tone")
    correct(ws, serving.control, 120, seed=2, release=serving.release)
    drilled(ws.root, kill_at)
    turn(ws)
    assert kinds(ws).count("promote") == 2, kill_at  # the first version, and the one that was tried
    assert faults(ws, n_labels=N_CORRECTIONS + 120) == [], kill_at
