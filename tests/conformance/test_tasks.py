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
}


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
