"""All kinds of personal data over one text.

Most texts hold none, which one look at each character says: all that is found has a digit or an @.
"""

import re
import unicodedata
from collections.abc import Sequence

from headrace.personal import contact, money, national, network
from headrace.personal.recogniser import Found, Recogniser

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
_DIGIT = re.compile("[0-9]")
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


def find(text: str, recognisers: Sequence[Recogniser] = RECOGNISERS) -> list[Found]:
    """All that is found, recogniser by recogniser."""
    if not text.isascii():
        text = _ODD.sub(_plain, text)  # one for one, so that places stay
    found: list[Found] = []
    while more := _found_once(text, recognisers):
        found += more
        text = _without(text, more)  # what stood beside it may be seen now
    return found


def _without(text: str, found: Sequence[Found]) -> str:
    """A text with something of the same length in the place of what was found."""
    parts, at = [], 0
    for one in sorted(found, key=lambda one: one.start):
        parts += [text[at : one.start], _GONE * (one.end - one.start)]
        at = one.end
    return "".join([*parts, text[at:]])


def _found_once(text: str, recognisers: Sequence[Recogniser]) -> list[Found]:
    if _HINT.search(text) is None:
        return []
    n_digits = len(_DIGIT.findall(text))
    found: list[Found] = []
    is_taken = bytearray()
    for recogniser in recognisers:
        if n_digits < recogniser.n_digits or recogniser.has not in text:
            continue
        for start, end in recogniser.places(text):
            is_taken = is_taken or bytearray(len(text))
            if not any(is_taken[start:end]):
                is_taken[start:end] = b"\1" * (end - start)
                found.append(Found(recogniser.kind, start, end))
    return found
