"""Drift out of the store. Catches: looks that give something else when they come more often or are broken off, two that
look at once and count twice, alarms while nothing changes, a change that is missed or put into the wrong channel, "not
affected" without audits, alarms that outlive their version, a reference that follows the change, states that grow.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from audited import Answer, plant_log
from headrace.feedback import drift
from headrace.records import ModelVersion
from headrace.release import controls
from headrace.store import drift as rows
from headrace.workspace import Workspace
from planted import NOON, plant_channel, plant_evaluation, plant_version, results_of

LABELS = np.array(["negative", "neutral", "positive"])
EVEN, SHIFTED = [0.4, 0.4, 0.2], [0.15, 0.25, 0.6]
RATES = {name: [[45, 3, 2], [2, 46, 2], [3, 2, 45]] for name in ("web", "phone")}  # .907 right


def in_charge(ws: Workspace, *, at: datetime = NOON) -> ModelVersion:
    version = plant_version(ws)
    plant_evaluation(ws, version, results_of(RATES, LABELS.tolist()))
    if version.number == 1:
        controls.ensure_control(replace(ws, clock=lambda: at))
    return version


def answers(n: int, shares: Sequence[float], seed: int, *, sure: float = 9.0, wrong: float = 0.0) -> list[Answer]:
    """Answers of which one in five is audited."""
    rng = np.random.default_rng(seed)
    labels, confidence = LABELS[rng.choice(3, n, p=shares)].tolist(), rng.beta(sure, 1, n).tolist()
    drawn, is_wrong = (rng.random(n) < 0.2).tolist(), (rng.random(n) < wrong).tolist()
    other = {"negative": "neutral", "neutral": "positive", "positive": "negative"}
    return [
        Answer(label, c, (other[label] if bad else label) if d else None, probability=0.2)
        for label, c, d, bad in zip(labels, confidence, drawn, is_wrong, strict=True)
    ]


def at(ws: Workspace, seconds: float) -> Workspace:
    return replace(ws, clock=lambda: NOON + timedelta(seconds=seconds))


def states(ws: Workspace, version: ModelVersion) -> dict[Any, Any]:
    with ws.store.read() as conn:
        return rows.streams(conn, "tone", [version.id])


def test_many_looks_give_what_one_gives_however_they_were_broken_off(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, web, phone = in_charge(workspace), plant_channel(workspace, "web"), plant_channel(workspace, "phone")
    plant_log(workspace, web, version, answers(1300, EVEN, 1, wrong=0.1) + answers(300, SHIFTED, 2, wrong=0.3))
    plant_log(workspace, phone, version, answers(700, EVEN, 3), start=NOON + timedelta(seconds=0.5))
    for seconds in (1, 70, 71, 900, 901.5, 1400, 1500):
        drift.watch(at(workspace, seconds))
    late = at(workspace, 4000)
    alarms_of_many = {(one.channel, one.stream, one.at) for one in drift.watch(late) + drift.open_alarms(late)}
    many = states(workspace, version)
    with workspace.store.write() as conn:
        for scope in many:
            rows.forget(conn, "tone", scope)
        for one in drift.open_alarms(late):
            rows.change_alarm(conn, one.id, ended_at=NOON)
    monkeypatch.setattr(drift, "_CHUNK", 611)
    alarms_of_one = {(one.channel, one.stream, one.at) for one in drift.watch(late)}
    once = states(workspace, version)
    assert alarms_of_one == alarms_of_many
    assert alarms_of_one
    assert once.keys() == many.keys() == {("", version.id), (web.id, version.id), (phone.id, version.id)}
    for scope, streams in many.items():
        for name, state in streams.items():
            assert once[scope][name] == pytest.approx(state) if name == "?" else True
            _same(once[scope][name], state)


def _same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _same(one[key], other[key])
    elif isinstance(one, list) and one and isinstance(one[0], list):
        for a, b in zip(one, other, strict=True):
            _same(a, b)
    elif isinstance(one, list) and one and isinstance(one[0], float):
        assert one == pytest.approx(other, rel=1e-7, abs=1e-7)
    else:
        assert one == pytest.approx(other) if isinstance(one, float) else one == other
