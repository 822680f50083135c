"""The quality report. Catches: a planted fault that the check does not see, and a clean set that it blames."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import sentences, write_jsonl
from headrace.data import channels, quality
from headrace.data.importing import import_rows
from headrace.data.snapshot import freeze
from headrace.errors import WrongState
from headrace.store import examples
from headrace.workspace import Workspace, init


def _workspace(ws: Workspace, rows: list[dict[str, Any]], channel: str = "c") -> Workspace:
    channels.add(ws, channel)
    import_rows(ws, channel, write_jsonl(ws.root / "rows.jsonl", rows))
    return ws


def test_planted_faults_are_counted(workspace: Workspace) -> None:
    text = "the film was slow and the popcorn was cold but we had a lovely evening out anyway"
    rows = [
        {"id": "1", "text": text, "label": "positive"},
        {"id": "2", "text": text, "label": "negative"},
        {"id": "3", "text": text + " yes", "label": "negative"},
        {"id": "4", "text": "something else altogether", "label": "neutral"},
        {"id": "5", "text": "nobody said what this is"},
    ]
    report = quality.check(_workspace(workspace, rows))
    assert report.n("duplicates", "exact") == 1
    assert report.n("duplicates", "near") == 1
    assert report.n("conflicting labels", "same text") == 2
    assert report.n("conflicting labels", "near text") == 3
    assert report.n("examples", "unlabelled", "c") == 1
    assert report.n("class balance", "negative", "c") == 2
    assert (report.length_unit, report.n("length", "max")) == ("words", 18)


def test_a_clean_set_is_not_blamed(workspace: Workspace) -> None:
    channels.add(workspace, "d")
    import_rows(workspace, "d", write_jsonl(workspace.root / "d.jsonl", sentences(100, channel="d")))
    ws = _workspace(workspace, sentences(200))
    freeze(ws)
    report = quality.check(ws)
    for check, figure in (
        ("duplicates", "exact"),
        ("conflicting labels", "same text"),
        ("leakage", "held-out examples"),
    ):
        assert report.n(check, figure) == 0
    assert report.n("examples", "all", "c") == 200


@pytest.mark.parametrize("how", ["near", "group"])
def test_a_planted_leak_is_found(workspace: Workspace, how: str) -> None:
    """The split makes none, so the sides are written by hand."""
    text = "a rather long sentence about a film that nobody at all wanted to see twice in one week"
    ws = _workspace(
        workspace,
        [{"id": "1", "text": text, "label": "neutral"}, {"id": "2", "text": f"{text} yes", "label": "neutral"}],
    )
    if how == "near":
        with ws.store.write() as conn:
            examples.add_sides(conn, {"c:1": "train", "c:2": "test"}, ws.clock())
        assert quality.check(ws).n("leakage", "held-out examples") == 1
    else:
        judged = [
            quality.Judged("c", "1", "same", "one", "h1", "neutral", "train"),
            quality.Judged("c", "2", "same", "two", "h2", "neutral", "test"),
            quality.Judged("c", "3", "other", "three", "h3", "neutral", "excluded"),
        ]
        pairs = quality.near_duplicate_pairs([one.text for one in judged], 0.8)
        assert [finding.n for finding in quality.leaks(judged, pairs)] == [1, 1]


def test_lengths_are_in_tokens_where_there_is_a_tokenizer(workspace: Workspace) -> None:
    ws = _workspace(workspace, sentences(20))
    report = quality.check(ws, count_tokens=lambda texts: [200 + len(text) for text in texts])
    assert report.length_unit == "tokens"
    assert report.n("length", "over 128", "c") == 20


def test_the_table_and_the_json_hold_every_finding(workspace: Workspace) -> None:
    report = quality.check(_workspace(workspace, sentences(30)))
    headings, lines = report.rows()
    shown = [cell for line in lines for cell in line[2:] if cell != "-"]
    assert len(shown) == len(report.as_json()["findings"]) == len(report.findings)
    assert json.loads(json.dumps(report.as_json()))["task"] == "tone"
    assert all(len(line) == len(headings) for line in lines)


def test_numbers_are_summed_up_by_mean_and_deviation(tmp_path: Path) -> None:
    with init(tmp_path / "numbers", task="score", task_type="text-regression") as ws:
        rows = [{"id": "1", "text": "one film", "label": 1}, {"id": "2", "text": "One film!", "label": 3.5}]
        report = quality.check(_workspace(ws, rows))
        assert (report.n("targets", "mean"), report.n("targets", "deviation")) == (2.25, 1.25)
        assert report.n("conflicting labels", "near text") == 2


def test_nothing_to_check_is_said(workspace: Workspace) -> None:
    with pytest.raises(WrongState, match="no examples"):
        quality.check(workspace)


@pytest.mark.parametrize(
    ("name", "targets", "counts"),
    [
        ("token-classification", [[[0, 3, "x"]], [[0, 3, "y"], [4, 7, "x"]], []], {"x": 2, "y": 1}),
        ("multi-label", [["x"], ["x", "y"], []], {"x": 2, "y": 1}),
    ],
)
def test_the_balance_counts_the_examples_that_have_a_label(
    tmp_path: Path, name: str, targets: list[Any], counts: dict[str, int]
) -> None:
    with init(tmp_path / "ws", task="t", task_type=name, labels=("x", "y")) as ws:
        texts = ["one two three", "six ten four", "red sun moon"]
        rows = [{"text": text, "label": label} for text, label in zip(texts, targets, strict=True)]
        report = quality.check(_workspace(ws, rows))
    assert {label: report.n("class balance", label) for label in counts} == counts
