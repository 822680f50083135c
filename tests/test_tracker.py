"""`--tracker`: curves in other tools. Catches: a tracker that gets nothing, writes into the run's scratch that is
removed, makes another run of the same settings, or is missed only when the job is at work."""

import json
import os
from pathlib import Path

import pytest

from conftest import LABELS, TINY_TRAINING, sentences, write_jsonl
from headrace import jobs, loop, making
from headrace.data import channels, importing, snapshot
from headrace.errors import MissingExtra
from headrace.finetune import tracking
from headrace.workspace import open_workspace

SETTINGS = (
    TINY_TRAINING
    + """epochs = 2
min_steps = 0

[export]
backend = "hf"
precision = "fp32"
"""
)


@pytest.fixture
def root(tmp_path: Path, tiny_base: Path) -> Path:
    root = tmp_path / "ws"
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    with open_workspace(root) as ws:
        channels.add(ws, "a")
        importing.import_rows(ws, "a", write_jsonl(tmp_path / "a.jsonl", sentences(120, channel="a")))
    return root


def test_tensorboard_has_the_learning_curve(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with open_workspace(root) as ws:
        untracked = making.planned_run(ws, "tone", snapshot.freeze(ws), ws.settings.finetune)
    with open_workspace(root, overrides={"finetune.tracker": "tensorboard"}) as ws:
        run = making.run_of(ws, "tone", snapshot.freeze(ws), ws.settings.finetune)
        assert run.fingerprint == untracked.fingerprint  # who looks on decides nothing
        rows = snapshot.rows(ws, snapshot.find(ws, run.snapshot_id))
        making.fine_tuned(ws, run, rows, jobs.Progress(ws, None).report)
        history = making.find_run(ws, run.id).history
    board = EventAccumulator(str(root / ".headrace" / "tracking" / run.id))
    board.Reload()
    for tag, key in (("train/loss", "loss"), ("eval/loss", "eval_loss"), ("eval/metric_main", "eval_metric_main")):
        written = {event.step: event.value for event in board.Scalars(tag)}
        kept = {entry["step"]: entry[key] for entry in history if key in entry}
        assert kept
        assert written == pytest.approx(kept, rel=1e-5)


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_told_at_once(
    root: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.registry.find_spec", lambda name: None if name == tracker else object())
    with open_workspace(root, overrides={"finetune.tracker": tracker}) as ws:
        with pytest.raises(MissingExtra, match=rf"pip install 'headrace\[{tracker}\]'"):
            loop.start_training(ws)
        assert jobs.listing(ws) == []


def test_a_stage_before_the_training_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: two curves of one name at the same steps."""
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with tracking.stage("pretrain"):
        assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    with tracking.to(tmp_path, "run_1"):
        with tracking.stage("pretrain"):
            assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "run_1" / "pretrain")
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "run_1")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
