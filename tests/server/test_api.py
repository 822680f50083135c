"""The HTTP interface of a real server. Catches: another shape, rows out of order, an error without its envelope,
feedback that is taken twice, lost or before its prediction."""

import json
import threading
import time
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.client import Client
from headrace.errors import AlreadyExists, BadInput, HeadraceError, NotFound
from headrace.feedback import intake
from headrace.store import predictions
from headrace.workspace import Workspace
from stub_model import Server

ENVELOPE = {"code", "message", "value", "next_step", "retryable"}
JSON = {"Content-Type": "application/json"}
LABELS = ["negative", "neutral", "positive"]
SOUND = {"task": "tone", "channel": "web", "inputs": [{"text": "positive"}]}


def envelope(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response that must be one."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == ENVELOPE
    return dict(body["error"])


def test_an_answer_has_the_shape_of_the_design(client: Client) -> None:
    answer = client.predict("tone", "web", ["positive", "what"], unit="user-1")
    assert set(answer) == {"predictions", "model_version", "arm", "probability", "adapter", "artifact"}
    assert (answer["model_version"], answer["arm"], answer["adapter"]) == ("tone/1", "control", None)
    first = answer["predictions"][0]
    assert set(first) == {"id", "label", "confidence", "scores"}
    assert first["label"] == "positive"
    assert sum(first["scores"].values()) == pytest.approx(1, abs=1e-5)
    (served,) = client.models()
    assert served["artifact"] == answer["artifact"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 60)), min_size=1, max_size=20))
def test_rows_keep_their_order(client: Client, rows: list[tuple[str, int]]) -> None:
    answer = client.predict("tone", "phone", [f"{label} {'word ' * n}" for label, n in rows])
    assert [row["label"] for row in answer["predictions"]] == [label for label, _ in rows]
    assert len({row["id"] for row in answer["predictions"]}) == len(rows)


def test_a_text_that_fails_has_an_error_and_its_neighbours_an_answer(
    client: Client, served_workspace: Workspace
) -> None:
    rows = client.predict("tone", "web", ["positive", "stub:fail", "stub:nan", "negative"])["predictions"]
    assert [row.get("label") for row in rows] == ["positive", None, None, "negative"]
    assert set(rows[1]) == {"id", "error"}
    assert set(rows[1]["error"]) == ENVELOPE
    client.feedback(rows[3]["id"], comment="wait for the log")
    with served_workspace.store.read() as conn:
        failed = predictions.find(conn, rows[1]["id"])
    assert failed is not None
    assert "told to fail" in str(failed.error)
    assert failed.output == {}


def test_a_request_whose_every_text_fails_is_an_error(served: Server) -> None:
    body = {**SOUND, "inputs": [{"text": "stub:fail"}]}
    assert "model failed" in envelope(httpx.post(f"{served.url}/v1/predict", json=body), 500)["message"]


def test_requests_at_once_do_not_mix(served: Server) -> None:
    wrong: list[object] = []

    def ask(label: str) -> None:
        with Client(served.url) as mine:
            for n in range(10):
                answer = mine.predict("tone", "web", [f"{label} {n}"] * (n + 1))
                wrong.extend(row for row in answer["predictions"] if row["label"] != label)

    threads = [threading.Thread(target=ask, args=(LABELS[i % 3],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_an_answer_does_not_wait_for_the_network_stack(client: Client) -> None:
    seconds = []
    for _ in range(9):
        started_at = time.monotonic()
        client.predict("tone", "web", ["positive"])
        seconds.append(time.monotonic() - started_at)
    assert min(seconds) < 0.03  # Nagle's algorithm against delayed ACKs costs 0.04


def test_the_log_has_what_was_asked_and_answered(client: Client, served_workspace: Workspace) -> None:
    answer = client.predict("tone", "phone", ["positive", "negative"], unit="u")
    client.feedback(answer["predictions"][0]["id"], metric="clicks", value=2)
    with served_workspace.store.read() as conn:
        first = predictions.find(conn, answer["predictions"][0]["id"])
        assert first is not None
        both = predictions.of_request(conn, first.request_id, "control")
    assert [row.text for row in both] == ["positive", "negative"]
    assert [row.id for row in both] == [row["id"] for row in answer["predictions"]]
    assert (first.channel, first.unit, first.arm, first.artifact) == ("phone", "u", "control", answer["artifact"])
    assert first.output["label"] == "positive"
    assert first.latency_ms > 0
    assert first.release_id is None


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"task": "tome"}, 404, "tone"),
        ({"task": "unborn"}, 503, "no model"),
        ({"channel": "wep"}, 404, "'web'"),
        ({"channel": None}, 422, "channel"),
        ({"inputs": []}, 422, "1 to 20"),
        ({"inputs": [{"text": "x"}] * 21}, 422, "1 to 20"),
        ({"inputs": [{"text": " \n"}]}, 422, "inputs[0]"),
        ({"inputs": [{"text": "x"}, {"text": "x" * 501}]}, 422, "inputs[1]"),
        ({"inputs": [{"text": "a\0b"}]}, 422, "NUL"),
        ({"inputs": [{"text": 5}]}, 422, "inputs.0.text"),
        ({"inputs": [{"text": "x", "lang": "en"}]}, 422, "inputs.0.lang"),
        ({"inputs": "x"}, 422, "inputs"),
        ({"unit": "u" * 201}, 422, "unit"),
        ({"temperature": 2}, 422, "temperature"),
    ],
)
def test_every_wrong_predict_request_is_told_what_is_wrong(
    served: Server, change: dict[str, Any], status: int, words: str
) -> None:
    error = envelope(httpx.post(f"{served.url}/v1/predict", json={**SOUND, **change}), status)
    assert words in f"{error['message']} {error['next_step']}"
    assert error["next_step"]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"task": "\xff"}', "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (json.dumps(SOUND).encode(), "text/plain", 422),  # what a page of another site can send without asking
        (b'{"task":"tone","channel":"web","inputs":[{"text":"\\ud800"}]}', "application/json", 422),
        (b" " * (17 * 2**20), "application/json", 413),
    ],
    ids=["broken", "empty", "list", "not-utf8", "deep", "text", "half-surrogate", "too-long"],
)
def test_bodies_that_cannot_be_read_are_refused(served: Server, content: bytes, content_type: str, status: int) -> None:
    response = httpx.post(f"{served.url}/v1/predict", content=content, headers={"Content-Type": content_type})
    assert response.status_code in (status, 400), response.text
    envelope(response, response.status_code)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/feedback"])
