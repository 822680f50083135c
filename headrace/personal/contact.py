"""E-mail addresses and telephone numbers."""

import re

from headrace.personal.recogniser import Recogniser, digits_of

_WORDS = re.compile(  # a number that was masked is none of them
    r"(?i)(?<!<)phone|\btel|mobil|\bcell|\bcall|\bfax|whats ?app|\bsms|\bdial|\bring\b|handy|nummer|anruf|portable|"
    r"t[eé]l[eé]|llam|m[oó]vil|电话|手机|联系|致电|फ़ोन|मोबाइल|नंबर"
)
_LEAST, _MOST = 9, 12  # digits of a number with its area code: ITU-T E.164 leaves 15 with the country's


def _with_area(text: str) -> int:
    return len(text) if _LEAST <= len(digits_of(text)) <= _MOST else 0


MAIL = (
    Recogniser(
        "e-mail",  # RFC 5321: 64 characters before the @; RFC 1035: 63 in a label
        re.compile(
            r"(?<![\w.%+-])(?<!://)[\w.%+-][\w.%+'-]{0,63}+@(?!personal\.example)[^\W_](?:[\w-]{0,62}\.){1,8}[^\W\d_]{2,24}(?![\w-])"
        ),
        "write to jane.doe+x@mail.example.co.uk, please",
        has="@",
    ),
)
INTERNATIONAL = (
    Recogniser(
        "phone",  # ITU-T E.164: 15 digits at most
        re.compile(r"(?<![\w+.])\+(?!999)[1-9](?:[ ./()-]{0,2}[0-9]){7,14}(?![0-9])"),
        "call +49 (0)171 1234567 today",
        n_digits=8,
        has="+",
    ),
    Recogniser(
        "phone",
        re.compile(r"(?<![\w+.,-])(?<![0-9] )00[1-9][0-9]{0,2}[ /-](?:[ ./()-]{0,2}[0-9]){6,12}(?![0-9])"),
        "or 0049 171 1234567 from abroad",
        n_digits=9,
    ),
)
NATIONAL = (
    Recogniser(
        "phone",  # North America: area code and exchange begin with 2 to 9
        re.compile(
            r"(?<![\w.-])(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?![\w-])"
        ),
        "or 415-555-2671.",
        n_digits=10,
    ),
    Recogniser(
        "phone",  # an area code after a 0, as in much of Europe, the rest in one piece or in groups
        re.compile(
            r"(?<![\w.,:/+-])(?<![0-9] )(?:\(0[1-9][0-9]{0,4}\) ?|0[1-9][0-9]{0,4}[ ./-])"
            r"[0-9]{2,8}(?:([ .-])[0-9]{2,6}(?:\1[0-9]{2,4}){0,3})?(?![\w-])"
        ),
        "Tel. 0171/2345678",
        _with_area,
        n_digits=9,
    ),
    Recogniser(
        "phone",  # Spain, written 3 2 2 2
        re.compile(r"(?<![\w.,:/+-])[6789][0-9]{2}([ .-])[0-9]{2}\1[0-9]{2}\1[0-9]{2}(?![\w-])"),
        "llama al 612 34 56 78",
        n_digits=9,
    ),
    Recogniser(
        "phone",  # India, written 5 5
        re.compile(r"(?<![\w.,:/+-])0?[6-9][0-9]{4}[ -][0-9]{5}(?![\w-])"),
        "98765 43210 is my number",
        n_digits=10,
    ),
    Recogniser(
        "phone",  # China, mobile, written 3 4 4
        re.compile(r"(?<![\w.,:/+-])1[3-9][0-9]([ -])[0-9]{4}\1[0-9]{4}(?![0-9-])"),
        "138 0013 8000",
        n_digits=11,
    ),
    Recogniser(
        "phone",  # in one piece, or in thousands, which may be anything: where a word says so
        re.compile(
            r"(?<![0-9A-Za-z.,+-])(?:0?[1-9][0-9]{8,10}|[6789][0-9]{2}([ .])[0-9]{3}\1[0-9]{3})(?![0-9A-Za-z-])"
        ),
        "my mobile is 07700900123",
        n_digits=9,
        beside=_WORDS,
    ),
)
