"""Recognisers of personal data. Catches: numbers with a wrong check digit that pass, right ones that do not, a price
or a date taken for a telephone, a pattern whose time explodes, two kinds that claim the same characters."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.data import personal


def kinds(text: str) -> list[tuple[str, str]]:
    return [(found.kind, text[found.start : found.end]) for found in personal.find(text)]


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("write to jane.doe+x@mail.example.co.uk, please", "e-mail", "jane.doe+x@mail.example.co.uk"),
        ("call +49 (0)171 1234567 today", "phone", "+49 (0)171 1234567"),
        ("or 415-555-2671.", "phone", "415-555-2671"),
        ("Tel. 0171/2345678", "phone", "0171/2345678"),
        ("card 4111 1111 1111 1111 exp 12/29", "card", "4111 1111 1111 1111"),  # the issuers' own test numbers
        ("378282246310005", "card", "378282246310005"),
        ("DE89 3704 0044 0532 0130 00 THANKS", "iban", "DE89 3704 0044 0532 0130 00"),  # ISO's examples
        ("(GB82WEST12345698765432)", "iban", "GB82WEST12345698765432"),
    ],
)
def test_known_examples_are_found(text: str, kind: str, what: str) -> None:
    assert kinds(text) == [(kind, what)]


@pytest.mark.parametrize(
    "text",
    [
        "on 2020-03-01 at 12:00:59", "version 1.2.3.4", "12,000,000 of 1 000 000", "@user RT@x a@b", "555-1234",
        "4111 1111 1111 1112", "0000 0000 0000 0000", "DE89 3704 0044 0532 0130 01", "ISBN 978-3-16-148410-0",
        "1234567890123456789012345", "call me at 5", "3.14159265358979", "10.0.0.1:8000", "AA11 BB22 CC33 DD44 EE55",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert kinds(text) == []


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_one_check_digit_of_ten_fits(digits: str) -> None:
    assert sum(personal.luhn(digits + str(last)) for last in range(10)) == 1


@given(st.text(alphabet="aB@.+- 019DE", max_size=60))
def test_finds_lie_within_the_text_and_apart(text: str) -> None:
    found = sorted(personal.find(text), key=lambda one: one.start)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


@pytest.mark.parametrize(
    "unit",
    ["a", "a@", "a.a@a.a", "1 ", "1-", "+1 ", "AA11 ", "(2", "a.", "0", "4111-", "@", "DE89 3704 0044 0532 0130 "],
)
def test_time_grows_with_the_length_alone(unit: str) -> None:
    seconds = []
    for n in (50_000, 200_000):
        text = unit * (n // len(unit))
        started = time.process_time()
        list(personal.find(text))
        seconds.append(time.process_time() - started)
    assert seconds[1] < 0.5 + 12 * seconds[0]  # of 4 by the length; 16 where it is its square
