"""Inputs to token ids without transformers, and the batches of like length they are predicted in.

A tokenizer file carries its own truncation (the task's `max_tokens`, from which side, and how much windows overlap) and
padding (the pad token), so it is all that is needed to encode.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput, Damaged
from headrace.records import Input
from headrace.tasks import TASK_TYPES, TaskType

TOKENIZER = "tokenizer.json"
_OVERLAP = 4  # windows share the max_tokens-th part by this; SQuAD's 128 of 384 is a third
Feed = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Window:
    """What a model reads at once: an input, or a part of one that is too long for one look."""

    row: int
    """Place of the input among those that were encoded."""
    number: int
    """Place of the window in its input."""
    encoding: Encoding

    def __len__(self) -> int:
        return len(self.encoding)


def standalone_tokenizer(tokenizer: Any, task: TaskTable) -> Tokenizer:
    """A tokenizer that cuts at the task's `max_tokens`, knows its pad token and needs no transformers.

    Conversations lose their oldest tokens, other inputs their last; tasks on tokens are read in windows that overlap.

    Raises:
        BadInput: there is no such form of it, or it has no pad token.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None or tokenizer.pad_token_id is None:
        raise BadInput(
            "the base model's tokenizer has no tokenizer.json form or no pad token",
            value=type(tokenizer).__name__,
            next_step="Choose a base model with a fast tokenizer",
        )
    alone: Tokenizer = Tokenizer.from_str(inner.to_str())
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    cut: dict[str, Any] = {"direction": "left" if task.input == "turns" else "right", "strategy": "longest_first"}
    if task_type.problem in ("token_classification", "question_answering"):
        cut |= {"direction": "right", "stride": task.max_tokens // _OVERLAP}
    if task_type.problem == "question_answering":
        cut["strategy"] = "only_second"
    alone.enable_truncation(task.max_tokens, **cut)
    alone.enable_padding(
        pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, pad_type_id=tokenizer.pad_token_type_id
    )
    return alone


def check_length(config: Any, tokenizer: Any, task: TaskTable, *, n_more: int = 0) -> None:
    """Check that a model can read the task's `max_tokens`, and `n_more` that a method adds.

    Raises:
        BadConfig: it has fewer positions.
    """
    limit = min(getattr(config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length) - n_more
    if task.max_tokens > limit:
        raise BadConfig(
            f"max_tokens is more than the model can read, which is {limit}",
            value=task.max_tokens,
            next_step=f"Set max_tokens = {limit} or less in the task's table of headrace.toml",
        )


def input_names(model: Any, tokenizer: Any) -> list[str]:
    """What a transformers model is fed: token types only where both model and tokenizer have them."""
    takes = inspect.signature(model.forward).parameters
    known = ("input_ids", "attention_mask", "token_type_ids")
    return [name for name in known if name in takes and name in tokenizer.model_input_names]


class Encoder:
    """Inputs to the arrays a model takes. Holds no state between calls."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer: Any = Tokenizer.from_str(tokenizer.to_str())  # a copy: its padding is switched off
        cut = self._tokenizer.truncation or {}
        self.max_tokens = int(cut.get("max_length", 0))
        self._has_windows = bool(cut.get("stride", 0))
        self._cuts_second = cut.get("strategy") == "only_second"
        self.pad_id = int((self._tokenizer.padding or {}).get("pad_id", 0))
        self._tokenizer.no_padding()  # rows are padded here, to the length of their own batch
        self._uncut: Any = Tokenizer.from_str(self._tokenizer.to_str()) if self._cuts_second else None
        if self._uncut is not None:
            self._uncut.no_truncation()

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

    def encode(self, inputs: Sequence[Input]) -> list[Window]:
        """The windows of each input in order, not padded: one, unless the task is read in windows and it is long."""
        if not self._has_windows:
            encodings = self._tokenizer.encode_batch_fast(list(inputs))
            return [Window(row, 0, encoding) for row, encoding in enumerate(encodings)]
        if self._cuts_second:
            inputs = [self._with_short_question(one) for one in inputs]
        found = []
        for row, encoding in enumerate(self._tokenizer.encode_batch(list(inputs))):
            parts = [encoding, *encoding.overflowing]
            found += [Window(row, number, part) for number, part in enumerate(parts)]
        return found

    def _with_short_question(self, given: Input) -> Input:
        """A pair whose first part leaves at least half of a window for the second."""
        assert isinstance(given, tuple)
        limit = self.max_tokens // 2 - _OVERLAP
        alone = self._uncut.encode(given[0], add_special_tokens=False)
        return given if len(alone) <= limit else (given[0][: alone.offsets[limit - 1][1]], given[1])

    def feed(self, windows: Sequence[Window], names: Sequence[str], *, multiple: int = 1) -> Feed:
        """Arrays (B, T) int64 for the model inputs `names`; T is the longest window, rounded up to `multiple`."""
        longest = max(len(window) for window in windows)
        shape = (len(windows), min(round_up(longest, multiple), max(longest, self.max_tokens)))
        arrays = {name: np.full(shape, self.pad_id if name == "input_ids" else 0, dtype=np.int64) for name in names}
        for i, window in enumerate(windows):
            for name, array in arrays.items():
                array[i, : len(window)] = values(window.encoding, name)
        return arrays


def values(encoding: Encoding, name: str) -> Any:
    """What an encoding says for a model input: ids, ones, or token types."""
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
