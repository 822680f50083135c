"""Bank accounts and payment cards."""

import re

from headrace.personal.recogniser import PLAINLY, Recogniser, digits_of, longest

_ISSUED = re.compile(  # first digits and lengths of the large issuers
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|6\d{15,18}"
)
_DOUBLED = str.maketrans("0123456789", "0246813579")  # twice a digit, its own digits added up
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24,
    "TR": 26, "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip


def luhn(digits: str) -> bool:
    """Whether a card number's last digit fits: ISO/IEC 7812-1, annex B."""
    return sum(map(int, digits[::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _card(text: str) -> int:
    return longest(text, _is_card)


def _is_card(text: str) -> bool:
    digits = digits_of(text)
    return _ISSUED.fullmatch(digits) is not None and luhn(digits)


def _iban(text: str) -> int:
    """As many characters as the country's numbers have, if the check digits fit: ISO 13616, remainder 1 by 97."""
    wanted = _IBAN_LENGTHS.get(text[:2].upper(), 0)
    places = [i for i, character in enumerate(text) if character.isalnum()][:wanted]
    if not wanted or len(places) < wanted:
        return 0
    number = "".join(text[i] for i in places)
    rest = int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97
    after = text[places[-1] + 1 : places[-1] + 2]
    return places[-1] + 1 if rest == 1 and not after.isalnum() else 0  # the pattern takes in ASCII alone


RECOGNISERS = (
    Recogniser(
        "iban",
        re.compile(r"(?:(?<![A-Za-z0-9])|(?<=IBAN))[A-Za-z]{2}[0-9]{2}(?:[ .-]?[A-Za-z0-9]){11,30}+"),
        "DE89 3704 0044 0532 0130 00",  # ISO 13616's
        _iban,
        n_digits=7,
    ),
    Recogniser(
        "card",
        re.compile(
            rf"[0-9]{PLAINLY}(?:[0-9]{{12,18}}|[0-9]{{3}}([ .-])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{3}})?"
            r"|(?<=3)[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})(?![0-9A-Za-z])"
        ),
        "card 4111 1111 1111 1111 exp 12/29",  # the issuer's own test number
        _card,
        n_digits=13,
        n_in_a_row=4,
    ),
)
