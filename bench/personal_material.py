"""Texts with personal data planted in them, and texts with numbers that are nobody's, made from a seed.

Check digits are found by trying: of the numbers that differ in them alone, the one that a validator takes. Validators
are those of python-stdnum where it is installed, so that the recognisers are not measured by their own arithmetic.
"""

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from headrace.personal import finding

_FRAMES = (
    "hello, {} is what i gave you last week", "please use {} from now on", "you still have {} on file",
    "why was {} refused twice?", "{}", "my details: {}. thanks", "Hi! It's {}, can you check", "({})", "update to {}!",
    "bitte notieren: {}, danke", "voici {} pour le dossier", "mi dato es {} gracias", "{} is wrong, mend it",
)  # fmt: skip
_SAID = {  # words that people put beside numbers in one piece
    "phone": ("call me on {}", "my mobile is {}", "Tel.: {}", "WhatsApp {}", "Handynummer {}", "mi móvil es {}"),
    "in-aadhaar": ("my aadhaar is {}", "Aadhaar no. {}"),
    "uk-nhs": ("NHS number {}", "my NHS no is {}"),
    "us-ssn": ("SSN: {}", "my social security number is {}"),
}
_HARD = (  # numbers of things
    lambda r: f"order {r.randrange(10**8, 10**9)} has not come",
    lambda r: f"order number {_n(r, 10)}",
    lambda r: f"invoice INV-{r.randrange(2019, 2027)}-{_n(r, 5)}",
    lambda r: f"tracking {_n(r, 12)} says lost",
    lambda r: f"parcel {_n(r, 20)}",
    lambda r: f"version {_v(r)} crashes",
    lambda r: f"since v{_v(r)} it is slow",
    lambda r: f"from release {_v(r)}",
    lambda r: f"on {_d(r)} at {_t(r)}",
    lambda r: f"{_d(r)} {_t(r)} error {_n(r, 4)}",
    lambda r: f"{r.randrange(1, 29):02d}.{r.randrange(1, 13):02d}.{r.randrange(1990, 2027)} um {_t(r)}",
    lambda r: f"paid {r.randrange(1, 999)},{r.randrange(1, 999):03d}.{_n(r, 2)} twice",
    lambda r: f"€ {_n(r, 3)}.{_n(r, 3)},00",
    lambda r: f"{r.randrange(1, 999)} {r.randrange(100, 999)} {r.randrange(100, 999)} people",
    lambda r: f"isbn 978-3-16-{_n(r, 6)}-0",
    lambda r: f"serial {_a(r, 4)}-{_a(r, 4)}-{_a(r, 4)}",
    lambda r: f"error 0x{r.randrange(16**8):08x} at {r.randrange(16**4):04x}",
    lambda r: f"mac {':'.join(f'{r.randrange(256):02x}' for _ in range(6))}",
    lambda r: f"size {_n(r, 2)}x{_n(r, 2)}x{_n(r, 2)} cm",
    lambda r: f"timestamp {1_600_000_000 + r.randrange(10**8)}",
    lambda r: f"{1_600_000_000_000 + r.randrange(10**11)} ms",
    lambda r: f"article {_n(r, 6)}{r.choice('EFGHJK')}",
    lambda r: f"ref {_n(r, 4)}-{_n(r, 4)}",
    lambda r: f"@{_a(r, 8).lower()} you rock",
    lambda r: f"ratio {r.random():.12f}",
    lambda r: f"table {r.randrange(1, 30)} at {_t(r)}",
    lambda r: "9 out of 10, 5 stars, 24/7",
    lambda r: f"card ending in {_n(r, 4)}",
    lambda r: f"std::vector<int>::at({_n(r, 2)})",
    lambda r: f"chapter {_v(r)}",
    lambda r: f"{_bad_card(r)} was no card",
    lambda r: f"batch {_n(r, 3)}-{_n(r, 2)}-{_n(r, 5)}",
    lambda r: f"in 127.0.0.1:{_n(r, 4)}",
    lambda r: f"git {r.randrange(16**10):010x}",
    lambda r: f"{_n(r, 4)} {_n(r, 4)} is the room",
    lambda r: f"flight LH{_n(r, 4)}",
    lambda r: f"article {_n(r, 8)}{r.choice(string.ascii_uppercase)}",
    lambda r: f"tracking {_n(r, 4)} {_n(r, 4)} {_n(r, 4)}",
    lambda r: f"order {_n(r, 16)}",
    lambda r: f"order {_n(r, 11)}",
    lambda r: f"order {_n(r, 15)}",
    lambda r: f"order {_n(r, 18)}",
    lambda r: f"licence {_a(r, 2)}{_n(r, 6)}{r.choice(string.ascii_uppercase)}",
    lambda r: f"meter {_n(r, 3)} {_n(r, 3)} {_n(r, 3)}",
)  # fmt: skip


