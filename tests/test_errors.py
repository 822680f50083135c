"""The tree of errors. Catches: a class that the drawing at its top lacks or tells wrong, an envelope that loses its
class, its words or its value on the way through another process."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import errors
from headrace.errors import HeadraceError, MissingExtra, UserError, from_envelope, nearest


def tree(kind: type[HeadraceError] = HeadraceError) -> list[type[HeadraceError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


RAISED = [kind for kind in tree() if kind not in (UserError, MissingExtra)]


def test_the_drawing_is_the_tree() -> None:
    """Names, parents (by indent), codes, statuses and what is retryable."""
    drawn: dict[str, tuple[str | None, str | None, int | None, bool]] = {}
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([│├└─ ]*)(\w+)\s*(.*)$", line)
        if found is None or not hasattr(errors, found[2]):
            continue
        depth = len(found[1])
        parents = [one for one in parents if one[0] < depth]
        facts = re.match(r"([a-z_]+) +(\d{3})\b *(retryable)?", found[3])
        drawn[found[2]] = (
            parents[-1][1] if parents else None,
            facts[1] if facts else None,
            int(facts[2]) if facts else None,
            bool(facts and facts[3]),
        )
        parents.append((depth, found[2]))
    assert set(drawn) == {kind.__name__ for kind in tree()}
    for kind in tree():
        parent, code, status, retryable = drawn[kind.__name__]
        assert parent == (None if kind is HeadraceError else kind.__mro__[1].__name__)
        if kind not in (HeadraceError, UserError):
            assert (code, status, retryable) == (kind.code, kind.http_status, kind.retryable), kind


def test_codes_differ() -> None:
    codes = [kind.code for kind in tree() if kind is not UserError]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(
    problem=st.text(min_size=1, max_size=50),
    value=st.none() | st.text(max_size=300) | st.integers() | st.lists(st.text(max_size=5)),
    next_step=st.text(max_size=50),
)
def test_an_envelope_comes_back_as_the_same_error(
    kind: type[HeadraceError], problem: str, value: object, next_step: str
) -> None:
    made = kind(problem, value=value, next_step=next_step)
    envelope = json.loads(json.dumps(made.envelope()))
    back = from_envelope(envelope)
    assert type(back) is kind
    assert str(back) == str(made)
    assert (back.problem, back.next_step, back.retryable) == (problem, next_step, kind.retryable)
    assert back.envelope() == envelope


def test_a_missing_extra_comes_back_too() -> None:
    made = MissingExtra("train", library="torch", purpose="training")
    back = from_envelope(json.loads(json.dumps(made.envelope())))
    assert type(back) is MissingExtra
    assert str(back) == "training needs torch, which is not installed. Run: pip install 'headrace[train]'"


def test_an_unknown_code_is_still_an_error() -> None:
    error = from_envelope({"error": {"code": "new", "message": "m", "value": None, "next_step": "", "retryable": True}})
    assert type(error) is HeadraceError


@pytest.mark.parametrize("envelope", [{}, {"error": {"code": "bad_input"}}])
def test_what_is_no_envelope_is_refused(envelope: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        from_envelope(envelope)


def test_long_values_are_cut_and_measured() -> None:
    assert str(HeadraceError("p", value="x" * 1000)).endswith("xxx... (1000 characters)")


@pytest.mark.parametrize(
    ("word", "known", "says"),
    [
        ("prot", ["port", "host"], "Did you mean 'port'?"),
        ("zzz", ["port", "host"], "Known: host, port"),
        ("x", [], "None are known yet"),
    ],
)
def test_nearest(word: str, known: list[str], says: str) -> None:
    assert nearest(word, known) == says
