"""Pairs, conversations and JSON labels from a source to a snapshot. Catches: half a pair kept, two pairs with one first
part taken for one example, a span checked against another text, a target that a snapshot changes, a hash that moved."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import sentences, write_jsonl
from headrace.data import channels, quality, snapshot
from headrace.data.importing import import_rows, quarantined
from headrace.data.snapshot import freeze, hash_of
from headrace.errors import BadInput
from headrace.records import ImportReport, SnapshotRow
from headrace.store import examples
from headrace.workspace import Workspace, open_workspace

TURNS = [{"role": "User", "text": "it broke\nagain"}, {"role": "agent", "text": "sorry"}]


def made(folder: Path, table: str) -> Workspace:
    """A workspace with one task, and a channel `c`."""
    folder.mkdir(exist_ok=True)
    (folder / "headrace.toml").write_text(f"[tasks.t]\n{table}\n", "utf-8")
    ws = open_workspace(folder)
    channels.add(ws, "c")
    return ws


def pairs(tmp_path: Path) -> Workspace:
    return made(tmp_path / "ws", 'type = "text-pair"\nlabels = ["no", "yes"]')


def took(ws: Workspace, rows: list[dict[str, Any]], **options: Any) -> ImportReport:
    return import_rows(ws, "c", write_jsonl(ws.root / "rows.jsonl", rows), **options)


def kept(ws: Workspace) -> list[Any]:
    with ws.store.read() as conn:
        return list(examples.labelled_rows(conn, "t", unlabelled=True))


def test_pairs_come_in_under_the_names_of_the_task_type(tmp_path: Path) -> None:
    with pairs(tmp_path) as ws:
        rows = [{"text": "a", "text_pair": "b", "label": "yes"}, {"text": "a", "text_pair": "c", "label": "no"}]
        first, again = took(ws, rows), took(ws, rows)
        assert (first.n_added, first.n_labels, again.n_added, again.n_known) == (2, 2, 0, 2)
        assert {(row.input, row.value) for row in kept(ws)} == {(("a", "b"), "yes"), (("a", "c"), "no")}
        assert took(ws, [{"text": "a", "text_pair": "b", "label": "no"}]).reasons == {"conflicting_label": 1}
        assert took(ws, [{"id": "x", "text": "a", "text_pair": "b"}], label_column="").n_added == 1
        assert took(ws, [{"id": "x", "text": "a", "text_pair": "d"}], label_column="").reasons == {"duplicate_id": 1}


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_the_columns_of_a_pair_can_be_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("premise,so,label\nit rains,it is wet,yes\n")
    elif name.endswith("jsonl"):
        write_jsonl(path, [{"premise": "it rains", "so": "it is wet", "label": "yes"}])
    else:
        table = pa.table({"premise": ["it rains"], "so": ["it is wet"], "label": ["yes"]})
        pq.write_table(table, path)
    with pairs(tmp_path) as ws:
        with pytest.raises(BadInput, match="no column 'text_pair' for the pair"):
            import_rows(ws, "c", path, text_column="premise")
        import_rows(ws, "c", path, text_column="premise", pair_column="so")
        assert [row.input for row in kept(ws)] == [("it rains", "it is wet")]


def test_bad_pairs_are_put_aside_with_the_part_that_is_bad(tmp_path: Path) -> None:
    with pairs(tmp_path) as ws:
        whole = {"text": "a", "text_pair": "b"}
        bad = [{"text_pair": None}, {"text": ""}, {"text_pair": 5}, {"text_pair": "\0"}, {"text_pair": "x" * 20_001}]
        report = took(ws, [whole, *({**whole, **change} for change in bad)], label_column="")
        aside = quarantined(ws, report.id)
        assert [row["reason"] for row in aside] == ["missing_text"] * 3 + ["nul", "too_long"]
        assert ["text_pair" in row["detail"] for row in aside[:3]] == [True, False, True]
        path = ws.root / "half.jsonl"
        path.write_bytes(b'{"text": "a", "text_pair": "\\ud800"}')
        assert import_rows(ws, "c", path, label_column="").reasons == {"wrong_encoding": 1}


def test_a_pair_column_for_a_task_of_one_text_is_refused(workspace: Workspace) -> None:
    channels.add(workspace, "c")
    path = write_jsonl(workspace.root / "rows.jsonl", sentences(3))
    with pytest.raises(BadInput, match="one part"):
        import_rows(workspace, "c", path, pair_column="id")


def test_answers_are_checked_against_their_own_context(tmp_path: Path) -> None:
    with made(tmp_path / "ws", 'type = "extractive-qa"') as ws:
        answer = {"answers": [{"text": "1912", "start": 9}]}
        rows = [
            {"question": "when?", "context": "built in 1912", "label": answer},
            {"question": "when?", "context": "no year here at all", "label": answer},
            {"question": "who?", "context": "built in 1912", "label": {"answers": []}},
            {"question": "which?", "context": "built in 1912", "label": json.dumps(answer)},
            {"question": "which then?", "context": "not in there now", "label": json.dumps(answer)},
        ]
        report = took(ws, rows)
        assert [row["line"] for row in quarantined(ws, report.id)] == [2, 5]
        assert {row.text: row.value for row in kept(ws)} == {"when?": answer, "who?": {"answers": []}, "which?": answer}
        assert took(ws, [rows[0]]).n_known == 1
        found = quality.check(ws)
        assert found.n_examples == 3


def test_conversations_come_in_as_turns_or_as_texts(tmp_path: Path) -> None:
    with made(tmp_path / "ws", 'labels = ["a", "b"]\ninput = "turns"') as ws:
        said = "user: it broke again\nagent: sorry"
        assert took(ws, [{"turns": TURNS, "label": "a"}]).n_added == 1
        assert took(ws, [{"talk": TURNS, "label": "a"}], text_column="talk").n_known == 1
        assert took(ws, [{"text": "it broke", "label": "b"}]).n_added == 1
        assert {row.text for row in kept(ws)} == {said, "user: it broke"}
        bad = took(ws, [{"turns": [], "label": "a"}, {"turns": [{"role": "x"}], "label": "a"}, {"turns": None}])
        assert bad.reasons == {"bad_turns": 2, "missing_text": 1}
        with pytest.raises(BadInput, match="no column 'talk'"):
            took(ws, [{"turns": TURNS, "label": "a"}], text_column="talk")


def test_turns_where_texts_are_read_say_which_setting_reads_them(workspace: Workspace) -> None:
    channels.add(workspace, "c")
    report = took(workspace, [{"text": TURNS, "label": "neutral"}])
    assert 'input = "turns"' in quarantined(workspace, report.id)[0]["detail"]


def test_lists_of_labels_pass_through_to_the_snapshot(tmp_path: Path) -> None:
    with made(tmp_path / "ws", 'type = "multi-label"\nlabels = ["hot", "wet"]') as ws:
        kinds: list[list[str]] = [[], ["wet"], ["hot", "wet"], ["hot"]]
        words = [row["text"] for row in sentences(80)]
        took(ws, [{"id": str(i), "text": text, "label": kinds[i % 4]} for i, text in enumerate(words)])
        twice = took(
            ws, [{"id": "1", "text": words[1], "label": '["wet"]'}, {"id": "2", "text": words[2], "label": []}]
        )
        assert (twice.n_known, twice.n_labels, twice.reasons) == (1, 0, {"duplicate_id": 1})
        rows = snapshot.rows(ws, freeze(ws))
        assert {int(row.key): row.target for row in rows} == {i: kinds[i % 4] for i in range(80)}
        found = quality.check(ws)
        assert [found.n("class balance", name) for name in ("hot", "wet")] == [40, 40]
        assert found.n("conflicting labels", "same text") == 0


def test_pairs_come_back_from_a_snapshot(tmp_path: Path) -> None:
    with pairs(tmp_path) as ws:
        given = {row["id"]: (row["text"], f"also {row['id']}") for row in sentences(80)}
        took(ws, [{"id": i, "text": a, "text_pair": b, "label": "yes"} for i, (a, b) in given.items()])
        frozen = freeze(ws)
        rows = snapshot.rows(ws, frozen)
        assert {row.key: row.input for row in rows} == given
        assert hash_of(rows) == frozen.content_hash
        other = [*rows[1:], SnapshotRow(**{**vars(rows[0]), "text_pair": "other"})]
        assert hash_of(other) != frozen.content_hash


def test_rows_of_one_part_hash_and_lie_as_they_did_before_there_were_two(tmp_path: Path) -> None:
    row = SnapshotRow("ex_1", "c", "k", "café", "neutral", "train", 1.0, "import")
    # computed by the code before inputs had two parts
    assert hash_of([row]) == "sha256:b22698d49a5f2d9641c4d6a915a4a51eee8bc1a260f0ae0b5d181bdf13760994"
    from headrace.data.parquet import read_rows, write_rows

    write_rows(tmp_path, [row])
    assert read_rows(tmp_path) == [row]
    names = pq.read_schema(tmp_path / "rows.parquet").names
    assert names == ["example_id", "channel", "key", "text", "side", "origin", "target", "weight"]


def test_equal_pairs_of_two_channels_stay_on_one_side(tmp_path: Path) -> None:
    with pairs(tmp_path) as ws:
        channels.add(ws, "d")
        rows = [{"id": i, "text": "the same first part", "text_pair": row["text"], "label": "no"}
                for i, row in enumerate(sentences(60))]  # fmt: skip
        for name in ("c", "d"):
            import_rows(ws, name, write_jsonl(ws.root / "rows.jsonl", rows))
        sides: dict[str, set[str]] = {}
        for row in snapshot.rows(ws, freeze(ws)):
            sides.setdefault(row.key, set()).add(row.side)
        assert len(sides) == 60
        assert all(len(side) == 1 for side in sides.values())
