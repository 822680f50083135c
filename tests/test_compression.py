"""`compress` on a tiny version. Catches: candidates that are made again, a choice by the test side or beyond the
budget, a version without its lineage, measures that are lost in a kill, a table that cannot be read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import LABELS, TINY_TRAINING, sentences, write_jsonl
from headrace import compression, jobs, loop, making
from headrace.cli.compressing import show_compression
from headrace.data import channels, importing, snapshot
from headrace.errors import BadConfig, BadInput, Cancelled, NotFound
from headrace.store import runs, versions
from headrace.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow  # they share a version, which takes seconds to make
SETTINGS = (
    TINY_TRAINING
    + """epochs = 6
learning_rate = 0.01
min_steps = 0
evals_per_epoch = 1
seed = 4

[compress]
epochs = 3
learning_rate = 0.005
ways = ["vocabulary", "layers=0.5"]

[export]
backend = "hf"
precision = "fp32"
"""
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A workspace with two channels and a version."""
    root = tmp_path_factory.mktemp("compress") / "ws"
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    with open_workspace(root) as ws:
        for name in ("a", "b"):
            channels.add(ws, name)
            path = write_jsonl(root / f"{name}.jsonl", sentences(160, channel=name))
            importing.import_rows(ws, name, path)
        run = making.run_of(ws, "tone", snapshot.freeze(ws), ws.settings.finetune)
        making.made_version(ws, run, loop.silent)
    return root


@pytest.fixture
def ws(trained: Path) -> Iterator[Workspace]:
    with open_workspace(trained) as opened:
        yield opened


def compressed(ws: Workspace, *, ways: tuple[str, ...], max_drop: float, version: str = "1") -> dict[str, Any]:
    found = making.controls.find_version(ws, None, version)
    args = {"version_id": found.id, "task": "tone", "ways": ways, "max_drop": max_drop}
    return compression.compress_version(ws, jobs.Progress(ws, None), **args)


def test_bad_requests_are_refused_at_once(ws: Workspace) -> None:
    with pytest.raises(NotFound, match=r"unknown name in ways: layer\b"):
        compression.start(ws, "1", ways=["layer=0.5"])
    with pytest.raises(BadConfig, match="share of 'layers' that stays"):
        compression.start(ws, "1", ways=["layers=2"])
    with pytest.raises(NotFound):
        compression.start(ws, "7")
    with pytest.raises(BadInput, match="points that may be lost"):
        compression.start(ws, "1", max_drop=-1)


