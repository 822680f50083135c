"""Imports: every row in one place, nothing twice, nothing half there.

Catches: a row that is lost or counted twice, a rerun that adds, a bad row that takes others with it, rows of an
unfinished import that somebody sees.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import LABELS, sentences, write_jsonl
from headrace.data import channels, importing
from headrace.data.importing import import_rows, quarantined
from headrace.errors import AlreadyExists, BadInput, NotFound, WrongState
from headrace.store import examples, imports
from headrace.store.examples import LabelledRow
from headrace.workspace import Workspace, init, open_workspace


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    channels.add(workspace, "c")
    return workspace


def _file(ws: Workspace, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    return write_jsonl(ws.root / name, rows)


def _all(ws: Workspace) -> list[LabelledRow]:
    with ws.store.read() as conn:
        return list(examples.labelled_rows(conn, "tone", unlabelled=True))


def _reasons(ws: Workspace, import_id: str) -> list[tuple[int, str]]:
    return [(row["line"], row["reason"]) for row in quarantined(ws, import_id)]


def test_rows_become_examples_with_labels_and_a_rerun_adds_nothing(ws: Workspace) -> None:
    path = _file(ws, sentences(50))
    first, again = import_rows(ws, "c", path), import_rows(ws, "c", path)
    assert (first.n_rows, first.n_added, first.n_labels, first.n_known) == (50, 50, 50, 0)
    assert (again.n_rows, again.n_added, again.n_labels, again.n_known) == (50, 0, 0, 50)
    assert sorted((row.text, row.value) for row in _all(ws)) == sorted((r["text"], r["label"]) for r in sentences(50))


def test_each_bad_row_is_put_aside_with_its_line_and_reason(ws: Workspace) -> None:
    lines = [
        b'{"id": 1, "text": "fine", "label": "positive"}',
        b'{"id": 2, "text": "  ", "label": "positive"}',
        b'{"id": 3, "label": "positive"}',
        b'{"id": 4, "text": 17}',
        b'{"id": 5, "text": "a", "label": "postive"}',
        b'{"id": 6, "text": "nul \\u0000 inside"}',
        b'{"id": 7, "text": "half a pair \\ud800"}',
        b'{"id": 8, "text": "\xe9"}',
        b'{"id": 9, "text": "' + b"x" * 20_001 + b'"}',
        b'{"id": 1, "text": "other text"}',
        b'{"id": 1, "text": "fine", "label": "negative"}',
        b"not json",
        b'{"text": "no id", "label": "positive"}',
        b'{"text": "no id", "label": "neutral"}',
        b'{"id": 10, "text": "rated", "labels": [{"labeller": "ann", "label": "odd"}]}',
        b'{"id": "\\u0000", "text": "b"}',
        b'{"id": "' + b"k" * 201 + b'", "text": "b"}',
    ]
    path = ws.root / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    report = import_rows(ws, "c", path)
    assert _reasons(ws, report.id) == [
        (2, "missing_text"), (3, "missing_text"), (4, "missing_text"), (5, "unknown_label"), (6, "nul"),
        (7, "wrong_encoding"), (8, "wrong_encoding"), (9, "too_long"), (10, "duplicate_id"), (11, "duplicate_id"),
        (12, "unreadable"), (14, "conflicting_label"), (15, "unknown_label"), (16, "nul"), (17, "too_long"),
    ]  # fmt: skip
    assert (report.n_rows, report.n_added, report.n_known, report.n_quarantined) == (17, 2, 0, 15)
    assert sum(report.reasons.values()) == 15
    assert report.id in report.quarantine
    aside = {row["line"]: row for row in quarantined(ws, report.id)}
    assert "Did you mean 'positive'" in aside[5]["detail"]
    assert len(aside[9]["raw"]) < 250


def test_wrong_bytes_in_a_csv_spoil_their_own_row(ws: Workspace) -> None:
    path = ws.root / "rows.csv"
    path.write_bytes(b"id,text,label\n1,caf\xe9,positive\n2,tea,neutral\n")
    report = import_rows(ws, "c", path)
    assert _reasons(ws, report.id) == [(2, "wrong_encoding")]
    assert [row.text for row in _all(ws)] == ["tea"]


def test_labellers_labels_are_kept_beside_the_rows_own(ws: Workspace) -> None:
    rated = [{"labeller": "ann", "label": "neutral", "score": 0.5}, {"labeller": "bob", "label": "positive"}]
    path = _file(ws, [{"text": "a", "label": "positive", "labels": rated}, {"text": "b", "labels": rated}])
    assert import_rows(ws, "c", path).n_labels == 5
    assert import_rows(ws, "c", path).n_labels == 0
    assert sorted((r.text, r.value, r.origin) for r in _all(ws)) == [
        ("a", "neutral", "labeller"), ("a", "positive", "import"), ("a", "positive", "labeller"),
        ("b", "neutral", "labeller"), ("b", "positive", "labeller"),
    ]  # fmt: skip


def test_an_example_without_a_label_gets_one_later(ws: Workspace) -> None:
    bare = import_rows(ws, "c", _file(ws, [{"id": "1", "text": "a"}]))
    assert (bare.n_added, bare.n_labels, bare.n_unlabelled) == (1, 0, 1)
    later = import_rows(ws, "c", _file(ws, [{"id": "1", "text": "a", "label": "neutral"}]))
    assert (later.n_added, later.n_known, later.n_labels) == (0, 1, 1)


def test_the_same_id_in_two_channels_is_two_examples(ws: Workspace) -> None:
    channels.add(ws, "d")
    path = _file(ws, sentences(3))
    assert [import_rows(ws, name, path).n_added for name in ("c", "d")] == [3, 3]
    with ws.store.read() as conn:
        assert len({row.group_key for row in examples.grouped_texts(conn)}) == 6


def test_strict_keeps_nothing_and_names_the_first_lines(ws: Workspace) -> None:
    rows = [*sentences(20), *({"id": f"bad-{i}", "text": ""} for i in range(7))]
    with pytest.raises(BadInput, match=r"7 of 27 rows are bad.*line 21: missing_text") as caught:
        import_rows(ws, "c", _file(ws, rows), strict=True)
    assert "line 26" not in str(caught.value)
    assert _all(ws) == []
    assert import_rows(ws, "c", _file(ws, sentences(20)), strict=True).n_added == 20


def test_an_error_half_way_leaves_nothing(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_CHUNK_ROWS", 10)

    def interrupt(n_done: int, n_rows: int | None) -> None:
        if n_rows is not None and n_done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_rows(ws, "c", _file(ws, sentences(60)), progress=interrupt)
    with ws.store.read() as conn:
        assert imports.unfinished(conn) == []
    assert _all(ws) == []
    assert import_rows(ws, "c", _file(ws, sentences(60))).n_added == 60


def test_rows_of_a_running_import_are_not_there_for_readers(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_CHUNK_ROWS", 10)
    seen: list[int] = []
    import_rows(ws, "c", _file(ws, sentences(30)), progress=lambda *_: seen.append(len(_all(ws))))
    assert seen == [0] * 6  # three chunks read, three written
    assert len(_all(ws)) == 30


def test_others_can_write_between_two_chunks(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_CHUNK_ROWS", 10)
    with open_workspace(ws.root, overrides={"store.busy_timeout_s": 0.5}) as server:
        report = import_rows(
            ws,
            "c",
            _file(ws, sentences(30)),
            progress=lambda done, total: channels.add(server, f"during-{done}-{total}") and None,
        )
    assert report.n_added == 30
    assert len(channels.listing(ws)) == 7


def test_only_one_import_runs_at_a_time(ws: Workspace) -> None:
    with FileLock(ws.state_folder / "import.lock"), pytest.raises(WrongState, match="another import"):
        import_rows(ws, "c", _file(ws, sentences(3)))


def test_what_cannot_be_imported_at_all_is_said_before_anything_is_written(ws: Workspace) -> None:
    path = _file(ws, sentences(3))
    empty = ws.root / "empty.csv"
    empty.write_text("text,label\n", "utf-8")
    for error, problem, args in (
        (NotFound, "no such channel: chanel. Did you mean 'channel'", ("chanel", path)),
        (NotFound, "no such file", ("channel", ws.root / "none.csv")),
        (BadInput, "directory", ("channel", ws.root)),
        (BadInput, "has no rows", ("channel", empty)),
        (BadInput, "the file is empty", ("channel", _file(ws, [], "nothing.jsonl"))),
    ):
        if problem.endswith("'channel'"):
            channels.add(ws, "channel")
        with pytest.raises(error, match=problem):
            import_rows(ws, *args)
    with pytest.raises(NotFound, match="no such task"):
        import_rows(ws, "c", path, task="tune")
    with ws.store.read() as conn:
        assert imports.unfinished(conn) == []
    assert _all(ws) == []
    with pytest.raises(NotFound, match="no such import"):
        quarantined(ws, "imp_0")


def test_a_regression_task_takes_numbers(tmp_path: Path) -> None:
    with init(tmp_path / "numbers", task="score", task_type="text-regression") as ws:
        channels.add(ws, "c")
        path = ws.root / "rows.csv"
        path.write_text("text,label\na,1.5\nb,many\nc,nan\nd,0\n", "utf-8")
        report = import_rows(ws, "c", path)
        assert (report.n_added, report.reasons) == (2, {"unknown_label": 2})
        with ws.store.read() as conn:
            assert [row.value for row in examples.labelled_rows(conn, "score")] in ([1.5, 0.0], [0.0, 1.5])


CELL = st.sampled_from(["", " ", "a", "b", "c d", "é", "x\0y", "z" * 50])
ROW = st.fixed_dictionaries(
    {"text": CELL},
    optional={"id": st.sampled_from(["1", "2", "3", ""]), "label": st.sampled_from([*LABELS, "", "odd"])},
)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=15), chunk=st.integers(1, 6))
def test_every_row_is_added_known_or_put_aside(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with init(folder, task="tone", labels=LABELS) as ws, pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "_CHUNK_ROWS", chunk)
        channels.add(ws, "c")
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps({"label": "", **row}) + "\n" for row in rows), "utf-8")
        first, again = import_rows(ws, "c", path), import_rows(ws, "c", path)
        for report in (first, again):
            assert report.n_rows == len(rows) == report.n_added + report.n_known + report.n_quarantined
            assert len(quarantined(ws, report.id)) == report.n_quarantined
        assert (again.n_added, again.n_labels) == (0, 0)
        assert again.n_quarantined == first.n_quarantined
        with ws.store.read() as conn:
            assert examples.count(conn) == first.n_added


def test_channels_have_usable_unique_names(workspace: Workspace) -> None:
    channels.add(workspace, "b", owner="ann")
    channels.add(workspace, "a-1.x")
    assert [channel.name for channel in channels.listing(workspace)] == ["a-1.x", "b"]
    with pytest.raises(AlreadyExists):
        channels.add(workspace, "b")
    for name in ("", "-a", "a b", "a/b", "x" * 65):
        with pytest.raises(BadInput, match="a channel's name"):
            channels.add(workspace, name)


def test_rows_with_personal_data_are_put_aside_where_a_channel_takes_none(ws: Workspace) -> None:
    rows = [{"text": "write to ann@example.com", "label": "neutral"}, {"text": "write to nobody", "label": "neutral"}]
    with open_workspace(ws.root, overrides={"privacy.personal": "drop"}) as strict:
        done = import_rows(strict, "c", _file(ws, rows))
        (aside,) = quarantined(strict, done.id)
    assert [row.text for row in _all(ws)] == ["write to nobody"]
    assert (aside["line"], aside["reason"]) == (1, "personal_data")
    assert "ann@" not in json.dumps(aside, default=str)
