"""Labels to and from files. Catches: a label that comes back to another row, one that is taken twice, a formula that a
spreadsheet runs, an audit whose answer is given away, one bad row that keeps the others out."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from conftest import sentences, write_jsonl
from headrace.cells import plain, safe
from headrace.data import channels, importing, label_studio, snapshot
from headrace.errors import BadInput, NotFound, Unusable, WrongState
from headrace.feedback import reviews
from headrace.ids import new_id
from headrace.labelling import export_labels, import_labels
from headrace.loop import init as make
from headrace.store import schema
from headrace.tasks import TASK_TYPES
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace, init
from planted import ORIGIN, plant_channel, plant_version

FILES = ("tasks.json", "rows.csv", "rows.jsonl")
KINDS: dict[str, tuple[tuple[str, ...], Any, dict[str, Any], Any]] = {
    "text-classification": (("a", "b"), "a line\nand, \"more\"", {"label": "a", "confidence": 0.9, "scores": {}}, "b"),
    "text-pair": (("a", "b"), ("one", "=two"), {"label": "a", "confidence": 0.9, "scores": {}}, "b"),
    "multi-label": (("a", "b"), "text", {"labels": ["a"], "scores": {"a": 0.9, "b": 0.2}}, ["a", "b"]),
    "text-regression": ((), "-1 is less", {"value": 2.5}, -1.5),
    "token-classification": (
        ("PER",), "\U0001f600 Ann here", {"entities": [{"start": 2, "end": 5, "label": "PER", "confidence": 0.9}]},
        [[2, 5, "PER"], [6, 10, "PER"]],
    ),
    "extractive-qa": (
        (), ("who?", "it was \U0001f600 Ann"), {"answer": "Ann", "start": 9, "end": 12, "confidence": 0.9},
        {"answers": [{"text": "it", "start": 0}]},
    ),
    "retrieval": (("k1", "k2"), "text", {"label": "k1", "score": 0.9, "hits": [{"label": "k1", "score": 0.9}]}, "k2"),
}  # fmt: skip


def plant(ws: Workspace, given_input: Any, output: dict[str, Any], *, audit: bool = False) -> str:
    """An answer in the log that a review asks about; the id of the review."""
    (task,) = ws.settings.tasks
    channel, version = plant_channel(ws, f"=c{new_id('channel')}"), plant_version(ws, task=task)
    text, pair = (given_input, None) if isinstance(given_input, str) else given_input
    with ws.store.write() as conn:
        conn.execute(
            insert(schema.predictions).values(
                id=new_id("prediction"), request_id=new_id("request"), row=0, task=task, channel_id=channel.id,
                arm="control", version_id=version.id, artifact=version.artifact, text=text, text_pair=pair,
                text_hash=text_hash(given_input), output=output, latency_ms=1.0, at=ws.clock(),
                audit_probability=1.0 if audit else None, **ORIGIN,
            )
        )  # fmt: skip
    reviews.fill(ws)
    return next(one.id for one in reviews.listing(ws) if one.channel == channel.name)


def labelled(path: Path, target: Any) -> None:
    """Have a person write `target` into every row of an exported file, in the way of its format."""
    if path.suffix == ".json":
        tasks = json.loads(path.read_text("utf-8"))
        for task in tasks:
            task["annotations"] = [{"id": 1, "completed_by": 7, "result": target}]
        path.write_text(json.dumps(tasks), "utf-8")
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
        cell = target if isinstance(target, str) else json.dumps(target)
        rows = [[cell if name == "label" else old for name, old in zip(head, line, strict=True)] for line in lines]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    else:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        path.write_text("".join(json.dumps(row | {"label": target}) + "\n" for row in rows), "utf-8")


def answers_of(ws: Workspace) -> list[tuple[str, Any, str | None]]:
    return [(one.state, one.answer, one.labeller) for one in reviews.listing(ws, state=None)]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_label_of_each_task_type_finds_the_way_back(kind: str, name: str, tmp_path: Path) -> None:
    labels, given_input, output, target = KINDS[kind]
    catalogue = ""
    if kind == "retrieval":
        (tmp_path / "ws").mkdir()
        write_jsonl(tmp_path / "ws" / "k.jsonl", [{"label": k, "text": f"text of {k}"} for k in labels])
        catalogue, labels = "k.jsonl", ()
    with make(tmp_path / "ws", task="t", task_type=kind, labels=labels, catalogue=catalogue) as ws:
        review = plant(ws, given_input, output)
        path = tmp_path / name
        assert export_labels(ws, path).n_rows == 1
        task_type = TASK_TYPES.get(kind)(ws.task("t"))
        if name == "tasks.json":
            (task,) = json.loads(path.read_text("utf-8"))
            assert task["data"]["headrace_id"] == review
            control = label_studio.control_for(label_studio.read_config(label_studio.config_for(task_type)), task_type)
            spoken_of = given_input if isinstance(given_input, str) else given_input[1]
            (prediction,) = task["predictions"]
            said = label_studio.label_of(prediction["result"], control.name, control.kind, spoken_of)
            assert task_type.parse_label(said, given_input) == task_type.answer_of(output)
            labelled(path, label_studio.results_of(target, control, spoken_of, result_id="x"))
        else:
            labelled(path, target)
        for n_new in (1, 0):
            done = import_labels(ws, path, labeller="ann")
            assert (done.n_rows, done.n_labels, done.refused) == (1, n_new, ()), done
        assert answers_of(ws) == [("answered", target, "7" if name == "tasks.json" else "ann")]


@pytest.fixture
def ws(tmp_path: Path) -> Any:
    with init(tmp_path / "ws", task="tone", labels=("=sum", "neutral")) as opened:
        yield opened


OUTPUT = {"label": "=sum", "confidence": 0.9, "scores": {"=sum": 0.9, "neutral": 0.1}}


def test_no_cell_is_a_formula(ws: Workspace, tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\t=1", "'=quoted", "'plain", "a=b", "= \n2"]
    made = [plant(ws, text, OUTPUT) for text in texts]
    export_labels(ws, path := tmp_path / "rows.csv")
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    cells = [cell for line in (head, *lines) for cell in line]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]
    assert sorted(plain(line[head.index("text")]) for line in lines) == sorted(texts)
    labelled(path, "'=sum")
    done = import_labels(ws, path)
    assert (done.n_labels, done.refused) == (len(made), ())
    assert {answer for _, answer, _ in answers_of(ws)} == {"=sum"}


@given(st.text(st.sampled_from("'=+-@\t\r ab"), max_size=8))
def test_cells_come_back_as_they_were(cell: str) -> None:
    assert plain(safe(cell)) == cell
    assert safe(cell)[:1] not in tuple("=+-@\t\r") or not cell


def test_audits_go_out_without_the_answer(ws: Workspace, tmp_path: Path) -> None:
    audit, other = plant(ws, "one", OUTPUT, audit=True), plant(ws, "two", OUTPUT)
    ids = {}
    for name in FILES:
        export_labels(ws, path := tmp_path / name)
        if name == "tasks.json":
            shown = {one["data"]["headrace_id"]: bool(one["predictions"]) for one in json.loads(path.read_text())}
        elif name == "rows.csv":
            with path.open(encoding="utf-8", newline="") as file:
                shown = {row["headrace_id"]: bool(row["prelabel"]) for row in csv.DictReader(file)}
        else:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            shown = {row["headrace_id"]: row["prelabel"] is not None for row in lines}
        ids[name] = shown
        assert "reason" not in path.read_text()
        assert "audit" not in path.read_text()
    assert all(shown[audit] is False and shown[other] is True for shown in ids.values())
    export_labels(ws, path := tmp_path / "bare.jsonl", prelabels=False)
    assert {json.loads(line)["prelabel"] for line in path.read_text().splitlines()} == {None}


def test_one_bad_row_does_not_keep_the_others_out(ws: Workspace, tmp_path: Path) -> None:
    good, bad = plant(ws, "one", OUTPUT), plant(ws, "two", OUTPUT)
    rows = [
        {"headrace_id": bad, "text": "two", "label": "splendid"},
        {"headrace_id": "rev_0", "text": "x", "label": "neutral"},
        {"text": "no id", "label": "neutral"},
        {"headrace_id": good, "text": "one", "label": "neutral"},
        {"headrace_id": bad, "text": "two", "label": None},
    ]
    done = import_labels(ws, write_jsonl(tmp_path / "rows.jsonl", rows))  # type: ignore[arg-type]
    assert (done.n_rows, done.n_labels, done.n_unlabelled) == (5, 1, 1)
    assert [(one.line, one.id) for one in done.refused] == [(1, bad), (2, "rev_0"), (3, "")]
    assert "unknown label" in done.refused[0].problem
    with pytest.raises(NotFound):
        import_labels(ws, tmp_path / "none.csv")


def test_labelled_rows_go_out_and_what_people_change_outweighs_the_import(workspace: Workspace, tmp_path: Path) -> None:
    ws = workspace
    with pytest.raises(WrongState, match="no snapshot"):
        export_labels(ws, tmp_path / "rows.csv", labelled=True)
    channels.add(ws, "web")
    importing.import_rows(ws, "web", write_jsonl(tmp_path / "web.jsonl", sentences(60)))
    before = {row.example_id: row for row in snapshot.rows(ws, snapshot.freeze(ws))}
    for name in FILES:
        assert export_labels(ws, tmp_path / name, labelled=True).n_rows == 60
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert {row["headrace_id"]: row["label"] for row in rows} == {key: row.target for key, row in before.items()}
    changed = next(row for row in rows if before[row["headrace_id"]].side == "train" and row["label"] != "neutral")
    done = import_labels(ws, write_jsonl(tmp_path / "one.jsonl", [changed | {"label": "neutral"}]), labeller="ann")
    assert done.n_labels == 1
    after = {row.example_id: row for row in snapshot.rows(ws, snapshot.freeze(ws))}
    assert after[changed["headrace_id"]].target == "neutral"
    assert sum(after[key].target != row.target for key, row in before.items()) == 1
    with ws.store.read() as conn:
        assert set(conn.execute(select(schema.labels.c.origin)).scalars()) == {"import", "review"}


def test_what_cannot_be_written_is_said(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not clear from the name"):
        export_labels(ws, tmp_path / "rows.xlsx")
    with pytest.raises(BadInput, match="no such format"):
        export_labels(ws, tmp_path / "rows.csv", format="xlsx")
    with pytest.raises(Unusable, match="cannot be written"):
        export_labels(ws, tmp_path / "none" / "rows.csv")
