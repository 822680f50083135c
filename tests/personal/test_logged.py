"""What the log keeps of inputs, by channel. Catches: a channel that keeps hashes alone with its texts in the log."""

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.config_sources import FILE_NAME
from headrace.errors import BadInput
from headrace.personal.policies import door_of
from headrace.serve.pool import Answer
from headrace.server import answering
from headrace.server.metrics import Metrics
from headrace.server.prediction_log import PredictionLog
from headrace.store import predictions
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace, open_workspace
from planted import plant_channel, plant_version


def test_a_channel_may_keep_hashes_alone(workspace: Workspace) -> None:
    version = plant_version(workspace)
    channels = [plant_channel(workspace, name) for name in ("web", "phone")]
    path = workspace.root / FILE_NAME
    path.write_text(path.read_text() + '[channels.web]\nlog_inputs = "hash"\n')
    with open_workspace(workspace.root) as ws:
        log = PredictionLog(ws, Metrics())
        with log.writer:
            for channel in channels:
                log.add(
                    request_id="req_1", task="tone", channel=channel, unit=None, version=version, arm="control",
                    release_id=None, inputs=["a text"], answer=Answer("sha256:0", [{"output": {}}]), latency_ms=1.0,
                )  # fmt: skip
        with ws.store.read() as conn:
            kept = {row["channel"]: row for row in predictions.listing(conn)}
    assert [kept[name]["text"] for name in ("web", "phone")] == [None, "a text"]
    assert {row["text_hash"] for row in kept.values()} == {text_hash("a text")}


def test_an_input_that_a_channel_does_not_take_is_named_by_its_place(workspace: Workspace) -> None:
    channel = plant_channel(workspace, "web")
    with open_workspace(workspace.root, overrides={"privacy.personal": "drop"}) as ws:
        plane: Any = SimpleNamespace(door=door_of(ws))
        asked = ["all is well", ("well", "write to ann@example.org")]
        with pytest.raises(BadInput, match=r"inputs\[1\]: the text holds personal data.*Take it out") as refused:
            answering._cleaned(plane, channel, None, asked)
        assert refused.value.value == "e-mail"
        assert answering._cleaned(plane, channel, None, asked[:1]) == (None, asked[:1], [])
