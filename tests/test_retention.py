"""Old predictions in files. Catches: a row that is lost or doubled when the move is killed anywhere; one that leaves
although labels, evidence or an open release rest on it; files that grow without bound; a kept text nobody finds."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace import retention, upkeep
from headrace.errors import Damaged, NotFound, WrongState
from headrace.feedback import outcomes, reviews
from headrace.feedback.intake import give
from headrace.feedback.labels import to_labels
from headrace.ids import first_id
from headrace.personal import mapping
from headrace.records import Channel, ModelVersion, Prediction
from headrace.release import releases
from headrace.retention import files
from headrace.retention.expiry import expire
from headrace.store import predictions, subjects
from headrace.store.predictions import LogRow
from headrace.workspace import Workspace, open_workspace
from planted import log_row, plant_channel, plant_version

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
_BASE = Prediction(
    "", "", "tone", "web", "anna", "control", None, "", "sha256:0", None, "ünïcode", "0" * 64,
    {"label": "positive", "confidence": 0.5, "scores": {}}, 1.25, None, NOW,
)  # fmt: skip


def made_at(noun: str, at: datetime, n: int) -> str:
    return first_id(noun, at)[:-6] + f"{n:06x}"


class Log:
    """Writes predictions of any age."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.channel: Channel = plant_channel(ws, "web")
        self.version: ModelVersion = plant_version(ws)
        self.n = 0

    def row(self, *, days: float, request: str | None = None, row: int = 0, **changes: Any) -> LogRow:
        self.n += 1
        at = NOW - timedelta(days=days)
        facts = {
            "id": made_at("prediction", at, self.n),
            "request_id": request or made_at("request", at, self.n),
            "version_id": self.version.id,
            "at": at,
        }
        return log_row(replace(_BASE, **{**facts, **changes}), self.channel.id, row)

    def add(self, **changes: Any) -> str:
        return self.add_all([self.row(**changes)])[0]

    def add_all(self, rows: list[LogRow]) -> list[str]:
        with self.ws.store.write() as conn:
            predictions.add_rows(conn, rows, config_hash="0" * 16)
        return [row.id for row in rows]


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    return replace(workspace, clock=lambda: NOW)


@pytest.fixture
def log(ws: Workspace) -> Log:
    return Log(ws)


def with_settings(ws: Workspace, **serve: Any) -> Workspace:
    settings = ws.settings.model_copy(update={"serve": ws.settings.serve.model_copy(update=serve)})
    return replace(ws, settings=settings)


def stored(ws: Workspace) -> list[str]:
    with ws.store.read() as conn:
        return [row["id"] for row in predictions.listing(conn)]


def in_files(ws: Workspace) -> list[str]:
    folder = ws.state_folder / "predictions"
    return [row["id"] for path in sorted(folder.glob("*/*/*")) for row in files.read(path)]


