"""What an erasure looks for. Catches: a column that holds a person and that no erasure was taught; a short name that
stays in a report or in who lifted a suspension; a file of the operator's that loses what the store keeps; a text that
only a file of old predictions has and that is not looked for.
"""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import JSON, String, insert, select, update
from sqlalchemy.sql.schema import Column

from furnished import answer, holders
from headrace import retention
from headrace.console import report
from headrace.data import channels
from headrace.feedback import known, suspensions
from headrace.feedback.intake import give
from headrace.feedback.labels import to_labels
from headrace.lineage import erasing
from headrace.lineage.searching import search_for
from headrace.store import erasures, schema
from headrace.store.erasures import Doomed
from headrace.workspace import Workspace
from planted import plant_version

NAME = "mallory"  # shorter than what is looked for anywhere

ROWS_GO = {  # deleted as rows of who goes
    "examples": "key text text_pair text_hash group_key prediction_id channel_id import_id",
    "feedback": "correction metric comment labeller idempotency_key kind event prediction_id",
    "known_answers": "task text text_pair text_hash answer",
    "labellers": "name channel_id",
    "labels": "example_id task labeller_id value origin import_id feedback_id",
    "predictions": "request_id task channel_id unit arm release_id version_id artifact adapter text text_pair "
    "text_hash output error",
    "quarantine": "import_id reason detail raw",
    "replaced": "subject_id kind surrogate ciphertext",
    "reviews": "task channel_id reason prediction_id example_id known_answer_id release_id state answer labeller",
    "split_groups": "group_key side",
    "subject_keys": "channel_id wrapped",
    "suspensions": "task channel_id labeller",
    "drift_streams": "task channel_id version_id stream state seen",  # vectors go; the others are counts
}
NOBODY = {  # ids, hashes, names of settings, and numbers that were counted
    "adapters": "version_id channel_id artifact weights evidence",
    "alarms": "task channel_id version_id stream",
    "api_keys": "secret_hash scopes channels replaces",
    "artifacts": "digest kind",
    "channels": "name",  # which stays, as docs/lineage.md says
    "erasures": "kind subject facts receipt",
    "evaluations": "task version_id predictor snapshot_id side results",
    "imports": "channel_id task state",
    "jobs": "target state log_path",
    "model_versions": "task run_id snapshot_id checkpoint artifact",
    "releases": "task control_id candidate_id policy options state others scope weights",
    "runs": "task snapshot_id base_model base_digest method params fingerprint state job_id checkpoint history facts",
    "snapshots": "task content_hash artifact n_by_side n_by_channel",
    "traffic": "release_id arm channel_id source",
    "trials": "search params state curve run_id",
    "usage": "channel_id task source",
}
STAYS = {  # what people who run it wrote: chained lines, which are named or said to stay, and names of keys
    "api_keys": "name",
    "audit_log": "actor action object before_hash after_hash request_id facts prev_hash hash",
    "ledger": "id task channel_id kind version_id release_id reason evidence actor prev_hash hash",
}


_ORIGIN = ("config_hash", "code_version", "key_id")


def test_every_column_of_text_is_decided_about() -> None:
    told = {f"{column.table.name}.{column.name}" for _, column in erasures.TOLD}
    decided = [
        {f"{table}.{name}" for table, names in some.items() for name in names.split()}
        for some in (ROWS_GO, NOBODY, STAYS)
    ]
    there = {
        f"{table.name}.{column.name}"
        for table in schema.metadata.sorted_tables
        for column in table.columns
        if _is_of_text(column) and not (column.primary_key and column.name == "id")
    } - {f"{table.name}.{name}" for table in schema.metadata.sorted_tables for name in _ORIGIN}
    assert sorted(there - told.union(*decided)) == []
    assert sorted(told.union(*decided) - there) == []
    assert sum(map(len, (told, *decided))) == len(there)  # each once


def _is_of_text(column: Column[Any]) -> bool:
    return isinstance(column.type, String | JSON)


def test_tables_whose_rows_go_are_those_that_an_erasure_deletes_from() -> None:
    steps = {step.table.name for step in erasures.steps(Doomed("ch_1", whole_channel=True))}
    shredded = {"replaced", "subject_keys"}
    assert steps == (ROWS_GO.keys() - shredded) | {"imports", "alarms"}  # of which a labeller has none
    one = Doomed("ch_1", False, ["x"], ["ex_1"], ["prd_1"], ["h"], [1])
    assert {step.table.name for step in erasures.steps(one)} == ROWS_GO.keys() - shredded


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    """Twelve known answers, in a file of the operator's too; answers to them that somebody corrected, and one more."""
    for name in ("web", "phone"):
        channels.add(workspace, name)
    version = plant_version(workspace)
    questions = [f"question {i} of the operator" for i in range(12)]
    known.add(workspace, [(text, "positive") for text in questions], task="tone")
    lines = "".join(f"{text},positive\n" for text in questions)
    (workspace.root / "k.csv").write_text(f"text,label\n{lines}", "utf-8")
    for text in questions:
        give(workspace, answer(workspace, version, text, unit="u1"), correction="negative", labeller=NAME)
    own = answer(workspace, version, "a word of my very own", unit="u1")
    give(workspace, own, correction="negative", labeller=NAME)
    to_labels(workspace)
    return workspace


