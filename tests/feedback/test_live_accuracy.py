"""Live accuracy out of the store. Catches: volunteered feedback that gets in, answers counted before their audits could
be answered, audits that nobody answered left out silently, answers of another version, channel or of a shadow counted,
a proxy that is read differently for all and for the audited, rows whose neighbours have left the store.
"""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from audited import Answer, plant_log
from headrace import retention
from headrace.errors import NotFound
from headrace.feedback import accuracy
from headrace.feedback.accuracy import Live
from headrace.records import Channel, ModelVersion
from headrace.release import controls
from headrace.stats import audits
from headrace.workspace import Workspace
from planted import NOON, plant_channel, plant_version

LATER = NOON + timedelta(days=20)
RIGHT, WRONG = Answer("neutral", truth="neutral"), Answer("neutral", truth="positive")


def in_charge(ws: Workspace) -> tuple[Channel, ModelVersion]:
    version = plant_version(ws)
    controls.ensure_control(ws)
    return plant_channel(ws, "web"), version


def found(ws: Workspace, **options: object) -> Live:
    return accuracy.live(replace(ws, clock=lambda: LATER), **options)  # type: ignore[arg-type]


def test_the_figure_is_that_of_all_answers_as_arrays_give_it(workspace: Workspace) -> None:
    web, version = in_charge(workspace)
    rng = np.random.default_rng(1)
    confidence = rng.beta(5, 1, 600).round(6)
    right, drawn, told = rng.random(600) < confidence, rng.random(600) < 0.5, rng.random(600) < 0.2
    answers = [
        Answer("neutral", c, truth if d else None, told=truth if t else None)
        for c, d, t, truth in zip(
            confidence.tolist(), drawn, told, np.where(right, "neutral", "positive").tolist(), strict=True
        )
    ]
    plant_log(workspace, web, version, answers)
    live = found(workspace)
    expected = audits.estimate(audits.tally(np.full(600, 0.5), drawn, right.astype(float), confidence))
    part = live.channels["web"]
    assert part.accuracy is not None
    assert expected is not None
    assert [part.accuracy.estimate, part.accuracy.low, part.accuracy.high] == pytest.approx(
        [expected.estimate, expected.low, expected.high]
    )
    assert part.accuracy == part.if_alike
    assert (part.n_requests, part.n_audits, part.n_unanswered) == (600, int(drawn.sum()), 0)
    assert (part.volunteered.n, part.volunteered.n_right) == (int(told.sum()), int((told & right).sum()))
    assert live.overall == replace(part, version="tone/1")


def test_volunteers_change_nothing_and_their_bias_is_named(workspace: Workspace) -> None:
    web, version = in_charge(workspace)
    angry = replace(WRONG, truth=None, told="positive")
    plant_log(workspace, web, version, [RIGHT] * 90 + [WRONG] * 10)
    before = found(workspace).channels["web"]
    assert "nobody" in before.volunteered.bias
    happy = replace(RIGHT, truth=None, told="neutral")
    plant_log(
        workspace, web, version, [replace(angry, probability=None)] * 30 + [replace(happy, probability=None)] * 54
    )
    after = found(workspace).channels["web"]
    assert after.accuracy == before.accuracy
    assert after.volunteered.share_right == pytest.approx(54 / 84)
    assert after.volunteered.times_as_often == pytest.approx(30 / 54 * 9)  # of 9 right answers for each wrong one
    assert "not a sample" in after.volunteered.bias
    assert "5.0 times as often" in after.volunteered.bias


def test_answers_count_once_their_audits_had_their_time(workspace: Workspace) -> None:
    # Right ones are confirmed within the minute, wrong ones take five days: of the young ones only the right are there.
    web, version = in_charge(workspace)
    slow = replace(WRONG, after_s=5 * 86400.0)
    plant_log(workspace, web, version, [RIGHT, slow] * 50)
    plant_log(workspace, web, version, [RIGHT] * 100, start=LATER - timedelta(days=2))
    part = found(workspace).channels["web"]
    assert part.accuracy is not None
    assert part.accuracy.estimate == pytest.approx(0.5)
    assert part.n_requests == 100


