"""A workspace with something of a person in every place that keeps any, and a search of all bytes of a folder."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sqlalchemy import insert, update

from conftest import sentences, write_jsonl
from headrace import retention
from headrace.data import channels, importing, snapshot
from headrace.feedback.intake import give
from headrace.feedback.labels import to_labels
from headrace.ids import first_id, new_id
from headrace.records import ModelVersion, Prediction
from headrace.store import predictions, runs, schema
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace
from planted import ORIGIN, log_row, plant_version

TEXT = 'the "quixotic zebrafinch" of Ouagadougou\tsang badly'
"""Of one imported example. Its quotes and tab are written in several ways by what keeps it."""
CORE = "zebrafinch"
ASKED = "wombat harpsichord recital at dawn"
"""Of a prediction that the person asked for."""
OLD_ASKED = "marmalade periscope regatta at noon"
"""Of one that has moved to a file."""
NAME = "ignatius-quillfeather"
COMMENT = "grandmother knows this balalaika"
OTHERS = "unremarkable pelican of somebody else"
"""What must stay."""


@dataclass(frozen=True)
class Furnished:
    """Ids of what was put there."""

    example: str
    prediction: str
    moved: str
    feedback: str
    version: ModelVersion


def furnish(ws: Workspace, folder: Path) -> Furnished:
    """Channels `web`, where all of it is, and `phone`; labels, answers, feedback, a snapshot, a version, exports."""
    for name in ("web", "phone"):
        channels.add(ws, name)
        rows = sentences(60, channel=name)
        if name == "web":
            rows += [
                {"id": "mine", "text": TEXT, "label": "positive"},
                {"id": "mine", "text": f"{TEXT} again", "label": "negative"},  # goes to quarantine
                {"id": "theirs", "text": OTHERS, "label": "negative"},
            ]
        importing.import_rows(ws, name, write_jsonl(folder / f"{name}.jsonl", rows))
    version = plant_version(ws)
    asked = answer(ws, version, ASKED, unit=NAME)
    same = answer(ws, version, TEXT, unit="somebody")
    theirs = answer(ws, version, OTHERS, unit="else")
    moved = [answer(ws, version, text, unit=NAME, days=40) for text in (OLD_ASKED, TEXT, OTHERS)]
    answer(ws, version, OTHERS, unit="else", days=40)
    retention.move(ws)
    said = give(ws, asked, correction="negative", labeller="somebody")
    give(ws, same, correction="neutral", labeller=NAME)
    give(ws, theirs, comment=COMMENT, labeller=NAME, idempotency_key=f"{NAME}-1")
    to_labels(ws)
    frozen = snapshot.freeze(ws)
    with ws.store.write() as conn:
        for table, row_id in ((schema.runs, version.run_id), (schema.model_versions, version.id)):
            conn.execute(update(table).where(table.c.id == row_id).values(snapshot_id=frozen.id))
    example = next(row.example_id for row in snapshot.rows(ws, frozen) if row.text == TEXT)
    _review_and_suspend(ws, example, asked, theirs)
    _leave_behind(ws)
    return Furnished(example, asked, moved[0], said.id, replace(version, snapshot_id=frozen.id))


def answer(ws: Workspace, version: ModelVersion, text: str, *, unit: str, days: float = 0, channel: str = "web") -> str:
    """Log one prediction that is some days old; its id."""
    at = ws.clock() - timedelta(days=days)
    one = Prediction(
        first_id("prediction", at)[:-12] + new_id("prediction")[-12:], new_id("request"), "tone", channel, unit,
        "control", None, version.id, version.artifact, None, text, text_hash(text),
        {"label": "positive", "confidence": 0.9, "scores": {}}, 1.0, None, at,
    )  # fmt: skip
    with ws.store.write() as conn:
        predictions.add_rows(conn, [log_row(one, channels.find(ws, channel).id)], config_hash="0" * 16)
    return one.id


def _review_and_suspend(ws: Workspace, example: str, asked: str, prediction: str) -> None:
    channel_id, now = channels.find(ws, "web").id, ws.clock()
    review = {
        "task": "tone", "channel_id": channel_id, "reason": "random", "prediction_id": prediction, "priority": 1.0,
        "created_at": now, **ORIGIN,
    }  # fmt: skip
    answered = {"state": "answered", "answer": "positive", "labeller": NAME, "answered_at": now}
    audited = answered | {"reason": "audit", "probability": 0.5}
    about = {"prediction_id": None, "example_id": example, "state": "open"}
    suspended = {
        "id": new_id("suspension"), "task": "tone", "channel_id": channel_id, "labeller": NAME, "since": now,
        "reason": f"{NAME} is busy", "evidence": {"labeller": NAME}, "created_at": now,
    }  # fmt: skip
    known = {
        "id": new_id("known answer"), "task": "tone", "text": TEXT, "text_hash": text_hash(TEXT),
        "answer": "positive", "created_at": now,
    }  # fmt: skip
    failed = {
        "id": new_id("job"), "target": "some:work", "args": {}, "state": "failed", "n_attempts": 1, "progress": {},
        "error": {"code": "bad_input", "message": f"bad: {TEXT}", "value": NAME, "next_step": "", "retryable": False},
        "log_path": "", "created_at": now, **ORIGIN,
    }  # fmt: skip
    with ws.store.write() as conn:
        for own in (answered, audited, audited | {"prediction_id": asked}, about):
            conn.execute(insert(schema.reviews).values(id=new_id("review"), **(review | own)))
        conn.execute(insert(schema.suspensions).values(**suspended))
        conn.execute(insert(schema.known_answers).values(**known))
        conn.execute(insert(schema.jobs).values(**failed))


def _leave_behind(ws: Workspace) -> None:
    """Files of caches, logs, unfinished runs, and of the user's own."""
    state = ws.state_folder
    for name, content in {
        "logs/job_1.log": f"failed on {TEXT!r} of {NAME}, {ASKED}, {COMMENT}",
        "cache/states.npy": f"{TEXT} {ASKED}",
        "cache/vectors/a/b.npz": f"{TEXT} {ASKED}",
    }.items():
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(content, "utf-8")
    with ws.store.read() as conn:
        run_id = next(one.id for one in runs.listing(conn, "tone"))
    (state / "runs" / run_id).mkdir(parents=True)
    (state / "runs" / run_id / "copies.txt").write_text(TEXT, "utf-8")
    lines = [
        {"text": text, "unit": unit, "comment": COMMENT if unit == NAME else None}
        for text, unit in ((TEXT, "somebody"), (ASKED, NAME), (OLD_ASKED, NAME), (OTHERS, "else"))
    ]
    exported = "".join(json.dumps(line) + "\n" for line in lines)
    (ws.root / "out").mkdir()
    (ws.root / "out" / "march.jsonl").write_text(exported, "utf-8")
    (ws.root / "out" / "march.jsonl.gz").write_bytes(gzip.compress(exported.encode()))
    quoted = TEXT.replace('"', '""')
    table = f'text,labeller\r\n"{quoted}",somebody\r\n{ASKED},{NAME}\r\n{OLD_ASKED},{NAME}\r\n{OTHERS},else\r\n'
    (ws.root / "out" / "labels.csv").write_bytes(table.encode())
    (ws.root / "notes.txt").write_text(f"{NAME} said {COMMENT}\nthen {TEXT}\n{ASKED}\n{OLD_ASKED}\n", "utf-8")


def holders(root: Path, words: str) -> list[str]:
    """Files below a folder that hold some words: in their bytes, or in what Parquet and gzip make of them."""
    return sorted({str(path.relative_to(root)) for path, content in _contents(root) if words.encode() in content})


def _contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield path, content
        if path.suffix == ".gz":
            yield path, gzip.decompress(content)
        if content.startswith(b"PAR1"):  # also under the name of its hash, in a backup
            columns = pq.read_table(path, partitioning=None).columns
            yield path, "\n".join(str(value) for column in columns for value in column.to_pylist()).encode()
        if path.suffix == ".npy" and content.startswith(b"\x93NUMPY"):
            yield path, np.load(path).tobytes()
