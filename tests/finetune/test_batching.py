"""Token-budget batches. Catches: a row lost or twice, a batch over budget, another number of batches each epoch (which
breaks resuming), the same order each epoch, padding where text should be."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.finetune.batching import Padding, TokenBudgetSampler

LENGTHS = st.lists(st.integers(1, 128), min_size=1, max_size=300)


@given(LENGTHS, st.integers(16, 1024), st.integers(0, 5))
def test_each_row_once_within_budget_and_steady_in_number(lengths: list[int], budget: int, epoch: int) -> None:
    sampler = TokenBudgetSampler(lengths, batch_tokens=budget, seed=1)
    n_first = len(list(sampler))
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == n_first == len(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS)
def test_like_lengths_share_a_batch(lengths: list[int]) -> None:
    batches = list(TokenBudgetSampler(lengths, batch_tokens=256, seed=0, shuffle=False))
    spans = [(min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in batches]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_epochs_differ_and_repeat() -> None:
    lengths = [5] * 200
    sampler = TokenBudgetSampler(lengths, batch_tokens=100, seed=7)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_padding_keeps_ids_and_masks_the_rest() -> None:
    rows = [{"input_ids": [7, 8, 9], "labels": 1}, {"input_ids": [5], "labels": 0}]
    batch = Padding(0, "single_label_classification")(rows)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].dtype == torch.long