def test_audits_without_an_answer_in_time_widen_the_interval(workspace: Workspace) -> None:
    web, version = in_charge(workspace)
    late, never = replace(RIGHT, after_s=8 * 86400.0), Answer("neutral", is_drawn=True)
    plant_log(workspace, web, version, [RIGHT] * 80 + [late] * 10 + [never] * 10)
    part = found(workspace).channels["web"]
    assert (part.n_audits, part.n_unanswered) == (80, 20)
    assert part.accuracy is not None
    assert part.if_alike is not None
    assert part.accuracy.low < 0.8 < 0.95 < part.if_alike.low
    assert part.accuracy.high == 1


def test_only_answers_to_users_by_the_version_in_charge_count(workspace: Workspace) -> None:
    web, version = in_charge(workspace)
    phone, other = plant_channel(workspace, "phone"), plant_version(workspace)
    plant_log(workspace, web, version, [RIGHT] * 40)
    plant_log(workspace, web, version, [WRONG] * 40, arm="shadow")
    plant_log(workspace, web, other, [WRONG] * 40)
    plant_log(workspace, phone, version, [WRONG] * 10 + [RIGHT] * 30)
    live = found(workspace)
    assert {name: part.n_audits for name, part in live.channels.items()} == {"phone": 40, "web": 40}
    assert live.channels["web"].accuracy is not None
    assert live.channels["web"].accuracy.estimate == 1
    assert live.overall is not None
    assert live.overall.accuracy is not None
    assert live.overall.accuracy.estimate == pytest.approx(70 / 80)
    assert list(found(workspace, channel="phone").channels) == ["phone"]
    assert found(workspace, since=NOON + timedelta(seconds=20)).channels["web"].n_audits == 20


def test_answers_whose_neighbours_have_left_the_store_are_left_out(workspace: Workspace) -> None:
    # What has feedback stays in the store for ever: alone it is no sample.
    web, version = in_charge(workspace)
    plant_log(workspace, web, version, [WRONG] * 20 + [Answer("neutral")] * 100, every_s=0.1)
    plant_log(workspace, web, version, [Answer("neutral"), *[RIGHT] * 20], start=NOON + timedelta(days=25))
    later = replace(workspace, clock=lambda: NOON + timedelta(days=35))
    assert accuracy.live(later).channels["web"].n_requests == 141
    assert retention.move(later).n_rows == 100
    part = accuracy.live(later).channels["web"]
    assert (part.n_audits, part.n_requests) == (20, 21)


def test_where_there_is_no_figure_it_says_why(workspace: Workspace) -> None:
    assert found(workspace).overall is None
    web, version = in_charge(workspace)
    empty = found(workspace).overall
    assert empty is not None
    assert "7 days old" in empty.reason
    plant_log(workspace, web, version, [Answer("neutral")] * 5)
    assert "review queue" in found(workspace).channels["web"].reason
    plant_log(workspace, web, version, [Answer("neutral", is_drawn=True)] * 5)
    part = found(workspace).channels["web"]
    assert part.accuracy is None
    assert "none of 5 audits" in part.reason
    with pytest.raises(NotFound, match="no such channel"):
        found(workspace, channel="wep")


def test_channels_with_few_audits_are_put_together_and_give_no_false_certainty() -> None:
    # One audit that is right has no spread: as a stratum of its own it would count as certain.
    def tally(n_right: int, n_wrong: int, n: int) -> audits.Tally:
        n_audits = n_right + n_wrong
        right = np.r_[np.ones(n_right), np.zeros(n_wrong)]
        p = np.full(n_audits, n_audits / n)
        return audits.tally(p, np.ones(n_audits, dtype=bool), right).of_requests(n, 0.0, 0.0)

    large, single, some = tally(90, 10, 1000), tally(1, 0, 1000), tally(20, 9, 1000)
    assert accuracy.together([]) is None
    assert accuracy.together([large, single]) == audits.estimate(large + single)
    several = accuracy.together([large, single, some])
    assert several is not None
    by_strata = audits.by_strata([large, single + some])
    assert by_strata is not None
    assert several == by_strata
    assert several.high - several.low > 0.1
