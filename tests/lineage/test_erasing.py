"""Erasures. Catches: a byte of what was erased in any file of the workspace or of a restored older backup; a row of
somebody else that goes with it; an erasure that a kill leaves half done; one that runs beside a job.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from conftest import LABELS
from furnished import ASKED, COMMENT, CORE, NAME, OLD_ASKED, OTHERS, TEXT, Furnished, furnish, holders
from headrace import backups, jobs, retention
from headrace.data import channels, snapshot
from headrace.errors import BadInput, NotFound, WrongState
from headrace.ids import new_id
from headrace.lineage import erasing, tombstones
from headrace.records import Job
from headrace.release import controls, ledger, releases
from headrace.store import imports, schema
from headrace.store import jobs as job_rows
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_version
from stub_model import START_TIMEOUT_S, install_plugin, plant_stub, running

OF_EXAMPLE = (CORE,)
OF_LABELLER = (NAME, COMMENT, ASKED, OLD_ASKED)
OF_CHANNEL = (*OF_EXAMPLE, *OF_LABELLER, OTHERS)
GONE = {"example": OF_EXAMPLE, "labeller": OF_LABELLER, "channel": OF_CHANNEL}


def subject(kind: str, made: Furnished) -> dict[str, str]:
    return {
        "example": {"example": made.example},
        "labeller": {"labeller": NAME, "channel": "web"},
        "channel": {"channel": "web"},
    }[kind]


@pytest.fixture
def made(workspace: Workspace) -> Furnished:
    return furnish(workspace, workspace.root)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Furnished]:
    """A furnished workspace to copy."""
    root = tmp_path_factory.mktemp("template") / "ws"
    with init(root, task="tone", labels=LABELS) as ws:
        return root, furnish(ws, root)


@pytest.fixture
def root(template: tuple[Path, Furnished], tmp_path: Path) -> Path:
    shutil.copytree(template[0], tmp_path / "ws")
    return tmp_path / "ws"


@pytest.mark.parametrize("kind", sorted(GONE))
def test_nothing_of_it_is_left_in_any_file_nor_in_an_older_backup(
    template: tuple[Path, Furnished], root: Path, tmp_path: Path, kind: str
) -> None:
    made = template[1]
    for words in GONE[kind]:
        assert holders(root, words), words
    with open_workspace(root) as ws:
        backups.backup(ws, tmp_path / "older")
        planned = erasing.plan(ws, **subject(kind, made))
        done = erasing.erase(ws, **subject(kind, made))
        assert (done.plan.snapshots, done.plan.versions) == ([made.version.snapshot_id], ["tone/1"])
        assert set(done.plan.files) == set(planned.files)
        for words in GONE[kind]:
            assert holders(root, words) == [], words
    backups.restore(tmp_path / "older", tmp_path / "again", erasures=root / ".headrace" / tombstones.FILE)
    for words in GONE[kind]:
        assert holders(tmp_path / "older", words), words
        assert holders(tmp_path / "again", words) == [], words


@pytest.mark.parametrize("kind", sorted(GONE))
def test_what_is_others_stays(template: tuple[Path, Furnished], root: Path, kind: str) -> None:
    before = counts(root)
    with open_workspace(root) as ws:
        planned = erasing.plan(ws, **subject(kind, template[1]))
        done = erasing.erase(ws, **subject(kind, template[1]))
        assert done.plan.rows == planned.rows
        with ws.store.read() as conn:
            assert conn.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        left = [prediction.text for prediction in retention.read(ws)]
    after = counts(root)
    went = {name: before[name] - after[name] for name in before if before[name] != after[name]}
    went.pop("split_groups", None)
    went.pop("erasures")
    went.pop("audit_log")
    assert went == done.plan.rows
    if kind == "channel":
        assert (after["examples"], after["channels"], left) == (60, 2, [])
        return
    assert after["labels"] >= 120
    if kind == "example":
        assert sorted(left) == sorted([ASKED, OLD_ASKED, OTHERS, OTHERS, OTHERS])
        assert holders(root, NAME)
        assert went == {"examples": 1, "labels": 2, "predictions": 1, "feedback": 1, "reviews": 1, "quarantine": 1} | {
            "known_answers": 1
        }
    else:
        assert sorted(left) == sorted([TEXT, OTHERS, OTHERS])  # of a file, those of the person's own unit went
        assert went == {"examples": 1, "labels": 2, "predictions": 1, "feedback": 3, "reviews": 2} | {
            "labellers": 1, "suspensions": 1
        }  # fmt: skip


def counts(root: Path) -> dict[str, int]:
    with open_workspace(root) as ws, ws.store.read() as conn:
        return {
            table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
        }


def test_rows_of_the_users_own_tables_go_and_the_others_stay_as_they_were(
    workspace: Workspace, made: Furnished
) -> None:
    own = workspace.root / "out" / "labels.csv"
    kept = [line for line in own.read_bytes().splitlines(True) if NAME.encode() not in line]
    erasing.erase(workspace, labeller=NAME, channel="web")
    assert own.read_bytes() == b"".join(kept)
    assert not (workspace.root / "notes.txt").exists()
    assert OTHERS in (workspace.root / "out" / "march.jsonl").read_text()


def test_files_are_named_and_left_if_that_is_wanted(workspace: Workspace, made: Furnished) -> None:
    done = erasing.erase(workspace, example=made.example, keep_files=True)
    assert holders(workspace.root, CORE) == sorted(
        str(Path(path).relative_to(workspace.root)) for path in done.files_left
    )
    assert json.loads(Path(done.receipt).read_text())["files_left"] == len(done.files_left) == 5


def test_a_short_name_counts_only_where_names_stand(workspace: Workspace, made: Furnished) -> None:
    from headrace.feedback.intake import give

    give(workspace, made.prediction, comment="so so, as they say", labeller="7")
    table = workspace.root / "table.csv"
    table.write_text("amount,labeller\n7,8\n8,7\n", "utf-8")
    erasing.erase(workspace, labeller="7", channel="web")
    assert table.read_text("utf-8") == "amount,labeller\n7,8\n"


def test_a_version_answers_on_but_its_snapshot_can_be_trained_on_no_more(workspace: Workspace, made: Furnished) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    done = erasing.erase(workspace, example=made.example)
    with pytest.raises(WrongState, match="headrace train"):
        snapshot.rows(workspace, snapshot.find(workspace, made.version.snapshot_id))
    (one,) = erasing.listing(workspace)
    assert (one["versions"], one["retrain_by"], one["is_late"]) == (["tone/1"], done.retrain_by, False)
    assert (done.retrain_by - one["at"]).days == workspace.settings.erase.retrain_days
    later = replace(workspace, clock=lambda: done.retrain_by.replace(year=done.retrain_by.year + 1))
    assert erasing.listing(later)[0]["is_late"]


def test_the_same_rows_come_again_as_a_snapshot_that_can_be_read(workspace: Workspace, tmp_path: Path) -> None:
    from conftest import sentences, write_jsonl
    from headrace.data import importing

    channels.add(workspace, "web")
    source = write_jsonl(tmp_path / "rows.jsonl", sentences(100, channel="web"))
    importing.import_rows(workspace, "web", source)
    first = snapshot.freeze(workspace)
    erasing.erase(workspace, channel="web")
    with pytest.raises(WrongState):
        snapshot.freeze(workspace)
    importing.import_rows(workspace, "web", source)
    again = snapshot.freeze(workspace)
    assert (again.id, again.content_hash, again.erased_at) == (first.id, first.content_hash, None)
    assert len(snapshot.rows(workspace, again)) == 100


def test_the_ledger_and_the_tombstones_hold_nothing_personal(workspace: Workspace, made: Furnished) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    head = ledger.verify(workspace)
    done = erasing.erase(workspace, labeller=NAME, channel="web")
    assert ledger.verify(workspace) == head
    kept = (workspace.state_folder / tombstones.FILE).read_text() + Path(done.receipt).read_text()
    for words in (NAME, ASKED, COMMENT, CORE):
        assert words not in kept


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, BadInput),
        ({"labeller": NAME}, BadInput),
        ({"channel": "web", "example": "ex_1"}, BadInput),
        ({"channel": "wbe"}, NotFound),
        ({"channel": "web", "labeller": "ignatius"}, NotFound),
        ({"example": "ex_1"}, NotFound),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_written(
    workspace: Workspace, made: Furnished, given: dict[str, str], kind: type[Exception]
) -> None:
    for call in (erasing.plan, erasing.erase):
        with pytest.raises(kind):
            call(workspace, **given)
    assert not (workspace.state_folder / tombstones.FILE).exists()


def test_a_unit_that_is_only_in_files_is_found(workspace: Workspace, made: Furnished) -> None:
    from furnished import answer

    answer(workspace, made.version, "an answer of long ago, moved since", unit="hermit", days=50)
    retention.move(workspace)
    done = erasing.erase(workspace, labeller="hermit", channel="web")
    assert (done.n_log_rows, holders(workspace.root, "of long ago, moved")) == (1, [])


def test_refused_while_a_job_runs_an_import_runs_or_another_erasure(workspace: Workspace, made: Furnished) -> None:
    from headrace.data import importing

    with importing.only_import(workspace), pytest.raises(WrongState, match="import"):
        erasing.erase(workspace, example=made.example)
    with erasing._alone(workspace), pytest.raises(WrongState, match="erasure"):
        erasing.erase(workspace, example=made.example)
    job = Job(new_id("job"), "some:work", {"args": {}}, "queued", os.getpid(), {}, None, None, "", workspace.clock())
    with workspace.store.write() as conn:
        job_rows.add(conn, job, pid_started=jobs.local._started(os.getpid()), config_hash="0" * 16)
    with pytest.raises(WrongState, match="headrace job cancel"):
        erasing.erase(workspace, example=made.example)


KILLED = """
    import os, signal, sys
    from headrace import retention
    from headrace.artifacts import ArtifactStore
    from headrace.lineage import erasing, receipts, tombstones, workspace_files
    from headrace.store import erasures, snapshots
    from headrace.store.engine import Store
    from headrace.workspace import open_workspace

    owner, name, number = eval(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    whole, seen = getattr(owner, name), []

    def last(*args, **options):
        result = whole(*args, **options)
        seen.append(name)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, last)
    with open_workspace(sys.argv[1]) as ws:
        erasing.erase(ws, **eval(sys.argv[5]))
