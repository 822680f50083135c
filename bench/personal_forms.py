"""Personal data as people write it: forms by kind and country, and sentences that stand around them.

Written from how each country's own bodies and people print their numbers, not from what the recognisers take: some of
the forms are found by none of them, and the figures say so. A `#` is any digit, an `&` one from 1 to 9.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench import personal_material

PHONES: Mapping[str, Sequence[str]] = {
    "US": (
        "(415) 555-&###", "(415)555-&###", "415-555-&###", "415.555.&###", "415 555 &###", "+1 415 555 &###",
        "+1 (415) 555-&###", "+1-415-555-&###", "+1415555&###", "1-415-555-&###", "415555&###", "415 555&###",
    ),
    "UK": (
        "020 7946 0###", "(020) 7946 0###", "07700 900###", "07700 900 ###", "07700900###", "+44 20 7946 0###",
        "+44 (0)20 7946 0###", "+447700900###", "0044 7700 900###", "00447700900###", "0161 496 0###", "01632 960###",
    ),
    "DE": (
        "0171 &######", "0171/&######", "0171-&######", "0171&######", "0171 &## ## ##", "+49 171 &######",
        "+49 (0)171 &######", "+49171&######", "0049 171 &######", "030 &#####", "(030) &#######", "030 / &######",
    ),
    "FR": (
        "06 &# ## ## ##", "06.&#.##.##.##", "06-&#-##-##-##", "06&#######", "06/&#/##/##/##", "+33 6 &# ## ## ##",
        "+33 (0)6 &# ## ## ##", "+336&#######", "0033 6 &# ## ## ##", "00336&#######", "01 &# ## ## ##",
    ),
    "ES": (
        "612 ## ## ##", "612 ### ###", "612######", "612-##-##-##", "612.###.###", "91 ### ## ##", "+34 612 ### ###",
        "+34 612 ## ## ##", "+34612######", "0034 612 ### ###", "912 ## ## ##",
    ),
    "IN": (
        "98### #####", "98########", "98###-#####", "+91 98### #####", "+91-98########", "+9198########",
        "098### #####", "0091 98### #####", "011-2#######", "080 2### ####", "987 &## ####",
    ),
    "CN": (
        "138 #### ####", "138-####-####", "138########", "+86 138 #### ####", "+86138########", "0086 138########",
        "010-&#######", "(010) &#######", "021 &### ####", "86 138########",
    ),
}  # fmt: skip
OTHERS: Mapping[str, Sequence[str]] = {
    "e-mail": (
        "jane.doe##@gmail.com", "JANE##@SHOP.ORG", "j-d_##+news@mail.shop.co.uk", "o'neil##@shop.ie",
        "li##@例子.中国", "jürgen##@müller.de", "ivan##@shop.xn--p1ai", "jane##@sub-domain.shop.travel",
        "jane##@personal.example.com", "jane## (at) shop.org", "jane##@localhost",
    ),
    "ip": (
        "81.2.69.1##", "203.0.113.&", "8.8.8.&", "10.0.&#.#", "192.168.1.&#", "2a02:908:1:20::&f",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7#3&", "fe80::&ff:fe23:4567:890a", "::ffff:81.2.69.1&#",
    ),
    "credentials": (
        "https://jane:pw##@shop.example/a", "postgresql://jane:s3cret##@db.example/shop", "ftp://u:p%40##@h.example",
        "redis://:pw##@cache:6379", "https://jane:p@ss##@shop.example/", "mongodb+srv://jane:pw##@cluster.example",
        "postgres://jane:se/cret##@db.example/x",
    ),
    "us-ssn": ("123-45-&###", "123 45 &###", "12345&###"),
    "uk-nino": ("AB######C", "AB ## ## ## C", "AB-##-##-##-C", "ab######c", "AB ###### C"),
}  # fmt: skip
GROUPS: Mapping[str, Sequence[tuple[str, Sequence[int]]]] = {
    "card": ((" ", (4, 4, 4, 4)), ("-", (4, 4, 4, 4)), ("", (16,)), ("\u00a0", (4, 4, 4, 4)), (".", (4, 4, 4, 4))),
    "iban": ((" ", (4, 4, 4, 4, 4, 2)), ("", (22,)), ("-", (4, 4, 4, 4, 4, 2)), (".", (4, 4, 4, 4, 4, 2))),
    "uk-nhs": ((" ", (3, 3, 4)), ("-", (3, 3, 4)), ("", (10,))),
    "de-tax": ((" ", (2, 3, 3, 3)), ("", (11,)), ("/", (2, 3, 3, 3))),
    "fr-nir": ((" ", (1, 2, 2, 2, 3, 3, 2)), ("", (15,)), (".", (1, 2, 2, 2, 3, 3, 2)), (" ", (13, 2))),
    "es-dni": (("", (9,)), ("-", (8, 1)), (" ", (8, 1))),
    "in-aadhaar": ((" ", (4, 4, 4)), ("-", (4, 4, 4)), ("", (12,))),
    "cn-resident": (("", (18,)), (" ", (6, 8, 4))),
}
"""How numbers with check digits are put in groups: what is between them, and how long each is."""
WORDS: Mapping[str, Sequence[str]] = {
    "US": ("call me at ", "my cell: "), "UK": ("ring me on ", "mobile:"), "DE": ("Telefon: ", "erreichbar unter "),
    "FR": ("Tél. : ", "joignable au "), "ES": ("móvil ", "teléfono: "), "IN": ("WhatsApp ", "my number is "),
    "CN": ("手机: ", "电话"), "uk-nhs": ("NHS number ", "NHS no: "), "us-ssn": ("social security number ", "SSN:"),
    "in-aadhaar": ("my Aadhaar is ", "Aadhaar no. "),
}  # fmt: skip
PLACES: Mapping[str, str] = {
    "in a sentence": "please use {} from now on, thanks", "alone": "{}", "after a word and a colon": "contact:{}",
    "at the end": "you still have {}.", "in brackets": "that one ({}) is old", "in a list": "one, {}, two",
    "lines": "Jane\n{}\nBerlin", "after a number": "order 5 {}", "before a time": "{} 10:30 please",
    "before a quantity": "{} 12 pieces", "before digits": "{} 123", "twice": "{} {}", "twice, with a comma": "{},{}",
    "twice, with a slash": "{} / {}", "in Chinese": "请用{}吧", "with its word": "WORD{} thanks",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A text, and the values in it."""

    kind: str
    form: str
    place: str
    text: str
    values: Sequence[str]


