"""Numbers that a state gives to people."""

import re
from datetime import date

from headrace.personal.recogniser import PLAINLY, Recogniser, digits_of

# Verhoeff, "Error Detecting Decimal Codes" (1969): multiplication in the dihedral group of ten, and the permutation
_D5 = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_TURNS = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"  # Real Decreto 1553/2005: the letter of the remainder by 23
_NIE = str.maketrans("XYZ", "012")
_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999: 2^(17-i) by 11
_CN_LETTERS = "10X98765432"
_NO_LETTERS = re.compile(r"[^0-9A-Za-z]")


def _nhs(text: str) -> int:
    """The tenth digit is 11 less the weighted sum by 11: NHS Data Dictionary, NHS NUMBER."""
    digits = digits_of(text)
    check = (11 - sum(int(d) * (10 - i) for i, d in enumerate(digits[:9])) % 11) % 11
    return len(text) if check < 10 and check == int(digits[9]) and len(set(digits)) > 1 else 0


def _steuer_id(text: str) -> int:
    """One digit of the first ten comes twice or thrice, the others once or not at all; then ISO 7064, mod 11, 10:
    Bundeszentralamt für Steuern, Prüfziffernberechnung."""
    digits = digits_of(text)
    counts = sorted(digits[:10].count(d) for d in set(digits[:10]))
    if counts[-1] not in (2, 3) or counts[-2] != 1:
        return 0
    product = 10
    for digit in digits[:10]:
        product = (int(digit) + product) % 10 or 10
        product = product * 2 % 11
    return len(text) if (11 - product) % 10 == int(digits[10]) else 0


def _nir(text: str) -> int:
    """The key is 97 less the remainder by 97; of Corsica, 2A counts as 19 and 2B as 18: INSEE, NIR."""
    number = text.replace(" ", "").upper()
    plain = number[:13].replace("2A", "19").replace("2B", "18")
    return len(text) if plain.isdigit() and 97 - int(plain) % 97 == int(number[13:]) else 0


def _dni(text: str) -> int:
    number = _NO_LETTERS.sub("", text).upper()
    return len(text) if _DNI[int(number[:-1].translate(_NIE)) % 23] == number[-1] else 0


def _aadhaar(text: str) -> int:
    return len(text) if verhoeff(digits_of(text)) else 0


def verhoeff(digits: str) -> bool:
    """Whether the last digit fits."""
    row = 0
    for place, digit in enumerate(reversed(digits)):
        row = int(_D5[row][int(_TURNS[place % 8][int(digit)])])
    return row == 0


def _resident(text: str) -> int:
    """A day of birth, and ISO 7064, mod 11-2: GB 11643-1999."""
    number = text.replace(" ", "")
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return 0
    rest = sum(int(d) * w for d, w in zip(number[:17], _CN_WEIGHTS, strict=True)) % 11
    return len(text) if _CN_LETTERS[rest] == number[17].upper() else 0


_NHS_WORDS = re.compile(r"(?i)(?<!<uk-)\bnhs\b|national health|patient")
_SSN_WORDS = re.compile(r"(?i)(?<!<us-)\bssn\b|social security|soc\.? ?sec")
_AADHAAR_WORDS = re.compile(r"(?i)(?<!<in-)aadhaa?r|\buidai?\b|आधार")