def _hard(rng: random.Random) -> str:
    """A text with a number of something; of those with a check digit, as many fit as chance will have it."""
    number = _HARD[rng.randrange(len(_HARD))](rng)
    return rng.choice(_FRAMES).format(number) if rng.random() < 0.3 else number


@dataclass(frozen=True)
class Planted:
    """A text, and the value in it; empty: there is none."""

    text: str
    kind: str = ""
    value: str = ""


def rows(seed: int, n_each: int) -> list[Planted]:
    """`n_each` texts with a value of each kind, and as many texts in all with numbers that are nobody's."""
    rng = random.Random(seed)
    found = []
    for kind, make in _MAKERS.items():
        for _ in range(n_each):
            value, is_plain = make(rng)
            frame = rng.choice(_SAID[kind] if is_plain else _FRAMES)
            found.append(Planted(frame.format(value), kind, _core(kind, value)))
    found += [Planted(_hard(rng)) for _ in range(n_each * len(_MAKERS))]
    rng.shuffle(found)
    return found


def value_of(kind: str, rng: random.Random) -> str:
    """A value of a kind, in one of its forms that need no word beside them."""
    while True:
        value, is_plain = _MAKERS[kind](rng)
        if not is_plain:
            return value


def any_of(kind: str, rng: random.Random) -> str:
    """A value of a kind, in any of its forms."""
    return _MAKERS[kind](rng)[0]


def validators() -> str:
    """Whose arithmetic the numbers are by."""
    return f"python-stdnum {import_module('stdnum').__version__}" if find_spec("stdnum") else "headrace itself"


def _is_one(kind: str) -> Callable[[str], bool]:
    modules = {
        "card": "luhn", "iban": "iban", "cn-resident": "cn.ric", "fr-nir": "fr.nir", "in-aadhaar": "in_.aadhaar",
        "de-tax": "de.idnr", "uk-nhs": "gb.nhs", "us-ssn": "us.ssn", "es-dni": "es.dni", "es-nie": "es.nie",
    }  # fmt: skip
    if find_spec("stdnum"):
        module = import_module(f"stdnum.{modules[kind]}")
        return lambda number: bool(module.is_valid(number))
    of_kind = [one for one in finding.RECOGNISERS if one.kind == ("es-dni" if kind == "es-nie" else kind)]
    return lambda number: any(one.pattern.fullmatch(number) and one.length(number) for one in of_kind)


def _valid(kind: str, draw: Callable[[], str]) -> str:
    """The first number drawn that is one of the kind."""
    is_one = _is_one(kind)
    while not is_one(number := draw()):
        pass
    return number


def _n(rng: random.Random, n: int) -> str:
    return str(rng.randrange(1, 10)) + "".join(rng.choices(string.digits, k=n - 1))


def _a(rng: random.Random, n: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase + string.digits, k=n))


def _v(rng: random.Random) -> str:
    return ".".join(str(rng.randrange(40)) for _ in range(rng.choice((2, 3, 4))))


def _d(rng: random.Random) -> str:
    return f"{rng.randrange(1990, 2027)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"


def _t(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}" + rng.choice(("", f":{rng.randrange(60):02d}"))


def _bad_card(rng: random.Random) -> str:
    is_one = _is_one("card")
    while is_one(number := f"4{_n(rng, 15)}"):
        pass
    return grouped(number, 4, 4, 4, 4)


def grouped(number: str, *sizes: int, by: str = " ") -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return by.join(parts)


def _core(kind: str, value: str) -> str:
    """What of a value must not be left."""
    return value.partition("://")[2].partition("@")[0] if kind == "credentials" else value


