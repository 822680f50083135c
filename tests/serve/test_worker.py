"""Answers of a batch. Catches: an answer beside the wrong text, one bad text that spoils others, NaN served."""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export.artifact import read_facts
from headrace.records import Input
from headrace.serve import frames, worker
from headrace.serve.worker import Model, answer
from headrace.tasks import TokenLogits
from headrace.tasks.extractive_qa import ExtractiveQA
from headrace.tasks.text_classification import TextClassification
from headrace.workspace import Workspace
from stub_model import stub_artifact

LABELS = ("no", "yes")


class Moody:
    """Says yes to `y`, no to `n`; fails on `x` and gives NaN for `?`, whatever else is in the batch."""

    def logits(self, texts: Sequence[str]) -> Any:
        if "x" in texts:
            raise RuntimeError("x")
        table = {"y": [-1.0, 3.0], "n": [3.0, -1.0], "?": [np.nan, 0.0]}
        return np.asarray([table[text] for text in texts], dtype=np.float32)


class OneShort:
    def logits(self, texts: Sequence[str]) -> Any:
        return np.zeros((max(len(texts) - 1, 0), 2), dtype=np.float32)


def model(predictor: Any, temperature: float = 1.0) -> Model:
    return Model("sha256:0", predictor, TextClassification(TaskTable(labels=LABELS)), {"temperature": temperature}, 128)


@given(st.lists(st.sampled_from("ynx?"), min_size=1, max_size=40))
def test_each_text_gets_its_own_answer_or_its_own_error(texts: list[str]) -> None:
    said = [row["output"]["label"] if "output" in row else "error" for row in answer(model(Moody()), texts)]
    assert said == [{"y": "yes", "n": "no", "x": "error", "?": "error"}[text] for text in texts]


def test_logits_of_the_wrong_shape_are_errors() -> None:
    assert all("error" in row for row in answer(model(OneShort()), ["y", "n", "y"]))


def test_the_temperature_of_the_artifact_divides_the_logits() -> None:
    (plain,), (warm,) = answer(model(Moody()), ["y"]), answer(model(Moody(), temperature=4.0), ["y"])
    assert plain["output"]["confidence"] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-6)
    assert warm["output"]["confidence"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


class Pointing:
    """Outputs of a task on tokens: `y` has two tokens, `?` one that is NaN, `x` fewer logits than tokens."""

    def logits(self, inputs: Sequence[Input]) -> Any:
        outputs = np.empty(len(inputs), dtype=object)
        for i, (question, context) in enumerate(inputs):
            spans = np.asarray([[-1, -1], [0, len(context)]], dtype=np.int32)
            logits = np.asarray([[0, 0], [2, 2]], dtype=np.float32)
            if question == "?":
                logits[1, 0] = np.nan
            outputs[i] = TokenLogits(context, spans, logits[: 1 if question == "x" else 2], np.zeros(2, np.int32))
        return outputs


@given(st.lists(st.sampled_from("yx?"), min_size=1, max_size=12))
def test_outputs_on_tokens_are_checked_one_by_one(questions: list[str]) -> None:
    task_type = ExtractiveQA(TaskTable(type="extractive-qa"))
    inputs = [(question, f"context {i}") for i, question in enumerate(questions)]
    said = answer(Model("sha256:0", Pointing(), task_type, {}, 128), inputs)
    expected = [f"context {i}" if question == "y" else "error" for i, question in enumerate(questions)]
    assert [row["output"]["answer"] if "output" in row else "error" for row in said] == expected


def test_weights_that_are_not_those_of_the_digest_do_not_serve(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, other = stub_artifact(workspace), stub_artifact(workspace, answer="positive")
    # The plug-in is not installed in this process; what is loaded does not matter here, its digest does.
    monkeypatch.setattr(worker, "load", lambda folder, **_: (Moody(), read_facts(folder)))
    assert worker.load_model(workspace.artifacts.get(digest), digest, n_threads=0).digest == digest
    with pytest.raises(Damaged):
        worker.load_model(workspace.artifacts.get(other), digest, n_threads=0)


def test_loading_a_model_reports_to_nobody() -> None:
    code = (
        "import os, sys; os.register_at_fork(before=lambda: print('forked')); "
        "import headrace.serve.worker, headrace.export.backends.openvino; "
        "print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "None\n"


def test_what_a_worker_does_not_have_is_told_and_ends_nothing(tmp_path: Path) -> None:
    out = io.BytesIO()
    idle = worker.Worker(out, batch_tokens=64, n_threads=1, alive_every_s=1)
    idle._load({"kind": "load", "id": 7, "digest": "sha256:0", "folder": str(tmp_path / "nowhere")})
    idle._load({"kind": "load_adapter", "id": 8, "digest": "sha256:0", "adapter": "sha256:1", "folder": str(tmp_path)})
    idle._predict({"id": 9, "digest": "sha256:0", "adapter": None, "inputs": ["text"]})
    out.seek(0)
    said = [frames.receive(out) for _ in range(3)]
    errors = {one["id"]: one["error"] for one in said if one is not None}
    assert {number: error["code"] for number, error in errors.items()} == {7: "damaged", 8: "not_found", 9: "not_found"}
    assert {errors[number]["message"] for number in (8, 9)} == {"the worker has no such model"}
