"""When a new version is due. Catches: feedback that does not count counted, the same labels counted again for each
look, rows that no version is made of counted as new, an import missed that went on while a snapshot was frozen, drift
that harms nobody, a version made again of the same rows, a schedule that nothing can satisfy."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

import released
from conftest import sentences, write_jsonl
from headrace import trusting
from headrace.config import FeedbackTable
from headrace.data import importing, split
from headrace.errors import WrongState
from headrace.feedback import labels as feedback_labels
from headrace.feedback import suspensions
from headrace.feedback.triggers import Facts, judge
from headrace.ids import new_id
from headrace.store import channels, schema
from headrace.store import drift as rows
from headrace.workspace import Workspace
from planted import NOON, plant_answer, plant_correction, plant_version

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
        trusting.trigger_facts(workspace)
    plant_version(workspace)
    assert trusting.trigger_facts(workspace).n_new_labels == 0


def test_labels_count_from_the_newest_version_on_and_feedback_as_far_as_trust_lets_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    released.fill(workspace, tmp_path, n_rows=60)
    version = released.plant(workspace)
    assert trusting.trigger_facts(workspace).n_new_labels == 0
    with workspace.store.read() as conn:
        web = channels.find(conn, "web")
    assert web is not None
    later = sentences(7, seed=5, channel="later")
    importing.import_rows(workspace, "web", write_jsonl(tmp_path / "later.jsonl", later))
    assert trusting.trigger_facts(workspace).n_new_labels == 7
    liar, honest = "liar", "honest"
    for place, who in enumerate([liar] * 4 + [honest] * 4):
        text = f"something quite new number {place} of {who} {'x' * place}"
        answer, _ = plant_answer(workspace, web, version, "neutral", text=text)
        plant_correction(workspace, answer, "positive", labeller=who)
    feedback_labels.to_labels(workspace)
    with_all = trusting.trigger_facts(workspace)
    suspensions.suspend(workspace, "web", labeller=liar, because="by hand")
    without = trusting.trigger_facts(workspace)
    assert with_all.n_new_labels + with_all.n_held_back > 7
    assert without.n_new_labels < with_all.n_new_labels
    assert without.n_held_back > with_all.n_held_back
    released.plant(workspace)
    assert trusting.trigger_facts(workspace).n_new_labels == 0


def test_an_import_counts_from_its_end_on_and_only_with_rows_that_can_be_learnt_from(
    workspace: Workspace, tmp_path: Path
) -> None:
    released.fill(workspace, tmp_path, n_rows=60)
    released.plant(workspace)
    importing.import_rows(workspace, "web", write_jsonl(tmp_path / "b.jsonl", sentences(9, seed=5, channel="b")))
    with workspace.store.write() as conn:  # as if it had begun before the snapshot was frozen
        conn.execute(update(schema.labels).values(created_at=NOON))
    assert trusting.trigger_facts(workspace).n_new_labels == 9
    with workspace.store.write() as conn:
        groups = select(schema.examples.c.group_key).where(schema.examples.c.key.in_(["b-0", "b-1"]))
        conn.execute(
            update(schema.split_groups).where(schema.split_groups.c.group_key.in_(groups)).values(side=split.EXCLUDED)
        )
    assert trusting.trigger_facts(workspace).n_new_labels == 7


def test_alarms_count_that_harm_and_that_the_newest_version_is_no_answer_to(workspace: Workspace) -> None:
    version = plant_version(workspace)
    effect = {"accuracy": "affected", "now": None, "before": None, "n_more": 0}
    evidence = {"since": None, "n_answers": 10, "changes": [], "effect": effect}
    same = {"task": "tone", "channel_id": None, "version_id": version.id, "ended_at": None}
    with workspace.store.write() as conn:
        rows.add_alarm(
            conn, id=new_id("alarm"), stream="errors", evidence=evidence, at=NOON - timedelta(days=1), **same
        )
        harmless = {**evidence, "effect": {**effect, "accuracy": "not affected"}}
        rows.add_alarm(
            conn, id=new_id("alarm"), stream="classes", evidence=harmless, at=NOON + timedelta(days=1), **same
        )
    assert trusting.trigger_facts(workspace).alarms == ()
    with workspace.store.write() as conn:
        rows.add_alarm(
            conn, id=new_id("alarm"), stream="errors", evidence=evidence, at=NOON + timedelta(days=1), **same
        )
    (said,) = trusting.trigger_facts(workspace).alarms
    assert "accuracy is affected" in said