def _mail(rng: random.Random) -> tuple[str, bool]:
    name = rng.choice(("jane", "m.weber", "li_wei", "o'brien", "ravi-k", "josé", "anna.maria", "x")) + str(
        rng.randrange(999)
    )
    host = rng.choice(
        ("gmail.com", "web.de", "mail.example.co.uk", "firma-gmbh.de", "orange.fr", "126.com", "müller.de")
    )
    return f"{name}{rng.choice(('', '+shop'))}@{host}", False


def _phone(rng: random.Random) -> tuple[str, bool]:
    n = _n
    area, line = f"{rng.randrange(2, 10)}{n(rng, 2)}", f"{rng.randrange(2, 10)}{n(rng, 2)}"
    forms: Sequence[tuple[str, bool]] = (
        (f"+1 {area} {line} {n(rng, 4)}", False),
        (f"({area}) {line}-{n(rng, 4)}", False),
        (f"{area}-{line}-{n(rng, 4)}", False),
        (f"{area}.{line}.{n(rng, 4)}", False),
        (f"1-{area}-{line}-{n(rng, 4)}", False),
        (f"{area}{line}{n(rng, 4)}", True),
        (f"+44 20 {n(rng, 4)} {n(rng, 4)}", False),
        (f"020 {n(rng, 4)} {n(rng, 4)}", False),
        (f"07{n(rng, 3)} {n(rng, 6)}", False),
        (f"07{n(rng, 9)}", True),
        (f"+447{n(rng, 9)}", False),
        (f"+49 (0)171 {n(rng, 7)}", False),
        (f"0171/{n(rng, 7)}", False),
        (f"030 {n(rng, 7)}", False),
        (f"0049 171 {n(rng, 7)}", False),
        (f"089-{n(rng, 8)}", False),
        (f"0171 {n(rng, 3)} {n(rng, 4)}", False),
        (f"06 {n(rng, 2)} {n(rng, 2)} {n(rng, 2)} {n(rng, 2)}", False),
        (f"06.{n(rng, 2)}.{n(rng, 2)}.{n(rng, 2)}.{n(rng, 2)}", False),
        (f"+33 6 {n(rng, 2)} {n(rng, 2)} {n(rng, 2)} {n(rng, 2)}", False),
        (f"06{n(rng, 8)}", True),
        (f"6{n(rng, 2)} {n(rng, 2)} {n(rng, 2)} {n(rng, 2)}", False),
        (f"+34 6{n(rng, 2)} {n(rng, 3)} {n(rng, 3)}", False),
        (f"6{n(rng, 2)} {n(rng, 3)} {n(rng, 3)}", True),
        (f"9{n(rng, 4)} {n(rng, 5)}", False),
        (f"+91-9{n(rng, 9)}", False),
        (f"9{n(rng, 9)}", True),
        (f"138 {n(rng, 4)} {n(rng, 4)}", False),
        (f"+86 138{n(rng, 8)}", False),
        (f"138{n(rng, 8)}", True),
    )  # fmt: skip
    return rng.choice(forms)


def _card(rng: random.Random) -> tuple[str, bool]:
    if rng.random() < 0.15:
        number = _valid("card", lambda: f"3{rng.choice('47')}{_n(rng, 13)}")
        return rng.choice((number, grouped(number, 4, 6, 5))), False
    number = _valid("card", lambda: rng.choice(("4", "51", "55", "2221", "6011"))[:4].ljust(4, "7") + _n(rng, 12))
    return rng.choice((number, grouped(number, 4, 4, 4, 4), grouped(number, 4, 4, 4, 4, by="-"))), False


def _iban(rng: random.Random) -> tuple[str, bool]:
    country, n = rng.choice((("DE", 18), ("FR", 23), ("ES", 20), ("NL", 0), ("GB", 0)))
    rest = f"INGB{_n(rng, 10)}" if country == "NL" else f"WEST{_n(rng, 14)}" if country == "GB" else _n(rng, n)
    whole = next(f"{country}{check:02d}{rest}" for check in range(2, 99) if _mod97(f"{country}{check:02d}{rest}") == 1)
    return rng.choice((whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4)))), False


def _mod97(number: str) -> int:
    return int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97


