"""Changed copies of training rows: words swapped, deleted or replaced by a model's guess, or translated there and back.

Only the first part of a pair changes. Words are what spaces separate; a text without spaces has copies by translation
alone. Entities keep their words, their places move with the text, and a row that cannot be changed has no copy.

Dimensions: N texts.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from headrace.checkpoints.encoding import like_length_batches
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadConfig, UserError
from headrace.finetune import base_models
from headrace.records import SnapshotRow
from headrace.tasks.spans import Span

Place = tuple[int, int]
"""First character and the one after the last."""
Edit = tuple[int, int, str]
"""A place and what stands there from now on."""
_WORD = re.compile(r"\S+")
_SPACES = re.compile(r"[^\S\n]*")
_CORE = re.compile(r"\w(?:.*\w)?")  # a word without the punctuation around it
_ROLE = re.compile(r"^[^:\n]*:", re.MULTILINE)
_N_GUESSES = 5  # a replacement is drawn from so many of a model's best
_N_LOOKED_AT = 50  # of which many are pieces, or the word itself
_BATCH_TOKENS = 1024  # a model's answers are as wide as its vocabulary: 125 MB at 30,000


@dataclass(frozen=True)
class _Order:
    """A copy to be made."""

    row: SnapshotRow
    number: int
    """Counts a row's copies from 1."""
    kind: str
    words: list[Place]
    """Those that may change."""
    rng: random.Random

    @property
    def text(self) -> str:
        return self.row.text


def copies_of(
    rows: Sequence[SnapshotRow], task: TaskTable, settings: FinetuneTable, base_folder: Path
) -> list[SnapshotRow]:
    """Copies of rows, `augment.share` times as many at most; their keys end in #1, #2 and so on.

    The same seed gives the same copies.

    Raises:
        BadConfig: synonyms from a base model that cannot guess words, or translators that cannot be used.
    """
    augment = settings.augment
    if not augment.kinds or not augment.share:
        return []
    orders = _orders(rows, task, settings)
    edits: dict[int, list[Edit]] = {}
    for kind in augment.kinds:
        mine = [i for i, order in enumerate(orders) if order.kind == kind]
        edits |= zip(mine, _edits(kind, [orders[i] for i in mine], task, settings, base_folder), strict=True)
    known = {row.input for row in rows}
    copies = []
    for i, order in enumerate(orders):
        copy = _copy(order, edits[i], has_spans=task.type == "token-classification")
        if copy.text.strip() and copy.input not in known:
            known.add(copy.input)
            copies.append(copy)
    return copies