"""
POINTS = [  # after which call, of which the how many-th
    ("tombstones", "append", 1),
    ("workspace_files", "clean", 2),
    ("ArtifactStore", "remove", 1),
    ("retention", "remove", 1),
    ("erasures", "remove_some", 3),
    ("erasures", "remove_some", 12),
    ("Store", "scrub", 1),
    ("receipts", "write", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "name", "number"), POINTS, ids=lambda value: str(value))
def test_killed_anywhere_the_same_command_finishes_it(
    template: tuple[Path, Furnished], root: Path, owner: str, name: str, number: int
) -> None:
    kind = "example" if number % 2 == 0 else "labeller"
    asked = subject(kind, template[1])
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(root), owner, name, str(number), repr(asked)]
    ended = subprocess.run(code, capture_output=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    with open_workspace(root) as ws:
        done = erasing.erase(ws, **asked)
        assert [one["state"] for one in erasing.listing(ws)] == ["done"]
        assert (done.plan.versions, done.plan.snapshots) == (["tone/1"], [template[1].version.snapshot_id])
    for words in GONE[kind]:
        assert holders(root, words) == [], words
    lines = [json.loads(line)["state"] for line in (root / ".headrace" / tombstones.FILE).read_text().splitlines()]
    assert (lines[0], lines[-1]) == ("begun", "done")


def test_an_erasure_of_something_else_finishes_the_one_before(root: Path, template: tuple[Path, Furnished]) -> None:
    with open_workspace(root) as ws:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erasing, "_remove_rows", _stop)
            with pytest.raises(KeyboardInterrupt):
                erasing.erase(ws, labeller=NAME, channel="web")
        done = erasing.erase(ws, example=template[1].example)
        assert len(done.finished) == 1
        assert {one["kind"]: one["state"] for one in erasing.listing(ws)} == {"labeller": "done", "example": "done"}
    assert [words for words in (*OF_EXAMPLE, *OF_LABELLER) if holders(root, words)] == []


def _stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_rows_that_stay_name_the_labeller_no_more(workspace: Workspace, made: Furnished) -> None:
    said = {"trust": {"harmful": {f"web/{NAME}": "loses 0.2 nats", "web/other": "loses 0.1"}, "n_labels": 3}}
    with workspace.store.write() as conn:
        kept = {"task": "tone", "channel_id": channels.find(workspace, "web").id, "since": workspace.clock()}
        reason, at = f"web/{NAME} and others were busy", workspace.clock()
        conn.execute(insert(schema.suspensions).values(id="sus_1", reason=reason, evidence=said, created_at=at, **kept))
        conn.execute(update(schema.artifacts).values(facts=said))
    erasing.erase(workspace, labeller=NAME, channel="web")
    assert holders(workspace.root, NAME) == []
    with workspace.store.read() as conn:
        (facts,) = {json.dumps(one) for one in conn.execute(select(schema.artifacts.c.facts)).scalars()}
    assert json.loads(facts) == {"trust": {"harmful": {"web/other": "loses 0.1"}, "n_labels": 3}}


def test_a_name_that_somebody_wrote_into_the_ledger_is_told_of(workspace: Workspace, made: Furnished) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    plant_version(workspace)
    releases.promote(workspace, "2", reason=f"asked for by {NAME}", actor="cli")
    assert erasing.erase(workspace, labeller=NAME, channel="web").ledger_lines == [2]


def test_files_of_a_snapshot_that_no_row_names_go_too(workspace: Workspace, made: Furnished) -> None:
    """A kill between the files and the row leaves them."""
    from headrace.data import parquet

    frozen = snapshot.rows(workspace, snapshot.find(workspace, made.version.snapshot_id))
    folder = workspace.artifacts.new_folder()
    parquet.write_rows(folder, frozen[1:])
    digest, _ = workspace.artifacts.put(folder)
    erasing.erase(workspace, example=made.example)
    assert workspace.artifacts.look(digest) is None
    assert holders(workspace.root, CORE) == []


def test_a_snapshot_that_is_frozen_while_rows_go_is_not_kept(
    workspace: Workspace, made: Furnished, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, begun = snapshot.current, list[str]()

    def meanwhile(*args: Any) -> Any:
        found = current(*args)
        if not begun:
            begun.append("once")
            erasing.erase(workspace, example=made.example)
        return found

    monkeypatch.setattr(snapshot, "current", meanwhile)
    with pytest.raises(WrongState, match="erased while"):
        snapshot.freeze(workspace, settled={})
    assert holders(workspace.root, CORE) == []
    assert snapshot.freeze(workspace, settled={}).erased_at is None


def test_what_was_begun_is_not_called_done_without_its_key(workspace: Workspace, made: Furnished) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasing, "_remove_rows", _stop)
        with pytest.raises(KeyboardInterrupt):
            erasing.erase(workspace, labeller=NAME, channel="web")
    key = workspace.state_folder / "keys" / "erasures.key"
    right = key.read_bytes()
    key.write_bytes(b"another")
    with pytest.raises(NotFound, match="key of these erasures"):
        erasing.erase(workspace, labeller=NAME, channel="web")
    key.write_bytes(right)
    erasing.erase(workspace, labeller=NAME, channel="web")
    assert holders(workspace.root, NAME) == []


def test_an_import_that_died_halfway_leaves_nothing_either(workspace: Workspace, made: Furnished) -> None:
    with workspace.store.write() as conn:
        half = {
            "channel_id": channels.find(workspace, "web").id,
            "task": "tone",
            "source": "rows",
            "now": workspace.clock(),
        }
        imports.start(conn, "imp_half", **half, config_hash="0" * 16)
        imports.add_quarantined(conn, "imp_half", [imports.Quarantined(1, "nul", "bad", f"{CORE} once more")])
    erasing.erase(workspace, example=made.example)
    assert holders(workspace.root, CORE) == []


@pytest.mark.slow
def test_erased_while_a_server_answers_and_logs(root: Path, tmp_path: Path) -> None:
    """Its connections keep the database's log open; what it logs afterwards is new, and stays."""
    import httpx

    env = install_plugin(tmp_path)
    with open_workspace(root) as ws:
        plant_stub(ws, answer="neutral")
        releases.promote(ws, "2", reason="it answers", actor="test")
    with running(root, env) as server:

        def ask(text: str, unit: str) -> str:
            body = {"task": "tone", "channel": "web", "unit": unit, "inputs": [{"text": text}]}
            answer = httpx.post(f"{server.url}/v1/predict", json=body, timeout=START_TIMEOUT_S)
            return str(answer.raise_for_status().json()["predictions"][0]["id"])

        said = {"prediction_id": ask("flugelhorn at midnight", NAME), "comment": COMMENT, "labeller": NAME}
        httpx.post(f"{server.url}/v1/feedback", json=said, timeout=START_TIMEOUT_S).raise_for_status()
        with open_workspace(root) as ws:
            erasing.erase(ws, labeller=NAME, channel="web")
            for words in (*OF_LABELLER, "flugelhorn"):
                assert holders(root, words) == [], words
        later = ask("a hurdy-gurdy since then", NAME)
    with open_workspace(root) as ws:
        assert [one.id for one in retention.read(ws, unit=NAME)] == [later]
