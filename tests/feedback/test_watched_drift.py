"""Drift out of the store. Catches: looks that give something else when they come more often or are broken off, two that
look at once and count twice, alarms while nothing changes, a change that is missed or put into the wrong channel, "not
affected" without audits, alarms that outlive their version, a reference that follows the change, states that grow.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audited import Answer, plant_log
from headrace import watching
from headrace.errors import NotFound
from headrace.feedback import drift
from headrace.feedback.panels import Stream, class_of, number_of
from headrace.records import Channel, ModelVersion
from headrace.release import controls
from headrace.releasing import starting as releasing
from headrace.store import drift as rows
from headrace.workspace import Workspace
from planted import NOON, plant_channel, plant_evaluation, plant_version

LABELS = np.array(["negative", "neutral", "positive"])
EVEN, SHIFTED = [0.4, 0.4, 0.2], [0.15, 0.25, 0.6]
HELD_OUT = {"estimate": 0.907, "low": 0.9, "high": 0.914}


def in_charge(ws: Workspace, *, at: datetime = NOON) -> ModelVersion:
    version = plant_version(ws)
    plant_evaluation(ws, version, {"overall": {"intervals": {"accuracy": HELD_OUT}}})
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


def two_channels(ws: Workspace) -> tuple[ModelVersion, Channel, Channel]:
    return in_charge(ws), plant_channel(ws, "web"), plant_channel(ws, "phone")


def test_two_looks_at_once_count_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version, web = in_charge(workspace), plant_channel(workspace, "web")
    plant_log(workspace, web, version, answers(500, EVEN, 1))
    late, write = at(workspace, 1000), drift._write

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(drift, "_write", write)
        drift.watch(late)  # another process, faster
        return write(*args)

    monkeypatch.setattr(drift, "_write", overtaken)
    drift.watch(late)
    assert len(states(workspace, version)["", version.id]["classes"]["gathered"]) == 500
    drift.watch(late)
    assert len(states(workspace, version)["", version.id]["classes"]["gathered"]) == 500


def test_answers_of_the_last_minute_wait_for_those_that_are_logged_late(workspace: Workspace) -> None:
    version, web = in_charge(workspace), plant_channel(workspace, "web")
    plant_log(workspace, web, version, answers(100, EVEN, 1))
    drift.watch(at(workspace, 100))
    assert len(states(workspace, version)["", version.id]["classes"]["gathered"]) == 40


def test_while_nothing_changes_nothing_is_said(workspace: Workspace) -> None:
    version, web, phone = two_channels(workspace)
    plant_log(workspace, web, version, answers(6000, EVEN, 1, wrong=0.1))
    plant_log(workspace, phone, version, answers(3000, SHIFTED, 2, wrong=0.1), every_s=2.0)
    assert drift.watch(at(workspace, 90_000)) == []
    found = drift.standing(workspace)
    assert [one["channel"] for one in found["watched"]] == [None, "phone", "web"]
    assert found["watched"][0]["streams"]["classes"] == {"n_answers": 8000, "n_gathered": 0, "is_watched": True}


def test_a_change_in_one_channel_is_found_there_with_what_and_since_when(workspace: Workspace) -> None:
    version, web, phone = two_channels(workspace)
    plant_log(workspace, phone, version, answers(2600, EVEN, 2))
    plant_log(workspace, web, version, answers(2000, EVEN, 1))
    changed_at = NOON + timedelta(seconds=2000)
    plant_log(workspace, web, version, answers(600, SHIFTED, 3), start=changed_at)
    raised = drift.watch(at(workspace, 9000))
    assert {(one.channel, one.stream) for one in raised} == {("web", "classes"), (None, "classes")}
    alarm = next(one for one in raised if one.channel == "web")
    assert timedelta(0) < alarm.at - changed_at < timedelta(seconds=150)
    first, *_ = alarm.evidence["changes"]
    assert first["what"] == "positive"
    assert first["now"]["low"] > 0.4 > 0.25 > first["before"]
    since = datetime.fromisoformat(alarm.evidence["since"])
    assert abs(since - changed_at) < timedelta(seconds=60)
    assert "channel web since 2026-03-01 12:3" in alarm.in_words
    assert drift.watch(at(workspace, 9100)) == []  # said once
    assert len(drift.open_alarms(workspace)) == 2


@pytest.mark.parametrize(
    ("n_audited", "wrong", "said"), [(0, 0.0, "not known"), (1900, 0.09, "not affected"), (300, 0.4, "affected")]
)
def test_audits_alone_say_whether_accuracy_is_affected(
    workspace: Workspace, n_audited: int, wrong: float, said: str
) -> None:
    # Confidences stay what they were in all three.
    version, web = in_charge(workspace), plant_channel(workspace, "web")
    plant_log(workspace, web, version, answers(1100, EVEN, 1, wrong=0.09), every_s=0.5)
    shifted = [replace(one, truth=None) for one in answers(2000, SHIFTED, 2)]
    others = {"negative": "neutral", "neutral": "positive", "positive": "negative"}
    for place in range(n_audited):
        label = shifted[place].label
        shifted[place] = replace(shifted[place], truth=others[label] if place % 100 < 100 * wrong else label)
    plant_log(workspace, web, version, shifted, start=NOON + timedelta(seconds=550), every_s=0.5)
    drift.watch(at(workspace, 9000))
    alarm = next(one for one in drift.open_alarms(workspace) if one.stream == "classes")
    effect = alarm.evidence["effect"]
    assert effect["accuracy"] == said
    assert alarm.touches_accuracy == (said == "affected")
    assert (effect["n_more"] > 0) == (said == "not known")


def test_more_wrong_answers_are_an_alarm_of_their_own(workspace: Workspace) -> None:
    version, web = in_charge(workspace), plant_channel(workspace, "web")
    plant_log(workspace, web, version, answers(1500, EVEN, 1, wrong=0.09))
    assert drift.watch(at(workspace, 1560)) == []
    plant_log(workspace, web, version, answers(1500, EVEN, 2, wrong=0.4), start=NOON + timedelta(seconds=1600))
    (alarm,) = drift.watch(at(workspace, 9000))
    assert (alarm.channel, alarm.stream, alarm.touches_accuracy) == (None, "errors", True)
    change = alarm.evidence["changes"][0]
    assert change["what"] == "wrong answers"
    assert change["now"]["low"] > change["before"] == pytest.approx(0.1)


def test_where_held_out_rows_say_nothing_the_first_audits_say_what_is_usual(workspace: Workspace) -> None:
    version = plant_version(workspace)
    controls.ensure_control(replace(workspace, clock=lambda: NOON))
    web = plant_channel(workspace, "web")
    plant_log(workspace, web, version, answers(1200, EVEN, 1, wrong=0.2))
    drift.watch(at(workspace, 9000))
    kept = states(workspace, version)["", version.id]["errors"]
    assert 0.2 < kept["detector"]["allowed_share"] < 0.3


def test_alarms_end_with_their_version_or_when_they_are_accepted(workspace: Workspace) -> None:
    version, web = in_charge(workspace), plant_channel(workspace, "web")
    plant_log(workspace, web, version, answers(1200, EVEN, 1))
    plant_log(workspace, web, version, answers(400, SHIFTED, 2), start=NOON + timedelta(seconds=1200))
    assert len(drift.watch(at(workspace, 1700))) == 1
    (ended,) = drift.accept(at(workspace, 1700))
    assert ended.ended_at == NOON + timedelta(seconds=1700)
    plant_log(workspace, web, version, answers(1500, SHIFTED, 3), start=NOON + timedelta(seconds=1700))
    assert drift.watch(at(workspace, 3300)) == []  # what was a change is the reference
    plant_log(workspace, web, version, answers(300, EVEN, 4), start=NOON + timedelta(seconds=3300))
    assert len(drift.watch(at(workspace, 3700))) == 1
    later = in_charge(workspace)
    releasing.promote(at(workspace, 4000), str(later.number), reason="by hand")
    plant_log(workspace, web, later, answers(50, EVEN, 5), start=NOON + timedelta(seconds=4001))
    assert drift.watch(at(workspace, 4200)) == []
    assert drift.open_alarms(workspace) == []
    found = drift.standing(workspace)
    assert [one["version"] for one in found["watched"]] == [later.name, later.name]
    assert len(found["ended"]) == 2


@given(st.integers(0, 10**6), st.lists(st.integers(1, 1500), min_size=1, max_size=4), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_stream_is_the_same_however_it_is_cut_and_kept(seed: int, cuts: list[int], is_number: bool) -> None:
    rng = np.random.default_rng(seed)
    n = 1600
    values: list[Any] = rng.random(n).round(3).tolist() if is_number else [f"c{k}" for k in rng.integers(0, 30, n)]
    values[1400:] = [0.99 if is_number else "c7"] * 200
    whole, crossed = Stream().after(values, 11.0)
    one, places, start = Stream(), list[int](), 0
    for stop in (*sorted(cuts), n):
        one, place = Stream.of(json.loads(json.dumps(one.state()))).after(values[start:stop], 11.0)
        places += [] if place is None else [start + place]
        start = max(start, stop)
    assert crossed is not None
    assert places[0] == crossed
    assert one.names == whole.names
    assert one.edges == whole.edges
    assert one.detector is not None
    assert whole.detector is not None
    assert one.detector.log_r == pytest.approx(whole.detector.log_r, rel=1e-6)
    assert (one.detector.since == whole.detector.since).all()


def test_thousands_of_different_answers_are_few_categories() -> None:
    stream, _ = Stream().after([f"entry {k % 3000}" for k in range(5000)], 99.0)
    assert len(stream.names) == 51
    assert stream.names[-1] == "other"
    assert stream.detector is not None
    assert stream.detector.n == 5000 - 51 * 50  # those of the reference: 50 for each category


@pytest.mark.parametrize(
    ("output", "name", "number"),
    [
        ({"label": "a", "confidence": 0.7, "scores": {}}, "a", 0.7),
        ({"labels": ["b", "a"], "scores": {"a": 0.9, "b": 0.8}}, "a + b", 0.72),
        ({"labels": [], "scores": {"a": 0.1}}, "nothing", 0.9),
        ({"entities": [{"label": "PER", "confidence": 0.6}]}, "PER", 0.6),
        ({"entities": []}, "nothing", None),
        ({"answer": "x", "start": 0, "confidence": 0.4}, "an answer", 0.4),
        ({"value": 2.5}, None, 2.5),
        ({"label": "e1", "score": 0.3, "hits": []}, "e1", 0.3),
    ],
)
def test_answers_of_every_task_type_have_something_to_watch(
    output: dict[str, Any], name: str | None, number: float | None
) -> None:
    assert class_of(output) == name
    assert number_of(output) == (None if number is None else pytest.approx(number))


def test_blocks_of_inputs_that_are_not_like_the_reference_alarm(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, web = in_charge(workspace), plant_channel(workspace, "web")
    rng = np.random.default_rng(1)
    moved = 0.0

    def embed(_: str, texts: Sequence[str], *__: object) -> np.ndarray:
        return rng.normal(size=(len(texts), 16)) + moved

    def missing(*_: object) -> None:
        raise NotFound("no such base model", value="x")

    monkeypatch.setattr(watching, "resolve", lambda *_, **__: embed)
    monkeypatch.setattr(watching, "find_spec", lambda _: object())
    monkeypatch.setattr(watching, "N_BETWEEN", 300)
    said = []
    for step in range(8):
        moved = 1.0 if step > 4 else 0.0
        start = NOON + timedelta(seconds=600 * step)
        plant_log(workspace, web, version, answers(600, EVEN, step), start=start)
        found = watching.watch(replace(workspace, clock=lambda start=start: start + timedelta(seconds=700)))
        said.append([one.stream for one in found.alarms])
    assert said[:5] == [[]] * 5
    assert ["embeddings"] in said[5:]
    assert found.left_out == ""
    monkeypatch.setattr(watching, "N_BETWEEN", 0)
    monkeypatch.setattr(watching, "_judged", missing)
    assert "no such base model" in watching.watch(at(workspace, 9000)).left_out
    monkeypatch.setattr(watching, "find_spec", lambda _: None)
    assert "headrace[train]" in watching.watch(at(workspace, 9000)).left_out
