"""Texts to token ids without transformers, and the batches of like length they are predicted in.

A tokenizer file carries its own truncation (the task's `max_tokens`) and padding (the pad token), so it is all that
is needed to encode.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from headrace.errors import Damaged

TOKENIZER = "tokenizer.json"
Feed = dict[str, NDArray[np.int64]]


class Encoder:
    """Texts to the arrays a model takes. Holds no state between calls."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer: Any = Tokenizer.from_str(tokenizer.to_str())  # a copy: its padding is switched off
        self.max_tokens = int((self._tokenizer.truncation or {}).get("max_length", 0))
        self._pad_id = int((self._tokenizer.padding or {}).get("pad_id", 0))
        self._tokenizer.no_padding()  # rows are padded here, to the length of their own batch

    @classmethod
    def read(cls, path: Path) -> "Encoder":
        """The encoder of a tokenizer file.

        Raises:
            Damaged: missing or unreadable.
        """
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise Damaged(
                f"the tokenizer cannot be read: {error}", value=str(path), next_step="Export the version again"
            ) from None

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """One encoding a text, cut at `max_tokens`, not padded."""
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(list(texts))
        return encodings

    def feed(self, encodings: Sequence[Encoding], names: Sequence[str], *, multiple: int = 1) -> Feed:
        """Arrays (B, T) int64 for the model inputs `names`; T is the longest row, rounded up to `multiple`."""
        longest = max(len(e) for e in encodings)
        shape = (len(encodings), min(round_up(longest, multiple), max(longest, self.max_tokens)))
        arrays = {name: np.full(shape, self._pad_id if name == "input_ids" else 0, dtype=np.int64) for name in names}
        for i, encoding in enumerate(encodings):
            for name, array in arrays.items():
                array[i, : len(encoding)] = _values(encoding, name)
        return arrays


def _values(encoding: Encoding, name: str) -> Any:
    if name == "input_ids":
        return encoding.ids
    return 1 if name == "attention_mask" else encoding.type_ids


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def like_length_batches(lengths: Sequence[int], *, batch_tokens: int, multiple: int = 1) -> list[NDArray[np.intp]]:
    """Row numbers in batches of like length, longest first.

    A batch's padded size, rows times the longest rounded up to `multiple`, stays within `batch_tokens`; a row that is
    longer than that is a batch alone.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, start = [], 0
    while start < len(order):
        n_rows = max(1, batch_tokens // max(1, round_up(lengths[int(order[start])], multiple)))
        batches.append(order[start : start + n_rows])
        start += n_rows
    return batches
