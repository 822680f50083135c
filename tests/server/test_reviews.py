"""Audits and reviews of a running server. Catches: an answer whose chance of an audit is not logged, an error or a
shadow that is audited, a labeller who is told why, an answer taken twice or from two people."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headrace.client import Client
from headrace.errors import BadInput, NotFound, WrongState
from headrace.feedback import auditing, reviews
from headrace.release import releases
from headrace.store import predictions
from headrace.workspace import Workspace, open_workspace
from server.conftest import new_workspace
from stub_model import Server, plant_stub, running

SHARE = 0.5
WAIT_S = 15


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    """A server with a shadow release, half of whose answers are audited."""
    root = new_workspace(tmp_path_factory.mktemp("reviews") / "ws")
    with open_workspace(root) as ws:
        releases.promote(ws, "1", task="tone")
        releases.start(ws, candidate=plant_stub(ws, says_instead={"positive": "negative"}))
    with running(root, plugin_env, feedback__audit_share=SHARE, feedback__review_rows=4) as server:
        with Client(server.url) as client:
            until = time.monotonic() + WAIT_S
            while len(client.models()) < 2:
                assert time.monotonic() < until
                time.sleep(0.02)
            texts = [f"{label} number {i}" for label in ("positive", "neutral") for i in range(10)]
            client.predict("tone", "web", [*texts, "stub:fail"])
        yield server


def logged(ws: Workspace, n: int) -> list[dict[str, Any]]:
    until = time.monotonic() + WAIT_S
    while True:
        with ws.store.read() as conn:
            rows = list(predictions.listing(conn))
        if len(rows) >= n:
            return rows
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_chance_of_an_audit_is_logged_for_answers_to_users_alone(served_workspace: Workspace) -> None:
    rows = logged(served_workspace, 42)
    chances = {(row["arm"], row["error"] is None): row["audit_probability"] for row in rows}
    assert chances == {
        ("control", True): SHARE, ("control", False): None, ("shadow", True): None, ("shadow", False): None,
    }  # fmt: skip


def test_reviews_are_asked_for_answered_once_and_never_explained(
    served: Server, client: Client, served_workspace: Workspace
) -> None:
    rows = logged(served_workspace, 42)
    reviews.fill(served_workspace, "tone")
    drawn = {
        row["id"] for row in rows if auditing.is_drawn(row["id"], row["audit_probability"], salt="headrace")
    }  # fmt: skip
    there = reviews.listing(served_workspace, "tone")
    assert {one.prediction_id for one in there if one.reason == "audit"} == drawn
    disagreeing = {one.prediction_id for one in there if one.reason == "disagreement"}
    text_of = {row["id"]: row["text"] for row in rows}
    assert disagreeing
    assert {text_of[one or ""].split()[0] for one in disagreeing} == {"positive"}
    first, second = client.next_reviews("tone", labeller="ann", n=2)
    assert set(first) == {"id", "task", "channel", "text", "text_pair"}
    assert client.next_reviews("tone", labeller="ann", n=2) == [first, second]
    taken = {"id": first["id"], "state": "answered", "answer": "neutral"}
    assert [client.answer_review(first["id"], "neutral", labeller="ann") for _ in range(2)] == [taken, taken]
    with pytest.raises(WrongState):
        client.answer_review(first["id"], "neutral", labeller="bob")
    assert client.skip_review(second["id"], labeller="ann")["state"] == "skipped"
    assert {first["id"], second["id"]}.isdisjoint(one["id"] for one in client.next_reviews("tone", n=50))
    with served_workspace.store.read() as conn:
        about = next(one.prediction_id for one in there if one.id == first["id"])
        assert [(one.correction, one.labeller) for one in predictions.feedback_on(conn, about or "")] == [
            ("neutral", "ann")
        ]


def test_what_cannot_be_asked_or_answered_is_said(served: Server, client: Client) -> None:
    with pytest.raises(NotFound, match="no such review"):
        client.answer_review("rev_0", "neutral")
    with pytest.raises(NotFound, match="no such channel"):
        client.next_reviews("tone", channel="none")
    with pytest.raises(NotFound, match="no such task"):
        client.next_reviews("none")
    (one,) = client.next_reviews("tone")
    with pytest.raises(BadInput, match="unknown label"):
        client.answer_review(one["id"], "splendid")
    with pytest.raises(BadInput, match="kept for who runs the workspace"):
        client.answer_review(one["id"], "neutral", labeller="owner")
    assert httpx.post(f"{served.url}/v1/reviews/{one['id']}", json={"skip": True, "labeller": None}).status_code == 422
    for body in ({}, {"answer": "neutral", "skip": True}, {"answer": "neutral", "why": 1}):
        assert httpx.post(f"{served.url}/v1/reviews/{one['id']}", json=body).status_code == 422
    assert httpx.get(f"{served.url}/v1/reviews?task=tone&n=1000").status_code == 422