def names(ws: Workspace) -> list[str]:
    folder = ws.state_folder / "predictions"
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*/*"))


def test_whole_days_move_to_a_file_each_and_are_read_back_as_they_were(ws: Workspace, log: Log) -> None:
    young = log.add(days=29.9)
    same_day = log.add(days=30.4)  # before midnight of the 30th day
    rows = [log.row(days=31, row=n, text_pair="b" * n or None, error="no" if n else None) for n in range(3)]
    old = log.add_all([*rows, log.row(days=40)])
    with ws.store.read() as conn:
        before = {key: predictions.find(conn, key) for key in (young, same_day, *old)}
    moved = retention.move(ws)
    assert (moved.n_rows, moved.n_files, moved.days_removed) == (4, 2, ())
    assert stored(ws) == sorted([young, same_day])
    assert [name.rpartition("/")[0] for name in names(ws)] == ["task=tone/day=2026-02-19", "task=tone/day=2026-02-28"]
    found = list(retention.read(ws))
    assert [one.id for one in found] == sorted(before)
    assert {one.id: one for one in found} == before
    assert retention.move(ws) == retention.Moved(0, 0, ())


def test_files_are_one_table_for_other_tools(ws: Workspace, log: Log) -> None:
    log.add_all([log.row(days=days, unit=None) for days in (40, 41, 42)])
    retention.move(ws)
    table = pq.read_table(ws.state_folder / "predictions")
    assert table.num_rows == 3
    assert set(files.COLUMNS) | {"task", "day"} == set(table.schema.names)
    assert {"task": "tone", "day": "2026-02-19", "text": "ünïcode"}.items() <= table.to_pylist()[-1].items()


def test_what_feedback_refers_to_stays_with_both_answers(ws: Workspace, log: Log) -> None:
    control = log.add(days=50, request="req_1")
    shadow = log.add(days=50, request="req_1", arm="shadow")
    neighbour = log.add(days=50, request="req_1", row=1)
    give(soon_after(ws), control, correction="negative")
    retention.move(ws)
    assert stored(ws) == sorted([control, shadow])
    assert in_files(ws) == [neighbour]
    assert to_labels(ws) == 1


def test_rows_of_an_open_release_stay_and_its_evidence_with_them(ws: Workspace, log: Log) -> None:
    release = releases_with(ws, log)
    pairs = [log.row(days=50, request=f"req_{n}", arm=arm, release_id=release.id) for n in range(3) for arm in ARMS]
    ids = log.add_all(pairs)
    other = log.add(days=50)
    give(soon_after(ws), ids[0], correction="positive")
    before = outcomes.paired(ws, release)
    assert (len(before[0]), before[1]) == (1, 3)
    retention.move(ws)
    assert in_files(ws) == [other]
    assert outcomes.paired(ws, release) == before
    releases.stop(ws)
    retention.move(ws)
    assert stored(ws) == sorted(ids[:2])
    assert outcomes.paired(ws, release)[0] == before[0]


ARMS = ("control", "shadow")


def soon_after(ws: Workspace) -> Workspace:
    """The workspace at a time when feedback on what is 50 days old was not late."""
    return replace(ws, clock=lambda: NOW - timedelta(days=45))


def releases_with(ws: Workspace, log: Log) -> Any:
    releases.promote(ws, log.version)
    return releases.start(ws, candidate=plant_version(ws))


def test_too_many_rows_move_the_oldest_whatever_their_age_but_not_feedback(ws: Workspace, log: Log) -> None:
    release = releases_with(ws, log)
    ids = log.add_all([log.row(days=n / 100, release_id=release.id) for n in range(30, 0, -1)])
    give(ws, ids[0], comment="keep me")
    few = with_settings(ws, log_keep_rows=20)
    retention.move(few)
    assert stored(ws) == [ids[0], *ids[13:]]  # ten too many, and a tenth of 20 more
    assert in_files(ws) == ids[1:13]
    assert retention.move(few).n_rows == 0


def test_the_oldest_days_are_deleted_when_files_take_too_much(ws: Workspace, log: Log) -> None:
    log.add_all([log.row(days=days) for days in (40, 41, 42)])
    retention.move(ws)
    size = max(path.stat().st_size for path in (ws.state_folder / "predictions").glob("*/*/*"))
    moved = retention.move(with_settings(ws, log_max_bytes=2 * size))
    assert moved.days_removed == ("2026-02-17",)
    assert len(in_files(ws)) == 2
    assert not list((ws.state_folder / "predictions").glob("*/day=2026-02-17"))
    retention.move(with_settings(ws, log_max_bytes=0))
    assert in_files(ws) == []


def test_a_reader_finds_what_is_kept_of_somebody_in_both_places(ws: Workspace, log: Log) -> None:
    anna = log.add_all([log.row(days=days) for days in (40, 1)])
    log.add_all([log.row(days=days, unit="ben") for days in (40, 1)])
    retention.move(ws)
    assert [one.id for one in retention.read(ws, unit="anna")] == anna
    assert [one.text for one in retention.read(ws, unit="anna", channel="web", task="tone")] == ["ünïcode"] * 2
    assert list(retention.read(ws, channel="phone")) == []
    assert [one.id for one in retention.read(ws, unit="anna", since=NOW - timedelta(days=2))] == anna[1:]
    assert [one.id for one in retention.read(ws, unit="anna", until=NOW - timedelta(days=2))] == anna[:1]
    with pytest.raises(NotFound):
        list(retention.read(ws, task="tome"))


def test_without_pyarrow_the_files_are_json_lines(ws: Workspace, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda _name: None)
    key = log.add(days=40)
    with ws.store.read() as conn:
        before = predictions.find(conn, key)
    retention.move(ws)
    assert names(ws) == [f"task=tone/day=2026-02-19/{key}-{key}.jsonl.gz"]
    assert list(retention.read(ws)) == [before]


