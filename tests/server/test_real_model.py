"""A real exported model behind a real server. Catches: serving that answers otherwise than the artifact does."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from conftest import LABELS, sentences
from headrace.client import Client
from headrace.export import BACKENDS, load, write_facts
from headrace.records import Artifact
from headrace.store import runs, schema
from headrace.workspace import init
from planted import plant_channel, plant_version
from stub_model import NOON, running


@pytest.mark.slow
def test_a_server_answers_as_its_artifact_does(tiny_base: Path, tmp_path: Path, plugin_env: dict[str, str]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=3)
    for weights in model.parameters():  # small random weights answer every text alike
        weights.data.mul_(15 if weights.ndim == 2 else 1)
    model.save_pretrained(tmp_path / "checkpoint")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "checkpoint")
    texts = [row["text"] for row in sentences(60)] + ["long " * 300]
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        plant_channel(ws, "web")
        folder = ws.artifacts.new_folder()
        write = BACKENDS.get("openvino").write
        facts = write(tmp_path / "checkpoint", folder, task=ws.task(), precision="fp32", calibration=texts)
        write_facts(folder, facts.model_copy(update={"calibration": {"temperature": 2.0}}))
        digest, _ = ws.artifacts.put(folder)
        version = plant_version(ws)
        with ws.store.write() as conn:
            runs.add_artifact(conn, Artifact(digest, "openvino", 1, {}), NOON)
            versions = schema.model_versions
            conn.execute(update(versions).where(versions.c.id == version.id).values(artifact=digest))
        predictor, _ = load(ws.artifacts.get(digest))
        logits = predictor.logits(texts)
    with running(tmp_path / "ws", plugin_env) as server, Client(server.url) as client:
        answer = client.predict("tone", "web", texts)
    assert answer["artifact"] == digest
    assert [row["label"] for row in answer["predictions"]] == [LABELS[k] for k in logits.argmax(axis=1)]
    scores = np.exp(logits / 2.0 - (logits / 2.0).max(axis=1, keepdims=True))
    confidence = (scores / scores.sum(axis=1, keepdims=True)).max(axis=1)
    assert len(set(confidence.round(3))) > 10
    assert np.allclose([row["confidence"] for row in answer["predictions"]], confidence, atol=1e-4)
