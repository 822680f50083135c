"""Reviews, imported labels and audits count as their labellers do. Catches: somebody whose known answers are wrong who
relabels imported rows and the test side, is the live accuracy, or has `improve` start by audits that count nothing."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import released
from audited import Answer, plant_log
from conftest import LABELS, write_jsonl
from crowds import DAY, Crowd
from headrace import labelling, loop, trusting, valuing
from headrace.data import snapshot
from headrace.feedback import accuracy, drift, filling, known, reviews, suspensions, trust
from headrace.records import SnapshotRow
from headrace.release import controls
from headrace.store import drift as streams
from headrace.workspace import Workspace
from planted import NOON

QUESTIONS = [(f"question {i}", LABELS[i % 3]) for i in range(8)]


def other(label: str) -> str:
    return LABELS[(LABELS.index(label) + 1) % 3]


@pytest.fixture
def crowd(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    """anna's known answers are right, mallory's wrong, nobody knows bob."""
    monkeypatch.setattr(trusting.influence, "reason_to_pass", lambda *_: "a test")
    made = Crowd(workspace)
    known.add(workspace, QUESTIONS)
    made.say("anna", QUESTIONS)
    made.say("mallory", [(text, other(label)) for text, label in QUESTIONS])
    trusting.collect(made.ws)
    return made


def frozen(ws: Workspace) -> dict[str, SnapshotRow]:
    return {row.example_id: row for row in snapshot.rows(ws, trusting.freeze(ws))}


def flipped(ws: Workspace, folder: Path) -> Path:
    imported = {name: row for name, row in frozen(ws).items() if row.origin == "import"}
    rows = [{"headrace_id": name, "text": row.text, "label": other(row.target)} for name, row in imported.items()]
    return write_jsonl(folder / "flip.jsonl", rows)


@pytest.mark.parametrize(("labeller", "n_changed"), [("mallory", 0), ("bob", 0), ("anna", 150), (None, 150)])
def test_labels_from_a_file_replace_imported_ones_only_where_their_labeller_counts_fully(
    crowd: Crowd, tmp_path: Path, labeller: str | None, n_changed: int
) -> None:
    ws, before = crowd.ws, frozen(crowd.ws)
    file = flipped(ws, tmp_path)
    assert labelling.import_labels(ws, file, labeller=labeller).n_labels == 150
    assert labelling.import_labels(ws, file, labeller=labeller).n_labels == 0  # once more changes nothing
    after = frozen(ws)
    assert sum(after[name].target != row.target for name, row in before.items()) == n_changed
    assert Counter(row.side for row in after.values()) == Counter(row.side for row in before.values())
    shown = {str(one.source): one.n_labels for one in trust.judge(ws)}
    if labeller is not None:
        assert shown[f"web/{labeller}"] == 150 + (0 if labeller == "bob" else 8)
    as_given = valuing.sources.as_given(ws, valuing.sources.sides_of(ws, "tone"))
    assert {row.example_id: row.target for row in as_given.test} == {
        name: row.target for name, row in after.items() if row.side == "test"
    }


def test_a_review_stops_counting_as_its_labeller_is_suspended_and_comes_back(crowd: Crowd, tmp_path: Path) -> None:
    ws, before = crowd.ws, frozen(crowd.ws)
    labelling.import_labels(ws, flipped(ws, tmp_path), labeller="anna")
    made = suspensions.suspend(ws, "web", "anna", because="left")
    assert sum(row.target != before[name].target for name, row in frozen(ws).items()) == 0
    suspensions.lift(ws, made.id, because="came back")
    assert sum(row.target != before[name].target for name, row in frozen(ws).items()) == 150


def test_of_an_example_that_came_as_feedback_a_full_review_says_what_it_is_and_others_are_votes(crowd: Crowd) -> None:
    ws, texts = crowd.ws, [f"asked {i}" for i in range(30)]
    crowd.say("carl", [(text, "positive") for text in texts])
    trusting.collect(ws)
    came = {row.text: row for row in frozen(ws).values() if row.text in texts}
    assert {(row.target, row.weight, row.origin) for row in came.values()} == {("positive", 0.5, "feedback")}
    one, two, three = [row.example_id for row in came.values()][:3]
    with ws.store.write() as conn:
        for example_id, who in ((one, "mallory"), (two, "bob"), (three, "anna")):
            assert reviews.take(ws, conn, "tone", example_id, "positive" if who == "bob" else "negative", who)
    after = frozen(ws)
    assert (after[one].target, after[one].weight, after[one].origin) == ("positive", 0.5, "feedback")
    assert (after[two].target, after[two].weight) == ("positive", 1.0)  # two newcomers who agree
    assert (after[three].target, after[three].weight, after[three].origin) == ("negative", 1.0, "import")


def test_reviews_of_who_does_not_count_make_no_new_version_due(
    crowd: Crowd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, file = crowd.ws, flipped(crowd.ws, tmp_path)
    released.plant(ws)
    controls.ensure_control(ws)
    monkeypatch.setattr(loop, "train", lambda *_, **__: pytest.fail("made a version"))
    for labeller, n in (("mallory", 0), ("anna", 150)):
        labelling.import_labels(ws, file, labeller=labeller)
        assert trusting.trigger_facts(ws).n_new_labels == n
        assert loop.improve(ws, min_new_labels=1000)["n_new_labels"] == n


def audits(crowd: Crowd, n: int = 200) -> None:
    """Answers that are right, which `auditor` audits as wrong, a minute after each."""
    answers = [Answer("positive", truth="negative", probability=1.0) for _ in range(n)]
    plant_log(crowd.ws, crowd.channel, crowd.version, answers, start=NOON + 10 * DAY)


def test_live_accuracy_is_not_what_somebody_says_who_does_not_count(crowd: Crowd) -> None:
    controls.ensure_control(replace(crowd.ws, clock=lambda: NOON))
    audits(crowd)
    whole = accuracy.live(crowd.ws).overall
    assert whole is not None
    assert whole.accuracy is not None
    assert (whole.accuracy.estimate, whole.n_audits) == (0.0, 200)
    suspensions.suspend(crowd.ws, "web", "auditor", because="liar")
    whole = accuracy.live(crowd.ws).overall
    assert whole is not None
    assert (whole.accuracy, whole.n_audits, whole.n_unanswered) == (None, 0, 200)


def test_an_audit_of_who_does_not_count_is_asked_of_somebody_else(crowd: Crowd) -> None:
    ws = crowd.ws
    (prediction_id,) = plant_log(
        ws,
        crowd.channel,
        crowd.version,
        [Answer("positive", truth="negative")],
        start=NOON + 20 * DAY - timedelta(hours=1),
    )
    filling.fill(ws)
    assert not [one for one in reviews.listing(ws) if one.reason == "audit"]
    suspensions.suspend(ws, "web", "auditor", because="liar")
    assert [filling.fill(ws).n_audits for _ in range(2)] == [1, 0]
    (again,) = [one for one in reviews.listing(ws) if one.reason == "audit"]
    assert (again.prediction_id, again.probability) == (prediction_id, 0.5)
    asked = [one.id for one in reviews.next_of(ws, labeller="auditor", n=50)]
    assert again.id not in asked
    reviews.answer(ws, again.id, "positive", "bob")
    filling.fill(ws)
    assert not [one for one in reviews.listing(ws) if one.reason == "audit"]


@pytest.mark.parametrize("is_suspended", [False, True])
def test_drift_does_not_see_errors_that_somebody_tells_who_does_not_count(crowd: Crowd, is_suspended: bool) -> None:
    ws = crowd.ws
    controls.ensure_control(replace(ws, clock=lambda: NOON))
    audits(crowd)
    if is_suspended:
        suspensions.suspend(ws, "web", "auditor", because="liar")
    drift.watch(ws)
    with ws.store.read() as conn:
        found = streams.streams(conn, "tone", [crowd.version.id])["", crowd.version.id]["errors"]
    n_seen = found["n_audits"] or len(found["gathered"])
    assert n_seen == (0 if is_suspended else 200)
