"""What reviewers are asked in a shadow release.

Catches: a difference that is not asked about, or twice, or because somebody corrected it; a correction, a skipped or a
late answer that counts as a win; inputs counted beyond what was seen; a difference that nobody is asked about again
once its reviewer is erased.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.compared import Asked, Compared
from headrace.doctor import rows
from headrace.feedback import asking, reviews, suspensions
from headrace.feedback.outcomes import evidence
from headrace.ids import made_at
from headrace.lineage import erasing
from headrace.records import Channel, Release
from headrace.release import controls, releases
from headrace.store.reviews import Review
from headrace.workspace import Workspace
from planted import plant_answer, plant_channel, plant_correction, plant_version

SAME, WIN, LOSS = ("positive", "positive"), ("negative", "positive"), ("positive", "neutral")
"""Control, candidate; right is positive."""


def started(ws: Workspace, **options: Any) -> tuple[Release, Channel]:
    plant_version(ws)
    controls.ensure_control(ws)
    release = releases.start(ws, candidate=plant_version(ws), options={"margin": 0.02, **options})
    return release, plant_channel(ws, "a")


def plant(ws: Workspace, channel: Channel, *kinds: tuple[str, str], text: str | None = "some text") -> list[str]:
    """Ids of the control's answers, each with one of the candidate."""
    serving = controls.serving(ws)
    assert serving.release is not None
    assert serving.candidate is not None
    ids = []
    for control, candidate in kinds:
        prediction_id, request = plant_answer(ws, channel, serving.control, control, text=text)
        plant_answer(
            ws, channel, serving.candidate, candidate, text=text, request_id=request, arm="shadow",
            release_id=serving.release.id,
        )  # fmt: skip
        ids.append(prediction_id)
    return ids


def asked_about(ws: Workspace, state: str | None = "open") -> list[Review]:
    return [one for one in reviews.listing(ws, state=state) if one.reason == "disagreement"]


def answer(ws: Workspace, review: Review, label: str = "positive", labeller: str = "anna") -> None:
    reviews.answer(ws, review.id, label, labeller)


def asked_of(ws: Workspace, release: Release) -> Asked:
    found = asking.asked_of(ws, release)
    assert found is not None
    return found


def test_each_difference_is_asked_about_once_the_oldest_first(workspace: Workspace) -> None:
    _, channel = started(workspace)
    ids = plant(workspace, channel, SAME, WIN, LOSS, SAME, WIN)
    plant_correction(workspace, ids[1], "positive")  # which says nothing of what reviewers would
    assert reviews.fill(workspace).n_disagreements == 3
    asked = asked_about(workspace)
    assert [one.prediction_id for one in asked] == [ids[1], ids[2], ids[4]]
    assert {(one.probability, one.is_blind) for one in asked} == {(1.0, True)}  # an export holds no answer of the model
    more = plant(workspace, channel, WIN)
    assert reviews.fill(workspace).n_disagreements == 1
    assert reviews.fill(workspace).n_disagreements == 0
    assert asked_about(workspace)[-1].prediction_id == more[0]


def test_only_what_reviewers_say_counts(workspace: Workspace) -> None:
    release, channel = started(workspace)
    ids = plant(workspace, channel, SAME, WIN, LOSS, WIN, SAME)
    for one in ids:
        plant_correction(workspace, one, "positive")
    assert asked_of(workspace, release).looked_at == {"a": Compared(1)}  # up to the first that nobody was asked about
    reviews.fill(workspace)
    found = asked_of(workspace, release)
    assert found.looked_at == {"a": Compared(5, n_waiting=3)}
    assert found.settled == {"a": Compared(1)}
    first, second, third = asked_about(workspace)
    answer(workspace, first)
    answer(workspace, third, "neutral")  # neither is right
    found = asked_of(workspace, release)
    assert found.settled == {"a": Compared(2, wins=1)}
    assert found.looked_at == {"a": Compared(5, wins=1, n_waiting=1)}
    answer(workspace, second)
    both = asked_of(workspace, release)
    assert both.settled == both.looked_at == {"a": Compared(5, wins=1, losses=1)}
    assert evidence(workspace, release).asked == both


def test_skipped_suspended_and_lost_texts_are_losses(workspace: Workspace) -> None:
    release, channel = started(workspace)
    plant(workspace, channel, WIN, WIN)
    plant(workspace, channel, WIN, text=None)
    reviews.fill(workspace)
    first, second = asked_about(workspace)
    reviews.skip(workspace, first.id, "anna")
    answer(workspace, second, labeller="bot")
    assert asked_of(workspace, release).settled == {"a": Compared(3, wins=1, losses=2)}
    suspensions.suspend(workspace, "a", "bot", because="it answers everything")
    assert asked_of(workspace, release).settled == {"a": Compared(3, losses=3)}


