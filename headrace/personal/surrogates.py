"""What stands in for a value: the same for the same value in the same channel, like it in form, and nobody's.

Derived with a secret key, so that nobody without it can try values. None is found as personal data again, so that a
text that went through the door once stays as it is. Two values share a surrogate with a chance of n^2 / 2N, n being the
values of that kind in a channel and N what the kind has room for.
"""

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from headrace.personal.finding import RECOGNISERS, find, in_ascii

_N_LETTERS = 16  # of a digest: 64 bits
_NO_SIGN = re.compile(r"[\W_]")
_GIVEN = (
    "alex", "blake", "charlie", "dana", "eden", "finley", "gray", "harper",
    "indigo", "jules", "kim", "lee", "morgan", "noel", "quinn", "robin",
)  # fmt: skip
_WHEREVER = tuple(replace(one, beside=None, unless=None) for one in RECOGNISERS)


def digest(key: bytes, *parts: str) -> str:
    """A keyed digest of some texts, in hex."""
    return hmac.digest(key, "\0".join(parts).encode("utf-8", "surrogatepass"), "sha256").hex()[:40]


def letters(key: bytes, *parts: str) -> str:
    """A keyed digest of some texts, in letters a to p alone: no number, so that it is found as none."""
    return "".join(chr(ord("a") + int(one, 16)) for one in digest(key, *parts)[:_N_LETTERS])


def normal(kind: str, value: str) -> str:
    """A value without what is only a way to write it."""
    value = in_ascii(value)
    if kind == "e-mail" or kind == "credentials":
        return value.casefold()
    if kind == "ip":
        return ipaddress.ip_address(value).compressed
    return _NO_SIGN.sub("", value).upper()


def surrogate(key: bytes, channel: str, kind: str, value: str) -> str:
    """What stands in for a value in a channel."""
    plain, value = normal(kind, value), in_ascii(value)
    if kind not in _MAKERS:
        return f"{kind}-{letters(key, channel, kind, plain)}"
    for attempt in count():  # one now and then reads like a number of another kind
        said = "\0".join((channel, kind, plain, str(attempt))).encode()
        found = _MAKERS[kind](value, int.from_bytes(hmac.digest(key, said, "sha512")))
        if not find(found, _WHEREVER):
            return found
    raise AssertionError("unreachable")


def _digits(seed: int) -> Iterator[int]:
    """Up to 150 digits."""
    while True:
        seed, digit = divmod(seed, 10)
        yield digit


def _shaped(value: str, seed: int, first: str = "", last: str = "", letter: str = "") -> str:
    """A value with other digits, its signs and letters where they were.

    Args:
        first, last: digits and letters that it begins or ends with.
        letter: in place of each other letter; empty: they stay.
    """
    digits, left, out = _digits(seed), list(first), []
    for character in value:
        if not character.isalnum():
            out.append(character)
        elif left:
            out.append(left.pop(0))
        elif character.isdecimal():
            out.append(str(next(digits)))
        else:
            out.append(letter or character)
    return "".join(out)[: len(out) - len(last)] + last


def _mail(_value: str, seed: int) -> str:
    # RFC 2606: .example is nobody's
    seed, given = divmod(seed, len(_GIVEN))
    seed, family = divmod(seed, len(_GIVEN))
    return f"{_GIVEN[given]}.{_GIVEN[family]}.{seed % 16**10:010x}@personal.example"


def _phone(_value: str, seed: int) -> str:
    # ITU-T E.164, list of assigned country codes: 999 is reserved
    return f"+999{seed % 10**11:011d}"


def _ip(_value: str, seed: int) -> str:
    # RFC 3849: 2001:db8::/32 is for documentation; version 4 has no such room
    groups = f"{seed % 16**20:020x}"
    return "2001:db8:5e0d:" + ":".join(groups[i : i + 4] for i in range(0, 20, 4))


def _iban(value: str, seed: int) -> str:
    return _shaped(value, seed, first=f"{value[:2]}00", letter="X")  # ISO 13616: check digits are 02 to 98


def _nino(value: str, seed: int) -> str:
    seed, letter = divmod(seed, 26)
    return _shaped(value, seed, first=f"Q{chr(ord('A') + letter)}")  # HMRC, NIM39110: none begins with Q


def _ssn(_value: str, seed: int) -> str:
    # areas from 900 on are no social security numbers, groups up to 49 no taxpayer numbers: IRS, Publication 1915
    return f"9{seed % 100:02d}-{seed // 100 % 50:02d}-{seed // 5000 % 10_000:04d}"


_MAKERS: dict[str, Callable[[str, int], str]] = {
    "e-mail": _mail,
    "phone": _phone,
    "ip": _ip,
    "iban": _iban,
    "card": lambda value, seed: _shaped(value, seed, first="9"),  # ISO/IEC 7812: not for payment
    "cn-resident": lambda value, seed: _shaped(value, seed, first="9"),  # GB/T 2260: no such region
    "fr-nir": lambda value, seed: _shaped(value, seed, first="9"),  # no such sex
    "in-aadhaar": lambda value, seed: _shaped(value, seed, first="1"),  # UIDAI: none begins with 1
    "de-tax": lambda value, seed: _shaped(value, seed, first="00"),  # none begins with 0 but in tests
    "uk-nhs": lambda value, seed: _shaped(value, seed, first="00"),  # none is given
    "uk-nino": _nino,
    "us-ssn": _ssn,
    "es-dni": lambda value, seed: _shaped(value, seed, last="IOU"[seed % 3]),  # letters that check nothing
}