def test_what_the_store_keeps_stays_in_files_too(ws: Workspace) -> None:
    """Also where the one who goes labelled it: what they labelled is an example that goes, the answer to it stays."""
    with ws.store.write() as conn:
        for table in (schema.examples, schema.predictions):  # as of questions about one text
            conn.execute(update(table).values(text_pair="a context of them all"))
    before = (ws.root / "k.csv").read_bytes()
    kept = "text,labeller\na context of them all,eva\n"
    (ws.root / "out.csv").write_text(f"{kept}question 3 of the operator,{NAME}\n", "utf-8")
    done = erasing.erase(ws, labeller=NAME, channel="web")
    assert done.plan.rows["examples"] == 13
    assert (ws.root / "k.csv").read_bytes() == before
    assert (ws.root / "out.csv").read_text("utf-8") == kept
    assert len(known.listing(ws)) == 12
    assert len(list(retention.read(ws))) == 13


def test_a_text_that_only_old_predictions_have_is_looked_for_and_one_that_others_have_is_not(ws: Workspace) -> None:
    version = plant_version(ws)
    for unit, text in (
        (NAME, "asked long ago by one"),
        (NAME, "asked long ago by both"),
        ("u1", "asked long ago by both"),
    ):
        answer(ws, version, text, unit=unit, days=50)
    retention.move(ws)
    (ws.root / "old.jsonl").write_text(
        '{"text": "asked long ago by one"}\n{"text": "asked long ago by both"}\n', "utf-8"
    )
    erasing.erase(ws, labeller=NAME, channel="web")
    assert (ws.root / "old.jsonl").read_text("utf-8") == '{"text": "asked long ago by both"}\n'


def test_a_short_name_is_in_no_report_and_no_suspension_afterwards(ws: Workspace) -> None:
    said = answer(ws, plant_version(ws), "ringing all day", unit="u2", channel="phone")
    give(ws, said, correction="negative", labeller="eva")
    made = suspensions.suspend(ws, "phone", "eva", because=f"{NAME} says so", task="tone")
    suspensions.lift(ws, made.id, because=f"{NAME}: it was me", by=NAME)
    with ws.store.write() as conn:
        about = {"task": "tone", "channel_id": channels.find(ws, "web").id, "labeller": f"{NAME}-2"}
        facts = {"reason": "busy", "evidence": {}, "since": ws.clock(), "created_at": ws.clock() - timedelta(days=1)}
        conn.execute(insert(schema.suspensions).values(id="sus_other", **about, **facts))
    report.write(ws)
    report.write(ws, path=ws.root / "march" / "report of march.html")
    theirs = ws.root / "theirs.html"
    theirs.write_text(f"<title>A page</title>{NAME} Kendall wrote the-web/{NAME} and web/{NAME}-2", "utf-8")
    assert len(holders(ws.root, f"web/{NAME}")) == 3
    erasing.erase(ws, labeller=NAME, channel="web")
    assert holders(ws.root, NAME) == [".headrace/headrace.db", "theirs.html"]  # of which the name is another's
    assert not (ws.root / "report.html").exists()
    with ws.store.read() as conn:
        kept = schema.suspensions.c
        columns = (kept.labeller, kept.reason, kept.lifted_by, kept.lifted_because)
        rows = conn.execute(select(*columns).order_by(kept.created_at)).all()
    assert [tuple(row) for row in rows] == [
        (f"{NAME}-2", "busy", None, None),
        ("eva", "erased says so", "erased", "erased: it was me"),
    ]


@pytest.mark.parametrize(
    ("text", "source", "sentence"),
    [
        ("web/al", True, "web/al"),  # too short for a word
        ("<td>web/o&#x27;neil</td>", True, "<td>web/-</td>"),
        ("web/al-2, web/alan, web/al.b", False, "web/al-2, web/alan, web/al.b"),
        ("/srv/web/al", False, "/srv/web/al"),
        ("o'neil. And o'neil!", False, "-. And -!"),
        ("o'neilly, mo'neil", False, "o'neilly, mo'neil"),
        ("dr who o'neil", False, "- -"),
        ("dr who", False, "-"),
    ],
)
def test_where_a_short_name_begins_and_ends(text: str, source: bool, sentence: str) -> None:
    names = ["al", "o'neil", "dr who"]
    search = search_for(names, channel="web", names=names)
    assert search.is_in(text) == source
    assert search.without_names(text, "-") == sentence
