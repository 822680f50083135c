"""Entities: labels as written, alignment to words, figures against seqeval. Catches: a span off by one, a hit of the
wrong type, spans that overlap, an average over the wrong types, a CRF that is not asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import metrics as oracle

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.tasks.spans import joined
from headrace.tasks.token_classification import TokenClassification
from tasks.tokens import objects, tagged, words_of

TYPES = ("PER", "LOC", "ORG")
TASK = TokenClassification(TaskTable(type="token-classification", labels=TYPES))
TEXT = "Ann Smith went to New York"
SENTENCES = st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=9), min_size=1, max_size=6)


def test_tags_are_named_in_the_order_of_the_types() -> None:
    assert TASK.output_names == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@given(SENTENCES)
@settings(deadline=None, max_examples=60)
def test_figures_are_seqevals(sentences: list[list[tuple[int, int]]]) -> None:
    names = TASK.output_names
    truth = [[names[a] for a, _ in sentence] for sentence in sentences]
    answers = [[names[b] for _, b in sentence] for sentence in sentences]
    texts, targets = zip(*(joined(["w"] * len(tags), tags) for tags in truth), strict=True)
    outputs = objects([tagged(text, [b for _, b in s], 7) for text, s in zip(texts, sentences, strict=True)])
    found = TASK.metrics(targets, outputs)
    for name in ("precision", "recall", "f1"):
        theirs = getattr(oracle, f"{name}_score")(truth, answers, zero_division=0)
        assert (found[name] or 0) == pytest.approx(theirs)
    if any(tag != "O" for tags in truth + answers for tag in tags):
        report = oracle.classification_report(truth, answers, output_dict=True, zero_division=0)
        for kind in TYPES:
            mine, theirs = found["per_class"][kind], report.get(kind)
            assert mine["n"] == (theirs["support"] if theirs else 0)
            if theirs:
                assert (mine["f1"] or 0) == pytest.approx(theirs["f1-score"])
                assert (mine["precision"] or 0) == pytest.approx(theirs["precision"])
        asked = [report[kind]["f1-score"] for kind in TYPES if kind in report and report[kind]["support"]]
        assert found["macro_f1"] == (pytest.approx(np.mean(asked)) if asked else None)


def test_what_cannot_be_had_is_none() -> None:
    silent = objects([tagged(TEXT, [0] * 6, 7)])
    found = TASK.metrics([[]], silent)
    assert {found[name] for name in ("precision", "recall", "f1", "macro_f1")} == {None}
    missed = TASK.metrics([[[0, 9, "PER"]]], silent)
    assert (missed["precision"], missed["recall"], missed["f1"], missed["macro_f1"]) == (None, 0, 0, 0)


def test_an_answer_has_the_characters_of_the_text() -> None:
    (answer,) = TASK.decode(objects([tagged(TEXT, [1, 2, 0, 0, 4, 4], 7)]))
    sure = pytest.approx(np.exp(8) / (np.exp(8) + 6), abs=1e-6)
    assert answer == {
        "entities": [
            {"start": 0, "end": 9, "label": "PER", "text": "Ann Smith", "confidence": sure},
            {"start": 18, "end": 26, "label": "LOC", "text": "New York", "confidence": sure},
        ]
    }
    assert TASK.answer_of(answer) == [[0, 9, "PER"], [18, 26, "LOC"]]
    assert TASK.answers_match(answer, [[0, 9, "PER"], [18, 26, "LOC"]])
    assert not TASK.answers_match(answer, [[0, 9, "PER"], [18, 26, "ORG"]])


def test_a_crf_changes_the_path_and_its_certainty() -> None:
    (output,) = objects([tagged("Ann Smith", [1, 3], 7, size=2.0)])
    transitions = np.zeros((7, 7))
    transitions[1, 2] = 9
    crf = {"transitions": transitions.tolist(), "start": [0.0] * 7, "end": [0.0] * 7}
    outputs = objects([output])
    assert [e["label"] for e in TASK.decode(outputs)[0]["entities"]] == ["PER", "LOC"]
    (entity,) = TASK.decode(outputs, {"crf": crf})[0]["entities"]
    assert (entity["text"], entity["label"]) == ("Ann Smith", "PER")
    assert entity["confidence"] > 0.98
    assert TASK.metrics([[[0, 9, "PER"]]], outputs, {"crf": crf})["f1"] == 1


def test_a_word_belongs_to_the_first_entity_that_it_overlaps() -> None:
    words = words_of("New York-based Ann")  # New, York, -, based, Ann
    assert TASK.tags_of([[0, 8, "LOC"], [15, 18, "PER"]], words).tolist() == [3, 4, 0, 0, 1]
    assert TASK.tags_of([[0, 6, "LOC"], [6, 18, "PER"]], words).tolist() == [3, 4, 1, 2, 2]
    assert TASK.tags_of([[0, 5, "LOC"], [5, 8, "PER"]], words).tolist() == [3, 4, 0, 0, 0]
    assert TASK.tags_of([[3, 4, "LOC"]], words).tolist() == [0] * 5
    assert TASK.tags_of([], np.empty((0, 2), np.int32)).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6), st.sampled_from(TYPES)), max_size=6))
def test_targets_are_sorted_and_parse_to_themselves(parts: list[tuple[int, int, str]]) -> None:
    text = "x" * 40
    raw = [[start, start + length, kind] for start, length, kind in parts]
    apart = all(a[1] <= b[0] or b[1] <= a[0] for i, a in enumerate(raw) for b in raw[:i])
    if apart:
        target = TASK.parse_label(raw, text)
        assert target == sorted(raw) == TASK.parse_label(target, text)
    else:
        with pytest.raises(BadInput, match="overlap"):
            TASK.parse_label(raw, text)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ([[0, 3, "PERS"]], "unknown entity type: PERS.*Did you mean 'PER'"),
        ([[18, 27, "LOC"]], "beyond the text's 26 characters"),
        ([{"start": 0, "end": 3, "label": "PER", "text": "Bob"}], "the text at 0:3 is 'Ann', not 'Bob'"),
        ([{"start": 0, "end": 3, "labels": ["PER", "LOC"]}], "without one type"),
        ([[0, 3]], "not an entity"),
        ([[3, 4, "PER"]], "spaces only"),
        ("Ann", "not a list of entities"),
    ],
)
def test_bad_labels_are_refused_with_the_reason(raw: object, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        TASK.parse_label(raw, TEXT)


def test_spaces_around_an_entity_do_not_count() -> None:
    assert TASK.parse_label([[9, 14, "ORG"], [17, 26, "LOC"]], TEXT) == [[10, 14, "ORG"], [18, 26, "LOC"]]


def test_labellers_combine_span_by_span() -> None:
    ann, york, new_york = [0, 3, "PER"], [22, 26, "LOC"], [18, 26, "LOC"]
    assert TASK.combine([[ann, york], [ann, new_york], [new_york]]) == [ann, new_york]
    assert TASK.combine([[york], [new_york]]) == []
    assert TASK.combine([[], [], [ann]]) == []


@pytest.mark.parametrize("labels", [(), ("PER", "PER"), ("O",), ("B-PER", "I-PER"), (" ",)])
def test_settings_name_entity_types(labels: tuple[str, ...]) -> None:
    with pytest.raises(BadConfig, match="entity types"):
        TokenClassification(TaskTable(type="token-classification", labels=labels))


def test_conversations_are_refused() -> None:
    with pytest.raises(BadConfig, match="turns of a conversation"):
        TokenClassification(TaskTable(type="token-classification", labels=("PER",), input="turns"))