def test_the_fastest_within_the_budget_becomes_a_version(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rates = iter([(100.0, 1.0), (110.0, 1.1), (250.0, 2.5)])
    monkeypatch.setattr(compression, "_speeds", lambda *_: list(rates))
    ways = ("vocabulary=1", "layers=0.5")
    made = compressed(ws, ways=ways, max_drop=100)
    assert (made["chosen"], made["compressed_from"], made["version"]) == ("layers=0.5", "tone/1", "tone/2")
    whole, vocabulary, layers = made["candidates"]
    assert [one["name"] for one in made["candidates"]] == ["uncompressed", *ways]
    assert vocabulary["points"]["validation"]["overall"]["points"] == 0
    assert vocabulary["points"]["test"]["overall"]["points"] == 0
    assert layers["n_bytes"] < vocabulary["n_bytes"] <= whole["n_bytes"]  # every word of the toy rows is common
    assert layers["n_parameters"] < whole["n_parameters"]
    assert set(layers["points"]["validation"]) == {"overall", "a", "b"}
    with ws.store.read() as conn:
        version = versions.numbered(conn, "tone", 2)
        first = versions.numbered(conn, "tone", 1)
        assert version is not None
        assert first is not None
        run = runs.find(conn, version.run_id)
        kept = versions.evaluations(conn, "tone", version_id=version.id)
    assert run is not None
    assert run.method == "compress"
    assert run.params["material"]["teacher"] == first.checkpoint
    assert run.params["compress"] == {"version": "tone/1", "ways": "layers=0.5"}
    assert {one.predictor for one in kept} >= {"version", "uncompressed"}
    assert making.describe(ws, version)["method"] == "compress"
    assert loop.predict(ws, ["great lovely film"], version="2")
    show_compression(made)
    table = capsys.readouterr().out
    assert "chosen" in table
    assert "Registered tone/2" in table

    def never(*_args: Any, **_facts: Any) -> None:
        raise AssertionError("what was measured is measured again")

    monkeypatch.setattr(compression, "_cut_and_trained", never)
    monkeypatch.setattr(compression, "_compared", never)
    monkeypatch.setattr(compression, "_speeds", lambda *_: [(100.0, 1.0), (110.0, 1.1), (250.0, 2.5)])
    assert compressed(ws, ways=ways, max_drop=100) == made
    with ws.store.read() as conn:
        assert len(versions.listing(conn, "tone")) == 2


def test_the_validation_side_decides(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that loses on the validation side is beyond the budget, however good it is on the test side."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(compression, "_speeds", lambda *_: [(100.0, 1.0), (300.0, 3.0)])
    compared = compression._compared

    def worse(*args: Any) -> dict[str, Any]:
        found = compared(*args)
        for part in [found["validation"]["overall"], *found["validation"]["channels"].values()]:
            part["difference"] |= {"estimate": -0.02, "low": -0.03, "high": -0.01}
        return found

    monkeypatch.setattr(compression, "_compared", worse)
    made = compressed(ws, ways=("feed-forward=0.5",), max_drop=1.5)
    assert (made["chosen"], made["version"]) == (None, "tone/1")
    assert "every one loses more, overall or in a channel" in made["reason"]
    assert not made["candidates"][1]["within"]


def test_what_was_measured_before_a_stop_is_found(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(compression, "_speeds", lambda *_: [(100.0, 1.0)] * 3)
    made: list[str] = []
    cut_and_trained = compression._cut_and_trained

    def watched(ws: Workspace, whole: Any, run: Any, report: Any) -> str:
        made.append(run.params["compress"]["ways"])
        if len(made) == 2:
            raise Cancelled("stopped", value="test", next_step="go on")
        return cut_and_trained(ws, whole, run, report)

    monkeypatch.setattr(compression, "_cut_and_trained", watched)
    ways = ("heads=0.5", "layers=0.5+vocabulary=0.9")
    with pytest.raises(Cancelled):
        compressed(ws, ways=ways, max_drop=0)
    compressed(ws, ways=ways, max_drop=0)
    assert made == [ways[0], ways[1], ways[1]]


def test_speeds_are_measured_in_turn(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        def logits(self, inputs: Any) -> None:
            order.append(self.name)

    monkeypatch.setattr(ws.artifacts.__class__, "get", lambda _self, digest: digest)
    monkeypatch.setattr(compression, "load_artifact", lambda name: (Slow(name), None))
    monkeypatch.setattr(making, "_seconds", lambda call: (call(), {"a": 2.0, "b": 0.5}[order[-1]])[1])
    found = compression._speeds(ws, ["a", "b"], ["x"] * 4, loop.silent)
    assert found == [(2.0, 1.0), (8.0, 4.0)]
    assert "".join(order[-14:]) == "ab" * 7


def test_a_way_that_cannot_be_done_is_listed_and_the_others_go_on(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compression, "_speeds", lambda _ws, artifacts, *_: [(100.0, 1.0)] * len(artifacts))
    monkeypatch.setattr(compression, "_compared", lambda *_: {side: UNCHANGED for side in ("validation", "test")})

    def refuse(_ws: Workspace, whole: Any, run: Any, _report: Any) -> str:
        if "heads" in run.params["compress"]["ways"]:
            raise BadInput("heads cannot be cut out of this family of models", value="x", next_step="Leave it out")
        return str(whole.version.checkpoint)

    monkeypatch.setattr(compression, "_cut_and_trained", refuse)
    made = compressed(ws, ways=("heads=0.3", "layers=0.9"), max_drop=0)
    assert list(made["refused"]) == ["heads=0.3"]
    assert [one["name"] for one in made["candidates"]] == ["uncompressed", "layers=0.9"]
    assert made["chosen"] is None
    assert "none is faster or smaller" in made["reason"]
    show_compression(made)
    assert "Not made: heads=0.3. heads cannot be cut" in capsys.readouterr().out
    with pytest.raises(BadInput, match="no candidate can be made"):
        compressed(ws, ways=("heads=0.3",), max_drop=0)


SAME = {"n": 40, "difference": {"estimate": 0.0, "low": -0.001, "high": 0.001}}
UNCHANGED = {"main_metric": "macro_f1", "overall": SAME, "channels": {"a": SAME, "b": SAME}}


def test_export_compresses_first(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the job, as the command line does it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(BadInput, match="does not write this precision"):
        loop.export_compressed(ws, "1", tmp_path / "out", precision="int8")
    steps: list[str] = []
    made = loop.export_compressed(
        ws, "1", tmp_path / "out", max_drop=100, ways=["layers=0.5"], report=lambda step, *_a, **_f: steps.append(step)
    )
    found = made["compression"]
    assert made["version"] == found["version"]
    assert (found["version"] == "tone/1") == (found["chosen"] is None)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == (2 if found["chosen"] is None else 1)
    assert all(one["rows_per_s"] > 0 for one in found["candidates"])
    assert steps


def test_options_of_compression_need_it(ws: Workspace, tmp_path: Path) -> None:
    from headrace.cli.models import export

    with pytest.raises(BadInput, match="--ways and --max-drop are for --compress"):
        export("1", tmp_path / "out", max_drop=0.5, where=ws.root)