def _ip(rng: random.Random) -> tuple[str, bool]:
    if rng.random() < 0.3:
        groups = [f"{rng.randrange(16**4):x}" for _ in range(8)]
        short = f"2a0{rng.randrange(9)}:{groups[1]}:{groups[2]}::{groups[7]}"
        return rng.choice((":".join(["2001", *groups[1:]]), short)), False
    first, *rest = rng.choice((31, 46, 81, 109, 172, 188, 203)), rng.randrange(256), rng.randrange(1, 255)
    return (
        f"{first}.{rng.randrange(256)}.{rest[0]}.{rest[1]}",
        False,
    )


def _credentials(rng: random.Random) -> tuple[str, bool]:
    scheme = rng.choice(("https", "postgresql", "ftp", "redis"))
    return f"{scheme}://{rng.choice(('jane', 'admin', ''))}:{_a(rng, 9)}@db.example.org/x", False


def _ssn(rng: random.Random) -> tuple[str, bool]:
    number = _valid("us-ssn", lambda: _n(rng, 9))
    return rng.choice(((grouped(number, 3, 2, 4, by="-"), False), (grouped(number, 3, 2, 4), False), (number, True)))


def _nino(rng: random.Random) -> tuple[str, bool]:
    number = rng.choice(("AB", "CE", "JT", "WK", "NX")) + _n(rng, 6) + rng.choice("ABCD")
    return rng.choice((number, grouped(number, 2, 2, 2, 2, 1), number.lower())), False


def _nhs(rng: random.Random) -> tuple[str, bool]:
    number = _valid("uk-nhs", lambda: _n(rng, 10))
    return rng.choice(((number, True), (grouped(number, 3, 3, 4), False), (grouped(number, 3, 3, 4), True)))


def _steuer(rng: random.Random) -> tuple[str, bool]:
    number = _valid("de-tax", lambda: _n(rng, 11))
    return rng.choice((number, grouped(number, 2, 3, 3, 3))), False


def _nir(rng: random.Random) -> tuple[str, bool]:
    def draw() -> str:
        born = f"{rng.randrange(100):02d}{rng.randrange(1, 13):02d}"
        number = f"{rng.choice('12')}{born}{rng.randrange(1, 96):02d}{_n(rng, 6)}"
        return f"{number}{97 - int(number) % 97:02d}"

    number = _valid("fr-nir", draw)
    return rng.choice((number, grouped(number, 1, 2, 2, 2, 3, 3, 2))), False


def _dni(rng: random.Random) -> tuple[str, bool]:
    if rng.random() < 0.3:
        return _valid("es-nie", lambda: f"{rng.choice('XYZ')}{_n(rng, 7)}{rng.choice(string.ascii_uppercase)}"), False
    number = _valid("es-dni", lambda: f"{_n(rng, 8)}{rng.choice(string.ascii_uppercase)}")
    return rng.choice((number, f"{number[:8]}-{number[8]}", number.lower())), False


def _aadhaar(rng: random.Random) -> tuple[str, bool]:
    number = _valid("in-aadhaar", lambda: f"{rng.randrange(2, 10)}{_n(rng, 11)}")
    return rng.choice(((grouped(number, 4, 4, 4), False), (grouped(number, 4, 4, 4, by="-"), False), (number, True)))


def _resident(rng: random.Random) -> tuple[str, bool]:
    def draw() -> str:
        birth = f"{rng.randrange(1950, 2015)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
        return f"{rng.choice(('110105', '310104', '440103'))}{birth}{_n(rng, 3)}{rng.choice('0123456789X')}"

    return _valid("cn-resident", draw), False


_MAKERS: Mapping[str, Callable[[random.Random], tuple[str, bool]]] = {
    "e-mail": _mail, "phone": _phone, "card": _card, "iban": _iban, "ip": _ip, "credentials": _credentials,
    "us-ssn": _ssn, "uk-nino": _nino, "uk-nhs": _nhs, "de-tax": _steuer, "fr-nir": _nir, "es-dni": _dni,
    "in-aadhaar": _aadhaar, "cn-resident": _resident,
}  # fmt: skip
"""Each makes a value, and says whether it is a number in one piece that needs a word beside it."""
