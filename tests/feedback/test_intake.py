"""Feedback on its way in. Catches: an undeclared or wrongly typed metric that is taken, an event nobody knows, another
channel that learns which predictions there are, feedback that comes too late, a batch in which one keeps others out,
a vote that is lost or counted twice."""

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import AlreadyExists, BadInput, HeadraceError, NotFound, WrongState
from headrace.feedback import intake
from headrace.feedback.labels import to_labels
from headrace.ids import first_id
from headrace.records import Channel, Feedback, ModelVersion
from headrace.store import predictions
from headrace.workspace import Workspace, init, open_workspace, utc_now
from planted import plant_answer, plant_channel, plant_version

METRICS = {
    "feedback.metrics": '{"kept": {}, "stars": {"kind": "number"}, "delay_s": {"kind": "number", "better": "lower"}}'
}
Answered = tuple[Workspace, Channel, ModelVersion]


@pytest.fixture
def answered(tmp_path: Path) -> Any:
    init(tmp_path / "ws", task="tone", labels=("negative", "neutral", "positive")).close()
    with open_workspace(tmp_path / "ws", overrides=METRICS) as ws:
        yield ws, plant_channel(ws, "web"), plant_version(ws)


def answer_in(answered: Answered, text: str = "some text") -> str:
    ws, channel, version = answered
    return plant_answer(ws, channel, version, "positive", text=text)[0]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("kept", True, 1.0), ("kept", False, 0.0), ("kept", 1, 1.0), ("kept", 0.0, 0.0),
        ("stars", 4, 4.0), ("stars", -2.5, -2.5), ("delay_s", 0, 0.0),
    ],
)  # fmt: skip
def test_a_declared_metric_is_kept_as_a_number(answered: Answered, name: str, value: float, kept: float) -> None:
    taken = intake.give(answered[0], answer_in(answered), metric=name, value=value)
    assert (taken.kind, taken.metric, taken.value) == ("metric", name, kept)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("keptt", True, "Did you mean 'kept'"),
        ("zzz", 1, "Known: delay_s, kept, stars"),
        ("kept", 0.5, "true or false"),
        ("kept", 2, "true or false"),
        ("stars", True, "is a number"),
        ("stars", float("inf"), "finite"),
        ("stars", 10**400, "finite"),
    ],
)
def test_a_metric_that_is_not_declared_so_is_refused(answered: Answered, name: str, value: float, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        intake.give(answered[0], answer_in(answered), metric=name, value=value)


def test_without_any_metric_the_error_says_how_to_declare_one(workspace: Workspace) -> None:
    answered = workspace, plant_channel(workspace, "web"), plant_version(workspace)
    with pytest.raises(BadInput, match=r"\[feedback\.metrics\.kept\]"):
        intake.give(workspace, answer_in(answered), metric="kept", value=True)


def test_events_are_those_that_are_known(answered: Answered) -> None:
    ws, name = answered[0], answer_in(answered)
    for event in ("shown", "clicked", "accepted", "edited", "escalated"):
        assert intake.give(ws, name, event=event).event == event
    with pytest.raises(BadInput, match="'accepted'"):
        intake.give(ws, name, event="acepted")
    with ws.store.read() as conn:
        assert [one.event for one in predictions.feedback_on(conn, name)] == list(intake.EVENTS)


def test_another_channel_cannot_tell_a_prediction_from_none(answered: Answered) -> None:
    ws, name = answered[0], answer_in(answered)
    plant_channel(ws, "phone")
    missing = name[:-4] + "ffff"
    said = []
    for prediction_id, channel in ((name, "phone"), (missing, "phone"), (missing, "web"), (name, "nobody")):
        with pytest.raises(NotFound) as caught:
            intake.give(ws, prediction_id, comment="x", channel=channel)
        said.append(str(caught.value).replace(prediction_id, "ID"))
    assert len(set(said)) == 1
    assert intake.give(ws, name, comment="x", channel="web").comment == "x"


def test_feedback_is_taken_for_the_window_and_not_longer(answered: Answered) -> None:
    ws, name = answered[0], answer_in(answered)
    plant_channel(ws, "phone")

    def at(days: float) -> Workspace:
        return dataclasses.replace(ws, clock=lambda: utc_now() + timedelta(days=days))

    assert intake.give(at(29.9), name, correction="neutral").correction == "neutral"
    missing = first_id("prediction", utc_now())
    for prediction_id, channel in ((name, None), (name, "phone"), (missing, None)):
        with pytest.raises(WrongState, match=r"too late.*feedback\.window_days"):
            intake.give(at(30.1), prediction_id, correction="neutral", channel=channel)


def test_a_prediction_that_moved_to_files_is_too_late_too(answered: Answered) -> None:
    ws, name = answered[0], answer_in(answered)
    with ws.store.write() as conn:
        predictions.remove(conn, [name])
    answer_in(answered)  # later than what moved
    with pytest.raises(WrongState, match="too late"):
        intake.give(ws, name, comment="x")
    with pytest.raises(NotFound, match="no such prediction"):
        intake.give(ws, "prd_0", comment="x")
    with pytest.raises(NotFound, match="not in the prediction log"):
        intake.give(ws, name.replace("prd", "unlogged"), comment="x")


def test_of_several_each_is_taken_or_refused_by_itself(answered: Answered) -> None:
    ws, name = answered[0], answer_in(answered)
    said: list[object] = [
        {"prediction_id": name, "correction": "neutral", "labeller": "ann", "idempotency_key": "k"},
        {"prediction_id": name, "correction": "neutrl"},
        {"prediction_id": name, "correction": " neutral ", "labeller": "ann", "idempotency_key": "k"},
        {"prediction_id": name, "comment": "other", "labeller": "ann", "idempotency_key": "k"},
        {"prediction_id": name, "metric": "stars", "value": 5, "channel": None},
        {"prediction_id": name, "coment": "x"},
        {"prediction_id": 3, "comment": "x"},
        {"prediction_id": name, "comment": 3},
        {"prediction_id": name, "metric": "stars", "value": "5"},
        {"prediction_id": name, "correction": {"a": "\ud800"}},
        {"prediction_id": name, "correction": json.loads("[" * 20 + "]" * 20)},
        "negative",
        BadInput("line 13 was no JSON"),
        {"prediction_id": name, "event": "clicked"},
    ]  # fmt: skip
    taken = list(intake.give_all(ws, said))
    kinds = [one.kind if isinstance(one, Feedback) else type(one) for one in taken]
    assert kinds == [
        "correction", BadInput, "correction", AlreadyExists, "metric", *[BadInput] * 8, "event",
    ]  # fmt: skip
    assert taken[0] == taken[2]
    assert all(one.next_step for one in taken[:-2] if isinstance(one, HeadraceError))
    with ws.store.read() as conn:
        kept = {one.id for one in predictions.feedback_on(conn, name)}
    assert kept == {taken[place].id for place in (0, 4, 13)}  # type: ignore[union-attr]
    again = list(intake.give_all(ws, said[:1]))
    assert again == taken[:1]


def test_what_holds_personal_data_is_refused_by_itself_where_a_channel_takes_none(answered: Answered) -> None:
    name = answer_in(answered)
    said = [
        {"prediction_id": name, "comment": "write to ann@example.com"},
        {"prediction_id": name, "comment": "write to nobody"},
    ]
    with open_workspace(answered[0].root, overrides={"privacy.personal": "drop"}) as ws:
        refused, taken = intake.give_all(ws, said)
        with ws.store.read() as conn:
            kept = [one.comment for one in predictions.feedback_on(conn, name)]
    assert isinstance(refused, BadInput)
    assert "ann@" not in str(refused)
    assert refused.value == "e-mail"
    assert isinstance(taken, Feedback)
    assert kept == ["write to nobody"]


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
    | st.fixed_dictionaries(
        {"prediction_id": st.text(max_size=4)},
        optional={"correction": st.text(), "comment": st.text(), "value": st.floats() | st.integers()},
    )
)
def test_whatever_json_says_is_feedback_or_an_error_that_helps(said: object) -> None:
    taken = intake._parsed(said)
    assert isinstance(taken, intake.Given) or (isinstance(taken, BadInput) and taken.next_step)


