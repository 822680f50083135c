"""What is looked for when somebody or something goes: texts and names, as files and rows that stay may write them.

Texts and names of twelve characters or more are found anywhere, and so is a name after its channel, as in CHANNEL/NAME.
Else a shorter value may stand for anything: it counts only as a whole value that is called a text, a unit, a labeller
or a comment, and a name of three characters or more also as a word, where headrace keeps sentences about people.
"""

import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

LEAST_CHARS = 3  # of a name that means somebody in a sentence
_LONG_CHARS = 12  # of a value that means itself wherever it stands
_OWN_NAMES = {
    "text", "text_pair", "premise", "hypothesis", "question", "context", "unit", "labeller", "lifted_by", "comment"
}  # fmt: skip
"""What exports of headrace and the files it imports call what a short value may be."""
_FORMS: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: text.replace('"', '""'),
    html.escape,
)
"""How files of other kinds write a text."""
_BEGINS = re.compile(r"(?<!\w)\S")
_GOES_ON = re.compile(r"[\w@+-]|\.\w")  # after what is only the begin of a longer name


@dataclass(frozen=True)
class Search:
    """What files and rows are searched for."""

    short: frozenset[str]
    long: Mapping[str, tuple[str, ...]]
    """By their first characters, as they are and as other formats write them."""
    channel: str = ""
    names: frozenset[str] = frozenset()
    """Of people of the channel, in the same ways."""

    def finds(self, values: Iterable[tuple[str, str]]) -> bool:
        """Whether some values, each with what it is called, hold something that is looked for."""
        return any((name in _OWN_NAMES and value in self.short) or self.is_in(value) for name, value in values)

    def is_in(self, text: str) -> bool:
        """Whether a longer value, or a name after its channel, is somewhere in a text."""
        is_long = any(
            text.startswith(self.long[begin], i)
            for i in range(len(text) - _LONG_CHARS + 1)
            if (begin := text[i : i + _LONG_CHARS]) in self.long
        )
        return is_long or any(self._name_at(text, one.end(), 1) for one in self._sources.finditer(text))

    def without_names(self, sentence: str, instead: str = "") -> str:
        """A sentence in which something else stands for every name that is a word of it."""
        return "".join(self._words(sentence, instead))

    def _words(self, sentence: str, instead: str) -> Iterator[str]:
        done = 0
        for one in _BEGINS.finditer(sentence):
            found = self._name_at(sentence, one.start(), LEAST_CHARS) if one.start() >= done else ""
            if found:
                yield from (sentence[done : one.start()], instead)
                done = one.start() + len(found)
        yield sentence[done:]

    def _name_at(self, text: str, place: int, least: int) -> str:
        """The name that stands at a place and ends where a name can; empty: none does."""
        ends = (place + n for n in self._lengths if n >= least and place + n <= len(text))
        return next((text[place:i] for i in ends if text[place:i] in self.names and not _GOES_ON.match(text, i)), "")

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(name) for name in self.names}, reverse=True)

    @cached_property
    def _sources(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w./-]){re.escape(self.channel)}/")


def search_for(values: Iterable[str], *, channel: str = "", names: Collection[str] = ()) -> Search:
    """A search for texts and names.

    Args:
        names: those of the values that are people's names in a channel.
    """
    short, long = set[str](), dict[str, tuple[str, ...]]()
    for value in {one for one in values if one.strip()}:
        if len(value) < _LONG_CHARS:
            short.add(value)
        else:
            for form in _forms(value):
                begin = form[:_LONG_CHARS]
                long[begin] = (*long.get(begin, ()), form)
    return Search(frozenset(short), long, channel, frozenset(form for name in names for form in _forms(name)))


def _forms(value: str) -> set[str]:
    return {value, *(write(value) for write in _FORMS)}
