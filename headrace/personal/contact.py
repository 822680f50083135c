"""E-mail addresses and telephone numbers."""

import re

from headrace.personal.recogniser import AFTER, BEFORE, Recogniser, digits_of, longest

_WORDS = re.compile(  # a number that was masked is none of them
    r"(?i)(?<!<)phone|\btel|mobil|\bmob\b|\bcell|\bcall|\bfax|whats ?app|\bsms|\bdial|\bring\b|\btext me|\breach|"
    r"contact|my (?:number|no\b)|handy|\bnummer|rufnummer|anruf|erreich|portable|joi(?:gn|ndre)|mon num|"
    r"t[eé]l[eé]|\btlf|llam|m[oó]vil|mi n[uú]m|电话|手机|联系|致电|号码|微信|फ़ोन|मोबाइल|नंबर"
)
_HAN = re.compile("[\u4e00-\u9fff]")
_LEAST, _MOST = 9, 12  # digits of a number with its area code: ITU-T E.164 leaves 15 with the country's
_MOST_OF_COUNTRY = {  # digits with the country's: national numbering plans, as the ITU lists them
    "1": 11, "33": 11, "34": 11, "39": 13, "31": 11, "41": 11, "43": 15, "44": 12, "48": 11, "49": 13, "86": 13,
    "91": 12,
}  # fmt: skip
_LEAST_ABROAD = 8
_FIVE_PAIRS = re.compile(r"0[1-9]([ ./-])[0-9]{2}(?:\1[0-9]{2}){3}(?![0-9])")  # France
# not of 1 023 456 789, nor of the groups of four of an account
_NO_GROUP = r"(?!(?<=[0-9] 0)[0-9]{2}(?: [0-9]{3})+(?![0-9]))(?!(?<=[0-9]{4} 0)[0-9]{3} [0-9]{4}(?![0-9]))"


def _with_area(text: str) -> int:
    if pairs := _FIVE_PAIRS.match(text):
        return pairs.end()
    return longest(text, lambda said: _LEAST <= len(digits_of(said)) <= _MOST)


def _abroad(text: str) -> int:
    """As much as the country's numbers have, where groups are told apart; else all."""
    digits = digits_of(text).removeprefix("00")
    most = _MOST_OF_COUNTRY.get(digits[:1]) or _MOST_OF_COUNTRY.get(digits[:2]) or len(digits)
    extra = ("(0)" in text) + 2 * text.startswith("00")
    if len(digits) < _LEAST_ABROAD:
        return 0
    return longest(text, lambda said: _LEAST_ABROAD <= len(digits_of(said)) - extra <= most) or len(text)


