"""Tags to entities against seqeval, and back. Catches: an entity one word off, BILOU read as BIO, an
I- of another type that continues, offsets that forget the space."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from headrace.tasks.spans import entities, joined, parse_tag, to_tags

TYPES = ("PER", "LOC", "work-title")


def tags_over(prefixes: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["O", *(f"{p}-{kind}" for p in prefixes for kind in TYPES)]), max_size=12)


@given(tags_over("BI") | tags_over("BIES") | tags_over("I"))
def test_entities_are_seqevals(tags: list[str]) -> None:
    expected = [(first, last + 1, kind) for kind, first, last in get_entities(tags)]
    assert entities(tags) == expected


@given(tags_over("BIES"))
def test_bilou_reads_as_bioes(tags: list[str]) -> None:
    bilou = [tag.replace("E-", "L-", 1) if tag[0] == "E" else "U" + tag[1:] if tag[0] == "S" else tag for tag in tags]
    assert entities(bilou) == entities(tags)


@given(tags_over("I"))
def test_bare_types_read_as_io(tags: list[str]) -> None:
    assert entities([tag.removeprefix("I-") for tag in tags]) == entities(tags)


@given(tags_over("BIES"))
def test_entities_survive_their_tags(tags: list[str]) -> None:
    found = entities(tags)
    assert entities(to_tags(found, len(tags))) == found


@given(st.lists(st.tuples(st.text("añ漢🙂", min_size=1, max_size=4), st.sampled_from(["O", "B-X", "I-X", "I-Y"]))))
def test_spans_cut_out_the_words(pairs: list[tuple[str, str]]) -> None:
    words, tags = [word for word, _ in pairs], [tag for _, tag in pairs]
    text, spans = joined(words, tags)
    cut = [text[start:end] for start, end, _ in spans]
    assert cut == [" ".join(words[first:end]) for first, end, _ in entities(tags)]
    assert text == " ".join(words)


@pytest.mark.parametrize("tag", ["B-", "I-", "U-", "", "B"])
def test_a_tag_without_a_type_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="names no entity type"):
        parse_tag(tag)
