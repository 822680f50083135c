"""Batches of like length under a budget of padded tokens, so that little work is spent on padding.

Dimensions: N rows, T tokens of the longest row of a batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches whose padded size stays within a budget, in another order each epoch.

    Rows are sorted by length and cut where `n_rows * longest` would exceed the budget. The cuts depend on the lengths
    alone, so every epoch has the same number of batches; which of the equally long rows share a batch, and the order
    of the batches, are drawn anew from (seed, epoch). A row longer than the budget is a batch of its own.
    """

    def __init__(self, lengths: Sequence[int], *, batch_tokens: int, seed: int, shuffle: bool = True) -> None:
        self._lengths = np.asarray(lengths)
        self._seed = seed
        self._shuffle = shuffle
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
        for i in rng.permutation(len(batches)) if self._shuffle else range(len(batches)):
            yield batches[i]


def _cuts(sorted_lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]", batch_tokens: int) -> list[int]:
    cuts = [0]
    for i, length in enumerate(sorted_lengths):
        if i > cuts[-1] and (i - cuts[-1] + 1) * int(length) > batch_tokens:
            cuts.append(i)
    return [*cuts, len(sorted_lengths)]


class TokenizedRows(torch.utils.data.Dataset[dict[str, object]]):
    """Token ids and encoded targets, made once for all epochs."""

    def __init__(self, token_ids: list[list[int]], targets: Sequence[object]) -> None:
        self.token_ids, self.targets = token_ids, targets

    def __len__(self) -> int:
        return len(self.token_ids)

    def __getitem__(self, i: int) -> dict[str, object]:
        return {"input_ids": self.token_ids[i], "labels": self.targets[i]}


class Padding:
    """Rows to tensors, padded to the longest: input_ids and attention_mask (B, T) int64, labels (B,)."""

    def __init__(self, pad_id: int, *, is_float: bool) -> None:
        self._pad_id, self._is_float = pad_id, is_float

    def __call__(self, rows: list[dict[str, object]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self._pad_id)
        lengths = torch.tensor([len(i) for i in ids])
        mask = (torch.arange(padded.shape[1])[None, :] < lengths[:, None]).long()
        kind = torch.float32 if self._is_float else torch.long
        return {
            "input_ids": padded,
            "attention_mask": mask,
            "labels": torch.tensor([row["labels"] for row in rows], dtype=kind),
        }
