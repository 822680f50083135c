"""What who runs the workspace says, without a labeller. Catches: an answer of theirs that counts as unnamed feedback of
the public, by which the public is judged, or which falls under what the public did; a user who speaks in their name."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from audited import Answer, plant_log
from conftest import LABELS, write_jsonl
from crowds import DAY, Crowd
from headrace import labelling, trusting
from headrace.data import snapshot
from headrace.errors import BadInput
from headrace.feedback import audited, filling, intake, known, labels, reviews, suspensions, trust
from headrace.feedback.intake import Given
from headrace.lineage.erasing import erase
from headrace.records import SnapshotRow
from headrace.store import examples
from headrace.store.reviews import Review
from headrace.workspace import Workspace
from planted import NOON, plant_answer

QUESTIONS = [(f"question {i}", LABELS[i % 3]) for i in range(5)]


def other(label: str) -> str:
    return LABELS[(LABELS.index(label) + 1) % 3]


@pytest.fixture
def crowd(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    monkeypatch.setattr(trusting.influence, "reason_to_pass", lambda *_: "a test")
    known.add(workspace, QUESTIONS)
    return Crowd(workspace)


def asked(crowd: Crowd, *texts: str) -> dict[str, Review]:
    """Reviews of answers to these texts."""
    for text in texts:
        plant_answer(crowd.ws, crowd.channel, crowd.version, "neutral", text=text)
    filling.fill(crowd.ws)
    return {str(one.text): one for one in reviews.listing(crowd.ws)}


def file_of(folder: Path, pairs: list[tuple[str, str]]) -> Path:
    """Labels of (id, label), as somebody brings them home."""
    rows = [{"headrace_id": about, "text": "", "label": label} for about, label in pairs]
    return write_jsonl(folder / "said.jsonl", rows)


def row_of(ws: Workspace, text: str) -> SnapshotRow:
    return next(row for row in snapshot.rows(ws, trusting.freeze(ws)) if row.text == text)


def weights(ws: Workspace) -> dict[str, float]:
    return {str(one.source): one.weight for one in trust.judge(ws) if one.source.labeller}


def test_an_answer_of_theirs_is_a_label_as_imported_ones_are_and_the_latest_counts(crowd: Crowd) -> None:
    ws, review = crowd.ws, asked(crowd, "so so")["so so"]
    before = trusting.freeze(ws)
    for said in ("positive", "negative"):
        reviews.answer(ws, review.id, said)
        trusting.collect(ws)
        row = row_of(ws, "so so")
        assert (row.target, row.weight, row.origin) == (said, 1.0, "import")
    crowd.say("anonymous", [("so so", "neutral")])  # a stranger, later
    trusting.collect(ws)
    assert row_of(ws, "so so").target == "negative"
    assert weights(ws) == {"web/anonymous": 0.5}
    found = trusting.settlement(ws)
    assert (found.facts["n_labels"], found.facts["held_back"]) == (1, {"the example has a label of its own": 1})
    assert trusting.n_new(ws, found, before, snapshot.rows(ws, trusting.frozen(ws, found))) == 1
    with ws.store.read() as conn:
        fresh = {(one.example_id, one.origin) for one in examples.labelled_since(conn, "tone", before.created_at)}
        lines = [line.value for line in examples.labelled_rows(conn, "tone") if line.origin == "owner"]
    assert (row.example_id, "owner") in fresh
    assert lines == ["negative"]


def test_an_answer_and_a_label_of_theirs_for_one_example_are_both_kept(crowd: Crowd) -> None:
    ws, review = crowd.ws, asked(crowd, "so so")["so so"]
    reviews.answer(ws, review.id, "positive")
    labels.to_labels(ws)
    example_id = row_of(ws, "so so").example_id
    with ws.store.write() as conn:
        assert reviews.take(ws, conn, "tone", example_id, "negative", None)
        assert not reviews.take(ws, conn, "tone", example_id, "negative", None)
    reviews.answer(ws, review.id, "neutral")
    labels.to_labels(ws)
    with ws.store.read() as conn:
        lines = [line.value for line in examples.labelled_rows(conn, "tone") if line.origin == "owner"]
    assert lines == ["negative", "neutral"]
    assert row_of(ws, "so so").target == "neutral"


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("way", ["review", "file"])
def test_nobody_is_judged_by_their_answers_to_what_is_known(
    crowd: Crowd, tmp_path: Path, way: str, is_right: bool
) -> None:
    ws = crowd.ws
    about = asked(crowd, *(text for text, _ in QUESTIONS))
    questions = {one.text: one for one in reviews.next_of(ws, labeller="anonymous", n=20) if one.reason == "known"}
    truths = {text: label if is_right else other(label) for text, label in QUESTIONS}
    pairs = [(one.id, truths[str(one.text)]) for one in (*about.values(), *questions.values())]
    assert len(pairs) >= 8
    if way == "review":
        for review_id, said in pairs:
            assert reviews.answer(ws, review_id, said).labeller == "owner"
    else:
        file = file_of(tmp_path, pairs)
        assert labelling.import_labels(ws, file).n_labels == len(pairs)
        assert labelling.import_labels(ws, file).n_labels == 0
    crowd.say("anonymous", [("another", "positive")])
    trusting.collect(ws)
    assert weights(ws) == {"web/anonymous": 0.5}
    assert [(one.n_asked, one.n_right) for one in known.listing(ws)] == [(0, 0)] * 5


def heard(ws: Workspace) -> set[str | None]:
    """Answers whose audits count."""
    is_nothing = trust.not_counted(ws, "tone")
    with ws.store.read() as conn:
        drawn = audited.drawn(conn, "tone", is_nothing, first="", before="~")
    return {one["prediction_id"] for one in drawn if one["is_answered"]}


def test_their_audits_count_whatever_the_public_is_and_are_not_asked_again(crowd: Crowd) -> None:
    ws = crowd.ws
    crowd.say("anonymous", [(text, other(label)) for text, label in QUESTIONS])
    trusting.collect(ws)
    assert weights(ws) == {"web/anonymous": 0.0}
    answers = [Answer("positive", is_drawn=True)] * 6
    plant_log(ws, crowd.channel, crowd.version, answers, start=NOON + 20 * DAY - timedelta(hours=1))
    audits = [one for one in reviews.listing(ws) if one.reason == "audit"]
    for review in audits[:4]:
        reviews.answer(ws, review.id, "positive")
    for review in audits[4:]:
        reviews.answer(ws, review.id, "positive", "anonymous")
    assert heard(ws) == {one.prediction_id for one in audits[:4]}
    suspensions.suspend(ws, "web", because="all of the public")
    assert heard(ws) == {one.prediction_id for one in audits[:4]}
    assert filling.fill(ws).n_audits == 2
    trusting.collect(ws)
    assert sum(row.text.startswith("text prd_") for row in snapshot.rows(ws, trusting.freeze(ws))) == 4


def test_many_labels_of_theirs_within_an_hour_are_no_burst(crowd: Crowd, tmp_path: Path) -> None:
    table = crowd.ws.settings.feedback.model_copy(update={"burst_first_labels": 20, "burst_labels": 20})
    ws = replace(crowd.ws, settings=crowd.ws.settings.model_copy(update={"feedback": table}))
    ids = [plant_answer(ws, crowd.channel, crowd.version, "neutral", text=f"text {i}")[0] for i in range(30)]
    file = file_of(tmp_path, [(name, "positive") for name in ids])
    assert labelling.import_labels(ws, file).n_labels == 30
    assert trusting.collect(ws) == (30, [])


def test_they_are_not_asked_what_they_know(crowd: Crowd, tmp_path: Path) -> None:
    ws, about = crowd.ws, asked(crowd, *(f"text {i}" for i in range(8)))
    for _ in range(8):
        (review,) = reviews.next_of(ws)
        assert review.text in about
        reviews.answer(ws, review.id, "positive")
    assert reviews.next_of(ws) == []
    more = asked(crowd, "one more")
    assert labelling.export_labels(ws, tmp_path / "rows.jsonl").n_rows == 1
    assert reviews.skip(ws, more["one more"].id).labeller == "owner"


def test_nobody_else_takes_their_name(crowd: Crowd, tmp_path: Path) -> None:
    ws, review = crowd.ws, asked(crowd, "so so")["so so"]
    for speak in (
        lambda: reviews.answer(ws, review.id, "positive", "owner"),
        lambda: reviews.next_of(ws, labeller="owner"),
        lambda: Given("prd_1", correction="positive", labeller="owner"),
        lambda: intake.parse({"prediction_id": "prd_1", "correction": "positive", "labeller": "owner"}),
        lambda: suspensions.suspend(ws, "web", "owner", because="x"),
    ):
        with pytest.raises(BadInput, match="kept for who runs the workspace"):
            speak()
    assert intake.parse({"prediction_id": "prd_1", "correction": "x", "labeller": None}).labeller == "anonymous"
    file = file_of(tmp_path, [(review.id, "positive")])
    assert len(labelling.import_labels(ws, file, labeller="owner").refused) == 1
    assert reviews.listing(ws)[0].state == "open"


def test_erasing_the_public_leaves_what_they_said(crowd: Crowd) -> None:
    ws, review = crowd.ws, asked(crowd, "so so")["so so"]
    reviews.answer(ws, review.id, "positive")
    crowd.say("anonymous", [("so so", "neutral"), ("another", "neutral")])
    trusting.collect(ws)
    erase(ws, labeller="anonymous", channel="web")
    assert row_of(ws, "so so").target == "positive"
    assert [one.labeller for one in reviews.listing(ws, state="answered")] == ["owner"]
    assert weights(ws) == {}
