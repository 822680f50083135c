"""Corrections joined to control and shadow answers: what becomes evidence, once, and in which order."""

from dataclasses import replace
from typing import Any

from headrace import loop
from headrace.feedback import reviews, suspensions
from headrace.feedback.outcomes import paired
from headrace.records import Channel, Decision, Outcome, Release
from headrace.release import controls, ledger, releases
from headrace.releasing import judging
from headrace.workspace import Workspace
from planted import plant_answer, plant_channel, plant_correction, plant_version


def open_release(ws: Workspace, **options: Any) -> tuple[Release, Channel]:
    """One in which all labels count, unless options say otherwise."""
    plant_version(ws)
    controls.ensure_control(ws)
    return releases.start(ws, candidate=plant_version(ws), options={"labels": "all", **options}), plant_channel(ws, "a")


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
    assert outcomes == [Outcome("a", False, True, is_asked=False), Outcome("a", True, False, is_asked=False)]
    assert n_requests == 3


def test_rows_of_one_request_are_not_mixed_up(workspace: Workspace) -> None:
    # Catches a join on the request without the row.
    release, channel = open_release(workspace)
    first, request = both(workspace, release, channel, "positive", "negative", row=0)
    both(workspace, release, channel, "negative", "positive", row=1, request=request)
    plant_correction(workspace, first, "positive")
    assert paired(workspace, release) == ([Outcome("a", True, False, is_asked=False)], 2)


def test_a_labellers_latest_correction_counts_in_the_place_of_the_first(workspace: Workspace) -> None:
    # Catches an order that labellers choose by sending again what they have said.
    release, channel = open_release(workspace)
    first, _ = both(workspace, release, channel, "positive", "negative")
    second, _ = both(workspace, release, channel, "neutral", "neutral")
    plant_correction(workspace, first, "negative", labeller="ann", minute=1)
    plant_correction(workspace, second, "neutral", labeller="ann", minute=2)
    plant_correction(workspace, first, "positive", labeller="ann", minute=3)
    expected = [Outcome("a", True, False, is_asked=False), Outcome("a", True, True, is_asked=False)]
    assert paired(workspace, release)[0] == expected


def test_several_labellers_of_one_answer_are_one_outcome(workspace: Workspace) -> None:
    # Catches counting the same pair of answers once per labeller, which would multiply the evidence.
    release, channel = open_release(workspace)
    answer, _ = both(workspace, release, channel, "positive", "negative")
    for i, (labeller, label) in enumerate([("a", "positive"), ("b", "negative"), ("c", "negative")]):
        plant_correction(workspace, answer, label, labeller=labeller, minute=i)
    assert paired(workspace, release)[0] == [Outcome("a", False, True, is_asked=False)]


def test_what_reviewers_say_who_were_asked_is_told_from_what_comes_by_itself(workspace: Workspace) -> None:
    # Catches a user's correction that passes for the answer to the open review of the same input, or outvotes it, also
    # where both have no name; and an answer that is changed and so comes later.
    release, channel = open_release(workspace, labels="asked")
    wins = [both(workspace, release, channel, "negative", "positive")[0] for _ in range(3)]
    both(workspace, release, channel, "positive", "positive")
    for i, one in enumerate(wins[:2]):
        plant_correction(workspace, one, "positive", minute=i)
    assert reviews.fill(workspace).n_disagreements == 3
    assert [one.is_asked for one in paired(workspace, release)[0]] == [False, False]
    first, second, _ = [one for one in reviews.listing(workspace) if one.reason == "disagreement"]
    reviews.answer(workspace, second.id, "positive", "anonymous")
    reviews.answer(workspace, first.id, "neutral", "anonymous")
    plant_correction(workspace, wins[0], "positive", minute=10**6)  # too late to change what the reviewer said
    win, neither = Outcome("a", False, True), Outcome("a", False, False)
    assert paired(workspace, release) == ([win, neither], 4)
    reviews.answer(workspace, second.id, "negative", "anonymous")
    loss = Outcome("a", True, False)
    assert paired(workspace, release)[0] == [loss, neither]
    plant_correction(workspace, wins[2], "positive")
    assert paired(workspace, release)[0] == [loss, neither, Outcome("a", False, True, is_asked=False)]
    every = replace(release, options={**release.options, "labels": "all"})
    assert sorted(one.is_asked for one in paired(workspace, every)[0]) == [False, True, True]


def test_audits_and_reviews_that_were_chosen_are_not_asked_by_the_coin(workspace: Workspace) -> None:
    # Both come more often where the control is in doubt, where a candidate that is no better wins more than it loses.
    release, channel = open_release(workspace, labels="asked", ask_share=1e-9)
    both(workspace, release, channel, "negative", "positive")
    reviews.fill(workspace)
    (one,) = reviews.listing(workspace)
    reviews.answer(workspace, one.id, "positive", "anna")
    assert paired(workspace, release)[0] == [Outcome("a", False, True, is_asked=False)]


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


def test_a_release_whose_labels_are_used_up_is_stopped_and_not_tried_again(workspace: Workspace) -> None:
    # Catches a candidate that is tried until it passes, each time with a fresh level.
    release, channel = open_release(workspace, max_labels=2)
    for answers in (("negative", "positive"), ("positive", "negative")):
        plant_correction(workspace, both(workspace, release, channel, *answers)[0], "positive")
    (line,) = judging.carry_out(workspace, release, judging.decision_of(workspace, release), actor="improve")
    assert (line.kind, line.reason[:46]) == ("stop", "Not decided with the 2 labels that were stated")
    serving = controls.serving(workspace)
    assert (serving.release, serving.control.number) == (None, 1)
    candidate = controls.find_version(workspace, None, release.candidate_id)
    assert loop._try(workspace, serving.control, candidate, loop.silent)["step"] == "waiting"


def test_a_decision_that_another_was_faster_to_carry_out_is_none(workspace: Workspace) -> None:
    release, _ = open_release(workspace)
    reject = Decision("reject", "worse")
    assert [line.kind for line in judging.carry_out(workspace, release, reject, actor="improve")] == ["reject"]
    assert judging.carry_out(workspace, release, reject, actor="the server, which has not looked since") == []
    assert [line.kind for line in ledger.history(workspace)].count("reject") == 1
