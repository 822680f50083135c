"""Labelled answers of a release in which each request meets one arm: what counts, once per unit.

Catches: answers of one unit taken for independent ones, a choice among them that hangs on what labels say or on what
comes later, and rows of a request that count one by one.
"""

from collections.abc import Callable
from functools import partial

import pytest

from headrace.feedback import suspensions
from headrace.feedback.outcomes import evidence, labels_of
from headrace.records import Channel, Decision, Release, Score
from headrace.release import controls, releases
from headrace.store import releases as rows
from headrace.workspace import Workspace
from planted import plant_answer, plant_channel, plant_correction, plant_version

WRONG, RIGHT = "negative", "positive"
Say = Callable[..., tuple[str, str]]


def started(ws: Workspace, policy: str) -> tuple[Release, Say]:
    """An open release, and a function that plants an answer to a unit."""
    plant_version(ws)
    controls.ensure_control(ws)
    release = releases.start(ws, candidate=plant_version(ws), policy=policy)
    return release, partial(said, ws, release, plant_channel(ws, "a"))


def said(
    ws: Workspace,
    release: Release,
    channel: Channel,
    label: str,
    *,
    unit: str | None,
    arm: str = "candidate",
    request: str | None = None,
    row: int = 0,
) -> tuple[str, str]:
    version, share = controls.find_version(ws, None, release.version_of(arm)), release.weights[arm]
    return plant_answer(
        ws, channel, version, label, arm=arm, release_id=release.id, probability=share, unit=unit, request_id=request,
        row=row,
    )  # fmt: skip


def counted(ws: Workspace, release: Release) -> tuple[dict[str, Score], int]:
    """Arm to its score, and how many labelled answers did not count; feedback, stages and answers say the same."""
    labels = labels_of(ws, release)
    totals = {arm: by["a"] for arm, by in (labels.feedback or {}).items()}
    by_stage = [(arm, by["a"]) for stage in labels.stages for arm, by in stage.items()]
    for arm, score in totals.items():
        assert sum((one for name, one in by_stage if name == arm), Score()) == score
        mine = [one.is_right for one in labels.answers if one.arm == arm]
        assert Score(len(mine), sum(mine)) == score
    assert len(labels.answers) == sum(score.n for score in totals.values())
    assert evidence(ws, release, labels=labels).n_repeated_labels == labels.n_repeated
    return totals, labels.n_repeated


def test_of_a_unit_the_answer_that_was_labelled_first_counts_and_stays(workspace: Workspace) -> None:
    release, say = started(workspace, "ab")
    early, _ = say(WRONG, unit="u")
    middle, _ = say(RIGHT, unit="u")
    late, _ = say(WRONG, unit="u")
    other, _ = say(RIGHT, unit="v", arm="control")
    plant_correction(workspace, middle, RIGHT, minute=5)
    plant_correction(workspace, other, RIGHT, minute=6)
    both = {"candidate": Score(1, 1), "control": Score(1, 1)}
    assert counted(workspace, release) == (both, 0)
    plant_correction(workspace, early, RIGHT, minute=7)  # given earlier, labelled later
    plant_correction(workspace, late, RIGHT, minute=8)
    assert counted(workspace, release) == (both, 2)
    plant_correction(workspace, middle, WRONG, minute=9)  # the labeller thinks again: another truth, the same answer
    assert counted(workspace, release) == ({**both, "candidate": Score(1, 0)}, 2)


def test_several_labellers_of_the_answer_that_counts_are_one_outcome(workspace: Workspace) -> None:
    release, say = started(workspace, "ab")
    first, _ = say(RIGHT, unit="u")
    second, _ = say(WRONG, unit="u")
    for minute, (answer, label) in enumerate([(first, WRONG), (second, WRONG), (first, RIGHT), (first, RIGHT)]):
        plant_correction(workspace, answer, label, labeller=f"l{minute}", minute=minute)
    assert counted(workspace, release) == ({"candidate": Score(1, 1)}, 1)


def test_without_a_unit_a_request_is_one_with_all_its_rows(workspace: Workspace) -> None:
    release, say = started(workspace, "ab")
    for number in range(3):
        _, request = first = say(RIGHT, unit=None)
        rest = [say(WRONG, unit=None, request=request, row=row) for row in (1, 2)]
        for row, (answer, _) in enumerate([first, *rest]):
            plant_correction(workspace, answer, RIGHT, minute=3 * number + row)
    assert counted(workspace, release) == ({"candidate": Score(3, 3)}, 6)


def test_a_unit_that_is_named_as_a_request_is_another(workspace: Workspace) -> None:
    release, say = started(workspace, "ab")
    answer, request = say(RIGHT, unit=None)
    named, _ = say(WRONG, unit=request)
    for one in (answer, named):
        plant_correction(workspace, one, RIGHT)
    assert counted(workspace, release) == ({"candidate": Score(2, 1)}, 0)


def test_what_does_not_count_takes_no_units_place(workspace: Workspace) -> None:
    release, say = started(workspace, "ab")
    first, _ = say(RIGHT, unit="u")
    second, _ = say(WRONG, unit="u")
    plant_correction(workspace, first, RIGHT, labeller="bot", minute=0)
    plant_correction(workspace, second, RIGHT, labeller="ann", minute=1)
    suspensions.suspend(workspace, "a", "bot", because="a bot")
    assert counted(workspace, release) == ({"candidate": Score(1, 0)}, 0)


@pytest.mark.parametrize(
    ("policy", "before", "after", "counts"),
    [
        ("canary", "control", "candidate", {"candidate": Score(1, 0)}),  # the rest of the control is not compared
        ("canary", "candidate", "candidate", {"candidate": Score(1, 1)}),
        ("bandit", "control", "candidate", {"control": Score(1, 1)}),  # shares changed, and the unit went
    ],
)
def test_a_unit_counts_once_in_all_stages(
    workspace: Workspace, policy: str, before: str, after: str, counts: dict[str, Score]
) -> None:
    release, say = started(workspace, policy)
    first, _ = say(RIGHT, unit="u", arm=before)
    plant_correction(workspace, first, RIGHT, minute=0)
    weights = {arm: 1 / len(release.weights) for arm in release.weights}
    releases.decide(workspace, release, Decision("advance", "", weights=weights))
    with workspace.store.read() as conn:
        moved = rows.open_release(conn, "tone")
    assert moved is not None
    assert list(moved.weights) == list(release.weights)  # a store that sorts arms would move units between them
    second, _ = say(WRONG, unit="u", arm=after)
    plant_correction(workspace, second, RIGHT, minute=1)
    assert counted(workspace, moved) == (counts, int(before != "control" or policy == "bandit"))
