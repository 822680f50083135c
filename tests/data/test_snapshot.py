"""Snapshots. Catches: a hash that depends on ids, time or order; feedback on the test side; a target nobody gave."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import LABELS, sentences, write_jsonl
from headrace.config import TaskTable
from headrace.data import channels, snapshot, split
from headrace.data.importing import import_rows
from headrace.data.snapshot import freeze, resolved, target_of
from headrace.errors import Damaged, NotFound, WrongState
from headrace.store.examples import LabelledRow
from headrace.tasks.text_classification import TextClassification
from headrace.workspace import Workspace, init

TONE = TextClassification(TaskTable(labels=LABELS))


def _frozen(root: Path, rows: list[dict[str, Any]], *, n_imports: int = 1) -> tuple[str, dict[str, int]]:
    with init(root, task="tone", labels=LABELS) as ws:
        channels.add(ws, "c")
        for i in range(n_imports):
            import_rows(ws, "c", write_jsonl(root / "rows.jsonl", rows[i::n_imports]))
        frozen = freeze(ws)
        return frozen.content_hash, frozen.n_by_side


def _line(value: object, origin: str, *, labeller: str = "lab_1", example: str = "ex_1") -> LabelledRow:
    return LabelledRow(example, "c", example, f"c:{example}", "h", "a text", labeller, value, origin)


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    channels.add(workspace, "c")
    import_rows(workspace, "c", write_jsonl(workspace.root / "rows.jsonl", sentences(200)))
    return workspace


def test_rows_come_back_as_frozen(ws: Workspace) -> None:
    frozen = freeze(ws)
    rows = snapshot.rows(ws, frozen)
    given = {row["id"]: (row["text"], row["label"]) for row in sentences(200)}
    assert {row.key: (row.text, row.target) for row in rows} == given
    assert Counter(row.side for row in rows) == frozen.n_by_side
    assert [row.key for row in rows] == sorted(given)
    assert {row.key for side in frozen.n_by_side for row in snapshot.rows(ws, frozen, side)} == given.keys()
    assert {row.side for row in snapshot.rows(ws, frozen, "test")} == {"test"}
    assert snapshot.latest(ws, "tone") == frozen == snapshot.find(ws, frozen.id)


def test_the_same_rows_are_one_snapshot(ws: Workspace) -> None:
    first = freeze(ws)
    import_rows(ws, "c", write_jsonl(ws.root / "rows.jsonl", sentences(200)))
    assert freeze(ws) == first
    import_rows(ws, "c", write_jsonl(ws.root / "more.jsonl", sentences(201)))
    second = freeze(ws)
    assert second.content_hash != first.content_hash
    assert snapshot.latest(ws) == second
    before = {row.key: row.side for row in snapshot.rows(ws, first)}
    assert before.items() <= {row.key: row.side for row in snapshot.rows(ws, second)}.items()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), n_imports=st.integers(1, 4))
def test_the_hash_is_of_the_rows_alone(tmp_path_factory: pytest.TempPathFactory, seed: int, n_imports: int) -> None:
    """Other ids, another time, another order of rows, in one import or several: the same hash."""
    folder = tmp_path_factory.mktemp("same")
    rows = sentences(120)
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert _frozen(folder / "a", rows) == _frozen(folder / "b", shuffled, n_imports=n_imports)


def test_the_hash_is_of_every_value(tmp_path: Path) -> None:
    rows = sentences(120)
    other = [{**rows[0], "label": next(name for name in LABELS if name != rows[0]["label"])}, *rows[1:]]
    assert _frozen(tmp_path / "a", rows)[0] != _frozen(tmp_path / "b", other)[0]


def test_targets_come_from_the_row_then_from_the_latest_of_each_labeller() -> None:
    votes = [_line("neutral", "labeller", labeller=f"lab_{i}") for i in range(3)]
    assert target_of([*votes, _line("positive", "import", labeller="lab_import")], TONE) == "positive"
    assert target_of([*votes, _line("positive", "labeller", labeller="lab_9")], TONE) == "neutral"
    changed = [_line("positive", "labeller", labeller=f"lab_{i}") for i in range(2)]
    assert target_of([*votes, *changed], TONE) == "positive"


@pytest.mark.parametrize(
    ("side", "labels", "expected"),
    [
        ("train", [("neutral", "feedback")], ("neutral", "feedback")),
        ("validation", [("neutral", "feedback")], ("neutral", "feedback")),
        ("test", [("neutral", "feedback")], "feedback on the test side"),
        ("test", [("positive", "labeller"), ("neutral", "feedback"), ("neutral", "feedback")], ("positive", "import")),
        ("train", [("positive", "labeller"), ("neutral", "feedback"), ("neutral", "feedback")], ("neutral", "import")),
        ("excluded", [("neutral", "import")], "resembles both sides"),
        (None, [("neutral", "import")], "not split yet"),
        ("train", [("mixed", "import")], "labels that the task has no more"),
        ("train", [("mixed", "labeller"), ("neutral", "labeller")], ("neutral", "import")),
    ],
)
def test_feedback_never_touches_the_test_side(
    side: str | None, labels: list[tuple[str, str]], expected: tuple[str, str] | str
) -> None:
    lines = [_line(value, origin, labeller=f"lab_{i}") for i, (value, origin) in enumerate(labels)]
    left_out: Counter[str] = Counter()
    rows = list(resolved(lines, {} if side is None else {"c:ex_1": side}, TONE, left_out))
    if isinstance(expected, str):
        assert (rows, left_out) == ([], {expected: 1})
    else:
        assert [(row.target, row.origin) for row in rows] == [expected]


def test_nothing_labelled_and_empty_sides_say_what_to_do(workspace: Workspace) -> None:
    channels.add(workspace, "c")
    with pytest.raises(WrongState, match=r"no example is labelled.*headrace import"):
        freeze(workspace)
    import_rows(workspace, "c", write_jsonl(workspace.root / "bare.jsonl", [{"id": "1", "text": "no label"}]))
    with pytest.raises(WrongState, match="no example is labelled"):
        freeze(workspace)
    import_rows(workspace, "c", write_jsonl(workspace.root / "one.jsonl", sentences(1)))
    with pytest.raises(WrongState, match=r"no labelled rows on the side .*Import some 51 more labelled"):
        freeze(workspace)
    assert snapshot.latest(workspace, "tone") is None
    with pytest.raises(NotFound):
        snapshot.find(workspace, "snap_0")


def test_a_changed_file_is_noticed(ws: Workspace) -> None:
    frozen = freeze(ws)
    path = ws.artifacts.get(frozen.artifact) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged):
        snapshot.rows(ws, frozen)


def test_regression_targets_stay_numbers(tmp_path: Path) -> None:
    with init(tmp_path / "numbers", task="score", task_type="text-regression") as ws:
        channels.add(ws, "c")
        rows = [{"id": str(i), "text": f"word{i} word{i * 7}", "label": i / 2} for i in range(100)]
        import_rows(ws, "c", write_jsonl(tmp_path / "rows.jsonl", rows))
        assert {row.key: row.target for row in snapshot.rows(ws, freeze(ws))} == {str(i): i / 2 for i in range(100)}
        assert set(split.assign(ws).values()) == {"train", "validation", "test"}
