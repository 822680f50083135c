"""What `predict` prints, and what Ctrl-C does. Catches: a task type whose answers are shown as a dash, an empty answer
shown as nothing, a stop that is taken for a loss."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

from conftest import Say, sentences, write_jsonl
from headrace import jobs, offline
from headrace.cli.rendering import answer_in_words, watch
from headrace.config import TaskTable
from headrace.records import Job
from headrace.tasks import TASK_TYPES, TokenLogits
from headrace.workspace import Workspace
from planted import NOON

LABELS = ("pay", "send")
TABLES = {name: TaskTable(type=name, labels=LABELS, descriptions={x: f"{x}!" for x in LABELS}) for name in (
    "text-classification", "text-pair", "multi-label", "token-classification", "retrieval",
)} | {name: TaskTable(type=name) for name in ("text-regression", "extractive-qa")}  # fmt: skip


def tokens(rows: list[list[float]], first: int) -> np.ndarray:
    """Outputs of one input, "Ann paid"; `first` is where the first token's span begins."""
    spans = np.asarray([[first, 3 if first == 0 else -1], [4, 8]], dtype=np.int32)
    one = TokenLogits("Ann paid", spans, np.asarray(rows, dtype=np.float32), np.zeros(2, dtype=np.int32))
    outputs = np.empty(1, dtype=object)
    outputs[0] = one
    return outputs


@pytest.mark.parametrize(
    ("name", "outputs", "calibration", "words"),
    [
        ("text-classification", np.array([[5.0, 0.0]]), {}, "pay"),
        ("text-pair", np.array([[0.0, 5.0]]), {}, "send"),
        ("multi-label", np.array([[0.0, 9.0]]), {}, "pay (0.50), send (1.00)"),
        ("multi-label", np.array([[-9.0, -9.0]]), {}, "(none)"),
        ("text-regression", np.array([[2.5]]), {}, "2.5"),
        ("text-regression", np.array([[2.5]]), {"half_width": 1.0, "level": 0.9}, "2.5 (1.5 to 3.5)"),
        ("retrieval", np.array([[10.0, 2.0]]), {}, "pay (cosine 0.50): pay!"),
        ("token-classification", tokens([[0, 99, 0, 0, 0], [99, 0, 0, 0, 0]], 0), {}, "Ann = pay (1.00)"),
        ("token-classification", tokens([[99, 0, 0, 0, 0]] * 2, 0), {}, "(none)"),
        ("extractive-qa", tokens([[0, 0], [9, 9]], -1), {}, "paid"),
        ("extractive-qa", tokens([[9, 9], [0, 0]], -1), {}, "(none)"),
    ],
)
def test_an_answer_of_any_type_can_be_read(
    name: str, outputs: np.ndarray, calibration: dict[str, float], words: str
) -> None:
    task_type = TASK_TYPES.get(name)(TABLES[name])
    assert answer_in_words(task_type.decode(outputs, calibration)[0]) == words


def test_every_task_type_is_here() -> None:
    assert set(TABLES) == set(TASK_TYPES.names())


def test_ctrl_c_in_a_file_says_that_nothing_is_lost(
    say: Say, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(offline, "predict_file", stopped)
    said = say("predict", str(write_jsonl(tmp_path / "rows.jsonl", sentences(1))))
    assert (said.status, said.out) == (130, "")
    assert "What is done is kept. The same command goes on from here." in said.err


def test_ctrl_c_leaves_a_job_running_and_says_how_to_watch_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job("job_1", "training", {}, "running", None, {}, None, None, "", NOON)

    def follow(*_: object) -> Iterator[Job]:
        yield job
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", follow)
    with pytest.raises(typer.Exit) as ended:
        watch(workspace, job, quiet=True)
    assert ended.value.exit_code == 130
    assert "Still running. Watch it: headrace job follow job_1" in capsys.readouterr().err
