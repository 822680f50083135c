"""The whole wheel on a tiny base model: through the command line with a real server, through the SDK, for regression.

Catches: two stages that do not fit together, a surface that passes something else than the stage takes, an export that
answers otherwise than the workspace does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import headrace
from conftest import LABELS, TINY_TRAINING, sentences, write_jsonl
from stub_model import running

pytestmark = pytest.mark.slow
TIMEOUT_S = 120
NO_THIRD = ("--set", "feedback.min_new_labels=1000")
"""For a decision alone: no third version is made of what users said of the second."""
SETTINGS = (
    TINY_TRAINING
    + """epochs = 4
learning_rate = 0.01

[export]
precision = "fp32"
n_calibration = 50

[feedback]
min_new_labels = 20

[release]
labels = "all"  # these users say of every answer what would have been right
max_drop_share = 1.0
max_latency_times = 1000.0
"""
)


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "HEADRACE_WORKSPACE": str(root), "OMP_NUM_THREADS": "1"}


def headrace_says(root: Path, *words: str) -> Any:
    """What a command prints with --json."""
    command = [sys.executable, "-m", "headrace", *words, "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(root), check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
    return json.loads(done.stdout)


@contextmanager
def served(root: Path) -> Iterator[headrace.Client]:
    """A client of `headrace serve` on a free port."""
    command = [sys.executable, "-m", "headrace", "serve", "--port", "0"]
    with (root / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(root))
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert "headrace serves tone at http://127.0.0.1:" in line, (root / "server.log").read_text()
        with headrace.Client(line.split()[-1]) as client:
            assert client.ready()
            yield client
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
    finally:
        server.kill()
        server.stdout.close()
    assert "Traceback" not in (root / "server.log").read_text()


def be_the_users(client: headrace.Client, rows: list[dict[str, str]], channel: str) -> list[dict[str, Any]]:
    """Ask about every row, and say for each answer what would have been right."""
    answers: list[dict[str, Any]] = []
    for at in range(0, len(rows), 10):
        some = rows[at : at + 10]
        answer = client.predict("tone", channel, [row["text"] for row in some], unit=f"user-{at}")
        assert (answer["arm"], len(answer["predictions"])) == ("control", len(some))
        for row, prediction in zip(some, answer["predictions"], strict=True):
            assert client.feedback(prediction["id"], correction=row["label"], labeller="user").startswith("fb_")
        answers += answer["predictions"]
    return answers


def wait_for_shadow(client: headrace.Client) -> None:
    until = time.monotonic() + 30
    while not any(model["arm"] == "shadow" for model in client.models()):
        assert time.monotonic() < until
        time.sleep(0.1)


def settle(root: Path) -> None:
    """Shadow answers are written after the answer to the user; wait until no more come, or the server has decided."""
    with headrace.open_workspace(root) as ws:
        before = -1
        while (seen := headrace.release_status(ws)["evidence"]) is not None and seen["n_requests"] != before:
            before = seen["n_requests"]
            time.sleep(0.5)


def make_workspace(root: Path, tiny_base: Path) -> None:
    """By command line: a workspace with two channels of 100 rows, one of which is bad."""
    assert headrace_says(root, "init", str(root), "--task", "tone", "--labels", ",".join(LABELS))["task"] == "tone"
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    for name in ("a", "b"):
        assert headrace_says(root, "channel", "add", name, "--owner", "me")["owner"] == "me"
        rows = [*sentences(100, channel=name), {"id": "bad", "text": "so so", "label": "mixed"}]
        report = headrace_says(root, "import", name, str(write_jsonl(root / f"{name}.jsonl", rows)))
        assert (report["n_added"], report["reasons"]) == (100, {"unknown_label": 1})
    assert [channel["name"] for channel in headrace_says(root, "channel", "list")] == ["a", "b"]


def test_the_wheel_turns(tmp_path: Path, tiny_base: Path) -> None:
    root = tmp_path / "ws"
    make_workspace(root, tiny_base)
    assert headrace_says(root, "check")
    frozen = headrace_says(root, "snapshot")
    assert sum(frozen["n_by_side"].values()) == frozen["n_rows"] == 200

    first = headrace_says(root, "train")
    assert first["version"] == "tone/1"
    assert set(first["evaluations"]) == {"version", "majority", "centroid"}
    assert set(first["evaluations"]["version"]["channels"]) == {"a", "b"}
    assert headrace_says(root, "train")["version_id"] == first["version_id"]

    with served(root) as client:
        answers = be_the_users(client, sentences(60, seed=1, channel="a"), "a")
        assert {answer["label"] for answer in answers} <= set(LABELS)
        assert headrace_says(root, "feedback", answers[0]["id"], "--comment", "well said")["kind"] == "comment"
        step = headrace_says(root, "improve")
        assert step["step"] == "shadow", step["gates"]
        assert (step["control"], step["candidate"]) == ("tone/1", "tone/2")
        assert set(step["comparison"]["channels"]) == {"a", "b"}
        assert headrace_says(root, "release", "status")["state"] == "open"
        wait_for_shadow(client)
        be_the_users(client, sentences(60, seed=2, channel="b"), "b")
        settle(root)
        decision = headrace_says(root, "improve", *NO_THIRD)
    decided = headrace_says(root, "history")[2]
    if decided["actor"] == "serve":  # the candidate was so bad that the server did not wait for `improve`
        assert (decided["kind"], decision["step"]) == ("reject", "waiting")
    else:
        assert (decision["step"], decision["verdict"]) == ("decision", decided["kind"])
    assert decided["kind"] in ("promote", "hold", "reject")
    assert decided["reason"]
    assert headrace_says(root, "improve", *NO_THIRD)["step"] in ("decision", "waiting")

    lines = headrace_says(root, "history")
    assert [line["kind"] for line in lines][:2] == ["promote", "start"]
    assert all(line["evidence"] for line in lines[1:3])
    page = Path(headrace_says(root, "report")["path"]).read_text()
    assert "<svg" in page
    assert "tone/2" in page
    exports_answer_alike(root, tmp_path)


def exports_answer_alike(root: Path, folder: Path) -> None:
    """Other people's code, given the export, answers as the workspace does."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = [row["text"] for row in sentences(40, seed=3)]
    own = headrace_says(root, "predict", *texts, "--version", "1")
    assert len({answer["label"] for answer in own}) > 1
    assert headrace_says(root, "export", "1", str(folder / "hf"))["backend"] == "hf"
    model = AutoModelForSequenceClassification.from_pretrained(folder / "hf")
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
    assert [model.config.id2label[int(k)] for k in logits.argmax(dim=1)] == [answer["label"] for answer in own]
    assert {"README.md", "evaluation.json"} <= {path.name for path in (folder / "hf").iterdir()}

    made = headrace_says(root, "export", "1", str(folder / "ov"), "--backend", "openvino", "--precision", "int8")
    assert (made["backend"], made["precision"]) == ("openvino", "int8")
    predictor, facts = headrace_load(folder / "ov")
    labels = [LABELS[k] for k in predictor.logits(texts).argmax(axis=1)]
    assert facts.precision == "int8"
    assert sum(a == b["label"] for a, b in zip(labels, own, strict=True)) >= 36
    for destination in ("/proc/x", f"{root}/headrace.toml/out"):
        command = [sys.executable, "-m", "headrace", "export", "1", destination, "--backend", "openvino"]
        told = subprocess.run(command, capture_output=True, text=True, env=environment(root), check=False)
        assert told.returncode == 2
        assert destination in told.stderr
        assert "Traceback" not in told.stderr


