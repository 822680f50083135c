"""Labels as Label Studio writes them, there and back. Catches: a span shifted by an emoji, a label lost or changed on
the way, the wrong control of a page, a labelling config that reads files or fills the memory."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import TaskTable
from headrace.data.label_studio import Control, config_for, control_for, label_of, read_config, results_of
from headrace.errors import BadInput
from headrace.tasks import TASK_TYPES, TaskType

WORDS = ("good & fast", "bad/slow", 'so "so"')
CHARS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARS, min_size=1, max_size=30)


def task_type(name: str, **settings: Any) -> TaskType:
    labels = () if name in ("text-regression", "extractive-qa") else WORDS
    found: TaskType = TASK_TYPES.get(name)(TaskTable(type=name, labels=labels, **settings))
    return found


def there_and_back(of: TaskType, target: Any, text: str) -> Any:
    control = control_for(read_config(config_for(of)), of)
    results = json.loads(json.dumps(results_of(target, control, text, result_id="prd_1")))
    assert len({one["id"] for one in results}) == len(results)
    return of.parse_label(label_of(results, control.name, control.kind, text), text)


@pytest.mark.parametrize("name", ["text-classification", "text-pair"])
@pytest.mark.parametrize("label", WORDS)
def test_classes_come_back(name: str, label: str) -> None:
    assert there_and_back(task_type(name), label, "text") == label


@given(st.lists(st.sampled_from(WORDS), unique=True, min_size=1))
def test_several_labels_come_back(labels: list[str]) -> None:
    assert there_and_back(task_type("multi-label"), labels, "text") == sorted(labels, key=WORDS.index)


@given(st.floats(-1e6, 1e6))
def test_numbers_come_back(value: float) -> None:
    assert there_and_back(task_type("text-regression"), value, "text") == value


@given(st.lists(st.tuples(TEXTS, st.sampled_from([*WORDS, None])), min_size=1, max_size=6))
def test_spans_come_back_whatever_the_characters(parts: list[tuple[str, str | None]]) -> None:
    text, spans = "", []
    for part, label in parts:
        if label is not None and part.strip():
            start = len(text) + len(part) - len(part.lstrip())
            spans.append([start, start + len(part.strip()), label])
        text += part
    assert there_and_back(task_type("token-classification"), spans, text) == spans


@given(TEXTS, TEXTS, TEXTS)
def test_answers_come_back(before: str, answer: str, after: str) -> None:
    text = f"{before}{answer}{after}"
    target = {"answers": [{"text": answer, "start": len(before)}] if answer.strip() else []}
    assert there_and_back(task_type("extractive-qa"), target, text) == target


def test_an_entry_of_a_catalogue_comes_back(tmp_path: Path) -> None:
    of = task_type("retrieval", descriptions={word: f"text of {word}" for word in WORDS})
    assert there_and_back(of, WORDS[1], "text") == WORDS[1]


def test_nothing_found_is_a_label_of_spans_and_no_result_of_classes() -> None:
    assert there_and_back(task_type("token-classification"), [], "text") == []
    choices = Control("label", "text", "choices", WORDS)
    assert results_of([], choices, "text", result_id="x") == results_of(None, choices, "text", result_id="x") == []
    assert results_of("not offered", choices, "text", result_id="x") == []


@pytest.mark.parametrize(
    ("kind", "target", "value"),
    [("rating", 3.6, {"rating": 4}), ("taxonomy", ["a/b", "c"], {"taxonomy": [["a", "b"], ["c"]]})],
)
def test_other_controls_are_written(kind: str, target: Any, value: dict[str, Any]) -> None:
    (found,) = results_of(target, Control("it", "text", kind), "text", result_id="x")
    assert found == {"id": "x", "from_name": "it", "to_name": "text", "type": kind, "value": value}


CONFIG = """<View>
  <Header value="$title"/>
  <Text name="body" value="$mail"/>
  <Choices name="mood" toName="body"><Choice value="glad"/><Choice value="sad" alias="bad/slow"/></Choices>
  <Choices name="class" toName="body" choice="multiple"><Choice value="good &amp; fast"/><Choice value="bad/slow"/>
  </Choices>
  <Taxonomy name="tree" toName="body"><Choice value="bad"><Choice value="slow"/></Choice></Taxonomy>
  <Labels name="who" toName="body"><Label value="PER" background="red"/></Labels>
  <TextArea name="why" toName="body"/>
</View>"""


def test_the_control_that_offers_most_of_the_labels_is_the_one() -> None:
    read = read_config(CONFIG)
    assert [(one.name, one.kind, one.values) for one in read.controls] == [
        ("mood", "choices", ("glad", "bad/slow")),
        ("class", "choices", ("good & fast", "bad/slow")),
        ("tree", "taxonomy", ("bad", "bad/slow")),
        ("who", "labels", ("PER",)),
    ]
    assert read.fields == {"body": "mail"}
    assert control_for(read, task_type("text-classification")).name == "class"
    assert control_for(read, task_type("token-classification")).name == "who"
    with pytest.raises(BadInput, match=r"no control for this task: .*who \(labels\).*headrace label config"):
        control_for(read, task_type("text-regression"))


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><View>&a;</View>', "document type"),
        ('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><View/>', "document type"),
        ("<View>&undeclared;</View>", "no XML"),
        ("<View>", "no XML"),
        ("", "no XML"),
        ("\ud800", "no XML"),
        ("<View>" + " " * (1 << 20) + "</View>", "more than"),
    ],
)
def test_a_config_that_is_none_or_reaches_out_is_refused(config: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        read_config(config)


@given(st.text(st.sampled_from("<>/ \"='aViewChocesLbltNm$"), max_size=80))
def test_no_config_makes_it_fail_otherwise(config: str) -> None:
    with contextlib.suppress(BadInput):  # anything else fails the test
        read_config(config)
