"""Rows that a model remembers. Catches: an attack that misses a model which knows its rows by heart, one that is found
to succeed where members and others are alike, a chance that is not that of random order, a gate for another channel."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import TaskTable
from headrace.evaluate import gates, membership, model_card
from headrace.records import SnapshotRow
from headrace.tasks import TASK_TYPES, TaskType

LABELS = ("negative", "positive")


def task_type(name: str = "text-classification") -> TaskType:
    made: TaskType = TASK_TYPES.get(name)(TaskTable(type=name, labels=() if name == "text-regression" else LABELS))
    return made


def rows(n: int, channel: str = "c", target: object = "positive") -> list[SnapshotRow]:
    return [SnapshotRow(f"{channel}{i}", channel, str(i), str(i), target, "train", 1.0, "import") for i in range(n)]


def logits_of(losses: Sequence[float]) -> np.ndarray:
    """Two logits whose cross-entropy against `positive` is the loss."""
    other = np.log(np.expm1(np.asarray(losses)))
    return np.stack([other, np.zeros_like(other)], axis=1)


def test_what_is_known_by_heart_is_told() -> None:
    rng = np.random.default_rng(0)
    mine, others = rng.uniform(0.001, 0.01, 1000), rng.uniform(0.05, 1, 1000)
    mine[:200] = rng.uniform(0.5, 1, 200)
    found = membership.measure(task_type(), rows(1000), logits_of(mine), rows(1000), logits_of(others))
    assert found is not None
    part = found["overall"]
    assert part == found["channels"]["c"]
    assert part["share"] == pytest.approx(0.8, abs=0.01)
    assert part["low"] < part["share"] < part["high"]
    assert part["false_share"] == 0.001
    assert part["chance"] < 1e-100


def test_where_nothing_is_remembered_little_is_told() -> None:
    """Of 300 draws, as few by chance as the exact figure says."""
    rng = np.random.default_rng(1)
    chances = [membership.found(rng.random(400), rng.random(400))["chance"] for _ in range(300)]
    assert sum(p < 0.001 for p in chances) <= 5  # 0.3 expected: more than 5 has a chance below 1e-6
    assert sum(p < 0.2 for p in chances) <= 110  # 60 at most expected


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.integers(0, 4))
def test_the_chance_is_that_of_random_order(n_members: int, n_others: int, n_false: int, n_found: int) -> None:
    """Against all orders."""
    n_false, n_found = min(n_false, n_others - 1), min(n_found, n_members)
    orders = list(itertools.combinations(range(n_members + n_others), n_others))  # places of the others
    as_many = sum(order[n_false] - n_false >= n_found for order in orders)
    assert membership.chance(n_found, n_false, n_members, n_others) == pytest.approx(as_many / len(orders))


@pytest.mark.parametrize(
    ("name", "target", "near", "far"),
    [
        ("multi-label", ["positive"], [[-5.0, 5.0]], [[0.0, 0.0]]),
        ("text-regression", 2.0, [[2.01]], [[1.0]]),
        ("text-pair", "positive", [[0.0, 9.0]], [[0.0, 0.5]]),
    ],
)
def test_every_kind_of_one_loss(name: str, target: object, near: list[list[float]], far: list[list[float]]) -> None:
    mine, others = np.array(near * 20, dtype=np.float32), np.array(far * 20, dtype=np.float32)
    found = membership.measure(task_type(name), rows(20, target=target), mine, rows(20, target=target), others)
    assert found is not None
    assert found["overall"]["share"] == 1


def test_tasks_on_tokens_have_none() -> None:
    assert membership.measure(task_type("token-classification"), [], np.zeros(0), [], np.zeros(0)) is None


def test_a_sample_is_spread() -> None:
    assert membership.sample([]) == []
    assert membership.sample(range(1000)) == list(range(1000))
    found = membership.sample(range(2500))
    assert 800 <= len(found) <= 1000
    assert found[-1] >= 2490


def test_a_channel_without_others_says_nothing() -> None:
    part = membership.found(np.ones(5), np.zeros(0))
    assert part["false_share"] is None
    assert part["chance"] == 1


def _measured(share: float, chance: float) -> dict[str, object]:
    part = {"share": share, "low": 0.0, "high": 1.0, "n_members": 900, "n_others": 900, "chance": chance}
    return {"overall": part | {"false_share": 0.001}, "channels": {"web": part, "phone": part}}


@pytest.mark.parametrize(
    ("share", "chance", "passes"), [(0.06, 1e-9, False), (0.06, 0.2, True), (0.04, 1e-9, True), (0.0, 1.0, True)]
)
def test_the_gate_is_for_channels_with_personal_data(share: float, chance: float, passes: bool) -> None:
    (gate,) = gates.membership(_measured(share, chance), ["phone", "nowhere"])
    assert gate["passed"] is passes
    assert gate["channel"] == "phone"
    assert gates.membership(_measured(share, chance), []) == gates.membership(None, ["phone"]) == []


def test_the_card_warns_from_one_percent() -> None:
    assert "may learn" in model_card._remembered(_measured(0.02, 1e-9))
    assert "may learn" not in model_card._remembered(_measured(0.02, 0.5))
    assert "2.00% [0.00%, 100.00%]" in model_card._remembered(_measured(0.02, 0.5))
    assert model_card._remembered(None) == ""
