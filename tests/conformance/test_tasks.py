"""Every task type of the registry. Catches: labels that parse twice to different targets, metrics that reward wrong
answers or depend on row order, a figure of no rows that is a number, answers that are no JSON."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headrace.config import TaskTable
from headrace.records import Input
from headrace.tasks import TASK_TYPES
from headrace.tasks.retrieval import Retrieval
from headrace.testing.tasks import Perfect, check_task
from tasks.tokens import perfect_answers, perfect_tags

NONE_OF_ANY: list[object] = [None, "", [], {}, float("nan"), True]


@dataclass(frozen=True)
class Sample:
    settings: TaskTable
    good: list[object]
    bad: list[object]
    inputs: list[Input] | None = None
    perfect: Perfect | None = None


SAMPLES = {
    "text-classification": Sample(
        TaskTable(labels=("no", "maybe", "yes")),
        ["no", " yes ", "maybe", "yes", "no", "maybe", "yes"],
        [*NONE_OF_ANY, "ja", 1],
    ),
    "text-regression": Sample(
        TaskTable(type="text-regression"),
        ["1.5", -2, 0.25, " 3 ", 7],
        [*NONE_OF_ANY, "one", float("inf"), "nan", False],
    ),
    "text-pair": Sample(
        TaskTable(type="text-pair", labels=("same", "other")), ["same", "other", " same", "other"], [*NONE_OF_ANY, "no"]
    ),
    "multi-label": Sample(
        TaskTable(type="multi-label", labels=("late", "rude", "broken", "1")),
        [["late", "broken"], "rude", "[]", "rude|late", '["broken", "1"]', [], ["rude"], [1]],
        [*(raw for raw in NONE_OF_ANY if raw != []), "slow", ["late", "slow"], "late||rude", '["late"', [["late"]], 5],
    ),
    "retrieval": Sample(
        TaskTable(
            type="retrieval",
            labels=("send-back", "pay", "7"),
            descriptions={"send-back": "How to send back?", "pay": "How to pay?", "7": "When open?"},
        ),
        ["pay", "How to send back?", 7, "pay", " When open? "],
        [*NONE_OF_ANY, "how", 8],
    ),
    "token-classification": Sample(
        TaskTable(type="token-classification", labels=("PER", "LOC")),
        [
            [[0, 9, "PER"], [19, 24, "LOC"]],
            [{"start": 0, "end": 6, "label": "LOC"}],
            [],
            '[[8, 12, "LOC"]]',
            [{"start": 8, "end": 11, "labels": ["PER"], "text": "Ann"}],
        ],
        [*(raw for raw in NONE_OF_ANY if raw != []), "Ann", [[0, 3]], [[0, 3, "ORG"]], [[3, 3, "PER"]],
         [[0, 99, "PER"]], [[0, 9, "PER"], [4, 9, "LOC"]], [[-1, 3, "PER"]], [[0.0, 3, "PER"]], [[3, 4, "PER"]],
         [[0, 3, ["PER", "LOC"]]], [{"start": 0, "end": 3, "label": "PER", "text": "Bob"}], [None], "[[0, 3"],
        inputs=["Ann Smith lives in Paris.", "London calls", "nobody", "back to Rome", "It was, Ann"],
        perfect=perfect_tags,
    ),
    "extractive-qa": Sample(
        TaskTable(type="extractive-qa"),
        [
            {"text": ["in 1912", "1912"], "answer_start": [19, 22]},
            {"answers": []},
            "on a hill",
            "",
            {"text": "two", "start": 4},
            [{"text": "a bell", "answer_start": 4}, "bell"],
            '{"text": "no", "start": 0}',
            [],
        ],
        [None, {}, float("nan"), True, 7, "1913", "the", {"text": "in 1912", "start": 18}, {"text": "", "start": 0},
         {"text": ["in"], "answer_start": []}, ["1913"], [None], {"answers": 3}, '["in',
         {"text": "1912", "start": True}],
        inputs=[
            ("When?", "The mill was built in 1912, and the old dam before the war."),
            ("Who?", "Nobody knows."),
            ("Where?", "It stands on a hill."),
            ("Why?", "It is so."),
            ("How many?", "The two of them."),
            ("What?", "Had a bell."),
            ("Really?", "no, no"),
            ("And?", "That is all."),
        ],
        perfect=perfect_answers,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TASK_TYPES.names())
def test_task_type(name: str) -> None:
    sample = SAMPLES[name]
    check_task(
        TASK_TYPES.get(name), sample.settings, sample.good, sample.bad, inputs=sample.inputs, perfect=sample.perfect
    )


def planted(name: str, **attributes: Any) -> Any:
    """The task type with something else in place of some attributes."""
    return type("Careless", (TASK_TYPES.get(name),), attributes)


FAULTS = {
    "macro_f1 does not fall": ("text-classification", {"metrics": lambda _, t, *o: {"n": len(t), "macro_f1": 0}}),
    "does not match its own target": ("text-pair", {"answer_of": lambda self, output: "same"}),
    "of no rows is 0.0, not None": ("retrieval", {"figures": lambda self, sums: {"mrr": sums[..., 3]}}),
    "row_counts has other rows": ("retrieval", {"row_counts": lambda *a: np.repeat(Retrieval.row_counts(*a), 2, 0)}),
    "is no Auto class": ("retrieval", {"auto_class": "BertModel"}),
    "calibrate fails": ("text-regression", {"calibrate": lambda self, t, o: {} if len(t) else None}),
}  # fmt: skip


@pytest.mark.parametrize("found", FAULTS)
def test_the_check_finds_a_planted_fault(found: str) -> None:
    name, attributes = FAULTS[found]
    sample = SAMPLES[name]
    with pytest.raises(AssertionError, match=found):
        check_task(planted(name, **attributes), sample.settings, sample.good, sample.bad)
