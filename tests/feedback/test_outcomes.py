"""Corrections joined to control and shadow answers: what becomes evidence, once, and in which order."""

from headrace.feedback import suspensions
from headrace.feedback.outcomes import paired
from headrace.records import Channel, Outcome, Release
from headrace.release import controls, releases
from headrace.workspace import Workspace
from planted import plant_answer, plant_channel, plant_correction, plant_version


def open_release(ws: Workspace) -> tuple[Release, Channel]:
    plant_version(ws)
    controls.ensure_control(ws)
    return releases.start(ws, candidate=plant_version(ws)), plant_channel(ws, "a")


def both(
    ws: Workspace,
    release: Release,
    channel: Channel,
    control: str,
    shadow: str,
    *,
    row: int = 0,
    request: str | None = None,
) -> tuple[str, str]:
    """A control answer with its shadow; returns the control's prediction id and the request."""
    serving = controls.serving(ws)
    prediction_id, request = plant_answer(ws, channel, serving.control, control, row=row, request_id=request)
    assert serving.candidate is not None
    plant_answer(
        ws, channel, serving.candidate, shadow, row=row, request_id=request, arm="shadow", release_id=release.id
    )
    return prediction_id, request


def test_wins_losses_and_agreements_come_in_the_order_of_their_corrections(workspace: Workspace) -> None:
    release, channel = open_release(workspace)
    first, _ = both(workspace, release, channel, "positive", "negative")
    second, _ = both(workspace, release, channel, "neutral", "positive")
    both(workspace, release, channel, "neutral", "neutral")  # nobody corrected it
    plant_correction(workspace, first, "positive", minute=2)  # written first, given later
    plant_correction(workspace, second, "positive", minute=1)
    outcomes, n_requests = paired(workspace, release)
    assert outcomes == [Outcome("a", False, True), Outcome("a", True, False)]
    assert n_requests == 3


def test_rows_of_one_request_are_not_mixed_up(workspace: Workspace) -> None:
    # Catches a join on the request without the row.
    release, channel = open_release(workspace)
    first, request = both(workspace, release, channel, "positive", "negative", row=0)
    both(workspace, release, channel, "negative", "positive", row=1, request=request)
    plant_correction(workspace, first, "positive")
    assert paired(workspace, release) == ([Outcome("a", True, False)], 2)


def test_a_labellers_latest_correction_counts_and_moves_the_outcome_to_its_moment(workspace: Workspace) -> None:
    release, channel = open_release(workspace)
    first, _ = both(workspace, release, channel, "positive", "negative")
    second, _ = both(workspace, release, channel, "neutral", "neutral")
    plant_correction(workspace, first, "negative", labeller="ann", minute=1)
    plant_correction(workspace, second, "neutral", labeller="ann", minute=2)
    plant_correction(workspace, first, "positive", labeller="ann", minute=3)
    assert paired(workspace, release)[0] == [Outcome("a", True, True), Outcome("a", True, False)]


def test_several_labellers_of_one_answer_are_one_outcome(workspace: Workspace) -> None:
    # Catches counting the same pair of answers once per labeller, which would multiply the evidence.
    release, channel = open_release(workspace)
    answer, _ = both(workspace, release, channel, "positive", "negative")
    for i, (labeller, label) in enumerate([("a", "positive"), ("b", "negative"), ("c", "negative")]):
        plant_correction(workspace, answer, label, labeller=labeller, minute=i)
    assert paired(workspace, release)[0] == [Outcome("a", False, True)]


def test_answers_without_a_good_pair_are_no_evidence(workspace: Workspace) -> None:
    release, channel = open_release(workspace)
    serving = controls.serving(workspace)
    alone, request = plant_answer(workspace, channel, serving.control, "positive")
    assert serving.candidate is not None
    plant_answer(
        workspace, channel, serving.candidate, "", request_id=request, arm="shadow", release_id=release.id, error="boom"
    )
    other, request = plant_answer(workspace, channel, serving.control, "positive")
    plant_correction(workspace, alone, "positive")
    plant_correction(workspace, other, "positive")
    assert paired(workspace, release) == ([], 0)


def test_what_does_not_count_is_no_evidence(workspace: Workspace) -> None:
    release, channel = open_release(workspace)
    for text, row in (("one", 0), ("two", 1)):
        prediction_id, _ = both(workspace, release, channel, "positive", "neutral", row=row)
        plant_correction(workspace, prediction_id, "neutral", labeller=text)
    assert len(paired(workspace, release)[0]) == 2
    held = suspensions.suspend(workspace, "a", "one", because="a bot")
    assert len(paired(workspace, release)[0]) == 1
    suspensions.lift(workspace, held.id, because="it was not")
    assert len(paired(workspace, release)[0]) == 2
