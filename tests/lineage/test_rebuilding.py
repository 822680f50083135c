"""Rebuilding. Catches: a training of all channels where one adapter would do; an adapter alone where the shared model
holds some of it too; a version that is called clean and is not; a deadline that ends before the version has gone, or
after another one took its place.
"""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from furnished import NAME, Furnished, furnish
from headrace import loop
from headrace.doctor import rows
from headrace.errors import WrongState
from headrace.lineage import erasing, rebuilding
from headrace.lineage.rebuilding import Way, way_of
from headrace.release import controls, releases
from headrace.workspace import Workspace
from planted import plant_version

WEB, APP = {"version": "tone/3", "channel": "web"}, {"version": "tone/3", "channel": "app"}


@pytest.mark.parametrize(
    ("in_charge", "used", "adapters", "what", "channel"),
    [
        (["tone/3"], {"tone/3"}, [WEB], "adapter", "web"),
        (["tone/3"], {"tone/3"}, [WEB, WEB], "adapter", "web"),  # of two erasures
        (["tone/3"], {"tone/3"}, [WEB, APP], "all", None),
        (["tone/3"], {"tone/3"}, [], "all", None),
        (["tone/3", "tone/4"], {"tone/3"}, [WEB], "all", None),  # the adapter of another shared model would be replaced
        (["tone/4"], {"tone/3"}, [WEB], "nothing", None),
        ([], {"tone/3"}, [WEB], "all", None),  # nothing is in charge yet
        (["tone/4"], {"tone/3", "tone/4"}, [WEB], "all", None),
    ],
)
def test_the_least_that_is_exact(
    in_charge: list[str], used: set[str], adapters: list[dict[str, str]], what: str, channel: str | None
) -> None:
    way = way_of(in_charge, used, adapters)
    assert (way.what, way.channel) == (what, channel)
    assert way.reason


@pytest.fixture
def made(workspace: Workspace) -> Furnished:
    return furnish(workspace, workspace.root)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> list[dict[str, Any]]:
    """What `loop.train` was asked for; it makes a version each time."""
    asked: list[dict[str, Any]] = []

    def train(_: Workspace, **options: Any) -> dict[str, Any]:
        asked.append(options)
        return {"version": plant_version(workspace).name}

    monkeypatch.setattr(loop, "train", train)
    return asked


def test_what_is_in_charge_is_trained_again_and_the_receipt_says_so(
    workspace: Workspace, made: Furnished, trained: list[dict[str, Any]]
) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    done = erasing.erase(workspace, example=made.example)
    (line,) = rebuilding.rebuild(workspace)
    assert (line["task"], line["what"], line["version"], line["erasures"]) == ("tone", "all", "tone/2", [done.id])
    assert [(one["task"], one["per_channel"]) for one in trained] == [("tone", False)]
    receipt = json.loads(Path(done.receipt).read_text())
    assert receipt["rebuilt"] == [{"task": "tone", "what": "all", "version": "tone/2"}]
    assert receipt["rebuilt_at"]
    assert erasing.listing(workspace)[0]["rebuilt_at"] is not None
    assert rebuilding.rebuild(workspace) == []
    assert len(trained) == 1


def test_a_version_is_late_for_as_long_as_it_is_in_charge(
    workspace: Workspace, made: Furnished, trained: list[dict[str, Any]]
) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    done = erasing.erase(workspace, example=made.example)
    later = replace(workspace, clock=lambda: done.retrain_by + timedelta(days=1))

    def standing() -> tuple[list[str], list[str], bool]:
        (one,) = erasing.listing(later)
        return one["in_charge"], one["made"], one["is_late"]

    def advised() -> list[str]:
        return [one.advice for one in rows.work(later) if "used" in one.problem or "use what" in one.problem]

    assert standing() == (["tone/1"], [], True)
    assert ["--rebuild" in one for one in advised()] == [True]
    rebuilding.rebuild(workspace)
    assert standing() == (["tone/1"], ["tone/2"], True)
    assert ["release start" in one for one in advised()] == [True]
    releases.promote(workspace, "2", channel="phone", reason="it is clean")
    assert standing() == (["tone/1"], ["tone/2"], True)
    releases.promote(workspace, "2", reason="it is clean")
    assert standing() == ([], ["tone/2"], False)
    assert advised() == []
    releases.promote(workspace, "1", reason="the old one was better")
    assert standing() == (["tone/1"], ["tone/2"], True)


def test_two_erasures_are_answered_by_one_training(
    workspace: Workspace, made: Furnished, trained: list[dict[str, Any]]
) -> None:
    first = erasing.erase(workspace, example=made.example)
    second = erasing.erase(workspace, labeller=NAME, channel="web")
    assert second.plan.versions == ["tone/1"]  # its snapshot's files are gone: it may have used that, too
    (line,) = rebuilding.rebuild(workspace)
    assert line["erasures"] == [first.id, second.id]
    assert len(trained) == 1


def test_nothing_is_trained_where_what_is_in_charge_did_not_use_it(
    workspace: Workspace, made: Furnished, trained: list[dict[str, Any]]
) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    plant_version(workspace)
    releases.promote(workspace, "2", reason="newer")
    erasing.erase(workspace, example=made.example)
    (line,) = rebuilding.rebuild(workspace)
    assert (line["what"], line["version"], trained) == ("nothing", None, [])


def test_one_channels_adapter_is_trained_alone(
    workspace: Workspace, made: Furnished, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    monkeypatch.setattr(rebuilding, "way_of", lambda *_: Way("adapter", "web", "only that"))
    erasing.erase(workspace, example=made.example)
    rebuilding.rebuild(workspace)
    assert [(one["per_channel"], one["channel"]) for one in trained] == [(True, "web")]


@pytest.mark.parametrize(("setting", "name"), [("teacher", "1"), ("start", "1"), ("start", "control")])
def test_a_teacher_or_a_start_that_used_it_is_refused(
    workspace: Workspace,
    made: Furnished,
    trained: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    name: str,
) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    erasing.erase(workspace, example=made.example)
    finetune = workspace.settings.finetune.model_copy(update={setting: name})
    monkeypatch.setitem(workspace.settings.__dict__, "finetune", finetune)
    with pytest.raises(WrongState, match=f"finetune.{setting} used"):
        rebuilding.rebuild(workspace)
    assert trained == []
    assert erasing.listing(workspace)[0]["rebuilt_at"] is None


def test_a_start_does_not_matter_where_nothing_is_trained_from_it(
    workspace: Workspace, made: Furnished, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    plant_version(workspace)
    releases.promote(workspace, "2", reason="newer")
    erasing.erase(workspace, example=made.example)
    finetune = workspace.settings.finetune.model_copy(update={"start": "1"})
    monkeypatch.setitem(workspace.settings.__dict__, "finetune", finetune)
    assert [line["what"] for line in rebuilding.rebuild(workspace)] == ["nothing"]
    assert trained == []
