"""`value --retrain` on a tiny base model. Catches: a source that is not left out, or rows of the test side that are
trained on; a killed job that starts anew; a fine-tune that does not start where it should; harm that nobody names."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from conftest import LABELS, sentences, write_jsonl
from headrace import jobs, loop, making
from headrace.data import channels, importing, snapshot
from headrace.errors import BadInput
from headrace.finetune import base_models
from headrace.release import controls
from headrace.store import schema
from headrace.valuing import retraining
from headrace.valuing.sources import Source, source_of
from headrace.workspace import Workspace, open_workspace
from planted import plant_version

SETTINGS = """base_model = {base}
max_tokens = 32

[finetune]
epochs = 6
learning_rate = 0.01
batch_tokens = 512
min_steps = 0
evals_per_epoch = 1
patience = 6
"""


@pytest.fixture
def empty(tmp_path: Path, tiny_base: Path) -> Iterator[Workspace]:
    root = tmp_path / "ws"
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    with open_workspace(root) as opened:
        yield opened


def fill(ws: Workspace, folder: Path, channel: str, rows: list[dict[str, str]]) -> None:
    channels.add(ws, channel)
    importing.import_rows(ws, channel, write_jsonl(folder / f"{channel}.jsonl", rows))


@pytest.fixture
def ws(empty: Workspace, tmp_path: Path) -> Workspace:
    for channel in ("a", "bad"):
        rows = sentences(160, seed=len(channel), channel="x")  # no text tells its channel
        if channel == "bad":
            rows = [{**row, "label": LABELS[(LABELS.index(row["label"]) + 1) % 3]} for row in rows]
        fill(empty, tmp_path, channel, rows)
    return empty


ALL = Source("all", "examples")


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_each_source_is_left_out_once_and_a_killed_job_goes_on(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trained: list[dict[str, int]] = []
    fine_tuned = making.fine_tuned

    def counted(ws: Workspace, run: Any, rows: Any, report: Any) -> str:
        if run.checkpoint is None:
            if len(trained) == 2:
                trained.append({})
                raise KilledError
            assert all(row.side != "test" for row in rows)
            counts: dict[str, int] = {}
            for row in rows:
                if row.side == "train":
                    counts[source_of(row).name] = counts.get(source_of(row).name, 0) + 1
            trained.append(counts)
        return fine_tuned(ws, run, rows, report)

    monkeypatch.setattr(making, "fine_tuned", counted)
    frozen, progress = snapshot.freeze(ws), jobs.Progress(ws, None)
    given = {"task": "tone", "snapshot_id": frozen.id, "start": "base"}
    with pytest.raises(KilledError):
        retraining.leave_out_each(ws, progress, **given)
    found = retraining.leave_out_each(ws, progress, **given)
    assert json.loads(json.dumps(found)) == found
    assert [sorted(counts) for counts in trained if counts] == [["bad"], ["a", "bad"], ["a"]]
    by_name = {one["source"]: one for one in found["sources"]}
    assert by_name["bad"]["for"]["others"]["points"]["high"] < 0
    assert by_name["bad"]["for"]["itself"]["points"]["estimate"] > 0  # it alone knows its wrong labels
    monkeypatch.setattr(retraining, "_answers", None)  # what was answered is kept with the runs
    assert retraining.leave_out_each(ws, progress, **given) == found

    _starts_from_the_version_in_charge(ws, by_name["bad"]["run_id"], frozen)


def _starts_from_the_version_in_charge(ws: Workspace, run_id: str, frozen: Any) -> None:
    checkpoint = making.find_run(ws, run_id).checkpoint
    version = plant_version(ws)
    with ws.store.write() as conn:
        table = schema.model_versions
        conn.execute(update(table).where(table.c.id == version.id).values(checkpoint=checkpoint))
    controls.ensure_control(ws)
    work = retraining._Work(ws, retraining.sides_at(ws, "tone", frozen), "version", lambda *_a, **_f: None)
    assert work.epochs == 1
    run = work.whole
    assert run.base_digest == base_models.find(str(ws.artifacts.get(str(checkpoint)))).digest
    assert making.run_with(ws, replace(run, id="run_other")).id == run.id
    making.fine_tuned(ws, run, work.rows_without(None), work.report)
    assert making.find_run(ws, run.id).facts["epochs"] == pytest.approx(1, abs=0.1)


def test_a_version_that_is_no_plain_model_cannot_be_started_from(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_version(ws)
    controls.ensure_control(ws)
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(type(ws.artifacts), "get", lambda *_: tmp_path)
    with pytest.raises(BadInput, match="cannot be merged into its base model"):
        retraining.check(ws, "tone", "version")
    retraining.check(ws, "tone", "base")


def test_a_source_without_which_one_class_is_left_cannot_be_left_out_and_says_why(
    empty: Workspace, tmp_path: Path
) -> None:
    rows = sentences(160, channel="x")
    fill(empty, tmp_path, "all", rows[:80])
    fill(empty, tmp_path, "one", [row for row in rows[80:] if row["label"] == LABELS[0]])
    sides = retraining.sides_at(empty, "tone", snapshot.freeze(empty))
    found = retraining._without(retraining._Work(empty, sides, "base", lambda *_a, **_f: None), ALL, "1/2")
    assert (found["source"], found["n_rows"]) == ("all", sides.n_rows[ALL])
    assert f"one class only: {LABELS[0]}" in found["reason"]
    assert "for" not in found


def test_a_verdict_asks_for_chance_noise_and_most_channels() -> None:
    def source(name: str, points: float, wins: int, losses: int, most_lose: bool) -> dict[str, Any]:
        ends = {"estimate": points, "low": points - 1, "high": points + 1, "level": 0.95}
        part = {"n": 400, "points": ends, "wins": wins, "losses": losses, "most_lose": most_lose}
        return {"source": name, "for": {"others": part}}

    found = [
        source("bad", -6, 3, 30, True), source("blamed", -6, 3, 30, False), source("small", -0.5, 3, 30, True),
        source("luck", -2, 3, 8, True), source("good", 5, 40, 5, False), {"source": "alone", "reason": "one class"},
    ]  # fmt: skip
    verdicts = {one["source"]: one["verdict"] for one in retraining._judged(found)}
    assert verdicts == {
        "bad": "harms", "blamed": "not known", "small": "not known", "luck": "not known", "good": "helps",
        "alone": "not known",
    }  # fmt: skip
