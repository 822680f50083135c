"""Channel adapters from `train --per-channel` to answers of a running server. Catches: an answer by another adapter
than it names, one that differs from the offline one or from peft's, and a change of adapters that drops a request,
compiles a graph again or ends a worker."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from conftest import LABELS, write_jsonl
from headrace import loop
from headrace.checkpoints import low_rank
from headrace.client import Client
from headrace.errors import HeadraceError
from headrace.export import read_facts
from headrace.records import Adapter, ModelVersion
from headrace.release import controls, releases
from headrace.store import adapters
from headrace.tasks import TASK_TYPES
from headrace.workspace import Workspace, open_workspace
from planted import plant_version
from server.loading import eventually
from stub_model import Server, running
from test_per_channel import SETTINGS, fill, kept_of, rows_of

pytestmark = pytest.mark.slow

CHANNELS = ("plain", "odd", "few")
NEAR = 0.02  # the exported graph against torch
SAID = "tone/2", "tone/3", "tone/4"
TEXTS = [row["text"] for row in rows_of("odd", 24, 0, seed=9)]


@pytest.fixture(scope="module")
def ws(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Version 2 has an adapter for `odd`, 3 one for `few` too, 4 another one for `few`."""
    folder = tmp_path_factory.mktemp("served")
    headrace.init(folder / "ws", task="tone", labels=LABELS).close()
    toml = folder / "ws" / "headrace.toml"
    toml.write_text(toml.read_text("utf-8") + SETTINGS.format(base=json.dumps(str(tiny_base))), "utf-8")
    with open_workspace(folder / "ws") as opened:
        fill(opened, folder)
        assert headrace.train(opened, per_channel=True)["version"] == SAID[0]
        releases.promote(opened, "2", task="tone")
        headrace.import_rows(opened, "few", write_jsonl(folder / "more.jsonl", rows_of("few", 150, 2, seed=7)))
        assert headrace.train(opened, per_channel=True, channel="few")["version"] == SAID[1]
        assert replaced(opened, "3", "few").name == SAID[2]
        yield opened


def replaced(ws: Workspace, name: str, channel: str) -> ModelVersion:
    """The next version: as `name`, but for one channel's adapter, which is twice as strong."""
    from sqlalchemy import update

    from headrace.records import Artifact
    from headrace.store import runs, schema
    from planted import NOON

    before = kept_of(ws, name)
    old = low_rank.read(ws.artifacts.get(before[channel].artifact))
    new, folder = replace(old, scale=2 * old.scale), ws.artifacts.new_folder()
    low_rank.write(folder, new, base="shared")
    digest, n_bytes = ws.artifacts.put(folder)
    origin, version = controls.find_version(ws, "tone", name), plant_version(ws)
    version = replace(version, artifact=origin.artifact, checkpoint=origin.checkpoint)
    table = schema.model_versions
    with ws.store.write() as conn:
        runs.add_artifact(conn, Artifact(digest, "adapter", n_bytes, {}), NOON)
        facts = {"artifact": version.artifact, "checkpoint": version.checkpoint}
        conn.execute(update(table).where(table.c.id == version.id).values(**facts))
        made = Adapter(channel, digest, low_rank.weights_digest(new), True, {})
        adapters.add(conn, version.id, [*(one for one in before.values() if one.channel != channel), made])
    return version


@pytest.fixture(scope="module")
def server(ws: Workspace, plugin_env: dict[str, str]) -> Iterator[Server]:
    with running(ws.root, plugin_env, serve__n_workers=2) as started:
        yield started


def offline(ws: Workspace, name: str, channel: str, texts: Sequence[str] = TEXTS) -> list[dict[str, Any]]:
    return headrace.predict(ws, texts, version=name.partition("/")[2], channel=channel)


