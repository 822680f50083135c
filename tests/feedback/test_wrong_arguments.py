"""What a program gives that cannot be. Catches: an error of Python's in place of one that says the problem, the value
and the next step, and a wrong argument that is taken for "there is nothing"."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import headrace
from crowds import Crowd
from headrace.errors import BadInput, HeadraceError, NotFound
from headrace.workspace import Workspace

NAIVE = datetime(2026, 1, 1)
WRONG: dict[str, tuple[Callable[[Workspace, str], Any], type[HeadraceError]]] = {
    "value": (lambda ws, name: headrace.give_feedback(ws, name, metric="kept", value="x"), BadInput),
    "labeller": (lambda ws, name: headrace.give_feedback(ws, name, correction="positive", labeller=5), BadInput),
    "comment": (lambda ws, name: headrace.give_feedback(ws, name, comment=5), BadInput),
    "prediction": (lambda ws, _: headrace.give_feedback(ws, 5, comment="a"), BadInput),
    "many": (lambda ws, _: list(headrace.give_feedback_batch(ws, None)), BadInput),
    "kind": (lambda ws, _: headrace.list_feedback(ws, kind="foo"), BadInput),
    "limit": (lambda ws, _: headrace.list_feedback(ws, limit=-1), BadInput),
    "since": (lambda ws, _: headrace.list_feedback(ws, since=NAIVE), BadInput),
    "summary": (lambda ws, _: headrace.summarise_feedback(ws, since=NAIVE), BadInput),
    "accuracy": (lambda ws, _: headrace.live_accuracy(ws, since=NAIVE), BadInput),
    "next": (lambda ws, _: headrace.next_reviews(ws, n=0), BadInput),
    "next of": (lambda ws, _: headrace.next_reviews(ws, channel="nosuch"), NotFound),
    "listing": (lambda ws, _: headrace.list_reviews(ws, n=-1), BadInput),
    "answer": (lambda ws, _: headrace.answer_review(ws, "rev_0", "positive", 5), BadInput),
    "export": (lambda ws, _: headrace.export_labels(ws, Path(ws.root) / "x.csv", n=-1), BadInput),
    "export of": (lambda ws, _: headrace.export_labels(ws, Path(ws.root) / "x.csv", channel="nosuch"), NotFound),
    "trace": (lambda ws, _: headrace.trace(ws, 5), NotFound),
    "from": (lambda ws, _: headrace.suspend(ws, "web", because="x", since=NAIVE), BadInput),
    "until": (lambda ws, _: headrace.suspend(ws, "web", because="x", until=NAIVE), BadInput),
    "nobody": (lambda ws, _: headrace.suspend(ws, "web", "", because="x"), BadInput),
    "whom": (lambda ws, _: headrace.suspend(ws, "web", "anne", because="x"), NotFound),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    root = tmp_path_factory.mktemp("wrong") / "ws"
    crowd = Crowd(headrace.init(root, task="tone", labels=["negative", "neutral", "positive"]), n_rows=3)
    crowd.say("anna", [("a text", "positive")])
    return crowd.ws, crowd._asked["a text"]


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_with_the_next_step(place: tuple[Workspace, str], name: str) -> None:
    call, error = WRONG[name]
    with pytest.raises(error) as told:
        call(*place)
    assert told.value.next_step
    assert not (Path(place[0].root) / "x.csv").exists()


def test_who_has_spoken_can_be_suspended(place: tuple[Workspace, str]) -> None:
    assert headrace.suspend(place[0], "web", "anna", because="left").labeller == "anna"
