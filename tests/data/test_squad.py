"""SQuAD files. Catches: a question with another's context, "no answer" read as "not answered yet", a broken question
that takes the file along."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.data.sources import Options, json_document, open_source
from headrace.data.sources.jsonl import Jsonl
from headrace.data.sources.squad import Squad
from headrace.errors import BadInput
from headrace.records import RawRow

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["context", "qas", "paragraphs", "question", "answers", "id"]), inner)
    ),
    max_leaves=12,
)


def written(folder: Path, whole: Any) -> str:
    path = folder / "rows.json"
    path.write_bytes(whole if isinstance(whole, bytes) else json.dumps(whole).encode())
    return str(path)


def read(folder: Path, whole: Any, **options: str) -> list[RawRow]:
    return list(Squad.read(written(folder, whole), Options(**options)))  # type: ignore[arg-type]


@given(st.lists(st.tuples(TEXT, st.lists(st.tuples(TEXT, st.lists(st.tuples(TEXT, st.integers(0, 9)))))), max_size=4))
def test_questions_come_back_with_their_context(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: list[tuple[str, list[tuple[str, list[tuple[str, int]]]]]]
) -> None:
    whole = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [
        {"context": context, "qas": [
            {"id": f"{context}:{i}", "question": question, "is_impossible": not answers,
             "answers": [{"text": text, "answer_start": start} for text, start in answers]}
            for i, (question, answers) in enumerate(questions)
        ]}
        for context, questions in paragraphs
    ]}]}  # fmt: skip
    found = read(tmp_path_factory.mktemp("squad"), whole)
    expected = [
        (question, context, f"{context}:{i}", {"answers": [{"text": t, "start": s} for t, s in answers]})
        for context, questions in paragraphs
        for i, (question, answers) in enumerate(questions)
    ]
    assert [(row.text, row.text_pair, row.key, row.label) for row in found] == expected
    assert [row.line for row in found] == list(range(1, len(expected) + 1))
    assert all(row.group == row.text_pair and row.error is None for row in found)


@given(JSON)
def test_no_shape_at_all_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, inner: Any) -> None:
    good = {"context": "c", "qas": [{"question": "q", "answers": []}]}
    for broken in (inner, {"paragraphs": inner}, {"paragraphs": [inner]}, {"paragraphs": [{**good, "qas": [inner]}]}):
        found = read(tmp_path_factory.mktemp("any"), {"data": [broken, {"paragraphs": [good]}]})
        assert (found[-1].text, found[-1].error) == ("q", None)
        assert {row.error for row in found} <= {None, "unreadable"}


def test_no_answer_is_told_from_not_answered_yet(tmp_path: Path) -> None:
    questions = [
        {
            "question": "a",
            "is_impossible": True,
            "answers": [],
            "plausible_answers": [{"text": "c", "answer_start": 0}],
        },
        {"question": "b"},
        {"question": "c", "answers": "c"},
    ]
    found = read(tmp_path, {"data": [{"paragraphs": [{"context": "c", "qas": questions}]}]})
    assert [(row.label, row.error) for row in found] == [({"answers": []}, None), (None, None), (None, "unreadable")]
    assert [
        row.label
        for row in read(tmp_path, {"data": [{"paragraphs": [{"context": "c", "qas": questions[:2]}]}]}, label="")
    ] == [None] * 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]", "not a SQuAD file"), (b'{"data": 3}', "not a SQuAD file"), (b'{"data": [', "is not JSON"),
        (b'{"data": "\xff"}', "not UTF-8 at byte 11"), (b"[" * 100_000, "is not JSON"), (b"", "is not JSON"),
        (b'{"data": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_explained(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        read(tmp_path, content)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_document, "MAX_BYTES", 20)
    with pytest.raises(BadInput, match="over 20 bytes"):
        read(tmp_path, {"data": [{"paragraphs": []}]})


def test_it_is_told_from_json_lines(tmp_path: Path) -> None:
    assert (
        open_source(written(tmp_path, b'\xef\xbb\xbf \n{"version": 1, "data": [{"title": "t", "paragraphs": ['))
        is Squad
    )
    for content in (
        b'{"text": "a", "label": "b"}\n',
        b'{"data": 1, "paragraphs": 2}\n',
        b'["paragraphs"]',
        b"",
        b"\x00",
    ):
        assert open_source(written(tmp_path, content)) is Jsonl
    assert not Squad.looks_like(str(tmp_path / "none.json"))