def test_a_damaged_file_is_named(ws: Workspace, log: Log) -> None:
    log.add(days=40)
    retention.move(ws)
    (path,) = (ws.state_folder / "predictions").glob("*/*/*")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Damaged) as raised:
        list(retention.read(ws))
    assert raised.value.value == str(path)


def test_two_do_not_move_at_once(ws: Workspace, log: Log) -> None:
    log.add(days=1)
    reading = retention.read(ws)
    next(reading)
    with pytest.raises(WrongState, match="another process"):
        retention.move(ws)
    reading.close()  # type: ignore[attr-defined]
    retention.move(ws)


def test_feedback_that_comes_between_file_and_deletion_keeps_its_row(
    ws: Workspace, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = log.add_all([log.row(days=40) for _ in range(3)])
    real = predictions.remove

    def remove(conn: Any, some: Any) -> None:
        monkeypatch.setattr(predictions, "remove", real)
        predictions.add_feedback(conn, [said(ids[1])], config_hash="0" * 16)
        real(conn, some)

    monkeypatch.setattr(predictions, "remove", remove)
    assert retention.move(ws).n_rows == 2
    assert stored(ws) == [ids[1]]
    assert in_files(ws) == [ids[0], ids[2]]


def said(prediction_id: str) -> Any:
    from headrace.records import Feedback

    return Feedback("fb_1", prediction_id, "comment", None, None, None, "x", "me", None, NOW)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Everything that a move does to disk and store, counted; `steps.stop_at` is where it dies."""

    class Steps:
        stop_at = 0
        n = 0

        def of(self, real: Any) -> Any:
            def step(*args: Any, **named: Any) -> Any:
                self.n += 1
                if self.n == self.stop_at:
                    raise KeyboardInterrupt
                return real(*args, **named)

            return step

    found = Steps()
    monkeypatch.setattr(os, "replace", found.of(os.replace))
    monkeypatch.setattr(os, "fsync", found.of(os.fsync))
    monkeypatch.setattr(predictions, "remove", found.of(predictions.remove))
    monkeypatch.setattr(predictions, "present", found.of(predictions.present))
    monkeypatch.setattr(retention, "_REMOVED_AT_ONCE", 2)
    monkeypatch.setattr(retention, "_FILE_ROWS", 4)
    return found


def test_a_move_that_stops_at_any_step_loses_and_doubles_nothing(ws: Workspace, log: Log, steps: Any) -> None:
    wanted = []
    for stop_at in range(1, 40):
        wanted += log.add_all([log.row(days=40) for _ in range(6)])
        steps.stop_at, steps.n = stop_at, 0
        try:
            retention.move(ws)
        except KeyboardInterrupt:
            steps.stop_at = 0
        else:
            break
        if stop_at % 2:
            assert [one.id for one in retention.read(ws)] == sorted(wanted)
        retention.move(ws)
        assert stored(ws) == []
        assert sorted(in_files(ws)) == sorted(wanted)
        assert not [name for name in names(ws) if not name.endswith(".parquet")]
    assert 12 < stop_at < 39


_MOVE = """
import sys
from datetime import UTC, datetime
from dataclasses import replace
from headrace import retention
from headrace.workspace import open_workspace
retention._FILE_ROWS, retention._REMOVED_AT_ONCE = 40, 5
with open_workspace(sys.argv[1]) as ws:
    print("ready", flush=True)
    retention.move(replace(ws, clock=lambda: datetime(2026, 3, 31, 12, tzinfo=UTC)))
    print("done", flush=True)
"""


@pytest.mark.slow
def test_a_move_that_is_killed_at_any_moment_loses_and_doubles_nothing(ws: Workspace, log: Log) -> None:
    wanted = log.add_all([log.row(days=40 + n % 3) for n in range(1200)])
    n_killed = 0
    for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2, 0.1, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", _MOVE, str(ws.root)], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        n_killed += process.wait(20) == -signal.SIGKILL
        process.stdout.close()
    assert n_killed > 3
    assert len(stored(ws)) + len(in_files(ws)) >= 1200
    assert sorted(one.id for one in retention.read(ws)) == sorted(wanted)
    retention.move(ws)
    assert (stored(ws), sorted(in_files(ws))) == ([], sorted(wanted))


@pytest.mark.slow
def test_the_process_of_a_server_moves_and_asks_by_the_settings_it_is_given(ws: Workspace, log: Log) -> None:
    now = (NOW - datetime.now(UTC)) / timedelta(days=1)  # the process has no clock of ours
    old, drawn = log.add(days=400), log.add(days=now, audit_probability=1.0)
    settings = json.dumps({"serve.log_keep_days": 7, "serve.log_max_bytes": 0, "feedback.review_rows": 0})
    command = [sys.executable, "-W", "error", "-m", "headrace.upkeep", str(ws.root)]
    done = subprocess.run([*command, settings], capture_output=True, text=True, check=True)
    assert "deleted, of 2025-02-24: more than serve.log_max_bytes" in done.stderr
    with open_workspace(ws.root) as again:
        assert old not in stored(again)
        assert [(one.reason, one.prediction_id) for one in reviews.listing(again)] == [("audit", drawn)]
    folder = Path(ws.root) / ".headrace" / "predictions"
    assert not list(folder.glob("*/*/*"))


def test_the_process_of_a_server_leaves_what_another_one_does(
    ws: Workspace, log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upkeep.os, "nice", lambda _: None)  # of the process of the tests
    log.add(days=1)
    reading = retention.read(ws)
    next(reading)
    assert upkeep.main(str(ws.root), "{}") == 0
    reading.close()  # type: ignore[attr-defined]
    assert capsys.readouterr().err == ""


def test_the_process_of_a_server_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upkeep.os, "nice", lambda _: None)
    assert upkeep.main(str(tmp_path), "{}") == 1
    said = capsys.readouterr().err
    assert said.startswith("headrace: old predictions could not be moved: ")
    assert "headrace init" in said


def test_a_channel_keeps_for_so_many_days(ws: Workspace, log: Log) -> None:
    """Rows with feedback, rows in files and their bytes too; other channels and newer days stay."""
    other = plant_channel(ws, "open")
    old = log.add_all([log.row(days=40 + i, text=f"jane{i} was here", unit="jane") for i in range(3)])
    newer = log.add(days=5, text="kept")
    elsewhere = log.row(days=60, text="kept elsewhere")._replace(channel_id=other.id)
    with ws.store.write() as conn:
        predictions.add_rows(conn, [elsewhere], config_hash="0" * 16)
    path = ws.root / "headrace.toml"
    path.write_text(
        path.read_text() + "[channels.web]\nkeep_days = 30\n[feedback]\nwindow_days = 99\n[serve]\nlog_keep_days = 41\n"
    )
    with open_workspace(ws.root) as opened:
        reader = replace(opened, clock=lambda: NOW)
        give(reader, old[0], comment="jane said so", labeller="jane")
        retention.move(reader)
        assert {one.id for one in retention.read(reader)} == {*old, newer, elsewhere.id}
        done = expire(reader)
        assert (done.n_rows, done.n_rows_in_files, done.channels) == (1 + 1, 1, ("web",))
        assert {one.id for one in retention.read(reader)} == {newer, elsewhere.id}
        assert expire(reader) == replace(done, n_rows=0, n_rows_in_files=0, n_values=0)
        later = replace(opened, clock=lambda: NOW + timedelta(days=27))
        assert expire(later).n_rows == 1
        assert [one.id for one in retention.read(later)] == [elsewhere.id]
        kept = [p for p in ws.state_folder.rglob("*") if p.is_file() and b"jane" in p.read_bytes()]
        assert kept == []


def test_what_surrogates_stand_for_goes_too_unless_it_still_comes_in(ws: Workspace, log: Log) -> None:
    other = plant_channel(ws, "open")
    jane, joe = (mapping.Kept(one, "phone", f"+49 {one}", f"+99 {one}") for one in ("jane", "joe"))

    def keep(days: int, channel_id: str, *several: mapping.Kept) -> None:
        then = replace(ws, clock=lambda: NOW - timedelta(days=days))
        with then.store.write() as conn:
            mapping.keep(then, conn, channel_id, several)

    keep(40, log.channel.id, jane, joe)
    keep(40, other.id, jane)
    keep(20, log.channel.id, joe)
    path = ws.root / "headrace.toml"
    path.write_text(path.read_text() + "[channels.web]\nkeep_days = 30\n")
    with open_workspace(ws.root) as opened:
        reader = replace(opened, clock=lambda: NOW)
        assert expire(reader).n_values == 1
        assert [one.value for one in mapping.reveal(reader, joe.surrogate)] == [joe.value]
        with reader.store.read() as conn:
            assert [len(subjects.of_channel(conn, one)) for one in (log.channel.id, other.id)] == [1, 1]