def headrace_load(folder: Path) -> Any:
    from headrace.export import load

    return load(folder)


def test_the_wheel_turns_by_sdk(tmp_path: Path, tiny_base: Path) -> None:
    root = tmp_path / "ws"
    headrace.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    overrides = {"finetune.epochs": 2, "feedback.metrics": '{"stars": {"kind": "number"}}'}
    with headrace.open_workspace(root, overrides=overrides) as ws:
        headrace.add_channel(ws, "a", licence="MIT")
        source = write_jsonl(tmp_path / "a.jsonl", sentences(150, channel="a"))
        assert headrace.import_rows(ws, "a", source).n_added == 150
        assert headrace.check(ws).as_json()
        assert headrace.freeze(ws).n_rows == 150
        seen: list[str] = []
        first = headrace.train(ws, report=lambda step, *_, **__: seen.append(step))
        assert first["version"] == "tone/1"
        assert seen[0] == "fine-tune"  # a watcher looks five times a second: a short step may pass unseen
        results = headrace.evaluate_version(ws, "1")
        assert results["overall"] == first["evaluations"]["version"]["overall"]
        assert headrace.train(ws)["agreement"] == first["agreement"]  # what evaluate left does not stand for it
        with running(root, environment(root)) as server, headrace.Client(server.url) as client:
            answers = be_the_users(client, sentences(60, seed=1, channel="a"), "a")
        assert headrace.give_feedback(ws, answers[0]["id"], metric="stars", value=4).kind == "metric"
        local = headrace.predict(ws, [row["text"] for row in sentences(60, seed=1, channel="a")])
        assert [answer["label"] for answer in local] == [answer["label"] for answer in answers]
        assert headrace.improve(ws)["step"] == "shadow"
        assert headrace.release_status(ws)["state"] == "open"
        assert headrace.improve(ws)["verdict"] == "hold"
        assert headrace.promote(ws, reason="for the test").kind == "promote"
        assert headrace.rollback(ws).kind == "rollback"
        assert [line.kind for line in headrace.history(ws)] == ["promote", "start", "hold", "promote", "rollback"]
        assert headrace.export_version(ws, "tone/2", tmp_path / "out", backend="openvino")["n_bytes"] > 0
        assert headrace.write_report(ws).exists()


def test_a_regression_task(tmp_path: Path, tiny_base: Path) -> None:
    root = tmp_path / "ws"
    headrace.init(root, task="stars", task_type="text-regression").close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    rows = [{**row, "label": LABELS.index(row["label"]) - 1} for row in sentences(200, channel="a")]
    with headrace.open_workspace(root) as ws:
        headrace.add_channel(ws, "a")
        headrace.import_rows(ws, "a", write_jsonl(tmp_path / "a.jsonl", rows))
        made = headrace.train(ws)
        assert made["version"] == "stars/1"
        results = headrace.evaluate_version(ws, "1")
        assert {"pearson", "spearman", "mae"} <= set(results["overall"])
        (good, bad) = headrace.predict(ws, ["great lovely good", "awful broken bad"], version="1")
        assert isinstance(good["value"], float)
        assert results["overall"]["mae"] < 1
        if results["overall"]["pearson"] > 0.5:
            assert good["value"] > bad["value"]
        headrace.export_version(ws, "1", tmp_path / "out")
