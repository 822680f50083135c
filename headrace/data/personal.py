"""Personal data in texts that a pattern finds and, where there is one, a checksum confirms.

To add a kind: a line in RECOGNISERS. Patterns match in time that grows with the length of a text and no faster: every
repetition is bounded.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """Where something is, by characters."""

    kind: str
    start: int
    end: int


def _all(text: str) -> int:
    return len(text)


@dataclass(frozen=True)
class Recogniser:
    """A kind of personal data."""

    pattern: re.Pattern[str]
    length: Callable[[str], int] = _all
    """How many characters of what the pattern matched are such a thing; 0: it is none."""


def find(text: str) -> Iterator[Found]:
    """All that is found, kind by kind; what two kinds could be is of the earlier one in the table."""
    is_taken = bytearray()
    for kind, recogniser in RECOGNISERS.items():
        for match in recogniser.pattern.finditer(text):
            start, n = match.start(), recogniser.length(match.group())
            is_taken = is_taken or bytearray(len(text))
            if n and not any(is_taken[start : start + n]):
                is_taken[start : start + n] = b"\1" * n
                yield Found(kind, start, start + n)


def luhn(digits: str) -> bool:
    """Whether a card number's last digit fits: ISO/IEC 7812-1, annex B."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0


def _card(text: str) -> int:
    digits = re.sub(r"\D", "", text)
    return len(text) if _ISSUED.fullmatch(digits) and luhn(digits) else 0


def _iban(text: str) -> int:
    """As many characters as the country's numbers have, if the check digits fit: ISO 13616, remainder 1 by 97."""
    wanted = _IBAN_LENGTHS.get(text[:2], 0)
    places = [i for i, character in enumerate(text) if character != " "][:wanted]
    if not wanted or len(places) < wanted:
        return 0
    number = "".join(text[i] for i in places)
    rest = int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97
    after = text[places[-1] + 1 : places[-1] + 2]
    return places[-1] + 1 if rest == 1 and not after.isalnum() else 0


_ISSUED = re.compile(  # first digits and lengths of the large issuers
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|6\d{15,18}"
)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24,
    "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip

_PHONE = (
    r"(?<![\w+.])\+[1-9](?:[ ./()-]{0,2}[0-9]){7,14}(?![0-9])"  # international: ITU-T E.164, 15 digits at most
    r"|(?<![\w.-])(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?![\w-])"  # North America
    r"|(?<![\w.,-])0[1-9][0-9]{1,3}[ /-][0-9]{6,8}(?![\w-])"  # an area code, as written in much of Europe
)
RECOGNISERS = {
    "e-mail": Recogniser(
        re.compile(
            r"(?<![\w.%+-])[\w.%+-]{1,64}+@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
        )
    ),
    "iban": Recogniser(re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}+"), _iban),
    "card": Recogniser(re.compile(r"(?<![0-9A-Za-z.+-])(?:[0-9][ -]?){12,18}[0-9](?![0-9A-Za-z])"), _card),
    "phone": Recogniser(re.compile(_PHONE)),
}
