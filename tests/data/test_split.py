"""The split. Catches: an example that changes side, near duplicates on two sides, a side that depends on order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import sentences, write_jsonl
from headrace.config import SplitTable
from headrace.data import channels, split
from headrace.data.importing import import_rows
from headrace.data.near_duplicates import near_duplicate_pairs
from headrace.errors import BadConfig
from headrace.store import examples
from headrace.store.examples import GroupedText
from headrace.workspace import Workspace, open_workspace

SETTINGS = SplitTable()


def _rows(texts: list[str], *, group: str | None = None, start: int = 0) -> list[GroupedText]:
    return [
        GroupedText("c", str(i), group or f"c:{i}", text.strip().casefold(), text)
        for i, text in enumerate(texts, start=start)
    ]


def _group_on(side: str, start: int = 0) -> int:
    """The first number from `start` whose own group hashes to a side."""
    return next(i for i in range(start, start + 10_000) if split.side_of(f"c:{i}", SETTINGS) == side)


def test_shares_are_those_of_the_settings() -> None:
    counts = {side: 0 for side in ("train", "validation", "test")}
    for i in range(20_000):
        counts[split.side_of(f"c:{i}", SETTINGS)] += 1
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.012)
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.009)


def test_sides_are_fixed_for_ever() -> None:
    """Recorded once: a change of these is a change of every workspace's split."""
    assert [split.side_of(f"c:{i}", SETTINGS) for i in range(8)] == RECORDED


RECORDED = ["train", "train", "train", "test", "train", "train", "train", "validation"]

TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), min_size=1, max_size=8).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=30), steps=st.integers(1, 5), seed=st.integers(0, 99))
def test_no_side_changes_and_nothing_leaks_as_data_grows(texts: list[str], steps: int, seed: int) -> None:
    rows = _rows(texts)
    random.Random(seed).shuffle(rows)
    sides: dict[str, str] = {}
    for step in range(1, steps + 1):
        there = rows[: len(rows) * step // steps]
        fresh = split.sides_of_new(there, sides, SETTINGS, 0.8)
        assert not fresh.keys() & sides.keys()
        sides |= fresh
        assert sides.keys() == {row.group_key for row in there}
    for a, b in near_duplicate_pairs([row.text for row in rows], 0.8).tolist():
        used = {sides[rows[a].group_key], sides[rows[b].group_key]} - {"excluded"}
        assert len(used) <= 1


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=20), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(texts: list[str], seed: int) -> None:
    rows = _rows(texts)
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert split.sides_of_new(rows, {}, SETTINGS, 0.8) == split.sides_of_new(shuffled, {}, SETTINGS, 0.8)


def test_a_new_group_takes_the_side_of_what_it_resembles() -> None:
    new = _group_on("train")
    known = {"c:old": "test"}
    rows = [GroupedText("c", "old", "c:old", "h", "a film to see"), *_rows(["A film to see!"], start=new)]
    assert split.sides_of_new(rows, known, SETTINGS, 0.8) == {f"c:{new}": "test"}


def test_a_bridge_between_sides_is_excluded() -> None:
    one, two = "a b c d e f g h i j k", "b c d e f g h i j k l"
    known = {"c:one": "test", "c:two": "train"}
    rows = [
        GroupedText("c", "one", "c:one", "1", one),
        GroupedText("c", "two", "c:two", "2", two),
        GroupedText("c", "new", "c:new", "3", "a b c d e f g h i j k l"),
    ]
    assert split.sides_of_new(rows, known, SETTINGS, 0.8) == {"c:new": "excluded"}


def test_a_source_group_and_equal_texts_across_channels_stay_together(workspace: Workspace) -> None:
    for name in ("c", "d"):
        channels.add(workspace, name)
    grouped = [{**row, "group": "author"} for row in sentences(40)]
    import_rows(workspace, "c", write_jsonl(workspace.root / "c.jsonl", grouped))
    copies = [{**row, "id": f"copy {row['id']}"} for row in sentences(40)]
    import_rows(workspace, "d", write_jsonl(workspace.root / "d.jsonl", copies))
    assert len(set(split.assign(workspace).values())) == 1


def test_sides_are_written_once(workspace: Workspace) -> None:
    channels.add(workspace, "c")
    import_rows(workspace, "c", write_jsonl(workspace.root / "a.jsonl", sentences(60)))
    first = split.assign(workspace)
    import_rows(workspace, "c", write_jsonl(workspace.root / "b.jsonl", sentences(120)))
    second = split.assign(workspace)
    with workspace.store.read() as conn:
        assert examples.sides(conn) == second
    assert {group: second[group] for group in first} == first
    assert len(second) == 120
    with open_workspace(workspace.root, overrides={"split.salt": "another"}) as salted:
        assert split.assign(salted) == second


def test_shares_that_leave_nothing_to_train_on_are_refused(workspace: Workspace) -> None:
    with (
        open_workspace(workspace.root, overrides={"split.test_share": 0.9}) as ws,
        pytest.raises(BadConfig, match="nothing to train on"),
    ):
        split.assign(ws)