RECOGNISERS = (
    Recogniser(
        "cn-resident",
        re.compile(
            r"[1-8](?<![0-9A-Za-z].)[0-9]{5} ?(?:19|20)[0-9]{2}[01][0-9][0-3][0-9] ?[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
        ),
        "身份证 11010519491231002X",  # GB 11643-1999's
        _resident,
        n_digits=17,
        n_in_a_row=8,
    ),
    Recogniser(
        "fr-nir",
        re.compile(
            r"[123478](?<![0-9A-Za-z].) ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[ABab])"
            r" ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?![0-9A-Za-z])"
        ),
        "NIR 2 69 05 49 588 157 80",
        _nir,
        n_digits=14,
    ),
    Recogniser(
        "in-aadhaar",  # the first digit is neither 0 nor 1: UIDAI
        re.compile(  # not of four groups, which cards have; of six, two of three are
            rf"[2-9]{PLAINLY}(?:(?<![0-9]{{4}}[ -].)|(?<=[0-9]{{4}} [0-9]{{4}} [0-9]{{4}} .))"
            r"[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}(?![0-9A-Za-z]|-[0-9A-Za-z])"
            r"(?! [0-9]{4}(?![0-9]| [0-9]{4} [0-9]{4}(?![0-9])))"
        ),
        "2341 2341 2346",
        _aadhaar,
        n_digits=12,
        n_in_a_row=4,
    ),
    Recogniser(
        "in-aadhaar",
        re.compile(rf"[2-9]{PLAINLY}[0-9]{{11}}(?![0-9A-Za-z])"),
        "my aadhaar is 234123412346",
        _aadhaar,
        n_digits=12,
        n_in_a_row=12,
        beside=_AADHAAR_WORDS,
    ),
    Recogniser(
        "de-tax",
        re.compile(rf"[1-9]{PLAINLY}[0-9](?:[0-9]{{9}}|([ /]?)[0-9]{{3}}\1[0-9]{{3}}\1[0-9]{{3}})(?![0-9A-Za-z])"),
        "Steuer-ID 86 095 742 719",
        _steuer_id,
        n_digits=11,
    ),
    Recogniser(
        "uk-nhs",
        re.compile(rf"[0-9]{PLAINLY}[0-9]{{2}}([ -]?)[0-9]{{3}}\1[0-9]{{4}}(?![0-9A-Za-z])"),
        "NHS number 9434765919",
        _nhs,
        n_digits=10,
        n_in_a_row=4,
        beside=_NHS_WORDS,
    ),
    Recogniser(
        "uk-nino",  # prefixes that are not given: HMRC, NIM39110
        re.compile(
            r"(?i)(?<![0-9a-z])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
            r"[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[A-D](?![0-9a-z])"
        ),
        "NI number AB 12 34 56 C",
        n_digits=6,
    ),
    Recogniser(
        "us-ssn",  # no area 000, 666 or 900 to 999, no group 00, no serial 0000: SSA, POMS RM 10201.035
        re.compile(
            rf"[0-8]{PLAINLY}(?!(?<=0)00|(?<=6)66)[0-9]{{2}}([ -])(?!00)[0-9]{{2}}\1(?!0000)[0-9]{{4}}"
            r"(?![0-9A-Za-z]|-[0-9])"
        ),
        "123-45-6789",
        n_digits=9,
        n_in_a_row=4,
    ),
    Recogniser(
        "us-ssn",
        re.compile(rf"[0-8]{PLAINLY}(?!(?<=0)00|(?<=6)66)[0-9]{{2}}(?!00)[0-9]{{2}}(?!0000)[0-9]{{4}}(?![0-9A-Za-z])"),
        "SSN: 123456789",
        n_digits=9,
        n_in_a_row=9,
        beside=_SSN_WORDS,
    ),
    Recogniser(
        "es-dni",
        re.compile(
            r"(?i)(?<![0-9a-z.+-])(?:[0-9]{8}|[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}|[XYZ][ -]?[0-9]{7})[ -]?[A-Z](?![0-9a-z])"
        ),
        "DNI 12345678Z",
        _dni,
        n_digits=7,
    ),
)
LATER = (  # after telephone numbers, which are written the same
    Recogniser(
        "uk-nhs",
        re.compile(rf"[0-9]{PLAINLY}[0-9]{{2}} [0-9]{{3}} [0-9]{{4}}(?![0-9A-Za-z])"),
        "401 023 2137",
        _nhs,
        n_digits=10,
    ),
)
