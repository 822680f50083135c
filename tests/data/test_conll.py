"""CoNLL files. Catches: a last sentence without an empty line that is lost, a # that is a word taken for a comment, a
broken line that takes its neighbours along, offsets that do not fit the text."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.data.sources import Options, open_source
from headrace.data.sources.conll import Conll
from headrace.records import RawRow
from headrace.tasks.spans import joined

WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6)
TAG = st.sampled_from(["O", "B-PER", "I-PER", "E-LOC", "S-work-title", "U-LOC", "L-LOC"])


def read(folder: Path, content: str | bytes, **options: object) -> list[RawRow]:
    path = folder / "rows.conll"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(Conll.read(str(path), Options(**options)))  # type: ignore[arg-type]


@given(
    sentences=st.lists(st.lists(st.tuples(WORD, TAG), min_size=1, max_size=6), max_size=5),
    between=st.sampled_from(["\t", " ", "\t_\t", " NN  "]),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_sentences_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    sentences: list[list[tuple[str, str]]],
    between: str,
    ending: str,
    last: bool,
) -> None:
    blocks = ["".join(f"{word}{between}{tag}{ending}" for word, tag in sentence) for sentence in sentences]
    content = ending.join(blocks) + (ending if last else "")
    found = read(tmp_path_factory.mktemp("conll"), content)
    kept = [list(zip(*sentence, strict=True)) for sentence in sentences if not sentence[0][0].startswith("-DOCSTART-")]
    assert [(row.text, row.label) for row in found] == [joined(*sentence) for sentence in kept]
    assert {row.error for row in found} <= {None}


@given(content=st.binary(max_size=200))
def test_no_bytes_at_all_make_it_fail(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    found = read(tmp_path_factory.mktemp("any"), b"Ann\tB-PER\n\n" + content)
    assert found[0] == RawRow(1, "Ann", [[0, 3, "PER"]])
    assert len(found) <= content.count(b"\n") + 2
    for row in found:
        assert row.error in (None, "unreadable", "wrong_encoding")
        assert row.error or all(str(row.text)[start:end].strip() for start, end, _ in row.label)  # type: ignore[attr-defined]


def test_lines_are_counted_and_marks_between_sentences_passed_over(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- O\n\n# id = s1\n# group = web\n# newdoc x\nIn O\nRome S-LOC\n\n\n\t\n# O\nparis B-LOC\n"
    found = read(tmp_path, "\ufeff" + content)
    assert found == [
        RawRow(6, "In Rome", [[3, 7, "LOC"]], "s1", "web"),
        RawRow(11, "# paris", [[2, 7, "LOC"]]),
    ]


def test_a_comment_belongs_to_one_sentence(tmp_path: Path) -> None:
    assert [row.key for row in read(tmp_path, "# id = 1\na O\n\nb O\n\n# id = 3\nc O")] == ["1", None, "3"]


def test_a_broken_line_spoils_its_own_sentence_only(tmp_path: Path) -> None:
    content = b"a O\n\nno-tag\nb O\n\n\xff O\nc O\n\nd B-\n\n\tO\n\ne O\n"
    assert [(row.line, row.error, row.detail) for row in read(tmp_path, content)] == [
        (1, None, ""),
        (3, "unreadable", "no tag in line 3"),
        (6, "wrong_encoding", "not UTF-8 in line 6"),
        (9, "unreadable", "the tag 'B-' names no entity type, in the sentence at line 9"),
        (11, "unreadable", "no word in line 11"),
        (13, None, ""),
    ]


def test_what_has_no_end_is_one_bad_row(tmp_path: Path) -> None:
    found = read(tmp_path, b"x" * 200_000 + b" O\n\na O\n\n" + b"word O\n" * 5000 + b"\nb O\n")
    assert [(row.line, row.error) for row in found] == [(1, "too_long"), (3, None), (5, "too_long"), (5006, None)]
    assert all(len(str(row.text)) <= 1000 for row in found)


def test_without_labels_words_may_stand_alone(tmp_path: Path) -> None:
    assert read(tmp_path, "In\nRome\n\nnow X\n", label="") == [RawRow(1, "In Rome"), RawRow(4, "now")]


@pytest.mark.parametrize("name", ["a.conll", "A.BIO", "b.iob"])
def test_it_is_picked_by_its_suffix(name: str) -> None:
    assert open_source(name) is Conll
