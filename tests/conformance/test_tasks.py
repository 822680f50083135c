"""Every task type of the registry. Catches: labels that parse twice to different targets, metrics that reward wrong
answers or depend on row order, a figure of no rows that is a number, answers that are no JSON."""

from typing import Any

import pytest

from headrace.config import TaskTable
from headrace.tasks import TASK_TYPES
from headrace.testing.tasks import check_task

NONE_OF_ANY: list[object] = [None, "", [], {}, float("nan"), True]
SAMPLES: dict[str, tuple[TaskTable, list[object], list[object]]] = {
    "text-classification": (
        TaskTable(labels=("no", "maybe", "yes")),
        ["no", " yes ", "maybe", "yes", "no", "maybe", "yes"],
        [*NONE_OF_ANY, "ja", 1],
    ),
    "text-regression": (
        TaskTable(type="text-regression"),
        ["1.5", -2, 0.25, " 3 ", 7],
        [*NONE_OF_ANY, "one", float("inf"), "nan", False],
    ),
}


@pytest.mark.parametrize("name", TASK_TYPES.names())
def test_task_type(name: str) -> None:
    settings, good, bad = SAMPLES[name]
    check_task(TASK_TYPES.get(name), settings, good, bad)


def test_the_check_finds_a_planted_fault() -> None:
    class Careless(TASK_TYPES.get("text-classification")):  # type: ignore[misc]
        def metrics(self, targets: Any, logits: Any, *, temperature: float = 1.0) -> Any:
            return {**super().metrics(targets, logits), "macro_f1": 0.0}

    settings, good, bad = SAMPLES["text-classification"]
    with pytest.raises(AssertionError, match="macro_f1 does not fall"):
        check_task(Careless, settings, good, bad)