def test_a_file_is_taken_line_by_line(answered: Answered, tmp_path: Path) -> None:
    ws = answered[0]
    names = [answer_in(answered, text=f"text {n}") for n in range(3)]
    path = tmp_path / "feedback.jsonl"
    lines = [json.dumps({"prediction_id": name, "correction": "neutral"}) for name in names]
    path.write_bytes(f"{lines[0]}\r\n\n{lines[1]}\n{{\n".encode() + b"\xff\n" + lines[2].encode())
    taken = list(intake.give_file(ws, path))
    assert [(number, isinstance(one, Feedback)) for number, one in taken] == [
        (1, True), (3, True), (4, False), (5, False), (6, True),
    ]  # fmt: skip
    assert to_labels(ws, "tone") == 3
    with pytest.raises(NotFound, match=r"gone\.jsonl"):
        list(intake.give_file(ws, tmp_path / "gone.jsonl"))


def test_more_than_a_transaction_holds_comes_in_order(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_GROUP", 7)
    ws, name = answered[0], answer_in(answered)
    said = [{"prediction_id": name, "comment": f"{n}"} if n % 5 else {"prediction_id": name} for n in range(30)]
    taken = list(intake.give_all(ws, said))
    assert [one.comment for one in taken if isinstance(one, Feedback)] == [f"{n}" for n in range(30) if n % 5]
    assert [n for n, one in enumerate(taken) if isinstance(one, BadInput)] == [0, 5, 10, 15, 20, 25]
