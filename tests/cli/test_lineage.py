"""`history row`, `erase`, `backup` and `restore` through the real command line. Catches: an erasure that nobody was
asked about, a verb that prints less than it did, the ledger's own verb lost to the new one below it, a version that is
due no more because another one was made.
"""

import json
import sys
from pathlib import Path

import pytest

from conftest import LABELS, Say
from furnished import CORE, NAME, Furnished, furnish, holders
from headrace import loop
from headrace.cli import lineage
from headrace.release import controls
from headrace.workspace import init
from planted import plant_version


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ws"


@pytest.fixture(autouse=True)
def made(root: Path) -> Furnished:
    with init(root, task="tone", labels=LABELS) as ws:
        found = furnish(ws, root)
        controls.ensure_control(ws, "tone", actor="serve")
    return found


def test_a_row_is_traced_beside_the_ledger(say: Say, made: Furnished) -> None:
    status, text, _ = say("history", "row", made.feedback)
    assert status == 0
    for words in (f"feedback {made.feedback} of channel web", made.prediction, f"unit {NAME}", "correction negative"):
        assert words in text
    _, text, _ = say("history", "row", made.example)
    for words in (made.version.snapshot_id, f"tone/1  how trained, run_id {made.version.run_id}, in_charge all"):
        assert words in text
    status, text, _ = say("history", "row", made.example, "--json")
    assert (status, json.loads(text)["channel"]) == (0, "web")
    assert say("history", "row", "ex_none")[0] == 2
    assert "first version" in say("history")[1]
    assert json.loads(say("history", "--channel", "web", "--json")[1])[0]["kind"] == "promote"


def test_nobody_to_ask_is_no_consent(say: Say, made: Furnished, root: Path) -> None:
    for more in ((), ("--json",)):
        status, _, err = say("erase", "--example", made.example, *more)
        assert status == 2
        assert not more or not err
    assert holders(root, CORE)


def test_a_person_may_say_no(say: Say, made: Furnished, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    answers = iter([False, True])

    def confirm(*_: object, abort: bool) -> None:
        if not next(answers):
            raise lineage.typer.Abort

    monkeypatch.setattr(lineage.typer, "confirm", confirm)
    status, text, _ = say("erase", "--example", made.example)
    assert (status, bool(holders(root, CORE))) == (130, True)
    assert "Made with it: tone/1. In charge: tone/1." in text
    assert str(root / "web.jsonl") in text
    assert say("erase", "--example", made.example)[0] == 0
    assert holders(root, CORE) == []


def test_without_a_question_files_of_yours_are_left_and_named(say: Say, made: Furnished, root: Path) -> None:
    status, text, _ = say("erase", "--example", made.example, "--yes")
    assert (status, "web.jsonl" in holders(root, CORE), "notes.txt" in holders(root, CORE)) == (0, True, True)
    assert f"--files takes it out): {root / 'web.jsonl'}" in text


def test_erased_listed_and_its_receipt_checked(say: Say, made: Furnished, root: Path, tmp_path: Path) -> None:
    assert say("backup", str(tmp_path / "b"))[0] == 0
    status, text, _ = say("erase", "--labeller", NAME, "--channel", "web", "--yes", "--files")
    assert (status, "headrace erase --rebuild" in text) == (0, True)
    (receipt,) = (root / ".headrace" / "receipts").iterdir()
    status, text, _ = say("erase", "--verify", str(receipt))
    assert (status, "As it was signed" in text) == (0, True)
    receipt.write_text(receipt.read_text().replace("labeller", "channel"))
    assert say("erase", "--verify", str(receipt))[0] == 1
    (one,) = json.loads(say("erase", "--json")[1])["erasures"]
    assert (one["kind"], one["versions"], one["rebuilt_at"]) == ("labeller", ["tone/1"], None)
    assert "labeller, web: tone/1 used it; to be replaced by 20" in say("erase")[1]
    status, text, _ = say("restore", str(tmp_path / "b"), str(root), "--replace")
    assert (status, "erased again" in text, "what was there before" in text) == (0, True, True)
    assert holders(root, NAME) == []
    assert say("restore", str(tmp_path / "b"), str(root))[0] == 2


def test_what_was_made_without_it_is_due_until_it_is_in_charge(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "train", lambda ws, **_: {"version": plant_version(ws).name})
    assert "headrace release start 2" in say("erase", "--labeller", NAME, "--channel", "web", "--yes", "--rebuild")[1]
    assert say("erase")[1].rstrip().endswith("; tone/2 made, not in charge everywhere yet")
    assert say("release", "promote", "2", "--reason", "it is clean")[0] == 0
    assert say("erase")[1].rstrip().endswith("tone/1 used it; none is in charge")
