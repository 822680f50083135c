"""Recognisers of personal data. Catches: numbers with a wrong check digit that pass, right ones that do not, a price,
a version or a date taken for a number of somebody, a pattern whose time explodes, two kinds that claim the same
characters, digits of another script that hide a number, one that hides behind the number or the word before it."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.personal import finding, money, national
from headrace.personal.recogniser import Recogniser


def kinds(text: str) -> list[tuple[str, str]]:
    return [(found.kind, text[found.start : found.end]) for found in finding.find(text)]


@pytest.mark.parametrize("recogniser", finding.RECOGNISERS, ids=lambda one: one.kind)
def test_every_line_of_the_table_finds_its_example(recogniser: Recogniser) -> None:
    (place,) = recogniser.places(recogniser.example)
    assert [(one.kind, one.start, one.end) for one in finding.find(recogniser.example)] == [(recogniser.kind, *place)]


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("write to jane.doe+x@mail.example.co.uk, please", "e-mail", "jane.doe+x@mail.example.co.uk"),
        ("o'brien@müller.de", "e-mail", "o'brien@müller.de"),
        ("call +49 (0)171 1234567 today", "phone", "+49 (0)171 1234567"),
        ("Tél. 06 12 34 56 78", "phone", "06 12 34 56 78"),
        ("(020) 7946 0958", "phone", "(020) 7946 0958"),
        ("1-800-555-0199", "phone", "1-800-555-0199"),
        ("手机13800138000", "phone", "13800138000"),
        ("\uff12 4111 1111 1111 1111", "card", "4111 1111 1111 1111"),  # the issuers' own test numbers
        ("pay 12 4111-1111-1111-1111 now", "card", "4111-1111-1111-1111"),
        ("378282246310005", "card", "378282246310005"),
        ("3782 822463 10005", "card", "3782 822463 10005"),
        ("DE89 3704 0044 0532 0130 00 THANKS", "iban", "DE89 3704 0044 0532 0130 00"),  # ISO's examples
        ("(GB82WEST12345698765432)", "iban", "GB82WEST12345698765432"),
        ("https://jane:pw@shop.example.com/a?b=c@d", "credentials", "jane:pw"),
        ("at fe80::1ff:fe23:4567:890a now", "ip", "fe80::1ff:fe23:4567:890a"),
        ("::ffff:192.0.2.128", "ip", "::ffff:192.0.2.128"),
        ("10.0.0.1:8000", "ip", "10.0.0.1"),
        ("2a02:908:1:20::1f: refused", "ip", "2a02:908:1:20::1f"),
        ("['a@b.de']", "e-mail", "a@b.de"),
        ("२३४१ २३४१ २३४६", "in-aadhaar", "२३४१ २३४१ २३४६"),  # in Devanagari digits
        ("1 84 12 76 451 089 46", "fr-nir", "1 84 12 76 451 089 46"),  # no-break spaces
        ("2 55 08 2A 123 456 46", "fr-nir", "2 55 08 2A 123 456 46"),  # of Corsica
        ("X1234567L", "es-dni", "X1234567L"),
        ("12.345.678-Z", "es-dni", "12.345.678-Z"),
        ("her NHS no: 943 476 5919", "uk-nhs", "943 476 5919"),  # NHS Data Dictionary's
        ("ab123456c", "uk-nino", "ab123456c"),
        ("social security 123 45 6789", "us-ssn", "123 45 6789"),
        ("11010519491231002x", "cn-resident", "11010519491231002x"),
    ],
)
def test_known_examples_are_found(text: str, kind: str, what: str) -> None:
    assert kinds(text) == [(kind, what)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("4111 1111 1111 1111 123", ["4111 1111 1111 1111"]),
        ("0171 2345678 12 Uhr", ["0171 2345678"]),
        ("07700 900123 10:30", ["07700 900123"]),
        ("0171/2345678 0171/9876543", ["0171/2345678", "0171/9876543"]),
        ("0171/2345678/0171/9876543", ["0171/2345678", "0171/9876543"]),
        ("0612345678,0698765432", ["0612345678", "0698765432"]),
        ("2341 2341 2346 2 copies", ["2341 2341 2346"]),
        ("2341 2341 2346 2341 2341 2346", ["2341 2341 2346", "2341 2341 2346"]),
        ("order 5 06 12 34 56 78", ["06 12 34 56 78"]),
        ("06 12 34 56 78 06 98 76 54 32", ["06 12 34 56 78", "06 98 76 54 32"]),
        ("+33 6 12 34 56 78 06 98 76 54 32", ["+33 6 12 34 56 78", "06 98 76 54 32"]),
        ("020 7946 0958 020 7946 0959", ["020 7946 0958", "020 7946 0959"]),
        ("Tel:06 12 34 56 78", ["06 12 34 56 78"]),
        ("T:020 7946 0958", ["020 7946 0958"]),
        ("mob:98765 43210", ["98765 43210"]),
        ("电话138 0013 8000是我", ["138 0013 8000"]),
        ("请拨13800138000", ["13800138000"]),
        ("Tel+33612345678", ["+33612345678"]),
        ("地址81.2.69.142", ["81.2.69.142"]),
        ("0612345678", ["0612345678"]),
        ("07700900123", ["07700900123"]),
        ("0033612345678", ["0033612345678"]),
        ("de89 3704 0044 0532 0130 00", ["de89 3704 0044 0532 0130 00"]),
        ("DE89-3704-0044-0532-0130-00", ["DE89-3704-0044-0532-0130-00"]),
        ("jane@shop.xn--p1ai", ["jane@shop.xn--p1ai"]),
        ("jane@personal.example.com", ["jane@personal.example.com"]),
        ("AB-12-34-56-C", ["AB-12-34-56-C"]),
        ("8.8.8.8 is slow", ["8.8.8.8"]),
        ("https://user:p@ss@host/x", ["user:p@ss"]),
    ],
)
def test_neighbours_hide_nothing(text: str, what: list[str]) -> None:
    found = sorted(finding.find(text), key=lambda one: one.start)
    assert [text[one.start : one.end] for one in found] == what


@pytest.mark.parametrize(
    "text",
    [
        "on 2020-03-01 at 12:00:59", "version 1.2.3.4", "x>=1.2.3.4", "12,000,000 of 1 000 000",
        "@user RT@x a@b", "555-1234",
        "4111 1111 1111 1112", "0000 0000 0000 0000", "DE89 3704 0044 0532 0130 01", "ISBN 978-3-16-148410-0",
        "1234567890123456789012345", "call me at 5", "3.14159265358979", "AA11 BB22 CC33 DD44 EE55", "v10.15.7.1",
        "order 100234567", "01.02.2024 12:30", "2024-11-22T08:15:30", "00:1a:2b:3c:4d:5e", "std::vector<int>",
        "127.0.0.1", "0.0.0.0", "firmware 10.20.30.40", "10.0.19041.1", "000-12-3456", "666-12-3456", "912-34-5678",
        "GB123456A", "QQ123456C", "12345678A", "110105194912310021", "11010519491331002X", "2341 2341 2347",
        "86095742718", "https://example.com/@jane", "3 x 12 = 36", "12/29", "€ 1.234,56", "#1234567",
        "1 023 456 789", "12 1 001 234 567", "13800138000", "1700000000", "1700000000000", "a::b",
        "12:30:45:60", "1.2.3.4.5",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert kinds(text) == []


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_one_check_digit_of_ten_fits(digits: str) -> None:
    assert sum(money.luhn(digits + str(last)) for last in range(10)) == 1
    assert sum(national.verhoeff(digits + str(last)) for last in range(10)) == 1


@given(st.text(alphabet="aB@.+- 019DE:/é２", max_size=60))
def test_finds_lie_within_the_text_and_apart(text: str) -> None:
    found = sorted(finding.find(text), key=lambda one: one.start)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


@given(st.text(max_size=80))
def test_what_one_look_passes_over_holds_nothing(text: str) -> None:
    """The first look at a text must not be stricter than the patterns."""
    plain = finding._ODD.sub(finding._plain, text)
    assert len(plain) == len(text)
    if not re.search("[@0-9]", plain):
        assert not any(list(one.places(plain)) for one in finding.RECOGNISERS)


def _adversaries(recogniser: Recogniser) -> list[str]:
    """What makes a pattern try long: its own example over and over, whole, cut, and each of its characters."""
    example = finding.in_ascii(recogniser.example)
    (start, end), *_ = recogniser.places(example)
    match = example[start:end]
    halves = [
        f"{example} ",
        match[: len(match) // 2],
        match[:-1],
        match + " ",
        match[0],
        match[-1],
        match[:4],
        match[1:],
    ]
    return [*dict.fromkeys([*halves, "1", "1 ", "1-", "0 1.", "+1", "a.", "a@a.", ":", "1:", "://a", "A1 ", "(2"])]


@pytest.mark.parametrize("recogniser", finding.RECOGNISERS, ids=lambda one: one.kind)
def test_a_million_characters_take_a_second(recogniser: Recogniser) -> None:
    """Over the table, so that a new line is tested without being mentioned. A tenth of it, to spare the tests' time;
    that it grows with the length alone, the next test says."""
    for unit in _adversaries(recogniser):
        text = unit * (100_000 // len(unit))
        started = time.process_time()
        list(recogniser.places(text))
        assert time.process_time() - started < 0.1 * 3, unit  # three times the bound: other work on this machine


MATCHES = [
    recogniser.example[start:end]
    for recogniser in finding.RECOGNISERS
    for start, end in recogniser.places(recogniser.example)
]


def _seconds(unit: str, n: int) -> float:
    started = time.process_time()
    finding.find(unit * (n // len(unit)))
    return time.process_time() - started


@pytest.mark.parametrize("unit", ["a", "a@", "a.a@a.a", "1 ", "1-", "+1 ", "AA11 ", "(2", "4111-", "1:", *MATCHES])
@pytest.mark.parametrize("between", [" ", "-"])
def test_time_grows_with_the_length_alone(unit: str, between: str) -> None:
    """All kinds together, of a text that is one find after the other, or looks like that."""
    short, long = (_seconds(unit + between, n) for n in (4_000, 16_000))
    assert long < 0.1 + 6 * short  # of 4 by the length, 16 where it is its square


def test_finds_that_uncover_each_other_take_their_length() -> None:
    """Each number is seen once the one before it is gone: as many looks as there are numbers, each near it alone."""
    uncovered = Recogniser("phone", re.compile(r"(?<![0-9] )12345(?! 6)"), "12345")
    for n in (4_000, 16_000):
        text = "12345 " * (n // 6)
        started = time.process_time()
        found = finding.find(text, [uncovered])
        seconds = time.process_time() - started
        assert len(found) == n // 6
        assert seconds < n * 100e-6  # each costs some 50 us; a look at the whole text would cost milliseconds


@given(st.lists(st.sampled_from([*MATCHES, " ", " ", ",", "-", ":", "7", "tel ", "号"]), max_size=12).map("".join))
def test_nothing_is_left_to_find(text: str) -> None:
    left = list(text)
    for one in finding.find(text):
        left[one.start : one.end] = "<" * (one.end - one.start)
    assert finding.find("".join(left)) == []
