"""What a reviewer answered, once he or she is erased. Catches: audits that leave the figure with their answers, so that
those who are left speak for all; drawn questions that nobody is asked again; a chosen question that stays open, or one
about an answer that goes too; a restored backup in which any of it is otherwise.
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from audited import Answer, plant_log
from furnished import NAME, OTHERS, furnish, holders
from headrace import backups
from headrace.feedback import accuracy, reviews
from headrace.feedback.accuracy import Part
from headrace.lineage import erasing, tombstones
from headrace.release import controls
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_channel, plant_version

N = 50
OTHER = "kim"


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    """Audits of every answer: one half answered by somebody, right, the other by who goes, wrong."""
    version = plant_version(workspace)
    controls.ensure_control(workspace)
    web = plant_channel(workspace, "web")
    plant_log(workspace, web, version, [Answer("neutral", is_drawn=True, probability=1.0)] * N, every_s=60)
    ws = replace(workspace, clock=lambda: NOON + timedelta(days=1))
    for place, one in enumerate(reviews.listing(ws)):
        is_right = place % 2
        reviews.answer(ws, one.id, "neutral" if is_right else "positive", OTHER if is_right else NAME)
    return ws


def live(ws: Workspace) -> Part:
    return accuracy.live(replace(ws, clock=lambda: NOON + timedelta(days=20))).channels["web"]


def check_open_again(ws: Workspace) -> None:
    assert reviews.fill(ws).n_audits == 0
    part = live(ws)
    assert (part.n_audits, part.n_unanswered, part.n_requests) == (N // 2, N // 2, N)
    assert part.accuracy is not None
    assert part.accuracy.low < 0.5 < part.accuracy.high
    found = reviews.listing(ws)
    assert len(found) == N // 2
    assert {(one.answer, one.labeller, one.key_id, one.answered_at) for one in found} == {(None, None, None, None)}


def test_their_audits_wait_for_an_answer_again(ws: Workspace) -> None:
    assert (live(ws).n_audits, live(ws).n_unanswered) == (N, 0)
    done = erasing.erase(ws, labeller=NAME, channel="web")
    assert done.plan.rows == {"feedback": N // 2}
    check_open_again(ws)
    (asked,) = reviews.next_of(ws, labeller=OTHER)
    assert reviews.answer(ws, asked.id, "positive", OTHER).state == "answered"


def test_so_they_do_in_an_older_backup(ws: Workspace, tmp_path: Path) -> None:
    backups.backup(ws, tmp_path / "older")
    erasing.erase(ws, labeller=NAME, channel="web")
    backups.restore(tmp_path / "older", tmp_path / "again", erasures=ws.state_folder / tombstones.FILE)
    assert holders(tmp_path / "again", NAME) == []
    with open_workspace(tmp_path / "again") as again:
        check_open_again(replace(again, clock=ws.clock))


def test_a_question_that_was_chosen_or_whose_answer_goes_is_not_asked_again(workspace: Workspace) -> None:
    made = furnish(workspace, workspace.root)
    mine = [one for one in reviews.listing(workspace, state="answered") if one.labeller == NAME]
    assert {(one.reason, one.prediction_id == made.prediction) for one in mine} == {
        ("random", False),
        ("audit", False),
        ("audit", True),
    }
    erasing.erase(workspace, labeller=NAME, channel="web")
    left = [one for one in reviews.listing(workspace, state=None) if one.id in {one.id for one in mine}]
    assert [(one.reason, one.state, one.text) for one in left] == [("audit", "open", OTHERS)]
