"""The review queue. Catches: an audit that is not asked for or asked for twice, a choice passed off as a draw, a known
question that can be told from the others, an answer that is taken twice, by two people, or not as feedback."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from conftest import LABELS
from headrace.data import snapshot
from headrace.errors import BadInput, NotFound, WrongState
from headrace.feedback import auditing, reviews, trust
from headrace.ids import first_id, made_at, new_id
from headrace.records import Channel, ModelVersion
from headrace.release import releases
from headrace.store import schema
from headrace.store.examples import LabelledRow
from headrace.store.reviews import Review
from headrace.tasks.text_classification import TextClassification
from headrace.workspace import Workspace
from planted import ORIGIN, plant_channel, plant_version

Place = tuple[Workspace, Channel, ModelVersion]


@pytest.fixture
def place(workspace: Workspace) -> Place:
    return workspace, plant_channel(workspace, "a"), plant_version(workspace)


def plant_answers(place: Place, n: int, *, at: datetime | None = None, **more: Any) -> list[str]:
    """`n` answers with confidences that rise; their ids."""
    ws, channel, version = place
    lines = []
    for i in range(n):
        text, top = f"text {i}", 0.4 + 0.59 * i / max(1, n - 1)
        line = {
            "id": new_id("prediction"), "request_id": new_id("request"), "row": 0, "task": "tone",
            "channel_id": channel.id, "arm": "control", "version_id": version.id, "artifact": version.artifact,
            "text": text, "text_hash": hashlib.sha256(text.encode()).hexdigest(), "latency_ms": 1.0,
            "output": {"label": "positive", "confidence": top, "scores": {"positive": top, "neutral": 1 - top}},
            "at": at or ws.clock(), **ORIGIN, **more,
        }  # fmt: skip
        lines.append(line)
    with ws.store.write() as conn:
        conn.execute(insert(schema.predictions), lines)
    return [str(line["id"]) for line in lines]


def plant_known(ws: Workspace, n: int) -> None:
    with ws.store.write() as conn:
        for i in range(n):
            conn.execute(
                insert(schema.known_answers).values(
                    id=new_id("known answer"), task="tone", text=f"known {i}", text_hash=f"known {i}",
                    answer="neutral", created_at=ws.clock(),
                )
            )  # fmt: skip


def plant_examples(place: Place, n: int) -> list[str]:
    ws, channel, _ = place
    ids = [new_id("example") for _ in range(n)]
    with ws.store.write() as conn:
        for i, example_id in enumerate(ids):
            conn.execute(
                insert(schema.examples).values(
                    id=example_id, channel_id=channel.id, key=f"k{i}", text=f"example {i}", text_hash=f"h{i}",
                    group_key=f"k{i}", created_at=ws.clock(),
                )
            )  # fmt: skip
    return ids


def rows_of(ws: Workspace, table: Any) -> list[dict[str, Any]]:
    with ws.store.read() as conn:
        return [dict(row) for row in conn.execute(select(table).order_by(table.c.id)).mappings()]


def with_rows(ws: Workspace, n: int) -> Workspace:
    return replace(ws, settings=ws.settings.model_copy(update={"feedback": feedback_with(ws, review_rows=n)}))


def feedback_with(ws: Workspace, **changed: Any) -> Any:
    return ws.settings.feedback.model_copy(update=changed)


def test_exactly_the_drawn_answers_are_asked_about_once(place: Place) -> None:
    ws = with_rows(place[0], 0)
    ids = plant_answers(place, 400, audit_probability=0.2)
    plant_answers(place, 50, audit_probability=None)
    drawn = [one for one in ids if auditing.is_drawn(one, 0.2, salt="headrace")]
    first = reviews.fill(ws)
    assert first.n_audits == len(drawn) > 0
    more = plant_answers(place, 100, audit_probability=0.2)
    second = reviews.fill(ws)
    drawn += [one for one in more if auditing.is_drawn(one, 0.2, salt="headrace")]
    assert first.n_audits + second.n_audits == len(drawn)
    assert reviews.fill(ws).n_audits == 0
    asked = reviews.listing(ws)
    assert sorted(one.prediction_id or "" for one in asked) == sorted(drawn)
    asked_at = [made_at(one.prediction_id or "") for one in asked]
    assert asked_at == sorted(asked_at)
    assert {(one.reason, one.probability) for one in asked} == {("audit", 0.2)}


def test_an_answer_that_is_logged_late_is_still_audited(place: Place) -> None:
    ws = with_rows(place[0], 0)
    early, late = (new_id("prediction") for _ in range(2))
    plant_answers(place, 1, id=late, audit_probability=1.0)
    assert reviews.fill(ws).n_audits == 1
    plant_answers(place, 1, id=early, audit_probability=1.0)
    assert reviews.fill(ws).n_audits == 1


def test_half_of_what_is_chosen_is_drawn_and_its_probability_is_kept(place: Place) -> None:
    ws = with_rows(place[0], 20)
    ids = plant_answers(place, 100)
    examples = plant_examples(place, 30)
    filled = reviews.fill(ws, suspects=[*examples, "ex_erased"])
    assert (filled.n_random, filled.n_useful, filled.n_label_errors) == (10, 5, 5)
    found: dict[str, list[Review]] = {}
    for one in reviews.listing(ws):
        found.setdefault(one.reason, []).append(one)
    assert {one.probability for one in found["random"]} == {0.1}
    assert [one.example_id for one in found["label-error"]] == examples[:5]  # the likeliest are asked about first
    drawn = {one.prediction_id for one in found["random"]}
    margins = {one: abs(2 * (0.4 + 0.59 * i / 99) - 1) for i, one in enumerate(ids)}
    nearest = sorted((one for one in ids if one not in drawn), key=margins.__getitem__)[:5]
    assert {one.prediction_id for one in found["useful"]} == set(nearest)
    first = [one.reason for one in reviews.listing(ws)][:8]
    assert 3 <= Counter(first)["random"] <= 5  # whoever stops early has been asked at random, too
    assert sum(vars(reviews.fill(ws, suspects=examples)).values()) == 0


def test_half_is_drawn_also_where_there_is_little(place: Place) -> None:
    plant_answers(place, 7)
    filled = reviews.fill(place[0])
    assert (filled.n_random, filled.n_useful) == (4, 3)


def test_draws_are_uniform_over_what_has_no_label(place: Place) -> None:
    ws = with_rows(place[0], 20)
    ids = plant_answers(place, 40)
    counts: Counter[str] = Counter()
    for salt in range(60):
        with ws.store.write() as conn:
            conn.execute(schema.reviews.delete())
        salted = replace(
            ws, settings=ws.settings.model_copy(update={"feedback": feedback_with(ws, audit_salt=str(salt))})
        )
        reviews.fill(salted)
        counts.update(one.prediction_id or "" for one in reviews.listing(ws) if one.reason == "random")
    expected, error = 60 * 10 / 40, (60 * 0.25 * 0.75) ** 0.5
    assert max(abs(counts[one] - expected) for one in ids) < 6 * error


def test_what_has_a_label_is_not_asked_about(place: Place) -> None:
    ws, channel, _ = place
    ids = plant_answers(place, 3)
    (example,) = plant_examples(place, 1)
    with ws.store.write() as conn:
        labeller = new_id("labeller")
        now = ws.clock()
        conn.execute(insert(schema.labellers).values(id=labeller, channel_id=channel.id, name="import", created_at=now))
        digest = hashlib.sha256(b"text 0").hexdigest()
        conn.execute(update(schema.examples).where(schema.examples.c.id == example).values(text_hash=digest))
        conn.execute(
            insert(schema.labels).values(
                id=new_id("label"), example_id=example, task="tone", labeller_id=labeller, value="neutral",
                origin="import", created_at=now,
            )
        )  # fmt: skip
        conn.execute(
            insert(schema.feedback).values(
                id=new_id("feedback"), prediction_id=ids[1], kind="correction", correction="neutral", labeller="ann",
                used=False, at=now, **ORIGIN,
            )
        )  # fmt: skip
    reviews.fill(ws)
    assert [one.prediction_id for one in reviews.listing(ws)] == [ids[2]]


def test_where_all_labels_count_the_newest_disagreements_are_asked_about_first(place: Place) -> None:
    ws, channel, _control = place
    candidate = plant_version(ws)
    releases.promote(ws, "1", task="tone")
    release = releases.start(ws, candidate=candidate, options={"labels": "all"})
    pairs = []
    for i, said in enumerate(("positive", "neutral", "negative", "neutral")):
        request = new_id("request")
        own, other = (first_id("prediction", ws.clock() + timedelta(seconds=2 * i + k)) for k in (0, 1))
        facts = {"request_id": request, "release_id": release.id, "text": f"t{i}", "text_hash": f"t{i}"}
        plant_answers(place, 1, id=own, **facts)
        shadow = {"label": said, "confidence": 0.9, "scores": {}}
        plant_answers((ws, channel, candidate), 1, id=other, arm="shadow", output=shadow, **facts)
        pairs.append(own)
    filled = reviews.fill(with_rows(ws, 2))
    assert filled.n_disagreements == 2
    asked = [one for one in reviews.listing(ws) if one.reason == "disagreement"]
    assert [(one.prediction_id, one.release_id, one.probability) for one in asked] == [
        (pairs[3], release.id, None), (pairs[2], release.id, None),
    ]  # fmt: skip
    releases.stop(ws, task="tone")
    assert reviews.fill(with_rows(ws, 0)).n_skipped == 2


def test_newcomers_are_asked_what_is_known_and_it_does_not_show(place: Place) -> None:
    ws, *_ = place
    plant_answers(place, 200)
    plant_known(ws, 40)
    reasons = []
    for _ in range(60):
        (review,) = reviews.next_of(ws, labeller="ann")
        assert [one.id for one in reviews.next_of(ws, labeller="ann")] == [review.id]
        seen = reviews.shown(review)
        assert set(seen) == {"id", "task", "channel", "text", "text_pair"}
        assert seen["channel"] == "a"
        reasons.append(review.reason)
        assert reviews.answer(ws, review.id, "neutral", "ann").state == "answered"
    assert reasons[:3] == ["known"] * 3
    n_soon, n_later = reasons[3:30].count("known"), reasons[30:].count("known")
    assert 2 <= n_soon <= 14
    assert n_later <= n_soon
    asked = [row["known_answer_id"] for row in rows_of(ws, schema.reviews) if row["reason"] == "known"]
    assert len(asked) == len(set(asked))  # nobody is asked the same twice
    made = {made_at(row["id"]) for row in rows_of(ws, schema.reviews) if row["reason"] == "known"}
    assert made <= {made_at(row["id"]) for row in rows_of(ws, schema.reviews) if row["reason"] != "known"}
    n_feedback = len(rows_of(ws, schema.feedback))
    assert n_feedback == 60 - reasons.count("known")  # an answer to a known question is no feedback
    (other,) = reviews.next_of(ws, labeller="bob")
    assert other.reason == "known"


def test_known_questions_come_only_beside_others(place: Place) -> None:
    ws, *_ = place
    plant_known(ws, 5)
    assert reviews.next_of(ws, labeller="ann") == []
    plant_answers(place, 2)
    assert [one.reason for one in reviews.next_of(ws, labeller="ann", n=20)].count("known") >= 3


def test_an_answer_about_a_prediction_is_feedback_and_is_taken_once(place: Place) -> None:
    ws, *_ = place
    (prediction,) = plant_answers(place, 1, audit_probability=1.0)
    reviews.fill(with_rows(ws, 0))
    (review,) = reviews.next_of(with_rows(ws, 0), labeller="ann")
    with pytest.raises(BadInput, match="unknown label"):
        reviews.answer(ws, review.id, "splendid", "ann")
    with pytest.raises(BadInput, match="labeller"):
        reviews.answer(ws, review.id, "neutral", " ")
    assert rows_of(ws, schema.feedback) == []
    for _ in range(2):
        done = reviews.answer(ws, review.id, "neutral", "ann")
    assert (done.state, done.answer, done.labeller) == ("answered", "neutral", "ann")
    with pytest.raises(WrongState, match="answered already"):
        reviews.answer(ws, review.id, "positive", "bob")
    with pytest.raises(WrongState, match="answered"):
        reviews.skip(ws, review.id, "bob")
    assert reviews.answer(ws, review.id, "negative", "ann").answer == "negative"
    said = [(row["prediction_id"], row["kind"], row["correction"]) for row in rows_of(ws, schema.feedback)]
    assert said == [(prediction, "correction", "neutral"), (prediction, "correction", "negative")]  # both are kept
    with pytest.raises(NotFound, match="no such review"):
        reviews.answer(ws, "rev_0", "neutral")


def test_of_many_who_answer_at_once_one_is_taken(place: Place) -> None:
    ws, *_ = place
    plant_answers(place, 1, audit_probability=1.0)
    reviews.fill(with_rows(ws, 0))
    (review,) = reviews.listing(ws)

    def answer(i: int) -> bool:
        try:
            return reviews.answer(ws, review.id, LABELS[i % 3], f"labeller {i}").state == "answered"
        except WrongState:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(answer, range(8))) == 1
    (said,) = rows_of(ws, schema.feedback)
    (done,) = reviews.listing(ws, state="answered")
    assert (said["labeller"], said["correction"]) == (done.labeller, done.answer)


def test_a_skipped_review_is_over_and_one_whose_answer_left_the_store_too(place: Place) -> None:
    ws = with_rows(place[0], 0)
    plant_answers(place, 2, audit_probability=1.0)
    reviews.fill(ws)
    (first, second) = reviews.listing(ws)
    assert reviews.skip(ws, first.id, "ann").state == "skipped"
    with pytest.raises(WrongState, match="skipped"):
        reviews.answer(ws, first.id, "neutral", "ann")
    with ws.store.write() as conn:
        conn.execute(schema.predictions.delete().where(schema.predictions.c.id == second.prediction_id))
    assert reviews.next_of(ws, labeller="ann") == []
    assert [one.id for one in reviews.listing(ws, state="skipped")] == [first.id, second.id]
    assert [one.id for one in reviews.listing(ws, state="skipped", n=1)] == [first.id]
    with pytest.raises(BadInput, match=r"no such state of a review: done.*skipped"):
        reviews.listing(ws, state="done")


def test_a_label_of_a_review_outweighs_the_one_of_the_import(place: Place) -> None:
    ws, *_ = place
    (example,) = plant_examples(place, 1)
    reviews.fill(ws, suspects=[example])
    (review,) = reviews.listing(ws)
    for said in ("neutral", "neutral", "negative"):
        reviews.answer(ws, review.id, said, "ann")
    labels = rows_of(ws, schema.labels)
    assert [(row["value"], row["origin"]) for row in labels] == [("neutral", "review"), ("negative", "review")]
    task_type = TextClassification(ws.task("tone"))

    def line(value: str, origin: str, who: str) -> LabelledRow:
        return LabelledRow("ex_1", "a", "k", "k", "h", "text", who, value, origin)

    lines = [line("positive", "import", "i"), line("neutral", "review", "ann"), line("negative", "review", "ann")]
    assert snapshot.target_of(lines, task_type) == "negative"
    assert (
        snapshot.target_of([line("negative", "review", "ann"), line("positive", "import", "i")], task_type)
        == "negative"
    )
    assert (
        snapshot.target_of([line("positive", "import", "i"), line("neutral", "feedback", "b")], task_type) == "positive"
    )


def test_of_a_known_question_the_first_answer_counts_and_a_later_one_does_not_show_it(place: Place) -> None:
    ws, *_ = place
    plant_answers(place, 5)
    plant_known(ws, 1)
    (review,) = reviews.next_of(ws, labeller="ann")
    assert review.reason == "known"
    assert [reviews.answer(ws, review.id, said, "ann").answer for said in ("positive", "neutral", "positive")] == [
        "positive", "neutral", "positive",
    ]  # fmt: skip
    with ws.store.write() as conn:
        reviews.take(ws, conn, "tone", review.id, "neutral", "ann")
    (kept,) = reviews.listing(ws, state="answered")
    assert (kept.answer, kept.labeller) == ("positive", "ann")
    assert [(one.n_asked, one.n_right) for one in trust.judge(ws) if one.source.labeller] == [(1, 0)]


def test_two_at_work_at_once_get_different_reviews_first(place: Place) -> None:
    ws, *_ = place
    plant_answers(place, 100)
    firsts = {reviews.next_of(ws, labeller=f"labeller {i}")[0].id for i in range(10)}
    assert len(firsts) >= 3  # of 20; 10 draws give fewer with probability below 1e-7


def test_labels_given_elsewhere_are_taken_by_id(place: Place) -> None:
    ws, *_ = place
    (prediction,) = plant_answers(place, 1)
    (example,) = plant_examples(place, 1)
    reviews.fill(with_rows(ws, 2))
    (review,) = reviews.listing(ws)
    for about in (prediction, example, review.id):
        with ws.store.write() as conn:
            took = [reviews.take(ws, conn, "tone", about, said, "ann") for said in ("neutral", "neutral", "negative")]
        assert took == [True, False, True], about
    with ws.store.write() as conn:  # a second opinion is no second answer
        assert reviews.take(ws, conn, "tone", review.id, "positive", "bob")
    said = [(row["labeller"], row["correction"]) for row in rows_of(ws, schema.feedback)]
    assert ("bob", "positive") in said
    assert reviews.listing(ws, state="answered")[0].labeller == "ann"
    with ws.store.write() as conn, pytest.raises(NotFound, match="no such review, prediction or example"):
        reviews.take(ws, conn, "tone", "prd_0", "neutral", "ann")


def test_answers_that_are_too_old_for_feedback_stay_without_a_trace(place: Place) -> None:
    ws, *_ = place
    plant_answers(place, 1, audit_probability=1.0)
    reviews.fill(with_rows(ws, 0))
    (review,) = reviews.listing(ws)
    later = replace(ws, clock=lambda: ws.clock() + timedelta(days=60))
    with pytest.raises(WrongState):
        reviews.answer(later, review.id, "neutral", "ann")
    assert reviews.listing(ws)[0].state == "open"
