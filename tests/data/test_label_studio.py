"""Label Studio's exports. Catches: a cancelled annotation that counts, a label of the wrong person or control, an empty
annotation lost where it says "no entity", another array taken for an export."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import TaskTable
from headrace.data.sources import Options, open_source
from headrace.data.sources.jsonl import Jsonl
from headrace.data.sources.label_studio import LabelStudio
from headrace.errors import BadInput
from headrace.records import RawLabel, RawRow
from headrace.tasks.token_classification import TokenClassification

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
KEYS = st.sampled_from(["data", "annotations", "result", "value", "type", "labels", "text", "completed_by"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["labels", "choices", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


def written(folder: Path, whole: Any) -> str:
    path = folder / "rows.json"
    path.write_bytes(whole if isinstance(whole, bytes) else json.dumps(whole).encode())
    return str(path)


def read(folder: Path, whole: Any, **options: str) -> list[RawRow]:
    return list(LabelStudio.read(written(folder, whole), Options(**options)))  # type: ignore[arg-type]


def task(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 7, "annotations": list(annotations), "data": data or {"text": "Ann in Rome"}, "predictions": []}


def by(who: Any, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 1, "completed_by": who, "result": list(results), **more}


def result(kind: str, value: Any, name: str = "label") -> dict[str, Any]:
    inner = value if kind == "labels" else {kind: value}
    return {"id": "x", "from_name": name, "to_name": "text", "type": kind, "value": inner}


def span(start: int, end: int, *labels: str, text: str | None = None) -> dict[str, Any]:
    return result("labels", {"start": start, "end": end, "labels": list(labels), **({"text": text} if text else {})})


@given(st.lists(st.tuples(TEXT, st.lists(st.tuples(st.integers(1, 5), TEXT), max_size=3)), max_size=5))
def test_classes_come_back_by_person(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[tuple[int, str]]]]
) -> None:
    whole = [task(*(by(who, result("choices", [label])) for who, label in labels), text=text) for text, labels in rows]
    found = read(tmp_path_factory.mktemp("studio"), whole)
    expected = [(text, tuple(RawLabel(str(who), label) for who, label in labels)) for text, labels in rows]
    assert [(row.text, row.labels) for row in found] == expected
    assert [(row.line, row.key, row.error) for row in found] == [(i + 1, "7", None) for i in range(len(rows))]


@given(JSON)
def test_no_shape_at_all_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, inner: Any) -> None:
    good = task(by(1, result("choices", ["a"])), text="t")
    results = (inner, {**result("choices", []), "value": inner})
    annotations = (inner, [inner], [by(inner)], *([by(1, one)] for one in results))
    for broken in (inner, *({**good, "annotations": one} for one in annotations)):
        try:
            found = read(tmp_path_factory.mktemp("any"), [broken, good])
        except BadInput:
            continue
        assert (found[-1].text, found[-1].labels) == ("t", (RawLabel("1", "a"),))
        assert {row.error for row in found} <= {None, "unreadable"}


def test_spans_parse_as_labels_of_entities(tmp_path: Path) -> None:
    (row,) = read(tmp_path, [task(by(3, span(7, 11, "LOC", text="Rome"), span(0, 3, "PER")))])
    types = TokenClassification(TaskTable(type="token-classification", labels=("PER", "LOC")))
    assert types.parse_label(row.labels[0].label, str(row.text)) == [[0, 3, "PER"], [7, 11, "LOC"]]
    with pytest.raises(BadInput, match="the text at 7:11 is 'Rome', not 'Roma'"):
        types.parse_label(
            read(tmp_path, [task(by(3, span(7, 11, "LOC", text="Roma")))])[0].labels[0].label, "Ann in Rome"
        )


def test_nothing_marked_is_a_label_of_spans_and_none_of_classes(tmp_path: Path) -> None:
    spans = read(tmp_path, [task(by(1, span(0, 3, "PER"))), task(by(2))])
    assert spans[1].labels == (RawLabel("2", []),)
    classes = read(tmp_path, [task(by(1, result("choices", ["a"]))), task(by(2))])
    assert classes[1].labels == ()


def test_people_have_names_or_numbers_and_the_cancelled_are_passed_over(tmp_path: Path) -> None:
    good = result("choices", ["a"])
    (row,) = read(tmp_path, [task(by(5, good), by({"id": 6, "email": "ann@x.org"}, good), by({"id": 7}, good),
                                  by(None, good), by(9, good, was_cancelled=True))])  # fmt: skip
    assert [label.labeller for label in row.labels] == ["5", "ann@x.org", "7", "label-studio"]


@pytest.mark.parametrize(
    ("kind", "value", "label"),
    [
        ("choices", ["a"], "a"), ("choices", ["a", "b"], ["a", "b"]), ("number", 3.5, 3.5), ("rating", 4, 4),
        ("taxonomy", [["card", "lost"]], "card/lost"), ("taxonomy", [["a"], ["b", "c"]], ["a", "b/c"]),
    ],
)  # fmt: skip
def test_classes_paths_and_numbers_are_read(tmp_path: Path, kind: str, value: Any, label: Any) -> None:
    (row,) = read(tmp_path, [task(by(1, result(kind, value)))])
    assert row.labels == (RawLabel("1", label),)


def test_of_several_controls_one_is_named(tmp_path: Path) -> None:
    both = by(
        1,
        result("choices", ["good"], "mood"),
        {**span(0, 3, "PER"), "from_name": "who"},
        result("textarea", ["x"], "note"),
    )
    with pytest.raises(BadInput, match=r"no control 'label': controls: mood, who.*--label"):
        read(tmp_path, [task(both)])
    assert read(tmp_path, [task(both)], label="mood")[0].labels == (RawLabel("1", "good"),)
    assert read(tmp_path, [task(both)], label="who")[0].labels[0].label == [{"start": 0, "end": 3, "labels": ["PER"]}]
    assert read(tmp_path, [task(both)], label="")[0].labels == ()


def test_the_text_is_the_named_field_or_the_only_text(tmp_path: Path) -> None:
    (row,) = read(tmp_path, [task(id="k1", body="hello", score=3, group="g")])
    assert (row.text, row.key, row.group) == ("hello", "k1", "g")
    with pytest.raises(BadInput, match="no field 'text' in data: fields: title, body"):
        read(tmp_path, [task(title="a", body="b")])
    assert read(tmp_path, [task(title="a", body="b"), task(title="c")], text="body")[1].text is None
    (pair,) = read(tmp_path, [task(title="a", body="b")], text="title", pair="body")
    assert (pair.text, pair.text_pair) == ("a", "b")


def test_what_labels_no_text_is_told(tmp_path: Path) -> None:
    box = {"type": "rectanglelabels", "value": {"x": 1}}
    (row, other) = read(tmp_path, [task(by(1, box)), task(by(1, {"type": "labels"}))])
    assert (row.error, row.detail) == ("unreadable", "a result of type 'rectanglelabels' is no label of a text")
    assert (other.error, other.detail) == ("unreadable", "a result of type 'labels' without its value")


def test_it_is_told_from_other_arrays(tmp_path: Path) -> None:
    assert open_source(written(tmp_path, [task()])) is LabelStudio
    for content in (b'[{"text": "a"}]', b'{"annotations": []}\n', b'["annotations"]', b""):
        assert open_source(written(tmp_path, content)) is Jsonl
    with pytest.raises(BadInput, match="a JSON array"):
        list(Jsonl.read(written(tmp_path, [{"text": "a"}]), Options()))
    with pytest.raises(BadInput, match="not an export"):
        read(tmp_path, {})
    assert not LabelStudio.looks_like(str(tmp_path / "none.json"))


@pytest.mark.parametrize("shown", ["Rome", None])
def test_spans_behind_an_emoji_are_counted_in_characters(tmp_path: Path, shown: str | None) -> None:
    text = "\U0001f4a9 Ann\u0301 in Rome"  # the emoji is two UTF-16 units, the combining accent one
    start = len(text[: text.index("Rome")].encode("utf-16-le")) // 2
    (row,) = read(tmp_path, [task(by(3, span(start, start + 4, "LOC", text=shown)), text=text)])
    assert row.labels[0].label[0]["start"] == text.index("Rome") == start - 1
    (found,) = TokenClassification(TaskTable(labels=("LOC",))).parse_label(row.labels[0].label, text)
    assert text[found[0] : found[1]] == "Rome"
    there = text.index("Rome")  # tools that count characters write what fits at once
    (row,) = read(tmp_path, [task(by(3, span(there, there + 4, "LOC", text="Rome")), text=text)])
    assert row.labels[0].label[0]["start"] == there
