"""Adapters from `train --per-channel` to files that peft loads, on a tiny base model. Catches: a version that answers
otherwise than its channels' adapters, a retrained channel that moves the others, a second version of the same work, a
kill that costs the shared version, an adapter exported for another model."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from conftest import LABELS, TINY_TRAINING, sentences, write_jsonl
from headrace import jobs, loop, per_channel
from headrace.checkpoints import low_rank
from headrace.data import snapshot
from headrace.errors import BadInput, NotFound, WrongState
from headrace.export import read_facts
from headrace.release import controls, releases
from headrace.store import adapters, runs, versions
from headrace.workspace import Workspace, open_workspace

SETTINGS = (
    TINY_TRAINING
    + """epochs = 8
learning_rate = 0.005
patience = 30
evals_per_epoch = 1

[finetune.per_channel]
rank = 4
learning_rate = 0.01
epochs = 8

[export]
precision = "fp32"
"""
)
SIZES = {"plain": (400, 0), "odd": (300, 1), "few": (10, 2)}
"""Rows of each channel, and by how many places its labels are turned."""


def rows_of(channel: str, n: int, turned: int, *, seed: int = 0) -> list[dict[str, str]]:
    rows = sentences(n, seed=seed, channel="x")  # no channel can be told by its words
    return [
        {**row, "id": f"{channel}{seed}-{i}", "text": f"{row['text'].rpartition(' ')[0]} {i}",
         "label": LABELS[(LABELS.index(row["label"]) + turned) % 3]}
        for i, row in enumerate(rows)
    ]  # fmt: skip


def fill(ws: Workspace, folder: Path) -> None:
    for seed, (channel, (n, turned)) in enumerate(SIZES.items()):
        source = write_jsonl(folder / f"{channel}.jsonl", rows_of(channel, n, turned, seed=seed))
        headrace.add_channel(ws, channel)
        headrace.import_rows(ws, channel, source)


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("adapters")
    ws = headrace.init(folder / "ws", task="tone", labels=LABELS)
    settings = SETTINGS.format(base=json.dumps(str(tiny_base)))
    toml = (ws.root / "headrace.toml").read_text("utf-8")
    ws.close()
    (folder / "ws" / "headrace.toml").write_text(toml + settings, "utf-8")
    ws = open_workspace(folder / "ws")
    fill(ws, folder)
    return ws, headrace.train(ws, per_channel=True)


def says(ws: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HEADRACE_WORKSPACE": str(ws.root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words], capture_output=True, text=True, timeout=120, env=env, check=False
    )


def n_versions(ws: Workspace) -> int:
    with ws.store.read() as conn:
        return len(versions.listing(conn, "tone"))


def kept_of(ws: Workspace, version: str) -> dict[str, Any]:
    with ws.store.read() as conn:
        return {one.channel: one for one in adapters.of_version(conn, controls.find_version(ws, None, version).id)}


pytestmark = pytest.mark.slow


def test_a_channel_keeps_an_adapter_where_held_out_rows_say_so(trained: tuple[Workspace, dict[str, Any]]) -> None:
    ws, result = trained
    assert (result["version"], result["method"]) == ("tone/2", "full + per-channel")
    decided = {one["channel"]: one for one in result["adapters"]}
    assert decided.keys() == {"few", "odd", "plain"}
    assert decided["odd"]["is_kept"]
    assert not decided["few"]["is_kept"]
    odd = decided["odd"]["evidence"]
    assert odd["n_won"] >= 5
    assert odd["p_holm"] <= 0.05
    assert odd["test"]["own"] > odd["test"]["shared"] + 0.2
    assert "too few to tell" in decided["few"]["evidence"]["reason"]
    assert decided["few"]["artifact"] is None
    own, shared = result["evaluations"]["version"], result["evaluations"]["shared"]
    assert own["channels"]["odd"]["macro_f1"] == odd["test"]["own"]
    assert shared["channels"]["odd"]["macro_f1"] == odd["test"]["shared"]
    assert own["agreement"]["share"] > 0.95
    found = controls.find_version(ws, None, "2")
    bank = read_facts(ws.artifacts.get(found.artifact)).bank
    assert bank["rank"] == 4
    assert len(bank["targets"]) == 2  # of the upper of two layers


def test_answers_are_those_of_the_channel(trained: tuple[Workspace, dict[str, Any]]) -> None:
    ws, _ = trained
    texts = [row["text"] for row in rows_of("odd", 40, 0, seed=9)]
    plain, odd, few = (
        [one["label"] for one in headrace.predict(ws, texts, version="2", channel=channel)]
        for channel in (None, "odd", "few")
    )
    shared = [one["label"] for one in headrace.predict(ws, texts, version="1")]
    assert plain == few == shared
    assert sum(a != b for a, b in zip(plain, odd, strict=True)) > 8
    results = headrace.evaluate_version(ws, "2")
    assert results["channels"]["odd"]["macro_f1"] == kept_of(ws, "2")["odd"].evidence["test"]["own"]


def test_an_adapter_leaves_as_a_directory_of_peft(trained: tuple[Workspace, dict[str, Any]], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    ws, _ = trained
    done = says(ws, "export", "2", str(tmp_path / "odd"), "--adapter", "odd", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (
        told["adapter"] == low_rank.weights_digest(low_rank.read(tmp_path / "odd")) == kept_of(ws, "2")["odd"].weights
    )
    headrace.export_version(ws, "2", tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text("utf-8")
    assert "| odd | its own | sha256:" in card
    assert "too few to tell" in card
    texts = [row["text"] for row in rows_of("odd", 30, 0, seed=9)]
    model = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "shared"), str(tmp_path / "odd")
    ).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "shared")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = model(**tokens).logits.numpy()
    version = controls.find_version(ws, None, "2")
    outputs, _ = per_channel.answers_of(ws, version, texts, ["odd"] * len(texts))
    assert np.abs(outputs - scores).max() < 0.02  # the exported graph against torch
    refused = says(ws, "export", "2", str(tmp_path / "few"), "--adapter", "few")
    assert refused.returncode == 2
    assert "too few to tell" in " ".join(refused.stderr.split())
    assert "odd" in refused.stderr
    with pytest.raises(NotFound, match="shared model of tone/1"):
        loop.export_adapter(ws, "1", "odd", tmp_path / "none")


def test_the_same_work_is_one_version_and_the_screen_says_who_kept_what(
    trained: tuple[Workspace, dict[str, Any]],
) -> None:
    ws, _ = trained
    done = says(ws, "train", "--per-channel")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "Version tone/2" in told
    assert "of 3 channels answer by an adapter of their own" in told
    assert "too few to tell" in told
    page = headrace.write_report(ws).read_text("utf-8")
    assert "Channels with an adapter" in page


def test_a_kill_while_adapters_train_costs_no_shared_version(
    trained: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    ws, _ = trained
    n_before = n_versions(ws)
    more = {"finetune.per_channel.epochs": 20, "finetune.per_channel.alpha": 1.0}
    ws = open_workspace(ws.root, overrides=more)
    job = loop.start_training(ws, per_channel=True)
    for seen in jobs.follow(ws, job.id):
        if seen.progress.get("step") == "adapters" and seen.pid is not None:
            os.kill(seen.pid, 9)
            break
    deadline = time.monotonic() + 20
    while jobs.listing(ws)[0].state == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    result = headrace.train(ws, per_channel=True)
    with ws.store.read() as conn:
        states = {run.state for run in runs.listing(conn, "tone")}
    assert states == {"done"}
    assert not list((ws.state_folder / "runs").glob("run_*"))
    assert n_versions(ws) == n_before + 1  # on the shared version that is there
    assert result["version"] == f"tone/{n_before + 1}"
    ws.close()


def test_one_channel_trains_alone_and_the_others_stay(
    trained: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    ws, result = trained
    with pytest.raises(WrongState, match="no version"):
        headrace.train(ws, per_channel=True, channel="plain")
    version = controls.find_version(ws, None, result["version"])
    releases.promote(ws, version, reason="tried", actor="test")
    with pytest.raises(NotFound, match=r"no labelled rows.*Did you mean 'few'"):
        headrace.train(ws, per_channel=True, channel="fewer")
    source = write_jsonl(tmp_path / "more.jsonl", rows_of("few", 150, 2, seed=7))
    headrace.import_rows(ws, "few", source)
    again = headrace.train(ws, per_channel=True, channel="few")
    before, after = kept_of(ws, "2"), kept_of(ws, again["version"])
    assert after["few"].is_kept
    assert (after["odd"], after["plain"]) == (before["odd"], before["plain"])
    new = controls.find_version(ws, None, again["version"])
    assert (new.artifact, new.checkpoint) == (version.artifact, version.checkpoint)
    few = after["few"].evidence["test"]
    assert few["own"] > few["shared"] + 0.2


def test_an_adapter_stays_where_a_new_one_is_worse(trained: tuple[Workspace, dict[str, Any]]) -> None:
    with suppress(WrongState):  # another test of this workspace did the same
        releases.promote(trained[0], "2", reason="tried", actor="test")
    learns_nothing = {"finetune.per_channel.epochs": 1, "finetune.per_channel.learning_rate": 1e-9}
    with open_workspace(trained[0].root, overrides=learns_nothing) as ws:
        version = headrace.train(ws, per_channel=True, channel="odd")["version"]
        before, after = (kept_of(ws, name)["odd"] for name in ("2", version))
        compared = after.evidence["against_old"]
        assert (after.weights, after.is_kept) == (before.weights, True)
        assert compared["n_lost"] >= compared["n_won"] + 5
        assert "a new one was turned down" in after.evidence["reason"]


def test_an_erasure_costs_the_one_adapter_that_used_the_row(
    trained: tuple[Workspace, dict[str, Any]], tmp_path: Path
) -> None:
    ws, _ = trained
    with suppress(WrongState):  # another test of this workspace did the same
        releases.promote(ws, "2", reason="tried", actor="test")
    headrace.import_rows(ws, "few", write_jsonl(tmp_path / "more.jsonl", rows_of("few", 150, 2, seed=8)))
    before = headrace.train(ws, per_channel=True, channel="few")["version"]
    releases.promote(ws, before.rpartition("/")[2], reason="tried", actor="test")
    old = controls.find_version(ws, None, before)
    rows = snapshot.rows(ws, snapshot.find(ws, old.snapshot_id), "train")
    row = next(one for one in rows if one.channel == "few" and one.key.startswith("few8"))
    done = headrace.erase(ws, example=row.example_id)
    assert (done.plan.versions, done.plan.adapters) == ([before], [{"version": before, "channel": "few"}])
    (line,) = headrace.rebuild(ws)
    assert (line["what"], line["channel"]) == ("adapter", "few")
    new = controls.find_version(ws, None, line["version"])
    assert (new.artifact, new.checkpoint) == (old.artifact, old.checkpoint)
    own, others = kept_of(ws, before), kept_of(ws, line["version"])
    assert (own["odd"], own["plain"]) == (others["odd"], others["plain"])
    assert row.example_id not in {one.example_id for one in snapshot.rows(ws, snapshot.find(ws, new.snapshot_id))}
    texts = [one["text"] for one in rows_of("few", 5, 0, seed=9)]
    assert len(headrace.predict(ws, texts, version=before, channel="few")) == 5  # it answers on


def test_what_does_not_go_together_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--per-channel only"):
        loop.start_training(workspace, channel="web")
    with pytest.raises(BadInput, match="a search does not train adapters"):
        loop.start_training(workspace, per_channel=True, n_trials=3)
    done = says(workspace, "export", "1", str(tmp_path / "x"), "--adapter", "web", "--backend", "openvino")
    assert done.returncode == 2
    assert "written for peft" in done.stderr
