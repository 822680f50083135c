"""Who speaks through which key. Catches: a key that replaces what somebody said through another one, trust that one
key earned and another spends, a rotated key whose source starts anew, a key or a channel that is most of a batch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import LABELS
from crowds import Crowd
from headrace import trusting
from headrace.access import keys
from headrace.access.keyring import Keyring
from headrace.config import FeedbackTable
from headrace.data import snapshot
from headrace.errors import WrongState
from headrace.feedback import filling, intake, known, labels, reviews, signals, trust
from headrace.feedback.intake import Given
from headrace.feedback.outcomes import with_truth
from headrace.feedback.settling import _caps
from headrace.feedback.sources import Source
from headrace.store.votes import CastVote, after
from headrace.tasks.text_classification import TextClassification
from headrace.workspace import Workspace
from planted import NOON, plant_answer

QUESTIONS = [(f"question {i}", LABELS[i % 3]) for i in range(8)]


@pytest.fixture
def crowd(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    monkeypatch.setattr(trusting.influence, "reason_to_pass", lambda *_: "a test")
    known.add(workspace, QUESTIONS)
    return Crowd(workspace)


def say(crowd: Crowd, text: str, label: str, key_id: str | None, labeller: str = "anna") -> str:
    prediction_id, _ = plant_answer(crowd.ws, crowd.channel, crowd.version, "neutral", text=text)
    tell(crowd, prediction_id, label, key_id, labeller)
    return prediction_id


def tell(crowd: Crowd, prediction_id: str, label: str, key_id: str | None, labeller: str = "anna") -> None:
    with crowd.ws.store.write() as conn:
        intake.receive(crowd.ws, conn, Given(prediction_id, correction=label, labeller=labeller, key_id=key_id))


def test_another_key_replaces_nothing_and_who_runs_the_workspace_replaces_all(crowd: Crowd) -> None:
    ws = crowd.ws
    prediction_id = say(crowd, "a text", "positive", "hr_a")
    tell(crowd, prediction_id, "negative", "hr_b")
    tell(crowd, prediction_id, "neutral", "hr_a")
    found = {(one.feedback.key_id, one.feedback.correction): one.is_replaced for one in signals.listing(ws)}
    assert found == {("hr_a", "positive"): True, ("hr_b", "negative"): False, ("hr_a", "neutral"): False}
    labels.to_labels(ws)
    assert {(str(one.source), one.n_labels) for one in trust.judge(ws) if one.source.labeller} == {
        ("web/anna via hr_a", 1),
        ("web/anna via hr_b", 1),
    }
    tell(crowd, prediction_id, "positive", None)
    labels.to_labels(ws)
    assert {(str(one.source), one.n_labels) for one in trust.judge(ws) if one.source.labeller} == {("web/anna", 1)}


def test_what_one_key_earned_another_one_does_not_spend(crowd: Crowd) -> None:
    ws = crowd.ws
    for text, label in QUESTIONS:
        say(crowd, text, label, "hr_a")
        say(crowd, text, LABELS[(LABELS.index(label) + 1) % 3], "hr_b")
    labels.to_labels(ws)
    weight = {one.source: one.weight for one in trust.judge(ws)}
    assert (weight[Source("web", "anna", "hr_a")], weight[Source("web", "anna", "hr_b")]) == (1.0, 0.0)
    is_nothing, now = trust.not_counted(ws, "tone"), ws.clock()
    assert [is_nothing(Source("web", "anna", key), now) for key in ("hr_a", "hr_b", None)] == [False, True, False]
    row = next(row for row in snapshot.rows(ws, trusting.freeze(ws)) if row.origin == "import")
    for key_id, target in (("hr_b", row.target), ("hr_c", row.target), ("hr_a", "changed")):
        said = LABELS[(LABELS.index(row.target) + 1) % 3]
        with ws.store.write() as conn:
            assert reviews.take(ws, conn, "tone", row.example_id, said, "anna", key_id=key_id)
        frozen = {one.example_id: one.target for one in snapshot.rows(ws, trusting.freeze(ws))}
        assert frozen[row.example_id] == (said if target == "changed" else target)


def test_only_the_same_key_changes_the_answer_of_a_review(crowd: Crowd) -> None:
    ws = crowd.ws
    say(crowd, "another", "positive", "hr_a", "carl")
    plant_answer(ws, crowd.channel, crowd.version, "neutral", text="one without a label")
    filling.fill(ws)
    (review,) = reviews.listing(ws)
    reviews.answer(ws, review.id, "positive", "anna", key_id="hr_a")
    with pytest.raises(WrongState, match="answered already"):
        reviews.answer(ws, review.id, "negative", "anna", key_id="hr_b")
    assert reviews.answer(ws, review.id, "neutral", "anna", key_id="hr_a").answer == "neutral"
    assert reviews.answer(ws, review.id, "negative", "anna").key_id is None


def test_a_key_that_takes_the_place_of_another_is_the_same_source(workspace: Workspace) -> None:
    first = keys.create(workspace, "shop", scopes=["feedback"])
    second = keys.rotate(workspace, first.record.id)
    third = keys.rotate(workspace, second.record.id)
    keys.revoke(workspace, second.record.id)
    ring = Keyring(workspace)
    assert {ring.caller(made.key).source for made in (first, third)} == {first.record.id}


def test_evidence_of_releases_keeps_keys_apart(workspace: Workspace) -> None:
    def line(key_id: str | None, label: str, labeller: str = "anna") -> Any:
        return {"prediction_id": "prd_1", "labeller": labeller, "key_id": key_id, "correction": label}

    task_type = TextClassification(workspace.task("tone"))
    lines = [line("a", "positive"), line("a", "positive", "bob"), line("b", "negative"), line("a", "positive")]
    assert [truth for _, truth in with_truth(task_type, lines)] == ["positive"]
    assert [truth for _, truth in with_truth(task_type, [*lines[2:], line(None, "neutral")])] == ["neutral"]


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from(["a", "b", None])), max_size=12))
@settings(max_examples=50, deadline=None)
def test_what_stands_is_the_latest_of_each_key_since_the_workspace_spoke(spoken: list[tuple[str, str | None]]) -> None:
    stands: dict[tuple[str, str | None], int] = {}
    for place, who in enumerate(spoken):
        stands = after(stands, who, place)
    for labeller in "xy":
        mine = [(place, key) for place, (name, key) in enumerate(spoken) if name == labeller]
        since = max((place for place, key in mine if key is None), default=-1)
        wanted = {(labeller, key): place for place, key in mine if place >= since}
        assert {who: place for who, place in stands.items() if who[0] == labeller} == wanted


def vote(channel: str, labeller: str, key_id: str | None) -> CastVote:
    return CastVote("ex", channel, labeller, "positive", NOON, "h", "train", NOON, False, key_id=key_id)


def masses(votes: list[CastVote], group: str, n_checked: int, **table: Any) -> dict[Any, float]:
    """What is left of channels, keys or labellers, of votes that count 1 each."""
    sources = [Source(one.channel, one.labeller, one.key_id) for one in votes]
    factors, _ = _caps(votes, dict.fromkeys(sources, 1.0), n_checked, FeedbackTable(**table))
    found: dict[Any, float] = {}
    for source in sources:
        name = getattr(source, group)
        found[name] = found.get(name, 0.0) + factors[source]
    return found


def test_no_channel_and_no_key_is_most_of_a_batch() -> None:
    crowded = [vote("web", f"w{i}", "hr_w") for i in range(900)] + [vote("phone", f"p{i}", "hr_p") for i in range(50)]
    left = masses(crowded, "channel", 100, max_source_share=0.02)
    assert left == {"web": pytest.approx(150), "phone": 50}  # half of 300
    one_channel = [vote("web", f"w{i}", f"hr_{i >= 900}") for i in range(950)]
    assert masses(one_channel, "key", 100) == {"hr_False": pytest.approx(150), "hr_True": 50}


def test_channels_of_like_size_a_single_one_and_no_keys_are_cut_by_nothing() -> None:
    for votes in (
        [vote(f"c{i % 2}", f"w{i}", None) for i in range(400)],
        [vote("web", f"w{i}", "hr_w") for i in range(400)],
        [vote("web", f"w{i}", None) for i in range(400)],
        [vote("web", f"w{i}", None) for i in range(390)] + [vote("web", f"k{i}", "hr_w") for i in range(10)],
    ):
        assert sum(masses(votes, "channel", 0).values()) == pytest.approx(400)


def test_a_labeller_is_cut_over_all_keys_together() -> None:
    votes = [vote("web", "loud", f"hr_{i % 4}") for i in range(100)] + [vote("web", f"w{i}", None) for i in range(98)]
    left = masses(votes, "labeller", 0, max_channel_share=1.0)
    assert left["loud"] == pytest.approx(0.02 * (left["loud"] + 98))
    assert np.isclose(sum(left.values()) - left["loud"], 98)
