"""The order of the stages. Catches: a version in charge of a channel already, made and tried once more for it."""

from dataclasses import replace

import pytest

from headrace import loop
from headrace.data import snapshot
from headrace.release import controls, releases
from headrace.workspace import Workspace
from planted import plant_channel, plant_version


def test_labels_are_new_since_the_newest_version_in_charge_anywhere(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_channel(workspace, "web")
    plant_version(workspace)
    controls.ensure_control(workspace)
    second = plant_version(workspace)
    releases.promote(workspace, second, channel="web")
    its_rows = replace(snapshot.find(workspace, second.snapshot_id), n_rows=1000)
    monkeypatch.setattr(snapshot, "freeze", lambda *_, **__: its_rows)
    found = loop.improve(workspace)
    assert (found["step"], found["n_new_labels"], found["n_needed"]) == ("waiting", 0, 50)
