"""All kinds of personal data over one text.

Most texts hold none, which one look at each character says: all that is found has a digit or an @.
"""

import re
import unicodedata
from collections.abc import Sequence

from headrace.personal import contact, money, national, network
from headrace.personal.recogniser import NEAR_CHARS, Found, Recogniser

RECOGNISERS: tuple[Recogniser, ...] = (
    *network.CREDENTIALS,
    *contact.MAIL,
    *money.RECOGNISERS,
    *contact.INTERNATIONAL,
    *national.RECOGNISERS,
    *contact.NATIONAL,
    *national.LATER,
    *network.ADDRESSES,
)
"""What two could be is of the earlier one."""
KINDS: tuple[str, ...] = tuple(dict.fromkeys(one.kind for one in RECOGNISERS))
_HINT = re.compile("[@0-9]")
_GONE = "<"
_REACH_CHARS = 128  # more than the longest number that ends or begins there, and its words
_DIGITS = re.compile("[0-9]+")
_ODD = re.compile(  # what stands for ASCII in numbers and addresses: digits of all scripts, full width, spaces, dashes
    "(?![0-9])\\d|[\uff01-\uff5e\xa0\u1680\u2000-\u200a\u202f\u205f\u3000\u2010-\u2015\u2212\ufe58\ufe63]"
)


def _plain(odd: re.Match[str]) -> str:
    character = odd.group()
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    code = ord(character)
    if 0xFF01 <= code <= 0xFF5E:  # Unicode's full width forms of ! to ~
        return chr(code - 0xFEE0)
    return " " if character.isspace() else "-"


def in_ascii(text: str) -> str:
    """A text with ASCII for what stands for it in numbers and addresses, one for one, so that places stay."""
    return text if text.isascii() else _ODD.sub(_plain, text)


def find(text: str, recognisers: Sequence[Recogniser] = RECOGNISERS) -> list[Found]:
    """All that is found, in time that grows with the length of the text and no faster."""
    text = in_ascii(text)
    fresh = found = _found_once(text, recognisers)
    if not found:
        return []
    left, found = list(text), list(found)
    while fresh:  # what stood beside a find, and only that, may be seen now
        for one in fresh:
            left[one.start : one.end] = _GONE * (one.end - one.start)
        fresh = [one for start, end in _around(fresh) for one in _found_between(left, start, end, recognisers)]
        found += fresh
    return found


def _around(found: Sequence[Found]) -> list[tuple[int, int]]:
    """Stretches of the text near what was found, apart from each other."""
    stretches: list[tuple[int, int]] = []
    for one in sorted(found, key=lambda one: one.start):
        start, end = max(0, one.start - _REACH_CHARS), one.end + _REACH_CHARS
        if stretches and start <= stretches[-1][1]:
            start = stretches.pop()[0]
        stretches.append((start, end))
    return stretches


def _found_between(left: Sequence[str], start: int, end: int, recognisers: Sequence[Recogniser]) -> list[Found]:
    """What is found in a stretch, but not so near an end of it that what is beyond would matter."""
    least = start and start + NEAR_CHARS
    most = end - NEAR_CHARS if end < len(left) else len(left)
    found = _found_once("".join(left[start:end]), recognisers)
    moved = [Found(one.kind, start + one.start, start + one.end) for one in found]
    return [one for one in moved if least <= one.start and one.end <= most]


def _found_once(text: str, recognisers: Sequence[Recogniser]) -> list[Found]:
    if _HINT.search(text) is None:
        return []
    rows = [len(digits) for digits in _DIGITS.findall(text)]
    n_digits, longest = sum(rows), max(rows, default=0)
    found: list[Found] = []
    is_taken = bytearray()
    for recogniser in recognisers:
        if n_digits < recogniser.n_digits or longest < recogniser.n_in_a_row or recogniser.has not in text:
            continue
        if recogniser.pattern.search(text) is None:  # as mostly; what follows costs more
            continue
        for start, end in recogniser.places(text):
            is_taken = is_taken or bytearray(len(text))
            if not any(is_taken[start:end]):
                is_taken[start:end] = b"\1" * (end - start)
                found.append(Found(recogniser.kind, start, end))
    return found
