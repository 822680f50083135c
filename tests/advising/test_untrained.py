"""Ways without training on rows with known answers. Catches: chance taken for an answer, few rows that are all of one
channel or all there are, a gain on other rows, a class without rows that is answered."""

from typing import Any

import numpy as np
import pytest

from headrace.advising import untrained
from headrace.config import TaskTable
from headrace.records import SnapshotRow
from headrace.tasks import FloatArray
from headrace.tasks.text_classification import TextClassification

SETTINGS = TaskTable(type="text-classification", labels=["bad", "good", "odd"])
TASK = TextClassification(SETTINGS)
RNG = np.random.default_rng(5)
NOISE = {f"{side} {i}": RNG.normal(size=4) for side in ("train", "validation") for i in range(200)}


def rows(side: Any, n: int) -> list[SnapshotRow]:
    return [
        SnapshotRow(
            f"{side}{i}",
            "a" if i < n // 2 else "b",
            f"{side}{i}",
            f"{side} {i}",
            ("bad", "good")[i % 2],
            side,
            1.0,
            "import",
        )
        for i in range(n)
    ]


@pytest.fixture
def embeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How far apart the classes' vectors are; a label's own vector lies with its class."""
    given = {"apart": 3.0}

    def embed(_: str, texts: list[str], _task: TaskTable) -> FloatArray:
        places = {"bad": 0, "good": 1, "odd": 2}
        vectors = [np.eye(4)[places[t]] if t in places else _of(t) for t in texts]
        return np.asarray(vectors, dtype=np.float32)

    def _of(text: str) -> Any:
        return NOISE[text] + given["apart"] * np.eye(4)[int(text.split()[1]) % 2]

    known = {"embed": embed, "described": lambda settings, label: label}
    monkeypatch.setattr(untrained, "resolve", lambda path, purpose: known[path.rpartition(":")[2]])
    return given


def test_classes_that_lie_apart_are_told_above_chance(embeds: dict[str, float]) -> None:
    found = untrained.measure(TASK, SETTINGS, "any", rows("train", 200), rows("validation", 200))
    assert set(found.measured) == {"majority", "zero-shot", "few-shot", "frozen", "probe"}
    assert set(found.gains) == set(found.chance) == {"zero-shot", "few-shot"}
    for way, chance in found.chance.items():
        assert 0.45 < chance < 0.65  # of two classes, whichever way the metric counts
        assert found.measured[way]["low"] > chance
        best = max(found.measured[one]["estimate"] for one in ("frozen", "probe"))
        assert found.gains[way]["estimate"] == pytest.approx(best - found.measured[way]["estimate"])
    assert found.quality == max(one["estimate"] for one in found.measured.values())


def test_answers_without_knowledge_are_not_above_chance(embeds: dict[str, float]) -> None:
    embeds["apart"] = 0.0
    found = untrained.measure(TASK, SETTINGS, "any", rows("train", 200), rows("validation", 200))
    assert all(found.measured[way]["low"] < chance for way, chance in found.chance.items())


def test_few_rows_are_of_all_channels_and_not_all_there_are(embeds: dict[str, float]) -> None:
    places = untrained.places_of_few([row.target for row in rows("train", 200)])
    assert len(places) == 2 * untrained.FEW
    assert sum(place < 100 for place in places) == untrained.FEW
    found = untrained.measure(TASK, SETTINGS, "any", rows("train", 24), rows("validation", 50))
    assert "few-shot" not in found.measured