def _orders(rows: Sequence[SnapshotRow], task: TaskTable, settings: FinetuneTable) -> list[_Order]:
    augment, n_rows = settings.augment, len(rows)
    turn = list(range(n_rows))
    random.Random(f"{settings.seed} copies").shuffle(turn)
    orders = []
    for i in range(round(augment.share * n_rows)):
        row, number = rows[turn[i % n_rows]], i // n_rows + 1
        kind = augment.kinds[(i + i // n_rows) % len(augment.kinds)]  # a row's next copy is of the next kind
        rng = random.Random(f"{settings.seed} {row.example_id} {number}")
        orders.append(_Order(row, number, kind, free_words(row, task), rng))
    return orders


def free_words(row: SnapshotRow, task: TaskTable) -> list[Place]:
    """The words of a row's text that may change: no part of an entity, and no mark of who speaks."""
    kept = [(start, end) for start, end, _ in row.target] if task.type == "token-classification" else []
    if task.input == "turns":
        kept += [match.span() for match in _ROLE.finditer(row.text)]
    words = [match.span() for match in _WORD.finditer(row.text)]
    return [word for word in words if not any(start < word[1] and word[0] < end for start, end in kept)]


def _edits(
    kind: str, orders: Sequence[_Order], task: TaskTable, settings: FinetuneTable, base_folder: Path
) -> list[list[Edit]]:
    """What changes in each copy; nothing, where nothing can."""
    share = settings.augment.word_share
    if not orders:
        return []
    if kind == "swap":
        return [_swaps(order, share) for order in orders]
    if kind == "delete":
        return [_deletions(order, share) for order in orders]
    if kind == "synonym":
        return _synonyms(orders, share, MaskedWords(base_folder, max_tokens=task.max_tokens))
    return _translations(orders, settings.augment.translators, has_spans=task.type == "token-classification")


def _n_words(order: _Order, share: float) -> int:
    return max(1, round(share * len(order.words)))


def _swaps(order: _Order, share: float) -> list[Edit]:
    """Pairs of words trade places. Source: Wei and Zou 2019, "EDA: Easy Data Augmentation Techniques", section 2."""
    n_pairs = min((_n_words(order, share) + 1) // 2, len(order.words) // 2)
    drawn = order.rng.sample(order.words, 2 * n_pairs)
    edits = []
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        edits += [(*one, order.text[slice(*other)]), (*other, order.text[slice(*one)])]
    return edits


def _deletions(order: _Order, share: float) -> list[Edit]:
    """Words go, with the spaces after them, but one at least stays. Source: Wei and Zou 2019, section 2."""
    n = max(0, min(_n_words(order, share), len(order.words) - 1))
    edits = []
    for start, end in order.rng.sample(order.words, n):
        spaces = _SPACES.match(order.text, end)
        edits.append((start, spaces.end() if spaces else end, ""))
    return edits


def _synonyms(orders: Sequence[_Order], share: float, model: "MaskedWords") -> list[list[Edit]]:
    asked: list[tuple[int, Place]] = []
    for i, order in enumerate(orders):
        for word in order.rng.sample(order.words, min(_n_words(order, share), len(order.words))):
            if core := _CORE.search(order.text[slice(*word)]):
                asked.append((i, (word[0] + core.start(), word[0] + core.end())))
    guesses = model.guess([(orders[i].text, place) for i, place in asked])
    edits: list[list[Edit]] = [[] for _ in orders]
    for (i, place), words in zip(asked, guesses, strict=True):
        if words:
            edits[i].append((*place, orders[i].rng.choice(words)))
    return edits


def _translations(orders: Sequence[_Order], translators: Sequence[str], *, has_spans: bool) -> list[list[Edit]]:
    """Source: Sennrich et al. 2016, "Improving Neural Machine Translation Models with Monolingual Data", section 3."""
    if len(translators) != 2:
        raise BadConfig(
            "back-translation needs two translation models, there and back",
            value=list(translators),
            next_step='Set finetune.augment.translators = ["DIRECTORY OR NAME", "DIRECTORY OR NAME"]',
        )
    free = [i for i, order in enumerate(orders) if not (has_spans and order.row.target)]  # entities would be lost
    texts = [orders[i].text for i in free]
    for name in translators:
        texts = translated(name, texts)
    edits: list[list[Edit]] = [[] for _ in orders]
    for i, text in zip(free, texts, strict=True):
        edits[i] = [(0, len(orders[i].text), text.strip())]
    return edits


def _copy(order: _Order, edits: Sequence[Edit], *, has_spans: bool) -> SnapshotRow:
    row, mark = order.row, f"#{order.number}"
    text = applied(row.text, edits).rstrip()
    target = moved(row.target, edits) if has_spans else row.target
    return replace(row, example_id=row.example_id + mark, key=row.key + mark, text=text, target=target)


def applied(text: str, edits: Sequence[Edit]) -> str:
    """The text after edits that do not overlap."""
    parts, place = [], 0
    for start, end, new in sorted(edits):
        parts += [text[place:start], new]
        place = end
    return "".join([*parts, text[place:]])


def moved(spans: Sequence[Span], edits: Sequence[Edit]) -> list[Span]:
    """Where spans stand after edits of other places."""
    found = []
    for start, end, kind in spans:
        shift = sum(len(new) - (last - first) for first, last, new in edits if last <= start)
        found.append([start + shift, end + shift, kind])
    return found


class MaskedWords:
    """A base model's guesses of words, by the head that it was trained with.

    The model reads the text and, as its pair, the text without the word, so that it guesses words near to the one that
    stands there. Source: Qiang et al. 2020, "Lexical Simplification with Pretrained Encoders", section 3.
    """

    def __init__(self, base_folder: Path, *, max_tokens: int) -> None:
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(base_folder)
        self._model = _masked_model(base_folder, self._tokenizer)
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        self._max_tokens = min(2 * max_tokens, positions - 2)  # RoBERTa counts positions from 2
        tokens = self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))
        marks = [mark for mark in "Ġ▁" if any(token.startswith(mark) for token in tokens)]
        self._lead = marks[0] if marks else ""
        """What a vocabulary without ## begins its whole words with."""

    @torch.inference_mode()
    def guess(self, asked: Sequence[tuple[str, Place]]) -> list[list[str]]:
        """For each text and place of a word, other words that could stand there, best first; none, if it is too far."""
        mask = self._tokenizer.mask_token
        pairs = [(text, text[:start] + mask + text[end:]) for text, (start, end) in asked]
        if not pairs:
            return []
        encoded = self._tokenizer(pairs, truncation=True, max_length=self._max_tokens)
        found: list[list[str]] = [[] for _ in asked]
        for batch in like_length_batches([len(ids) for ids in encoded["input_ids"]], batch_tokens=_BATCH_TOKENS):
            own = {name: [values[i] for i in batch] for name, values in encoded.items()}  # which part is which, too
            fed = self._tokenizer.pad(own, return_tensors="pt").to(self._model.device)
            best = self._model(**fed).logits.topk(min(_N_LOOKED_AT, len(self._tokenizer))).indices
            for i, ids, tokens in zip(batch.tolist(), fed["input_ids"], best, strict=True):
                place = (ids == self._tokenizer.mask_token_id).nonzero()
                if len(place):
                    text, (start, end) = asked[i]
                    found[i] = self._words(tokens[place[-1, 0]].tolist(), text[start:end])
        return found

    def _words(self, ids: list[int], old: str) -> list[str]:
        words = []
        for token_id, token in zip(ids, self._tokenizer.convert_ids_to_tokens(ids), strict=True):
            word = self._tokenizer.decode([token_id]).strip()
            if token.startswith(self._lead) and word.isalpha() and word.lower() != old.lower():
                words.append(word.capitalize() if old.istitle() else word)
        return words[:_N_GUESSES]


def _masked_model(base_folder: Path, tokenizer: Any) -> Any:
    def refusal(problem: str) -> BadConfig:
        return BadConfig(
            f"the base model cannot guess masked words: {problem}",
            value=str(base_folder),
            next_step="Use a base model with its masked-word head, such as bert-base-uncased, distilbert-base-uncased "
            'or roberta-base as published, or leave "synonym" out of finetune.augment.kinds',
        )

    if tokenizer.mask_token_id is None:
        raise refusal("its tokenizer has no mask")
    try:
        model, info = transformers.AutoModelForMaskedLM.from_pretrained(
            base_folder, output_loading_info=True, use_safetensors=True, dtype=torch.float32
        )
    except ValueError as error:  # the library's word for a kind of model that has no such head
        raise refusal(str(error).splitlines()[0]) from None
    if info["missing_keys"]:
        raise refusal("its files hold no masked-word head")
    return model.to(_device()).eval()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@torch.inference_mode()
def translated(name: str, texts: Sequence[str]) -> list[str]:
    """Texts (N,) through a translation model, word by word the most probable.

    Raises:
        BadConfig: there is no such model, or it is none that translates.
    """
    if not texts:
        return []
    try:
        folder = base_models.find(name).folder
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32
        )
    except (UserError, ValueError, OSError) as error:
        problem = error.problem if isinstance(error, UserError) else str(error).splitlines()[0]
        raise BadConfig(
            f"no translation model that can be used: {problem}",
            value=name,
            next_step="Name directories or Hugging Face models in finetune.augment.translators",
        ) from None
    model.to(_device()).eval()
    limit = min(getattr(model.config, "max_position_embeddings", 512), 512)
    encoded = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    found = [""] * len(texts)
    for batch in like_length_batches([len(ids) for ids in encoded], batch_tokens=_BATCH_TOKENS):
        fed = tokenizer.pad({"input_ids": [encoded[i] for i in batch]}, return_tensors="pt").to(model.device)
        length = min(2 * fed["input_ids"].shape[1] + 8, limit)
        ids = model.generate(
            fed["input_ids"], attention_mask=fed["attention_mask"], max_new_tokens=length, num_beams=1, do_sample=False
        )
        for i, text in zip(batch.tolist(), tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            found[i] = text
    return found
