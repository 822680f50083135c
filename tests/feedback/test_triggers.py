"""When a new version is due. Catches: feedback that does not count counted, the same labels counted again for each
look, drift that harms nobody, a version made again of the same rows, a schedule that nothing can satisfy."""

from dataclasses import replace
from datetime import timedelta

import pytest

from headrace.config import FeedbackTable
from headrace.errors import WrongState
from headrace.feedback import triggers
from headrace.feedback.triggers import Facts, judge
from headrace.workspace import Workspace
from planted import NOON, plant_version

QUIET = Facts("tone/3", NOON, NOON + timedelta(days=10), n_new_labels=0)
SETTINGS = FeedbackTable(min_new_labels=50, retrain_days=7)


@pytest.mark.parametrize(
    ("facts", "settings", "kind"),
    [
        (QUIET, SETTINGS, "none"),
        (replace(QUIET, n_new_labels=50), SETTINGS, "labels"),
        (replace(QUIET, n_new_labels=49), FeedbackTable(), "none"),
        (replace(QUIET, n_held_back=5000), SETTINGS, "none"),
        (replace(QUIET, n_new_labels=1), SETTINGS, "schedule"),
        (replace(QUIET, n_new_labels=1, now=NOON + timedelta(days=6.9)), SETTINGS, "none"),
        (replace(QUIET, n_new_labels=1, alarms=("web: worse",)), FeedbackTable(), "drift"),
        (replace(QUIET, n_new_labels=1, alarms=("web: worse",)), FeedbackTable(drift_triggers=False), "none"),
        (replace(QUIET, alarms=("web: worse",)), SETTINGS, "none"),
    ],
)
def test_the_rule(facts: Facts, settings: FeedbackTable, kind: str) -> None:
    found = judge(facts, settings)
    assert (found.kind, found.fires) == (kind, kind != "none")
    assert "new labels that count since tone/3" in found.reason


def test_without_a_version_nothing_can_be_due(workspace: Workspace) -> None:
    with pytest.raises(WrongState, match="no model version"):
        triggers.facts(workspace)
    plant_version(workspace)
    assert triggers.facts(workspace).n_new_labels == 0
