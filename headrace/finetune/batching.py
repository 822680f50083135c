"""Batches of like length under a budget of padded tokens, so that little work is spent on padding.

Dimensions: N rows, T tokens of the longest row of a batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from headrace.finetune.features import IGNORED, Feature


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches whose padded size stays within a budget, in another order each epoch.

    Rows are sorted by length and cut where `n_rows * longest` would exceed the budget. The cuts depend on the lengths
    alone, so every epoch has the same number of batches; which of the equally long rows share a batch, and the order
    of the batches, are drawn anew from (seed, epoch). A row longer than the budget is a batch of its own.

    Where places in an epoch are `slots` that features take in turn, a slot is as long as its longest feature.

    Several processes share every batch: each takes every n-th row of it, and one that is left without takes the first,
    so that all make the same steps as one process would.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_tokens: int,
        seed: int,
        shuffle: bool = True,
        process: int = 0,
        n_processes: int = 1,
        slots: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._slots = slots if slots is not None else [[i] for i in range(len(lengths))]
        self._lengths = np.asarray([max(lengths[i] for i in slot) for slot in self._slots])
        self._seed = seed
        self._shuffle = shuffle
        self._process, self._n_processes = process, n_processes
        self._epoch = 0
        self._cuts = _cuts(np.sort(self._lengths), batch_tokens)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self._seed, self._epoch))
        ties = rng.random(len(self._lengths)) if self._shuffle else np.arange(len(self._lengths))
        order = np.lexsort((ties, self._lengths))
        batches = [order[a:b].tolist() for a, b in zip(self._cuts[:-1], self._cuts[1:], strict=True)]
        turn = rng.permutation(len(batches)) if self._shuffle else np.arange(len(batches))
        for i in turn:
            own = batches[i][self._process :: self._n_processes] or batches[i][:1]
            yield [self._feature(slot) for slot in own]

    def _feature(self, slot: int) -> int:
        features = self._slots[slot]
        return features[(self._seed + self._epoch) % len(features)]


def _cuts(sorted_lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", batch_tokens: int) -> list[int]:
    cuts = [0]
    for i, length in enumerate(sorted_lengths):
        if i > cuts[-1] and (i - cuts[-1] + 1) * int(length) > batch_tokens:
            cuts.append(i)
    return [*cuts, len(sorted_lengths)]


class Features(torch.utils.data.Dataset[Feature]):
    """Features by place."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, i: int) -> Feature:
        return self._features[i]


class Padding:
    """Features to tensors, padded to the longest.

    input_ids, attention_mask and, where there are any, token_type_ids (B, T) int64; labels (B,), (B, K), or (B, T) with
    -100 for what is padded; every other number or list of numbers of a feature as it is, (B,) or (B, n).
    """

    def __init__(self, pad_id: int, problem: str) -> None:
        self._fill = {"input_ids": pad_id, "token_type_ids": 0}
        if problem == "token_classification":
            self._fill["labels"] = IGNORED

    def __call__(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        batch = {}
        for key in features[0]:
            values = [torch.as_tensor(feature[key]) for feature in features]
            if key in self._fill:
                batch[key] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=self._fill[key])
            else:
                batch[key] = torch.stack(values)
        lengths = torch.tensor([len(feature["input_ids"]) for feature in features])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1])[None, :] < lengths[:, None]).long()
        return batch
