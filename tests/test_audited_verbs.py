"""Every verb of the command line either writes its line into the audit log or is listed here with why it need not.

Catches: a new verb that changes who answers, what is trusted, what is kept or who may ask, and says so nowhere; a line
that holds a name, which no erasure could take out again.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import select

from conftest import LABELS, Say, write_jsonl
from headrace import auditing
from headrace.cli.main import app
from headrace.store import schema
from headrace.workspace import Workspace, init, open_workspace
from released import answer_with, fill, plant, right
from stub_model import plant_stub

NAME = "ann.the.labeller"
BY_THE_LEDGER = {"train", "compress", "improve", "loop run"}
"""What they change is a line of the ledger, each of which is one of the audit log, as those of `release` show."""
OF_THEMSELVES = {  # rows that say themselves whose they are and when they came; nothing is trusted because of them
    "feedback give", "feedback batch", "review answer", "review skip", "review fill", "check", "snapshot", "evaluate",
    "export", "init",
}  # fmt: skip
BY_SETTINGS = {"predictions move", "predictions expire"}
"""What goes is what the settings say, and those are noted when a server starts with others."""
READING = {
    "accuracy", "advise business", "advise domain", "advise method", "advise technical", "audit list", "audit verify",
    "backup", "channel list", "config show", "doctor", "feedback list", "feedback summary", "history row", "job cancel",
    "job follow", "job list", "key list", "known list", "label config", "label export", "predict",
    "predictions export", "release plan", "release status", "report", "review list", "review next", "sign verify",
    "trust list", "usage", "value",
}  # fmt: skip

Words = Callable[[dict[str, Any]], list[str]]
ACTS: list[tuple[str, Words, str]] = [  # verb, the rest of its line given what was said before, action that it notes
    ("channel add", lambda _: ["shop"], "channel.add"),
    ("import", lambda said: ["shop", said["rows.jsonl"]], "import"),
    ("known add", lambda said: [said["known.jsonl"]], "known.add"),
    ("known retire", lambda said: [said["known"]], "known.retire"),
    ("label import", lambda said: [said["labels.jsonl"], "--labeller", NAME], "label.import"),
    ("trust suspend", lambda _: ["web", "--labeller", NAME, "--because", f"{NAME} is a bot"], "trust.suspend"),
    ("trust lift", lambda said: [said["trust suspend"]["id"], "--because", f"{NAME} is not"], "trust.lift"),
    ("drift", lambda _: ["--accept"], "drift.accept"),
    ("release promote", lambda _: ["1"], "release.promote"),
    ("release start", lambda _: ["2", "--despite", f"{NAME} wants it"], "release.start"),
    ("release stop", lambda _: ["--reason", NAME], "release.stop"),
    ("release promote", lambda _: ["2", "--reason", NAME], "release.promote"),
    ("release rollback", lambda _: ["--reason", NAME], "release.rollback"),
    ("release start", lambda _: ["3", "--despite", "it is a test"], "release.start"),
    ("release reject", lambda _: [], "release.reject"),
    ("sign key", lambda _: [], "sign.key"),
    ("sign version", lambda _: ["4"], "sign.version"),
    ("key create", lambda _: ["app", "--scope", "predict"], "key.create"),
    ("key rotate", lambda said: [said["key create"]["id"]], "key.rotate"),
    ("key revoke", lambda said: [said["key create"]["id"]], "key.revoke"),
    ("serve", lambda _: ["--port", "0"], "serve"),
    ("erase", lambda _: ["--channel", "web", "--labeller", NAME, "--yes"], "erase"),
    ("restore", lambda said: [said["backup"], said["copy"]], "restore"),
]


def verbs(group: Any, before: str = "") -> Iterator[str]:
    for name, one in group.commands.items():
        if getattr(one, "commands", None):
            yield from verbs(one, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_each_verb_is_said_to_change_something_or_not() -> None:
    listed = [*{verb for verb, _, _ in ACTS}, *BY_THE_LEDGER, *OF_THEMSELVES, *BY_SETTINGS, *READING]
    assert sorted(listed) == sorted(verbs(typer.main.get_command(app)))


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Files to name, beside a workspace with versions; later also what verbs said."""
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        rows = fill(ws, tmp_path)
        for _ in range(3):
            plant(ws)
        plant_stub(ws)
        with ws.store.read() as conn:
            example = conn.execute(select(schema.examples.c.id, schema.examples.c.text)).first()
        answer_with(monkeypatch, ws, rows, {1: right, 2: right, 3: right})
    assert example is not None
    with (tmp_path / "ws" / "headrace.toml").open("a") as file:
        file.write('[sign]\nprivate_key = ".headrace/keys/sign.pem"\n')
    given = {
        "rows.jsonl": [{"text": f"a text {n}", "label": "positive"} for n in range(3)],
        "known.jsonl": [{"text": "what is known", "label": "negative"}],
        "labels.jsonl": [{"headrace_id": example.id, "text": example.text, "label": "negative"}],
    }
    return {name: str(write_jsonl(tmp_path / name, rows)) for name, rows in given.items()} | {
        "backup": str(tmp_path / "backup"),
        "copy": str(tmp_path / "copy"),
    }


def newest(root: Path) -> Any:
    with open_workspace(root) as ws:
        return auditing.listing(ws, limit=1)[0]


@pytest.mark.slow
def test_every_verb_that_changes_something_writes_its_line(
    said: dict[str, Any], say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        """In place of serving."""

    monkeypatch.setattr("headrace.server.running._serve", nothing)
    n_lines = newest(tmp_path / "ws").seq
    for verb, words, action in ACTS:
        if verb == "known retire":
            said["known"] = json.loads(say("known", "list", "--json").out)[0]["known"]["id"]
        if verb == "restore":
            assert say("backup", said["backup"]).status == 0
        json_too = [] if verb == "serve" else ["--json"]
        status, out, err = say(*verb.split(), *words(said), *json_too)
        assert status == 0, (verb, out, err)
        if json_too:
            said[verb] = json.loads(out)
        line = newest(tmp_path / ("copy" if verb == "restore" else "ws"))
        n_lines += 1
        assert (line.action, line.seq) == (action, n_lines), verb
        assert line.actor.startswith("user:")
    with open_workspace(tmp_path / "copy") as ws:
        shown = json.dumps([line.__dict__ for line in auditing.listing(ws)], default=str)
        manifest = json.loads((tmp_path / "backup" / "headrace-backup.json").read_text("utf-8"))
        assert auditing.verify(ws, [manifest["audit_log"]])["first_broken"] is None
        _check_cut(ws, manifest["audit_log"])
    assert NAME not in shown
    assert said["key create"]["key"] not in shown


def _check_cut(ws: Workspace, anchor: str) -> None:
    """A log that lost its end is found by the anchor in a backup."""
    with ws.store.write() as conn:
        conn.exec_driver_sql("DROP TRIGGER audit_log_no_DELETE")
        conn.execute(schema.audit_log.delete().where(schema.audit_log.c.seq >= int(anchor.partition(":")[0])))
    assert auditing.verify(ws)["first_broken"] is None
    assert "was noted elsewhere" in auditing.verify(ws, [anchor])["problem"]
