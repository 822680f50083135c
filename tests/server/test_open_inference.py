"""The Open Inference Protocol, with tritonclient and by hand. Catches: a tensor of another name, order, type or shape
than clients of the protocol read, bytes that are cut in the wrong place, a request that names one version and gets
another's answer, a request that is answered without being logged."""

import json
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from conformance.test_tasks import SAMPLES
from headrace.client import Client
from headrace.errors import HeadraceError
from headrace.release import releases
from headrace.server.routes import open_inference
from headrace.store import predictions
from headrace.tasks import TASK_TYPES
from headrace.testing.tasks import perfect_logits
from headrace.workspace import open_workspace
from planted import plant_channel
from stub_model import Server, plant_stub, running

JSON_LENGTH = "Inference-Header-Content-Length"
LABELS = ["negative", "neutral", "positive"]
TABLES = """
[serve]
default_channel = "web"
max_rows = 50
[tasks.tone]
labels = ["negative", "neutral", "positive"]
[tasks.match]
type = "text-pair"
labels = ["no", "yes"]
[tasks.tags]
type = "multi-label"
labels = ["hot", "wet"]
[tasks.talk]
labels = ["calm", "angry"]
input = "turns"
[tasks.unborn]
labels = ["a", "b"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("open") / "ws"
    root.mkdir()
    (root / "headrace.toml").write_text(TABLES, "utf-8")
    with open_workspace(root) as ws:
        for channel in ("web", "phone"):
            plant_channel(ws, channel)
        for task, answer in (("tone", "neutral"), ("match", "no"), ("tags", "hot"), ("talk", "calm")):
            plant_stub(ws, task, answer=answer)
    with running(root, plugin_env) as server:
        yield server


@pytest.fixture(scope="module")
def http(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20) as connected:
        yield connected


@pytest.fixture
def triton(served: Server) -> Iterator[Any]:
    client = pytest.importorskip("tritonclient.http", reason="pip install 'headrace[protocols]'")
    with client.InferenceServerClient(served.url.removeprefix("http://"), network_timeout=20) as connected:
        yield connected


def tensor(texts: list[str], name: str = "text", shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(texts)], "datatype": "BYTES", "data": texts}


def triton_input(texts: list[str], name: str = "text", *, binary: bool = True, shape: list[int] | None = None) -> Any:
    from tritonclient.http import InferInput

    array = np.array(texts, dtype=object).reshape(shape or [len(texts)])
    return InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array, binary_data=binary)


def outputs(response: httpx.Response) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


# with the client of others


def test_tritonclient_finds_server_and_model(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tone")
    assert triton.is_model_ready("tone", "1")
    assert not triton.is_model_ready("tone", "2")
    assert not triton.is_model_ready("unborn")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert triton.get_model_metadata("tone", "1") == {
        "name": "tone",
        "versions": ["1"],
        "platform": "headrace",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "confidence", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "json", "datatype": "BYTES", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_tritonclient_reads_every_output(triton: Any, shape: list[int], binary: bool) -> None:
    texts = ["positive ü €", "what", "negative"]
    given = [triton_input(texts, binary=binary, shape=shape)]
    result = triton.infer("tone", given, request_id="req 7", parameters={"channel": "phone"})
    assert [label.decode() for label in result.as_numpy("label")] == ["positive", "neutral", "negative"]
    scores = result.as_numpy("scores")
    assert scores.shape == (3, 3)
    assert scores.argmax(axis=1).tolist() == [2, 1, 0]
    np.testing.assert_allclose(scores.max(axis=1), result.as_numpy("confidence"))
    rows = [json.loads(one) for one in result.as_numpy("json")]
    assert [row["label"] for row in rows] == ["positive", "neutral", "negative"]
    assert all(row["id"].startswith("prd_") for row in rows)
    head = result.get_response()
    assert (head["id"], head["model_name"], head["model_version"]) == ("req 7", "tone", "1")
    assert head["parameters"]["channel"] == "phone"
    assert head["parameters"]["artifact"].startswith("sha256:")


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_gets_the_outputs_it_asks_for(triton: Any, binary: bool) -> None:
    from tritonclient.http import InferRequestedOutput

    wanted = [InferRequestedOutput("scores", binary_data=binary), InferRequestedOutput("label", binary_data=not binary)]
    result = triton.infer("tone", [triton_input(["positive"])], outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["scores", "label"]
    assert result.as_numpy("scores").argmax() == 2
    (label,) = result.as_numpy("label")
    assert (label if binary else label.decode()) == "positive"


def test_tritonclient_asks_with_pairs(triton: Any) -> None:
    given = [triton_input(["yes?", "a"], "text_pair"), triton_input(["b", "c"], "text")]
    assert triton.infer("match", given).as_numpy("label").tolist() == [b"yes", b"no"]


def test_tritonclient_says_how_long_it_waits(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    started_at = time.monotonic()
    with pytest.raises(InferenceServerException) as caught:
        triton.infer("tone", [triton_input(["stub:slow"])], timeout=100_000)
    assert caught.value.status() == "504"
    assert time.monotonic() - started_at < 0.5
    assert triton.infer("tone", [triton_input(["positive"])], timeout=9_000_000).as_numpy("label") == [b"positive"]


def test_tritonclient_is_told_what_is_wrong(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    for model, version, options, words in [
        ("tome", "", {}, "tone"),
        ("tone", "2", {}, "not in charge"),
        ("tone", "", {"parameters": {"channel": "webb"}}, "web"),
        ("tone", "", {"parameters": {"chanel": "web"}}, "chanel"),
        ("tone", "", {"priority": 2}, "priority"),
    ]:
        with pytest.raises(InferenceServerException, match=words):
            triton.infer(model, [triton_input(["positive"])], model_version=version, **options)


def test_tritonclient_is_told_of_addresses_that_are_none(triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    for ask in (triton.get_model_repository_index, triton.get_log_settings, partial(triton.load_model, "tone")):
        with pytest.raises(InferenceServerException, match="no such address"):
            ask()


# by hand


@pytest.mark.parametrize("data", [["positive", "negative"], [["positive"], ["negative"]]])
def test_json_alone_gives_json_alone(http: httpx.Client, data: list[Any]) -> None:
    body = {"inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": data}]}
    response = http.post("/v2/models/tone/versions/1/infer", json=body)
    found = outputs(response)
    assert list(found) == ["label", "confidence", "scores", "json"]
    assert found["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["positive", "negative"]}
    assert found["scores"]["shape"] == [2, 3]
    assert "id" not in response.json()
    assert JSON_LENGTH not in response.headers


def test_several_labels_have_scores_and_a_json(http: httpx.Client) -> None:
    found = outputs(http.post("/v2/models/tags/infer", json={"inputs": [tensor(["wet"])]}))
    assert list(found) == ["scores", "json"]
    assert found["scores"]["data"] == pytest.approx([0.5, 0.9933], abs=1e-3)
    assert json.loads(found["json"]["data"][0])["labels"] == ["hot", "wet"]


def test_a_text_of_a_conversation_is_one_turn(http: httpx.Client) -> None:
    found = outputs(http.post("/v2/models/talk/infer", json={"inputs": [tensor(["angry"])]}))
    assert found["label"]["data"] == ["angry"]


def test_a_request_is_logged_and_counted_as_any_other(served: Server, http: httpx.Client) -> None:
    def n_counted() -> float:
        lines = http.get("/metrics").text.splitlines()
        told = [line for line in lines if line.startswith('headrace_predictions_total{arm="control",result="answer"')]
        return sum(float(line.split()[-1]) for line in told if 'task="tone"' in line)

    before = n_counted()
    body = {"inputs": [tensor(["positive"])], "parameters": {"channel": "phone", "unit": "u-1"}}
    row = json.loads(outputs(http.post("/v2/models/tone/infer", json=body))["json"]["data"][0])
    with Client(served.url) as client:
        client.feedback(row["id"], correction="negative")
    with open_workspace(served.root) as ws, ws.store.read() as conn:
        logged = predictions.find(conn, row["id"])
    assert logged is not None
    assert (logged.channel, logged.unit, logged.output["label"]) == ("phone", "u-1", "positive")
    assert n_counted() == before + 1


def test_a_row_that_fails_fails_the_request_unless_only_json_is_wanted(http: httpx.Client) -> None:
    body: dict[str, Any] = {"inputs": [tensor(["positive", "stub:fail"])]}
    response = http.post("/v2/models/tone/infer", json=body)
    assert response.status_code == 500
    assert "row 1: " in response.json()["error"]
    rows = outputs(http.post("/v2/models/tone/infer", json={**body, "outputs": [{"name": "json"}]}))["json"]["data"]
    assert json.loads(rows[0])["label"] == "positive"
    assert "model failed" in json.loads(rows[1])["error"]["message"]


def binary(texts: list[bytes], *, size: int | None = None, behind: bytes = b"", **facts: Any) -> dict[str, Any]:
    """Arguments of a post with one input as bytes."""
    raw = b"".join(struct.pack("<I", len(text)) + text for text in texts) + behind
    parameters = {"binary_data_size": len(raw) if size is None else size}
    one = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "parameters": parameters, **facts}
    head = json.dumps({"inputs": [one]}).encode()
    return {"content": head + raw, "headers": {JSON_LENGTH: str(len(head))}}


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (binary([b"a", b"\xff"]), "UTF-8"),
        (binary([b"a"], behind=b"\x09\0\0\0abc"), "ends within a text"),
        (binary([b"a"], behind=b"\x09\0"), "ends within a text"),
        (binary([b"a"], behind=b"\xff\xff\xff\xff"), "ends within a text"),
        (binary([b"a"], size=99), "fewer bytes"),
        (binary([b"a"], size=0), "has 0 texts"),
        (binary([b"a"], size=-1), "binary_data_size"),
        (binary([b"a", b"b"], shape=[2], size=5), "has 1 texts"),
        (binary([b"a"], data=["a"]), "both"),
        (binary([b"a\0b"]), "NUL"),
        ({**binary([b"a"]), "headers": {}}, "JSON"),
        ({**binary([b"a"]), "headers": {JSON_LENGTH: "9999"}}, JSON_LENGTH),
        ({**binary([b"a"]), "headers": {JSON_LENGTH: "-1"}}, JSON_LENGTH),
        ({**binary([b"a"]), "headers": {JSON_LENGTH: "9" * 5000}}, JSON_LENGTH),
        ({"json": {"inputs": []}}, "not the inputs"),
        ({"json": {"inputs": [tensor(["a"]), tensor(["a"])]}}, "twice"),
        ({"json": {"inputs": [tensor(["a"], "txt")]}}, "text"),
        ({"json": {"inputs": [tensor(["a"]), tensor(["b"], "text_pair")]}}, "text"),
        ({"json": {"inputs": [tensor([])]}}, "1 to 50"),
        ({"json": {"inputs": [tensor(["a"] * 51)]}}, "1 to 50"),
        ({"json": {"inputs": [tensor([""])]}}, "empty"),
        ({"json": {"inputs": [tensor(["a"], shape=[2])]}}, "shape"),
        ({"json": {"inputs": [tensor(["a"], shape=[1, 1, 1])]}}, "shape"),
        ({"json": {"inputs": [tensor(["a"], shape=[-1])]}}, "shape"),
        ({"json": {"inputs": [tensor(["a"], shape=[10**30])]}}, "shape"),
        ({"json": {"inputs": [{**tensor(["a"]), "datatype": "FP32"}]}}, "BYTES"),
        ({"json": {"inputs": [{**tensor(["a"]), "data": [1]}]}}, "not a text"),
        ({"json": {"inputs": [{**tensor(["a"]), "data": [[["a"]]]}]}}, "not a text"),
        ({"json": {"inputs": [{**tensor(["a"]), "data": None}]}}, "no data"),
        ({"json": {"inputs": [{**tensor(["a"]), "parameters": {"shared_memory_region": "x"}}]}}, "shared_memory"),
        ({"json": {"inputs": [tensor(["a"])], "outputs": [{"name": "lable"}]}}, "label"),
        ({"json": {"inputs": [tensor(["a"])], "outputs": [{"name": "label", "parameters": {"classification": 2}}]}},
         "classification"),
        ({"json": {"inputs": [tensor(["a"])], "parameters": {"unit": "u" * 201}}}, "unit"),
        ({"content": "[" * 100_000}, "too deep"),
        ({"content": b"\xff"}, "UTF-8"),
        ({"content": ""}, "JSON"),
        ({"content": "[]"}, "the body"),
        ({"content": '{"inputs": [], "inputs": []}'}, "same key twice"),
        ({"content": '{"inputs": [], "parameters": {"timeout": NaN}}'}, "NaN"),
        ({"json": {"inputs": [tensor(["a"])], "parameters": {"timeout": 0}}}, "timeout"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_an_error_of_the_protocol(http: httpx.Client, sent: dict[str, Any], words: str) -> None:
    response = http.post("/v2/models/tone/infer", **sent)
    assert response.status_code == 422, response.text
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/models/tome", 404, "tone"),
        ("GET", "/v2/models/tone/versions/7", 404, "tone/1 is"),
        ("GET", "/v2/models/tone/versions/01/ready", 404, "tone/1 is"),
        ("GET", "/v2/models/unborn/ready", 503, "no model"),
        ("GET", "/v2/models/unborn", 503, "no model"),
        ("GET", "/v2/models/tone/infer", 405, ""),
        ("GET", "/v2/models/tone/odd", 404, ""),
        ("POST", "/v2/repository/index", 404, "no such address"),
    ],
)
def test_addresses_that_lead_nowhere(http: httpx.Client, method: str, path: str, status: int, words: str) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    assert words in response.json()["error"]
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"x" * (17 * 2**20)}, 413),
        ({"content": b"{}", "headers": {"Content-Encoding": "gzip"}}, 415),
        ({"content": b"{}", "headers": {"X-Request-Timeout-Ms": "soon"}}, 422),
    ],
)
def test_what_is_refused_before_a_route_is_asked_has_the_form_too(
    http: httpx.Client, sent: dict[str, Any], status: int
) -> None:
    for path, keys in (("/v2/models/tone/infer", {"error"}), ("/predict", {"error", "error_type"})):
        response = http.post(path, **sent)
        assert response.status_code == status
        assert set(response.json()) == keys


@pytest.mark.slow
def test_without_a_channel_the_only_one_is_meant_and_a_promoted_version_is_the_one_to_name(
    tmp_path: Path, plugin_env: dict[str, str]
) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "headrace.toml").write_text('[tasks.tone]\nlabels = ["a", "neutral"]\n', "utf-8")
    body = {"inputs": [tensor(["a"])]}
    with open_workspace(root) as ws:
        plant_stub(ws)
        with running(root, plugin_env) as server, httpx.Client(base_url=server.url, timeout=20) as http:
            none_yet = http.post("/v2/models/tone/infer", json=body)
            assert none_yet.status_code == 422
            assert "serve.default_channel" in none_yet.json()["error"]
            plant_channel(ws, "web")
            one = http.post("/v2/models/tone/versions/1/infer", json=body)
            assert one.json()["parameters"]["channel"] == "web"
            plant_channel(ws, "phone")
            unclear = http.post("/v2/models/tone/infer", json=body)
            assert "phone, web" in unclear.json()["error"]
            plant_stub(ws)
            releases.promote(ws, "2", actor="test", reason="test")
            body["parameters"] = {"channel": "web"}  # type: ignore[assignment]
            until = time.monotonic() + 20
            while http.post("/v2/models/tone/versions/2/infer", json=body).status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert http.post("/v2/models/tone/versions/1/infer", json=body).status_code == 404
            assert http.get("/v2/models/tone").json()["versions"] == ["2"]


# without a server


@pytest.mark.parametrize("name", TASK_TYPES.names())
def test_every_task_type_has_its_answers_as_tensors(name: str) -> None:
    sample = SAMPLES[name]
    task_type = TASK_TYPES.get(name)(sample.settings)
    given = sample.inputs or [None] * len(sample.good)
    targets = [task_type.parse_label(raw, one) for raw, one in zip(sample.good, given, strict=True)]
    logits = perfect_logits(task_type, targets) if sample.perfect is None else sample.perfect(task_type, given, targets)
    answers = [{"id": f"prd_{n}", **output} for n, output in enumerate(task_type.decode(logits))]
    names = open_inference.output_names(task_type)
    assert names[-1] == "json"
    assert len(names) > 1 or task_type.problem in ("token_classification", "question_answering")
    for output in names:
        made = open_inference.tensor_of(output, answers, task_type)
        assert len(made.values) == np.prod(made.shape)
        assert made.shape[0] == len(answers)
        assert all(isinstance(value, str if made.datatype == "BYTES" else float) for value in made.values)
    failed = [{"id": "prd_9", "error": {"message": "m", "value": None, "next_step": ""}}]
    for output in names[:-1]:
        with pytest.raises(HeadraceError):
            open_inference.tensor_of(output, failed, task_type)
