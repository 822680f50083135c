"""Addresses of machines, which are at home with somebody, and names and passwords in URLs."""

import ipaddress
import re

from headrace.personal.recogniser import Recogniser

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_OTHERS = re.compile(  # what is numbered in four parts too
    r"(?i)(?:\bv[ .]?|[<>=~!]=[ `]{0,2}|(?:\bver|version|release|build|firmware|driver|\brev|section|chapter|clause|"
    r"kapitel|abschnitt|update|upgrade|§)[a-z]{0,4}[ .:=#]{0,3})$"
)
_LEAST_HEX = 5  # digits of an address of version 6 that is somebody's


def _v4(text: str) -> int:
    """Neither this machine nor all."""
    return 0 if text.startswith(("0.", "127.", "255.")) else len(text)


def _v6(text: str) -> int:
    if text.endswith(":") and not text.endswith("::"):  # of the sentence
        text = text[:-1]
    if sum(c.isalnum() for c in text) < _LEAST_HEX or not any(c.isdigit() for c in text):
        return 0
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return 0
    return len(text)


CREDENTIALS = (
    Recogniser(
        "credentials",  # RFC 3986, section 3.2.1: what is before the last @ of an authority
        re.compile(r"(?<=://)(?!credentials-[a-p]{16}@)[^\s/?#<>\"']{1,128}(?=@)"),
        "postgresql://jane:secret7@db.example.org/shop",
        has="@",
    ),
)
ADDRESSES = (
    Recogniser(
        "ip",  # RFC 4291, section 2.2
        re.compile(
            rf"(?:(?<![A-Za-z0-9_:.])|(?<=[G-Zg-z]:))(?!2001:db8:5e0d:)(?:[0-9A-Fa-f]{{1,4}}|(?=::))(?::[0-9A-Fa-f]{{0,4}}){{2,7}}(?:(?<=:){_OCTET}(?:\.{_OCTET}){{3}})?"
            r"(?![A-Za-z0-9_]|:[\w:]|\.[A-Za-z0-9_])"
        ),
        "from 2a02:908:1:20::1f at night",
        _v6,
        n_digits=1,
        has=":",
    ),
    Recogniser(
        "ip",  # RFC 791
        re.compile(rf"(?<![A-Za-z0-9_.-]){_OCTET}(?:\.{_OCTET}){{3}}(?![A-Za-z0-9_-]|\.[A-Za-z0-9_])"),
        "blocked 81.2.69.142 since noon",
        _v4,
        n_digits=4,
        has=".",
        unless=_OTHERS,
    ),
)
