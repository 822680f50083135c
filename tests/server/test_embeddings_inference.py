"""POST /predict and GET /info as text-embeddings-inference has them. Catches: scores out of order, a batch in the
shape of a single text, a pair taken for two texts, a request that is answered without being logged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conformance.test_tasks import SAMPLES
from headrace.errors import HeadraceError
from headrace.server.routes import embeddings_inference
from headrace.tasks import TASK_TYPES
from headrace.testing.tasks import perfect_logits
from headrace.workspace import open_workspace
from planted import plant_channel
from stub_model import Server, plant_stub, running

TABLES = """
[serve]
default_task = "tone"
default_channel = "web"
max_rows = 20
[tasks.tone]
labels = ["negative", "neutral", "positive"]
max_tokens = 32
[tasks.match]
type = "text-pair"
labels = ["no", "yes"]
[tasks.unborn]
labels = ["a", "b"]
"""


def a_workspace(root: Path) -> Path:
    root.mkdir()
    (root / "headrace.toml").write_text(TABLES, "utf-8")
    with open_workspace(root) as ws:
        for channel in ("web", "phone"):
            plant_channel(ws, channel)
        plant_stub(ws, "tone")
        plant_stub(ws, "match", answer="no")
    return root


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    with running(a_workspace(tmp_path_factory.mktemp("tei") / "ws"), plugin_env) as server:
        yield server


@pytest.fixture(scope="module")
def http(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20) as connected:
        yield connected


def first_labels(answer: list[Any]) -> list[str]:
    return [row[0]["label"] for row in answer]


@pytest.mark.parametrize("inputs", ["positive", ["positive"]])
def test_one_text_has_one_list_of_all_labels_the_surest_first(http: httpx.Client, inputs: Any) -> None:
    answer = http.post("/predict", json={"inputs": inputs}).json()
    assert answer[0]["label"] == "positive"
    assert {row["label"] for row in answer} == {"negative", "neutral", "positive"}
    assert [set(row) for row in answer] == [{"score", "label"}] * 3
    scores = [row["score"] for row in answer]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_a_batch_has_a_list_for_each_text_in_order(http: httpx.Client) -> None:
    answer = http.post("/predict", json={"inputs": [["positive"], ["negative"], ["so"]]}).json()
    assert first_labels(answer) == ["positive", "negative", "neutral"]
    assert len(http.post("/predict", json={"inputs": [["positive"]]}).json()) == 1


def test_it_is_answered_and_counted_as_any_other_request(http: httpx.Client) -> None:
    def n_counted() -> float:
        lines = http.get("/metrics").text.splitlines()
        told = [line for line in lines if line.startswith("headrace_predictions_total{") and 'task="tone"' in line]
        return sum(float(line.split()[-1]) for line in told if 'result="answer"' in line)

    before = n_counted()
    headers = {"X-Headrace-Channel": "phone", "X-Headrace-Unit": "u-1"}
    http.post("/predict", json={"inputs": [["positive"]] * 4}, headers=headers)
    assert n_counted() == before + 4
    wrong = http.post("/predict", json={"inputs": "positive"}, headers={"X-Headrace-Channel": "phon"})
    assert wrong.status_code == 404
    assert "phone" in wrong.json()["error"]


def test_its_probe_is_answered(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200


def test_info_names_labels_and_limits(http: httpx.Client) -> None:
    told = http.get("/info").json()
    assert told["model_id"] == "tone/1"
    assert told["model_sha"].startswith("sha256:")
    assert told["model_type"]["classifier"]["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert told["model_type"]["classifier"]["label2id"]["positive"] == 2
    assert (told["max_input_length"], told["max_client_batch_size"], told["auto_truncate"]) == (32, 20, True)


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({}, 422, "Validation", "inputs"),
        ({"inputs": []}, 422, "Validation", "batch"),
        ({"inputs": [[]]}, 422, "Validation", "batch"),
        ({"inputs": ["a", "b"]}, 422, "Validation", "batch"),
        ({"inputs": ["a", "b", "c"]}, 422, "Validation", "batch"),
        ({"inputs": [["a"], "b"]}, 422, "Validation", "batch"),
        ({"inputs": [["a"], [["b"]]]}, 422, "Validation", "batch"),
        ({"inputs": [["a"], ["b", "c"]]}, 422, "Validation", "inputs[1]"),
        ({"inputs": {"text": "a"}}, 422, "Validation", "batch"),
        ({"inputs": 7}, 422, "Validation", "batch"),
        ({"inputs": None}, 422, "Validation", "batch"),
        ({"inputs": ""}, 422, "Validation", "empty"),
        ({"inputs": "a\0"}, 422, "Validation", "NUL"),
        ({"inputs": [["a"]] * 21}, 422, "Validation", "1 to 20"),
        ({"inputs": "a", "raw_scores": True}, 422, "Validation", "raw"),
        ({"inputs": "a", "truncation_direction": "left"}, 422, "Validation", "truncation_direction"),
        ({"inputs": "a" * 40, "truncate": False}, 422, "Validation", "32 tokens"),
        ({"inputs": "a", "top_k": 1}, 422, "Validation", "top_k"),
        ({"inputs": "stub:fail"}, 424, "Backend", "model failed"),
        ({"inputs": [["positive"], ["stub:fail"]]}, 424, "Backend", "model failed"),
    ],
)
def test_errors_have_the_form_of_the_protocol(
    http: httpx.Client, body: dict[str, Any], status: int, kind: str, words: str
) -> None:
    response = http.post("/predict", json=body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "error_type"}
    assert response.json()["error_type"] == kind
    assert words in response.json()["error"]


@pytest.mark.parametrize("body", [{"truncate": True}, {"truncate": False}, {"raw_scores": False}, {"truncate": None}])
def test_what_others_send_by_default_is_taken(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post("/predict", json={"inputs": "positive", **body}).json()[0]["label"] == "positive"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_none_has_the_form_too(http: httpx.Client, content: bytes) -> None:
    response = http.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error_type"] == "Validation"
    assert http.get("/predict").json()["error_type"] == "Validation"


@pytest.mark.slow
def test_pairs_and_an_unclear_task_and_one_without_a_model(tmp_path: Path, plugin_env: dict[str, str]) -> None:
    root = a_workspace(tmp_path / "ws")
    with (
        running(root, plugin_env, serve__default_task="match") as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        pairs = [["is it?", "yes"], ["is it?", "who knows"]]
        assert first_labels(http.post("/predict", json={"inputs": pairs}).json()) == ["yes", "no"]
        assert http.post("/predict", json={"inputs": pairs[0]}).json()[0]["label"] == "yes"
        assert http.post("/predict", json={"inputs": "alone"}).status_code == 422
    with running(root, plugin_env, serve__default_task="") as server:
        unclear = httpx.post(f"{server.url}/predict", json={"inputs": "a"}, timeout=20)
    assert unclear.status_code == 422
    assert "match, tone, unborn" in unclear.json()["error"]
    assert "serve.default_task" in unclear.json()["error"]
    with running(root, plugin_env, serve__default_task="unborn") as server:
        busy = httpx.post(f"{server.url}/predict", json={"inputs": "a"}, timeout=20)
    assert (busy.status_code, busy.json()["error_type"]) == (429, "Overloaded")
    assert "retry-after" in busy.headers


# without a server


@pytest.mark.parametrize("name", TASK_TYPES.names())
def test_every_task_type_has_scores_or_says_that_it_has_none(name: str) -> None:
    sample = SAMPLES[name]
    task_type = TASK_TYPES.get(name)(sample.settings)
    if task_type.problem in ("token_classification", "question_answering"):
        with pytest.raises(HeadraceError, match="no scores"):
            embeddings_inference.check_scoring(task_type)
        return
    embeddings_inference.check_scoring(task_type)
    targets = [task_type.parse_label(raw) for raw in sample.good]
    for output in task_type.decode(perfect_logits(task_type, targets)):
        scores = embeddings_inference.scores_of(output)
        assert [set(one) for one in scores] == [{"score", "label"}] * len(scores)
        assert scores == sorted(scores, key=lambda one: -one["score"])
        assert scores[0]["label"] in task_type.output_names