def test_errors_before_any_route_have_the_envelope_too(served: Server, path: str) -> None:
    assert envelope(httpx.get(f"{served.url}/v1/predictt"), 404)["code"] == "not_found"
    response = httpx.get(f"{served.url}{path}")
    envelope(response, 405)
    assert response.headers["allow"] == "POST"


def test_feedback_sent_right_after_the_answer_always_finds_it(served: Server) -> None:
    failures: list[HeadraceError] = []

    def ask_and_tell() -> None:
        with Client(served.url) as mine:
            for _ in range(15):
                answer = mine.predict("tone", "web", ["positive", "negative"])
                try:
                    mine.feedback(answer["predictions"][1]["id"], correction="neutral")
                except HeadraceError as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask_and_tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_the_same_feedback_under_the_same_key_is_taken_once(client: Client, served_workspace: Workspace) -> None:
    prediction_id = client.predict("tone", "web", ["positive"])["predictions"][0]["id"]
    first = client.feedback(prediction_id, correction="negative", idempotency_key=f"k-{prediction_id}")
    assert client.feedback(prediction_id, correction=" negative ", idempotency_key=f"k-{prediction_id}") == first
    with pytest.raises(AlreadyExists):
        client.feedback(prediction_id, correction="neutral", idempotency_key=f"k-{prediction_id}")
    with pytest.raises(AlreadyExists):
        intake.give(served_workspace, prediction_id, comment="x", idempotency_key=f"k-{prediction_id}")
    again = intake.give(served_workspace, prediction_id, correction="negative", idempotency_key=f"k-{prediction_id}")
    assert again.id == first
    other = client.feedback(prediction_id, correction="negative")
    with served_workspace.store.read() as conn:
        assert [row.id for row in predictions.feedback_on(conn, prediction_id)] == [first, other]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({}, BadInput, "exactly one"),
        ({"correction": "negative", "comment": "x"}, BadInput, "exactly one"),
        ({"metric": "clicks"}, BadInput, "go together"),
        ({"value": 1.0}, BadInput, "exactly one"),
        ({"comment": "x", "value": 1.0}, BadInput, "go together"),
        ({"metric": "clicks", "value": float("nan")}, BadInput, "finite"),
        ({"metric": "m" * 65, "value": 1.0}, BadInput, "metric"),
        ({"correction": "negativ"}, BadInput, "'negative'"),
        ({"correction": 3.5}, BadInput, "unknown label"),
        ({"comment": "a\0b"}, BadInput, "NUL"),
        ({"comment": " "}, BadInput, "comment"),
        ({"comment": "x", "labeller": ""}, BadInput, "labeller"),
        ({"comment": "x", "idempotency_key": "k" * 201}, BadInput, "idempotency"),
    ],
)
def test_wrong_feedback_is_refused_the_same_way_everywhere(
    client: Client, served_workspace: Workspace, said: dict[str, Any], kind: type[HeadraceError], words: str
) -> None:
    prediction_id = client.predict("tone", "web", ["positive"])["predictions"][0]["id"]
    client.feedback(prediction_id, comment="it is in the log now")
    for give in (client.feedback, lambda id_, **kw: intake.give(served_workspace, id_, **kw)):
        with pytest.raises(kind, match=words) as caught:
            give(prediction_id, **said)
        assert caught.value.next_step
    with served_workspace.store.read() as conn:
        assert len(predictions.feedback_on(conn, prediction_id)) == 1


def test_feedback_for_an_unknown_prediction_is_refused(client: Client, served_workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="prd_0"):
        client.feedback("prd_0", comment="x")
    with pytest.raises(NotFound, match="prd_0"):
        intake.give(served_workspace, "prd_0", comment="x")


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "good"},
        {"value": True},
        {"correction": ["\ud800"]},
        {"correction": {"a\0": 1}},
        {"correction": [float("nan")]},
        {"correction": json.loads("[" * 20 + "]" * 20)},
        {"metric": 5},
        {"prediction_id": "\ud800"},
    ],
)
def test_feedback_bodies_are_closed(served: Server, change: dict[str, Any]) -> None:
    body = {"prediction_id": "prd_0", **change}
    response = httpx.post(f"{served.url}/v1/feedback", content=json.dumps(body), headers=JSON)
    envelope(response, 422)


def test_health_metrics_and_docs(served: Server, client: Client) -> None:
    client.predict("tone", "web", ["positive"])
    assert httpx.get(f"{served.url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{served.url}/v2/health/ready").json() == {"ready": True}
    text = httpx.get(f"{served.url}/metrics").text
    assert 'headrace_predictions_total{arm="control",result="answer",task="tone"}' in text
    assert "headrace_ready 1.0" in text
    assert "headrace_failed_writes_total 0.0" in text
    assert httpx.get(f"{served.url}/docs").status_code == 200
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/feedback", "/v2/health/ready"} <= set(paths)
    assert "ErrorEnvelope" in json.dumps(paths["/v1/predict"]["post"]["responses"]["422"])