def test_answers_are_the_offline_ones_by_the_adapter_they_name(ws: Workspace, server: Server) -> None:
    kept = kept_of(ws, "2")
    assert (kept["odd"].is_kept, kept["few"].is_kept) == (True, False)
    with Client(server.url) as client:
        for channel in CHANNELS:
            answer = client.predict("tone", channel, TEXTS)
            assert answer["adapter"] == kept[channel].weights
            assert answer["model_version"] == SAID[0]
            for mine, theirs in zip(answer["predictions"], offline(ws, SAID[0], channel), strict=True):
                assert mine["label"] == theirs["label"]
                assert mine["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)


def test_answers_are_those_of_peft(ws: Workspace, server: Server, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    loop.export_adapter(ws, "2", "odd", tmp_path / "odd")
    headrace.export_version(ws, "2", tmp_path / "shared")
    shared = AutoModelForSequenceClassification.from_pretrained(tmp_path / "shared")
    model = PeftModel.from_pretrained(shared, str(tmp_path / "odd")).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "shared")(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits.numpy()
    task = ws.task("tone")
    facts = read_facts(ws.artifacts.get(controls.find_version(ws, "tone", "2").artifact))
    expected = TASK_TYPES.get(task.type)(task).decode(logits, facts.calibration)
    with Client(server.url) as client:
        answer = client.predict("tone", "odd", TEXTS)
    assert answer["adapter"] == low_rank.weights_digest(low_rank.read(tmp_path / "odd"))
    found = np.asarray([[one["scores"][label] for label in LABELS] for one in answer["predictions"]])
    assert np.abs(found - [[one["scores"][label] for label in LABELS] for one in expected]).max() < NEAR


class Asking(threading.Thread):
    """Asks for one channel again and again: (version, adapter, labels) of each answer, and every failure."""

    def __init__(self, url: str, channel: str) -> None:
        super().__init__()
        self._url, self.channel, self._enough = url, channel, threading.Event()
        self.said: list[tuple[str, str | None, tuple[str, ...]]] = []
        self.failures: list[HeadraceError] = []
        self.start()

    def run(self) -> None:
        with Client(self._url) as client:
            while not self._enough.wait(0.005):
                try:
                    answer = client.predict("tone", self.channel, TEXTS[:6])
                except HeadraceError as error:
                    self.failures.append(error)
                    continue
                labels = tuple(one["label"] for one in answer["predictions"])
                self.said.append((answer["model_version"], answer["adapter"], labels))

    def stop(self) -> None:
        self._enough.set()
        self.join(20)


def test_adapters_come_change_and_go_under_load(ws: Workspace, server: Server) -> None:
    expected = {
        (name, channel): (
            kept_of(ws, name.partition("/")[2])[channel].weights,
            tuple(one["label"] for one in offline(ws, name, channel, TEXTS[:6])),
        )
        for name in SAID
        for channel in CHANNELS
    }
    weights = [expected[name, "few"][0] for name in SAID]
    assert weights[0] is None
    assert len({*weights}) == 3
    pids = sorted(server.worker_pids())
    n_compiled, n_loaded = (server.figure(name) for name in ("artifact_loads", "adapter_loads"))
    asking = [Asking(server.url, channel) for channel in CHANNELS]
    few, took_s = asking[CHANNELS.index("few")], []
    for name in (SAID[1], SAID[2], SAID[0], SAID[2]):  # added, replaced, removed, added again
        began_at = time.monotonic()
        releases.promote(ws, name, task="tone")
        eventually(lambda name=name: bool(few.said) and few.said[-1][:2] == (name, expected[name, "few"][0]))
        took_s.append(time.monotonic() - began_at)
        time.sleep(0.6)  # what is not named any more goes a tick later
    for one in asking:
        one.stop()
    assert [one.failures for one in asking] == [[], [], []]
    assert all(expected[name, one.channel] == (adapter, labels) for one in asking for name, adapter, labels in one.said)
    assert {name for name, _, _ in few.said} == {*SAID}
    assert sorted(server.worker_pids()) == pids
    assert server.figure("artifact_loads") == n_compiled == 2, "one for each worker, at the start"
    n_loaded_since = server.figure("adapter_loads") - n_loaded
    assert 2 * len(pids) <= n_loaded_since <= 3 * len(pids), "the third may still be there"
    assert max(took_s) < 5  # within 1 s on a quiet machine
