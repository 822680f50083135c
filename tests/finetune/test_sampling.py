"""Shares of channels in an epoch. Catches: epochs of other lengths (which break resuming), rows of a large channel that
never come."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import toy
from headrace.config import FinetuneTable, SamplingTable
from headrace.finetune.batching import Padding, TokenBudgetSampler
from headrace.finetune.running import tune
from headrace.finetune.sampling import shared_out, slots_of

SIZES = {"a": 90, "b": 25, "c": 5}
CHANNELS = [name for name, n in SIZES.items() for _ in range(n)]
LENGTHS = [5 + i * 7 % 23 for i in range(len(CHANNELS))]


def _epochs(n: int, table: SamplingTable) -> list[list[int]]:
    slots = slots_of(CHANNELS, LENGTHS, table)
    sampler = TokenBudgetSampler(LENGTHS, batch_tokens=100, seed=3, slots=slots)
    found = []
    for epoch in range(n):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(len(b) * max(LENGTHS[i] for i in b) <= 100 for b in batches)
        found.append([i for batch in batches for i in batch])
    return found


@pytest.mark.parametrize(
    ("table", "shares"),
    [
        (SamplingTable(), {"a": 90, "b": 25, "c": 5}),
        (SamplingTable(channels="equal"), {"a": 40, "b": 40, "c": 40}),
        # sqrt(90) : 5 : sqrt(5) = 9.487 : 5 : 2.236 of 120
        (SamplingTable(channels="temperature", temperature=2.0), {"a": 68, "b": 36, "c": 16}),
        (SamplingTable(channels="temperature", temperature=1.0), {"a": 90, "b": 25, "c": 5}),
    ],
)
def test_channels_have_their_shares_in_every_epoch(table: SamplingTable, shares: dict[str, int]) -> None:
    for rows in _epochs(3, table):
        assert Counter(CHANNELS[i] for i in rows) == shares


def test_all_rows_of_a_large_channel_come_over_the_epochs() -> None:
    first, second, third = _epochs(3, SamplingTable(channels="equal"))
    assert set(first) != set(second)
    assert set(first + second + third) == set(range(len(CHANNELS)))
    assert max(Counter(first)[i] for i in range(115, 120)) == 8


@given(st.integers(1, 300), st.lists(st.floats(0.1, 50), min_size=1, max_size=8))
@settings(deadline=None)
def test_shares_are_whole_and_lose_nothing(total: int, weights: list[float]) -> None:
    parts = shared_out(total, weights)
    assert sum(parts) == total
    assert all(abs(part - total * w / sum(weights)) < 1 for part, w in zip(parts, weights, strict=True))


@pytest.mark.slow
def test_training_goes_through_the_slots_epoch_by_epoch(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the epoch not told to the sampler, the same part of a large channel would come in every epoch."""
    seen: list[int] = []
    padded = Padding.__call__

    def noted(self: Padding, features: Any) -> Any:
        seen.extend(feature["row"] for feature in features)
        return padded(self, features)

    rows = [replace(row, channel="b" if i % 10 == 1 else "a") for i, row in enumerate(toy.rows(80))]
    train = [row for row in rows if row.side == "train"]
    monkeypatch.setattr(Padding, "__call__", noted)
    table = SamplingTable(channels="equal")
    settings = FinetuneTable(epochs=2, min_steps=0, batch_tokens=256, sampling=table, patience=9, evals_per_epoch=1)
    tune(tmp_path, tiny_base, toy.TASK, settings, rows, lambda *_a, **_f: None)
    assert set(range(len(train))) <= set(seen[: len(train)] + seen[-len(rows) :])
    first = Counter(train[i].channel for i in seen[: len(train)])
    assert first == {"a": 30, "b": 30}
