"""What every way to compress must do, on toy rows of a task."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.config import FinetuneTable, TaskTable
from headrace.records import SnapshotRow
from headrace.registry import resolve
from headrace.testing.methods import check_saved, settings_for, weights_of


class StoppedError(Exception):
    """Raised in place of a kill."""


def check_way(
    candidate: str, version: Path, task: TaskTable, rows: Sequence[SnapshotRow], *, in_full: bool = True
) -> None:
    """A candidate such as `layers=0.5` is smaller, repeats, resumes, and ends as what plain libraries load.

    Args:
        version: checkpoint folder that is compressed.
        in_full: also repeated, and stopped in the middle.

    Raises:
        AssertionError: naming what it got wrong.
    """
    load = resolve("headrace.checkpoints.loading:load", purpose="compressing")
    task_type = resolve("headrace.tasks:TASK_TYPES").get(task.type)(task)
    whole, _ = load(version, task_type)
    n_whole = sum(p.numel() for p in whole.parameters())
    with tempfile.TemporaryDirectory() as folder:
        made = _made(Path(folder), version, task, rows, candidate)
    assert made.facts["n_parameters"] < n_whole, f"{candidate}: nothing was cut"
    check_saved(candidate, made, task, [row.input for row in rows[:5]])
    if in_full:
        _check_again(candidate, version, task, rows, weights_of(made.network))


def _check_again(
    candidate: str, version: Path, task: TaskTable, rows: Sequence[SnapshotRow], expected: dict[str, Any]
) -> None:
    """Made again, and made with a stop in the middle, the weights are the same."""
    with tempfile.TemporaryDirectory() as place:
        _assert_same(f"{candidate}: made again", _made(Path(place), version, task, rows, candidate), expected)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def stop(*_args: Any, **_facts: Any) -> None:
            if list(folder.glob("checkpoint-*/whole")):
                raise StoppedError

        try:
            _made(folder, version, task, rows, candidate, stop)
        except StoppedError:
            resumed = _made(folder, version, task, rows, candidate)
            assert resumed.facts["resumed"], f"{candidate}: began anew after a stop"
            _assert_same(f"{candidate}: after a stop", resumed, expected)


def _assert_same(problem: str, made: Any, expected: dict[str, Any]) -> None:
    found = weights_of(made.network)
    assert found.keys() == expected.keys(), f"{problem}: other names"
    for key, value in expected.items():
        assert (found[key] == value).all(), f"{problem}: {key} differs"


def _made(
    folder: Path, version: Path, task: TaskTable, rows: Sequence[SnapshotRow], candidate: str, report: Any = None
) -> Any:
    make = resolve("headrace.finetune.compressing.candidates:made", purpose="compressing")
    steps = resolve("headrace.finetune.compressing:parse")(candidate)
    settings: FinetuneTable = settings_for("distil", epochs=3)
    return make(folder, version, task, settings, rows, report or _silent, steps=steps)


def _silent(*_args: Any, **_facts: Any) -> None:
    pass
