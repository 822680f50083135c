"""Pairs and conversations through a real server and back as labels. Catches: a part that is dropped on the way, a shape
of another task that is taken, a log that keeps texts it must not, a correction joined to half of its input."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.client import Client
from headrace.errors import BadInput
from headrace.feedback.labels import to_labels
from headrace.records import Prediction
from headrace.store import examples, predictions
from headrace.tasks.inputs import text_hash
from headrace.workspace import open_workspace
from planted import plant_channel
from stub_model import Server, plant_stub, running

TABLES = """
[tasks.match]
type = "text-pair"
labels = ["no", "yes"]
[tasks.talk]
labels = ["calm", "angry"]
input = "turns"
[tasks.tags]
type = "multi-label"
labels = ["hot", "wet"]
"""
PAIR = {"text": "is it?", "text_pair": "yes"}
TALK = [{"role": "User", "text": "angry\nagent: calm"}]


def a_workspace(root: Path, log: Path) -> Path:
    root.mkdir()
    (root / "headrace.toml").write_text(TABLES, "utf-8")
    with open_workspace(root) as ws:
        plant_channel(ws, "web")
        for task, answer in (("match", "no"), ("talk", "calm"), ("tags", "hot")):
            plant_stub(ws, task, answer=answer, log=str(log))
    return root


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "asked"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str], log: Path) -> Iterator[Server]:
    root = a_workspace(tmp_path_factory.mktemp("inputs") / "ws", log)
    with running(root, plugin_env, data__max_chars=100) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Server) -> Iterator[Client]:
    with Client(served.url, timeout_s=20) as connected:
        yield connected


def last_asked(log: Path) -> Any:
    return json.loads(log.read_text().splitlines()[-1])


def logged(root: Path, prediction_id: str) -> Prediction:
    with open_workspace(root) as ws, ws.store.read() as conn:
        found = predictions.find(conn, prediction_id)
    assert found is not None
    return found


def test_a_pair_reaches_the_model_and_comes_back_as_a_label(served: Server, client: Client, log: Path) -> None:
    (row,) = client.predict("match", "web", [PAIR])["predictions"]
    assert row["label"] == "yes"
    assert last_asked(log) == ["is it?", "yes"] or last_asked(log) == [["is it?", "yes"]]
    client.feedback(row["id"], correction="no")
    kept = logged(served.root, row["id"])
    assert (kept.text, kept.text_pair, kept.text_hash) == ("is it?", "yes", text_hash(("is it?", "yes")))
    with open_workspace(served.root) as ws:
        assert to_labels(ws, "match") == 1
        with ws.store.read() as conn:
            assert [(one.input, one.value) for one in examples.labelled_rows(conn, "match")] == [
                (("is it?", "yes"), "no")
            ]


def test_a_conversation_is_one_text_of_a_line_per_turn(client: Client, log: Path) -> None:
    answer = client.predict("talk", "web", [TALK, "calm: so"])
    assert answer["predictions"][0]["label"] in ("calm", "angry")
    asked = [text for line in log.read_text().splitlines() for text in json.loads(line)]
    assert {"user: angry agent: calm", "user: calm: so"} <= set(map(str, asked))


@pytest.mark.parametrize(
    ("task", "given", "says"),
    [
        ("match", {"text": "a"}, "inputs[0]: no text_pair"),
        ("match", {"question": "a", "context": "b"}, "question, context"),
        ("match", {"text": "a", "text_pair": "b" * 101}, "more than 100"),
        ("match", {"text": "a", "text_pair": "b", "third": "c"}, "third"),
        ("match", {"turns": TALK}, 'input = "turns"'),
        ("talk", {"turns": []}, "one turn or more"),
        ("talk", {"turns": [{"role": "user", "text": "x", "at": "noon"}]}, "at"),
        ("talk", {"turns": [{"role": "a:b", "text": "x"}]}, "role of turn 1"),
        ("talk", {"turns": [{"role": "user", "text": "x" * 100}]}, "more than 100"),
        ("talk", {"text": "a", "text_pair": "b"}, "text_pair"),
    ],
)
def test_inputs_of_another_shape_are_refused(client: Client, task: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        client.predict(task, "web", [given])
    assert says in str(caught.value)


def test_corrections_are_any_label_of_the_task(served: Server, client: Client) -> None:
    (row,) = client.predict("tags", "web", ["hot"])["predictions"]
    client.feedback(row["id"], correction=["wet", "hot"], labeller="ann")
    client.feedback(row["id"], correction=[], labeller="bob")
    with open_workspace(served.root) as ws, ws.store.read() as conn:
        said = {one.labeller: one.correction for one in predictions.feedback_on(conn, row["id"])}
    assert said == {"ann": ["hot", "wet"], "bob": []}
    with pytest.raises(BadInput, match="dry"):
        client.feedback(row["id"], correction=["dry"])


def test_only_hashes_are_logged_where_that_is_asked(tmp_path: Path, plugin_env: dict[str, str], log: Path) -> None:
    root = a_workspace(tmp_path / "ws", log)
    with running(root, plugin_env, serve__log_inputs="hash") as server, Client(server.url) as client:
        (row,) = client.predict("match", "web", [PAIR])["predictions"]
        response = httpx.post(f"{server.url}/v1/feedback", json={"prediction_id": row["id"], "correction": "no"})
        assert response.status_code == 200
    kept = logged(root, row["id"])
    assert (kept.text, kept.text_pair, kept.text_hash) == (None, None, text_hash(("is it?", "yes")))


@pytest.mark.parametrize(
    ("task", "lines", "says"),
    [
        ("match", [json.dumps(PAIR), "", json.dumps({"text": "is it?", "text_pair": "no"})], ["yes", "no"]),
        ("talk", [json.dumps(TALK), '"calm"', '{"turns": [{"role": "user", "text": "angry"}]}'], None),
        ("match", [json.dumps(PAIR), "{"], "line 2 is not JSON"),
        ("match", [json.dumps(PAIR), '"one text"'], "inputs[1]"),
    ],
)
def test_the_command_line_reads_json_lines(
    served: Server, plugin_env: dict[str, str], task: str, lines: list[str], says: list[str] | str | None
) -> None:
    command = [sys.executable, "-m", "headrace", "predict", "--json-lines", "--task", task, "--json"]
    done = subprocess.run(
        [*command, "-w", str(served.root)], input="\n".join(lines), capture_output=True, text=True, env=plugin_env,
        timeout=60,
    )  # fmt: skip
    if isinstance(says, str):
        assert done.returncode == 2
        assert says in done.stdout + done.stderr
        return
    answers = [row["label"] for row in json.loads(done.stdout)]
    assert answers == says if says else len(answers) == len(lines)
