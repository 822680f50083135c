"""The mentors about a version in charge, a stub that answers as the test says. Catches: a class that its precision
hurts and nobody names, a wrong rate, groups and thresholds by other rows than the test side, a sentence that fails
only where there is a version."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from advised import check, verdicts
from conftest import LABELS
from headrace import vectors
from headrace.advising import advise_business, advise_domain, advise_technical, business
from headrace.advising.case import Case
from headrace.cli import advising as verbs
from headrace.export import checkpoint
from headrace.export import load as load_artifact
from headrace.records import Artifact
from headrace.release import controls
from headrace.store import channels, runs, schema, versions
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_answer
from stub_model import install_plugin, plant_stub, stub_artifact
from vectored import make_up_vectors, plant_rows

CHECKPOINT_LOAD, OF_INPUTS = checkpoint.load, vectors.of_inputs


@pytest.fixture
def ws(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two channels, answered by a stub that takes half of the texts that say `negative` for something else."""
    make_up_vectors(monkeypatch)
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    install_plugin(plugin)
    monkeypatch.syspath_prepend(str(plugin))
    plant_rows(workspace, tmp_path, {"a": 400, "b": 400})
    version = plant_stub(workspace, wrong_by_word={LABELS[0]: 0.5})
    exact, (artifacts, versions) = stub_artifact(workspace), (schema.artifacts.c, schema.model_versions.c)
    with workspace.store.write() as conn:
        runs.add_artifact(conn, Artifact(exact, "stub", 1, {}), NOON)
        rounded = update(schema.artifacts).where(artifacts.digest == version.artifact)
        conn.execute(rounded.values(facts={"precision": "int8"}))
        conn.execute(update(schema.model_versions).where(versions.id == version.id).values(checkpoint=exact))
    monkeypatch.setattr(checkpoint, "load", lambda folder, _: load_artifact(folder)[0])
    controls.ensure_control(workspace)
    return workspace


def test_a_class_that_the_served_precision_hurts(ws: Workspace) -> None:
    said = advise_technical(ws, tries_methods=False)["sentences"]
    hurt = check(said, "precision")
    assert {one["verdict"] for one in hurt} == {"act"}
    assert LABELS[0] in {one["facts"]["label"] for one in hurt}
    assert LABELS[2] not in {one["facts"]["label"] for one in hurt}
    assert "int8 costs class negative" in hurt[0]["text"]
    wrong = {one["facts"]["wrong_share"] for one in check(said, "capacity")}
    assert 0.1 < wrong.pop() < 0.25  # half of a third


def test_without_torch_the_mentors_say_so_and_go_on(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "load", CHECKPOINT_LOAD)
    technical = _without_torch(monkeypatch, lambda: advise_technical(ws)["sentences"])
    monkeypatch.setattr(vectors, "of_inputs", OF_INPUTS)
    with ws.store.read() as conn:
        channel, version = channels.listing(conn)[0], versions.listing(conn, "tone")[0]
    plant_answer(ws, channel, version, LABELS[0], text="asked")
    business = _without_torch(monkeypatch, lambda: advise_business(ws)["sentences"])
    domain = _without_torch(monkeypatch, lambda: advise_domain(ws)["sentences"])
    for said, about in [(technical, "method"), (technical, "precision"), (business, "training"), (domain, "scope")]:
        (one,) = check(said, about)
        assert one["verdict"] == "not known"
        assert "pip install 'headrace[train]'" in one["text"]
    assert {"more-labels", "label-noise"} <= {one["about"] for one in technical}
    assert "cost" in {one["about"] for one in business}
    assert "fairness" in {one["about"] for one in domain}


def _without_torch(monkeypatch: pytest.MonkeyPatch, advise: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patched:
        for module in ("headrace.export.backends.hf", "headrace.finetune.embeddings"):
            patched.delitem(sys.modules, module, raising=False)
        patched.setitem(sys.modules, "torch", None)
        return advise()


def test_costs_and_what_training_gains(
    ws: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=0.01)
    monkeypatch.setattr(business, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    said = advise_business(ws)["sentences"]
    assert {one["about"] for one in said} == {"cost", "break-even", "repaid", "labels", "training"}
    (training,) = check(said, "training")
    assert training["verdict"] == "act"  # the made-up vectors need no training
    assert "Do not fine-tune" in training["text"]
    verbs.business(machine_hour=1e9, where=ws.root)
    shown = capsys.readouterr().out
    assert "! 1,000 answers cost" in shown
    assert "    headrace value" in shown


def test_groups_and_doubt_are_told_by_test_rows(ws: Workspace) -> None:
    groups: dict[str, Any] = {"advise.groups": {"sad": ["text:negative"], "a": ["a"]}, "advise.max_error_share": 0.3}
    with open_workspace(ws.root, overrides=groups) as grouped:
        said = advise_domain(grouped)["sentences"]
    by_group = {one["facts"]["group"]: one for one in check(said, "fairness")}
    assert by_group["sad"]["verdict"] == "act"
    assert by_group["sad"]["number"] == pytest.approx(-50, abs=15)
    assert by_group["a"]["verdict"] == "fine"
    assert verdicts(said, "abstention") == ["fine"]
    with open_workspace(ws.root, overrides={"advise.max_error_share": 0.05}) as strict:
        assert verdicts(advise_domain(strict)["sentences"], "abstention") == ["act"]


def test_no_channel_gains_more_than_is_wrong_there(ws: Workspace) -> None:
    case = Case(ws, "tone")
    gain = {"estimate": 9.0, "low": 5.0, "high": 12.0, "level": 0.9}
    curve = {"channel": "a", "n_rows": 200, "n_more": 100, "gain_points": gain}
    case.__dict__["test_right"] = np.array([row.channel == "a" for row in case.test])  # b is all wrong
    perfect, hopeless = case.gain_of(curve), case.gain_of({**curve, "channel": "b"})
    assert (perfect.estimate, perfect.low) == (0, 0)
    assert 0 < perfect.high < 12
    assert (hopeless.estimate, hopeless.low, hopeless.high) == (9, 5, 12)