MAIL = (
    Recogniser(
        "e-mail",  # RFC 5321: 64 characters before the @; RFC 1035: 63 in a label; RFC 5891: xn--
        re.compile(
            r"(?<![\w.%+-])(?<!://)[\w.%+-][\w.%+'-]{0,63}+@(?!personal\.example(?![\w-]|\.\w))"
            r"[^\W_](?:[\w-]{0,62}\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])"
        ),
        "write to jane.doe+x@mail.example.co.uk, please",
        has="@",
    ),
)
INTERNATIONAL = (
    Recogniser(
        "phone",  # ITU-T E.164: 15 digits at most
        re.compile(r"\+(?:(?<![0-9_+.].)|(?<=[0-9]{3}.))(?!999)[1-9](?:[ ./()-]{0,2}[0-9]){7,14}(?![0-9])"),
        "call +49 (0)171 1234567 today",
        _abroad,
        n_digits=8,
        has="+",
    ),
    Recogniser(
        "phone",
        re.compile(
            rf"0{BEFORE}{_NO_GROUP}0(?:[1-9][0-9]{{0,2}}[ /-](?:[ ./()-]{{0,2}}[0-9]){{6,12}}(?![0-9]|-(?!00)[0-9])"
            rf"|(?:33[1-9]|34[6-9]|44[1-37]|49[1-9]|86(?=1)|91[6-9])[0-9]{{8,11}}{AFTER})"
        ),
        "or 0049 171 1234567 from abroad",
        _abroad,
        n_digits=9,
    ),
)
NATIONAL = (
    Recogniser(
        "phone",  # North America: area code and exchange begin with 2 to 9
        re.compile(
            rf"[(1-9](?:(?<=\()[2-9][0-9]{{2}}\)[ -]?|{BEFORE}(?:(?<=[2-9])[0-9]{{2}}[ .-]"
            r"|(?<=1)[ .-](?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}[ .-])))"
            rf"[2-9][0-9]{{2}}[ .-][0-9]{{4}}(?:(?=x[0-9])|{AFTER})"
        ),
        "or 415-555-2671.",
        n_digits=10,
        n_in_a_row=4,
    ),
    Recogniser(
        "phone",  # an area code after a 0, as in much of Europe, the rest in one piece or in groups
        re.compile(
            rf"[(0](?:(?<=\()0[1-9][0-9]{{0,4}}\) ?|(?<=0){BEFORE}{_NO_GROUP}[1-9][0-9]{{0,4}}(?:[./-]| [/-] | ))"
            rf"[0-9]{{2,8}}(?:([ ./-])[0-9]{{2,6}}(?:\1[0-9]{{2,4}}){{0,3}})?{AFTER}"
        ),
        "Tel. 0171/2345678",
        _with_area,
        n_digits=9,
    ),
    Recogniser(
        "phone",  # mobile numbers in one piece: UK, France, Germany; few other things are numbered from 0 on
        re.compile(rf"0{BEFORE}(?:7[0-9]{{9}}|[67][0-9]{{8}}|1[567][0-9]{{8,9}}){AFTER}"),
        "reply to 07700900123",
        n_digits=10,
        n_in_a_row=10,
    ),
    Recogniser(
        "phone",  # Spain, written 3 2 2 2
        re.compile(rf"[6789]{BEFORE}[0-9]{{2}}([ .-])[0-9]{{2}}\1[0-9]{{2}}\1[0-9]{{2}}{AFTER}"),
        "llama al 612 34 56 78",
        n_digits=9,
    ),
    Recogniser(
        "phone",  # India, written 5 5
        re.compile(rf"[06-9]{BEFORE}(?:(?<=0)[6-9]|(?<!0))[0-9]{{4}}[ -][0-9]{{5}}{AFTER}"),
        "98765 43210 is my number",
        n_digits=10,
        n_in_a_row=5,
    ),
    Recogniser(
        "phone",  # China, mobile, written 3 4 4
        re.compile(rf"1{BEFORE}[3-9][0-9]([ -])[0-9]{{4}}\1[0-9]{{4}}{AFTER}"),
        "138 0013 8000",
        n_digits=11,
        n_in_a_row=4,
    ),
    Recogniser(
        "phone",  # the same in one piece, among Chinese
        re.compile(rf"1{BEFORE}[3-9][0-9]{{9}}{AFTER}"),
        "请拨 13800138000",
        n_digits=11,
        n_in_a_row=11,
        beside=_HAN,
    ),
    Recogniser(
        "phone",  # in one piece, which may be anything: where a word says so
        re.compile(rf"[0-9]{BEFORE}(?:(?<=0)[1-9]|(?<!0))[0-9]{{8,10}}{AFTER}"),
        "my phone is 4155552671",
        n_digits=9,
        n_in_a_row=9,
        beside=_WORDS,
    ),
    Recogniser(
        "phone",  # Spain and India in other groups, the US in two: the same
        re.compile(
            rf"[2-9]{BEFORE}(?:(?<=[6789])[0-9]{{2}}([ .])[0-9]{{3}}\1[0-9]{{3,4}}"
            rf"|(?<=9)[0-9] [0-9]{{3}} [0-9]{{2}} [0-9]{{2}}|[0-9]{{2}}[ -][2-9][0-9]{{6}}){AFTER}"
        ),
        "móvil: 612 345 678",
        n_digits=9,
        beside=_WORDS,
    ),
)