def test_what_somebody_answered_who_is_erased_waits_for_another(workspace: Workspace) -> None:
    release, channel = started(workspace)
    plant(workspace, channel, SAME, WIN, LOSS, WIN)
    reviews.fill(workspace)
    first, second, third = asked_about(workspace)
    for one, labeller in ((first, "anna"), (second, "bob"), (third, "anna")):
        answer(workspace, one, labeller=labeller)
    erasing.erase(workspace, labeller="anna", channel=channel.name)
    found = asked_of(workspace, release)
    assert found.looked_at == {"a": Compared(4, losses=1, n_waiting=2)}
    assert found.settled == {"a": Compared(1)}
    assert [one.id for one in asked_about(workspace)] == [first.id, third.id]
    for one in asked_about(workspace):
        answer(workspace, one, labeller="bob")
    assert asked_of(workspace, release).settled == {"a": Compared(4, wins=2, losses=1)}


def test_a_channel_without_reviewers_holds_back_the_whole_or_itself_alone(workspace: Workspace) -> None:
    release, channel = started(workspace)
    other = plant_channel(workspace, "b")
    plant(workspace, other, SAME, WIN)
    plant(workspace, channel, SAME, WIN, SAME)
    reviews.fill(workspace)
    answer(workspace, next(one for one in asked_about(workspace) if one.channel == "a"))
    assert asked_of(workspace, release).settled == {"a": Compared(), "b": Compared(1)}
    alone = asked_of(workspace, replace(release, options={**release.options, "each_channel": True}))
    assert alone.settled == {"a": Compared(3, wins=1), "b": Compared(1)}


def test_the_coin_draws_a_share_that_stays_drawn(workspace: Workspace) -> None:
    # 200 differences at a share of 1/4: 50 are expected, and 20 or 80 are 4.9 standard errors away.
    release, channel = started(workspace, ask_share=0.25)
    plant(workspace, channel, *[WIN] * 200)
    n_drawn = reviews.fill(workspace).n_disagreements
    assert 20 < n_drawn < 80
    assert {one.probability for one in asked_about(workspace)} == {0.25}
    assert reviews.fill(workspace).n_disagreements == 0
    for one in asked_about(workspace):
        answer(workspace, one)
    assert asked_of(workspace, release).settled == {"a": Compared(200, wins=n_drawn)}


def test_a_difference_that_was_chosen_for_another_reason_is_still_asked_about(workspace: Workspace) -> None:
    release, channel = started(workspace)
    serving = controls.serving(workspace)
    assert serving.candidate is not None
    _, request = plant_answer(workspace, channel, serving.control, "negative")
    reviews.fill(workspace)
    (other,) = reviews.listing(workspace)
    plant_answer(
        workspace, channel, serving.candidate, "positive", request_id=request, arm="shadow", release_id=release.id
    )
    assert reviews.fill(workspace).n_disagreements == 1
    answer(workspace, other)
    assert asked_of(workspace, release).looked_at == {"a": Compared(1, n_waiting=1)}
    assert reviews.fill(workspace).n_disagreements == 0


def test_the_queue_never_holds_more_than_it_may(workspace: Workspace) -> None:
    _, channel = started(workspace)
    settings = workspace.settings
    few = settings.model_copy(update={"feedback": settings.feedback.model_copy(update={"review_rows": 4})})
    ws = replace(workspace, settings=few)
    ids = plant(ws, channel, *[WIN] * 10)
    assert reviews.fill(ws).n_disagreements == 4
    assert reviews.fill(ws).n_disagreements == 0
    answer(ws, asked_about(ws)[0])
    assert reviews.fill(ws).n_disagreements == 1
    assert sorted(one.prediction_id or "" for one in asked_about(ws, None)) == ids[:5]
    at = [made_at(one.prediction_id or "") for one in asked_about(ws)]
    assert at == sorted(at)


@pytest.mark.parametrize("margin", [0.0, None])
def test_where_all_labels_count_and_without_a_margin_no_coin_asks(workspace: Workspace, margin: float | None) -> None:
    release, channel = started(workspace, margin=margin, labels="all")
    plant(workspace, channel, SAME, WIN)
    assert asking.asked_of(workspace, release) is None
    assert reviews.fill(workspace).n_disagreements == 1
    assert asked_about(workspace)[0].probability is None
    assert not asked_about(workspace)[0].is_blind


def test_the_doctor_names_a_release_whose_questions_nobody_answers(workspace: Workspace) -> None:
    _, channel = started(workspace, margin=0.0)
    plant(workspace, channel, SAME, WIN, LOSS)
    reviews.fill(workspace)

    def said(days: float) -> list[str]:
        now = workspace.clock() + timedelta(days=days)
        return [one.problem for one in rows.work(replace(workspace, clock=lambda: now))]

    assert (said(1), said(3)) == ([], ["a release waits for reviewers"])
    for review in asked_about(workspace):
        answer(workspace, review)
    assert said(3) == []
