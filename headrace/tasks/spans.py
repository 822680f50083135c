"""Tags of words and spans of entities, in both directions. No I/O, no numpy.

Read: BIO, BIOES, BILOU, IO and bare types. Every sequence of tags has a meaning, by the rules of CoNLL-2000's conlleval
(Tjong Kim Sang and Buchholz 2000, section 4): a tag that does not continue the entity before it begins one.
"""

from collections.abc import Sequence
from typing import Any

Entity = tuple[int, int, str]
"""First word, the one after the last, type."""
Span = list[Any]
"""[first character, the one after the last, type]: JSON, as targets hold it."""

_SAME = {"U": "S", "L": "E"}  # BILOU's unit and last are BIOES' single and end
_PREFIXES = "BIESUL"
OUTSIDE = "O"


def parse_tag(tag: str) -> tuple[str, str]:
    """(prefix, type) of a tag: prefix is B, I, E, S or O; a bare type counts as I.

    Raises:
        ValueError: the tag names no type.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, kind = tag.partition("-")
    if len(prefix) != 1 or prefix not in _PREFIXES:
        prefix, kind = "I", tag
    if not kind:
        raise ValueError(f"the tag {tag!r} names no entity type")
    return _SAME.get(prefix, prefix), kind


def is_tag(word: str) -> bool:
    """Whether a word is O or has the prefix of a tag."""
    return word == OUTSIDE or (len(word) > 2 and word[0] in _PREFIXES and word[1] == "-")


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of words stand for, in order.

    Raises:
        ValueError: a tag names no type.
    """
    found: list[Entity] = []
    is_open = False
    for i, tag in enumerate(tags):
        prefix, kind = parse_tag(tag)
        if prefix == OUTSIDE:
            is_open = False
            continue
        if is_open and prefix in "IE" and kind == found[-1][2]:
            found[-1] = (found[-1][0], i + 1, kind)
        else:
            found.append((i, i + 1, kind))
        is_open = prefix in "BI"
    return found


def to_tags(found: Sequence[Entity], n_words: int) -> list[str]:
    """BIO tags of words from entities that do not overlap."""
    tags = [OUTSIDE] * n_words
    for first, end, kind in found:
        tags[first:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - first - 1)
    return tags


def joined(words: Sequence[str], tags: Sequence[str]) -> tuple[str, list[Span]]:
    """Words joined by spaces, and the characters of their entities.

    Raises:
        ValueError: a tag names no type.
    """
    starts, place = [], 0
    for word in words:
        starts.append(place)
        place += len(word) + 1
    spans: list[Span] = [
        [starts[first], starts[end - 1] + len(words[end - 1]), kind] for first, end, kind in entities(tags)
    ]
    return " ".join(words), spans
