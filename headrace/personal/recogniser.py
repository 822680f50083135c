"""What a kind of personal data is found by."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

NEAR_CHARS = 40
"""How far from a number the words may stand that say what it is."""
PLAINLY = r"(?<![0-9A-Za-z.+-].)"
BEFORE = (
    r"(?<![A-Za-z0-9_+].)(?:(?<![A-Za-z0-9]-.)|(?<=[0-9]{7}-.))(?<![A-Za-z]/.)"
    r"(?:(?<![0-9][.,:/].)|(?<=[0-9]{4}[.,:/].)|(?<=[0-9][ .-][0-9]{2}[.,:/].)|(?<=[0-9][ .-][0-9]{3}[.,:/].))"
)
AFTER = r"(?![A-Za-z0-9_]|-(?![0-9]{7})[A-Za-z0-9])"
"""Of patterns of numbers: what a number does not follow, said after its first character, since what begins with a
character is searched for faster; and what does not follow it. Letters of scripts that put no space between words may,
and so may a number that is too long to be an hour, a day or what is before a decimal point."""
_NO_DIGITS = re.compile("[^0-9]+")
_GROUP = re.compile("[0-9A-Za-z]+")


@dataclass(frozen=True)
class Found:
    """Where something is, by characters."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Recogniser:
    """One way in which a kind of personal data is written.

    Its pattern matches in time that grows with the length of a text and no faster: every repetition is bounded.
    """

    kind: str
    pattern: re.Pattern[str]
    example: str
    """A text in which it is found; tests rest on it."""
    length: Callable[[str], int] = len
    """How many characters of what the pattern matched are such a thing; 0: it is none."""
    n_digits: int = 0
    """Digits that a text with one has at least."""
    n_in_a_row: int = 0
    """Digits that a text with one has without a sign between them."""
    has: str = ""
    """Characters that a text with one has."""
    beside: re.Pattern[str] | None = None
    """Words one of which must stand near, of what is written like many other things."""
    unless: re.Pattern[str] | None = None
    """Words that must not stand right before it."""

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where each is: start and end. What begins as none may hold one further on."""
        at, words = 0, None
        while match := self.pattern.search(text, at):
            start, end = match.span()
            if words is None and self.beside is not None:  # once, as there may be many numbers
                words = [word.start() for word in self.beside.finditer(text)]
            is_one = (words is None or _is_near(words, start, end)) and not self._is_other(text, start)
            n_chars = self.length(match.group()) if is_one else 0
            if n_chars:
                yield start, start + n_chars
            at = start + (n_chars or 1)

    def _is_other(self, text: str, start: int) -> bool:
        return self.unless is not None and bool(self.unless.search(text[max(0, start - NEAR_CHARS) : start]))


def _is_near(words: Sequence[int], start: int, end: int) -> bool:
    place = bisect_left(words, start - NEAR_CHARS)
    return place < len(words) and words[place] <= end + NEAR_CHARS


def longest(text: str, is_one: Callable[[str], bool]) -> int:
    """How many characters the longest beginning of whole groups has that is one; 0: none is.

    A pattern may take in the number that follows, such as an hour.
    """
    ends = [group.end() for group in _GROUP.finditer(text)]
    return next((end for end in (len(text), *reversed(ends)) if is_one(text[:end])), 0)


def digits_of(text: str) -> str:
    return _NO_DIGITS.sub("", text)
