"""Vocabulary: pieces that the channels' texts do not use go, and their rows of the embeddings with them.

What stays: the commonest pieces that make up the given share of all occurrences in the texts (1: every piece that
occurs), special tokens, single characters, and what the tokenizer needs to make those. A text whose pieces all stay is
cut into the same pieces, and its logits are the same; in another text a rare word is cut into smaller pieces.

Why that is exact. WordPiece takes the longest piece that fits, and a longer one that fits now fitted before. BPE merges
by rank within what ends as one piece, and all merges that make a kept piece are kept. Unigram takes the best path, and
the best path of more is the best of fewer while it is among them. Other models of tokenizers are refused.

Gains: size and memory; speed hardly, since a row of embeddings is looked up, not computed with. Loses nothing on the
channels' own texts at share 1.
Source: Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT", arXiv 2010.05609.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer

from headrace.checkpoints.encoding import TOKENIZER
from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.compressing import Way
from headrace.finetune.methods import Plan
from headrace.tasks.inputs import as_one_text

Spec = dict[str, Any]
"""A tokenizer.json."""


def check(_network: Network, plan: Plan) -> None:
    """See that the tokenizer can be trimmed.

    Raises:
        BadInput: it is of another model than WordPiece, BPE or Unigram.
    """
    spec = json.loads(plan.tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    if model.get("type") not in _NEEDED or model.get("dropout"):
        raise BadInput(
            "the vocabulary of this tokenizer cannot be trimmed exactly",
            value=model.get("type"),
            next_step="Leave the way vocabulary out: --ways layers, --ways feed-forward",
        )


def cut(network: Network, plan: Plan, share: float) -> Any:
    check(network, plan)
    texts = _texts(plan)
    alone: Any = Tokenizer.from_str(plan.tokenizer.backend_tokenizer.to_str())
    alone.no_truncation()
    alone.no_padding()
    before = [encoding.ids for encoding in alone.encode_batch_fast(texts)]
    fixed = _fixed(network, plan.tokenizer)
    counts = Counter(i for ids in before for i in ids if i not in fixed)
    spec, kept = trimmed(json.loads(alone.to_str()), counts, share=share, fixed=fixed)
    tokenizer = _with_spec(plan.tokenizer, spec)
    place = {old: new for new, old in enumerate(kept)}
    _check_same(tokenizer, texts, before, place)
    _trim_embeddings(network, kept, place)
    return tokenizer


def trimmed(
    spec: Spec, counts: Mapping[int, int], *, share: float = 1.0, fixed: Iterable[int] = ()
) -> tuple[Spec, list[int]]:
    """A tokenizer.json with fewer pieces, and the ids that stay, in the order of their new ids.

    Args:
        counts: id to how often it occurs.
        share: of all occurrences that whole pieces must make up.
        fixed: ids that stay whatever the counts say.
    """
    model = spec["model"]
    ids = _ids_of(model)
    added = {one["content"]: one["id"] for one in spec.get("added_tokens", [])}
    common = _commonest(counts, share)
    pieces = {piece for piece, i in ids.items() if i in common}
    kept = _NEEDED[model["type"]](model, ids, pieces)
    stay = {ids[piece] for piece in kept} | set(added.values()) | set(fixed) | _named(spec.get("post_processor"))
    stay &= set(ids.values()) | set(added.values())
    order = sorted(stay)
    place = {old: new for new, old in enumerate(order)}
    smaller = {**spec, "model": _smaller(model, ids, place)}
    smaller["added_tokens"] = [{**one, "id": place[one["id"]]} for one in spec.get("added_tokens", [])]
    smaller["post_processor"] = _renumbered(spec.get("post_processor"), place)
    if spec.get("padding"):
        smaller["padding"] = {**spec["padding"], "pad_id": place[spec["padding"]["pad_id"]]}
    return smaller, order


def _ids_of(model: Spec) -> dict[str, int]:
    vocab = model["vocab"]
    return {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)


def _commonest(counts: Mapping[int, int], share: float) -> set[int]:
    """The fewest ids that make up a share of all occurrences."""
    found: set[int] = set()
    wanted, n_covered = share * sum(counts.values()), 0
    for i, n in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if n_covered >= wanted:
            break
        found.add(i)
        n_covered += n
    return found


def _of_word_piece(model: Spec, ids: Mapping[str, int], pieces: set[str]) -> set[str]:
    prefix = model["continuing_subword_prefix"]
    single = {piece for piece in ids if len(piece.removeprefix(prefix)) == 1}
    return pieces | single | {model["unk_token"]}


def _of_bpe(model: Spec, ids: Mapping[str, int], pieces: set[str]) -> set[str]:
    """With the pieces that kept ones are merged of, by every way to merge them."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    single = {piece for piece in ids if len(piece.removeprefix(prefix).removesuffix(suffix)) <= 1 or _is_byte(piece)}
    made_of: dict[str, list[tuple[str, str]]] = {}
    for left, right in map(_pair, model["merges"]):
        made_of.setdefault(left + right.removeprefix(prefix), []).append((left, right))
    kept, waiting = set(), [*(pieces | single)]
    while waiting:
        piece = waiting.pop()
        if piece not in kept:
            kept.add(piece)
            waiting += [part for pair in made_of.get(piece, []) for part in pair]
    return kept | ({model["unk_token"]} if model.get("unk_token") in ids else set())