def rows(seed: int, n_each: int) -> Iterator[Written]:
    """`n_each` texts of each form in each place."""
    rng = random.Random(seed)
    for kind, form, words, make in _forms():
        for place, frame in PLACES.items():
            for _ in range(n_each):
                values = [make(rng) for _ in range(frame.count("{}"))]
                said = frame.replace("WORD", rng.choice(words)).format(*values)
                yield Written(kind, form, place, said, values)


def _forms() -> Iterator[tuple[str, str, Sequence[str], Callable[[random.Random], str]]]:
    for country, forms in PHONES.items():
        for form in forms:
            yield "phone", f"{country}: {form}", WORDS[country], _filler(form)
    for kind, forms in OTHERS.items():
        for form in forms:
            yield kind, form, WORDS.get(kind, ("mine is ",)), _filler(form)
    for kind, groups in GROUPS.items():
        for between, sizes in groups:
            form = between.join("#" * size for size in sizes)
            yield kind, form, WORDS.get(kind, ("mine is ",)), _grouper(kind, between, sizes)


def _filler(form: str) -> Callable[[random.Random], str]:
    def fill(rng: random.Random) -> str:
        return re.sub("[#&]", lambda sign: str(rng.randrange(sign.group() == "&", 10)), form)

    return fill


def _grouper(kind: str, between: str, sizes: Sequence[int]) -> Callable[[random.Random], str]:
    def group(rng: random.Random) -> str:
        n = sum(sizes)
        while len(number := re.sub(r"[^0-9A-Za-z]", "", personal_material.any_of(kind, rng))) != n:
            pass
        return personal_material.grouped(number, *sizes, by=between)

    return group
