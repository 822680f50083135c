"""The order of the stages. Catches: a version in charge of a channel already, made and tried once more for it; rows
that were labelled anew and are not learnt from, since there are as many as before."""

from pathlib import Path

import pytest

import released
from conftest import sentences, write_jsonl
from headrace import loop
from headrace.data import importing
from headrace.release import controls, releases
from headrace.workspace import Workspace
from released import relabel


class Trained(Exception):
    """A version is made."""


@pytest.fixture
def ws(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """tone/1 is in charge, of 120 rows that were imported; a training is not gone through."""

    def train(*_: object, **__: object) -> None:
        raise Trained

    released.fill(workspace, tmp_path, n_rows=120, names=("web",))
    released.plant(workspace)
    controls.ensure_control(workspace)
    monkeypatch.setattr(loop, "train", train)
    return workspace


def test_labels_are_new_since_the_newest_version_in_charge_anywhere(ws: Workspace, tmp_path: Path) -> None:
    later = write_jsonl(tmp_path / "later.jsonl", sentences(60, seed=5, channel="later"))
    importing.import_rows(ws, "web", later)
    with pytest.raises(Trained):
        loop.improve(ws)
    releases.promote(ws, released.plant(ws), channel="web")
    found = loop.improve(ws)
    assert (found["step"], found["n_new_labels"], found["n_needed"]) == ("waiting", 0, 50)


def test_rows_that_were_labelled_anew_are_new_labels(ws: Workspace, tmp_path: Path) -> None:
    assert relabel(ws, tmp_path, n=40) == 40
    found = loop.improve(ws)
    assert (found["step"], found["n_new_labels"]) == ("waiting", 40)
    assert relabel(ws, tmp_path, n=60) == 60  # 40 of them once more
    with pytest.raises(Trained):
        loop.improve(ws)


def test_rows_that_have_their_labels_back_are_nothing_new(ws: Workspace, tmp_path: Path) -> None:
    for turn in (1, 2, 3):  # of three classes
        assert relabel(ws, tmp_path, n=60) == 60, turn
    assert loop.improve(ws)["n_new_labels"] == 0