def _of_unigram(model: Spec, ids: Mapping[str, int], pieces: set[str]) -> set[str]:
    """With the worst piece: what an unknown character costs hangs on its score."""
    worst = min(model["vocab"], key=lambda one: one[1])[0]
    unknown = {model["vocab"][model["unk_id"]][0]} if model.get("unk_id") is not None else set()
    return pieces | unknown | {worst} | {piece for piece in ids if len(piece) == 1 or _is_byte(piece)}


_NEEDED: dict[str, Callable[[Spec, Mapping[str, int], set[str]], set[str]]] = {
    "WordPiece": _of_word_piece,
    "BPE": _of_bpe,
    "Unigram": _of_unigram,
}
"""Pieces to all that must stay for them, by model of tokenizer."""


def _is_byte(piece: str) -> bool:
    """Such as <0x0A>, which stands for a byte of a character that has no piece."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _smaller(model: Spec, ids: Mapping[str, int], place: Mapping[int, int]) -> Spec:
    if model["type"] == "Unigram":
        vocab = [one for i, one in enumerate(model["vocab"]) if i in place]
        unknown = model.get("unk_id")
        return {**model, "vocab": vocab, "unk_id": None if unknown is None else place[unknown]}
    kept = {piece: place[i] for piece, i in ids.items() if i in place}
    if model["type"] == "WordPiece":
        return {**model, "vocab": kept}
    prefix = model.get("continuing_subword_prefix") or ""
    pairs = [(merge, *_pair(merge)) for merge in model["merges"]]
    merges = [m for m, a, b in pairs if a in kept and b in kept and a + b.removeprefix(prefix) in kept]
    return {**model, "vocab": kept, "merges": merges}


def _named(processor: Any) -> set[int]:
    """Ids that a post-processor puts around texts."""
    if not processor:
        return set()
    found = {processor[key][1] for key in ("cls", "sep") if key in processor}
    found |= {i for one in processor.get("special_tokens", {}).values() for i in one["ids"]}
    return found.union(*map(_named, processor.get("processors", [])))


def _renumbered(processor: Any, place: Mapping[int, int]) -> Any:
    """A post-processor whose special tokens have their new ids."""
    if not processor:
        return processor
    found = dict(processor)
    if "processors" in found:
        found["processors"] = [_renumbered(one, place) for one in found["processors"]]
    for key in ("cls", "sep"):
        if key in found:
            found[key] = [found[key][0], place[found[key][1]]]
    if "special_tokens" in found:
        found["special_tokens"] = {
            name: {**one, "ids": [place[i] for i in one["ids"]]} for name, one in found["special_tokens"].items()
        }
    return found


def _texts(plan: Plan) -> list[str]:
    """Every text of the channels that nothing is measured on, and what stands for labels.

    Without the validation side's: its words would all stay, and it could not tell what new words lose.
    """
    train, validation = (
        [part for row in rows for part in ((row.input,) if isinstance(row.input, str) else row.input)]
        for rows in (plan.train, plan.validation)
    )
    measured = {as_one_text(row.input) for row in plan.validation} | set(validation)
    others = [text for text in plan.unlabelled if text not in measured]
    return list(dict.fromkeys([*others, *train, *plan.task.labels, *plan.task.descriptions.values()]))


def _fixed(network: Network, tokenizer: Any) -> set[int]:
    """Ids that must stay: special ones, and all up to the pad's where positions are counted from it (RoBERTa)."""
    fixed = set(tokenizer.all_special_ids)
    counts_from_pad = hasattr(getattr(network.encoder, "embeddings", None), "padding_idx")
    return fixed | (set(range(tokenizer.pad_token_id + 1)) if counts_from_pad else set())


def _with_spec(tokenizer: Any, spec: Spec) -> Any:
    """The same kind of tokenizer around another tokenizer.json."""
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        (Path(place) / TOKENIZER).write_text(json.dumps(spec, ensure_ascii=False), "utf-8")
        settings = Path(place) / "tokenizer_config.json"
        known = json.loads(settings.read_text("utf-8"))
        known.pop("added_tokens_decoder", None)  # by their old ids; tokenizer.json has them too
        settings.write_text(json.dumps(known, ensure_ascii=False), "utf-8")
        return AutoTokenizer.from_pretrained(place)


def _check_same(
    tokenizer: Any, texts: Sequence[str], before: Sequence[Sequence[int]], place: Mapping[int, int]
) -> None:
    """See that texts whose pieces all stay are cut into the same pieces.

    Raises:
        BadInput: one is not; the library makes something else of the smaller tokenizer.
    """
    alone: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    alone.no_truncation()
    alone.no_padding()
    for text, old, new in zip(texts, before, alone.encode_batch_fast(texts), strict=True):
        if all(i in place for i in old) and [place[i] for i in old] != new.ids:
            raise BadInput(
                "the trimmed tokenizer cuts a text into other pieces, so this tokenizer cannot be trimmed",
                value=text,
                next_step="Leave the way vocabulary out: --ways layers, --ways feed-forward",
            )


def _trim_embeddings(network: Network, kept: Sequence[int], place: Mapping[int, int]) -> None:
    old = network.model.get_input_embeddings()
    pad = None if old.padding_idx is None else place.get(old.padding_idx)
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=pad)
    with torch.no_grad():
        new.weight.copy_(old.weight[list(kept)])
    network.model.set_input_embeddings(new)
    config = network.config
    config.vocab_size = len(kept)
    for key, value in config.to_dict().items():
        if key.endswith("_token_id") and isinstance(value, int):
            setattr(config, key, place.get(value))


WAY = Way(cut=cut, share=1.0, loses=False, check=check)
