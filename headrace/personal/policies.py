"""The door: what texts and names become before anything of them is written, by channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from headrace.config import Settings
from headrace.config.safety import Personal
from headrace.errors import BadConfig, BadInput, HeadraceError, nearest
from headrace.personal import names, surrogates
from headrace.personal.finding import KINDS, RECOGNISERS, find
from headrace.personal.recogniser import Found
from headrace.personal.secret import secret_of
from headrace.records import Input
from headrace.store import Store
from headrace.workspace import Workspace

_MAX_NAME_CHARS = 200  # width of the columns that names are in
_LONG_CHARS = 20_000
"""Of texts that an event loop should not wait for: tens of milliseconds at worst."""
_LOOKED_AT_CHARS, _SAID_CHARS = 2_000, 200
"""Of a long text in an error: how much is looked at, so that no value that is cut off is said; and what is said."""


@dataclass(frozen=True)
class Piece:
    """What was replaced: where it was in the text as given, and what stands in its place."""

    kind: str
    start: int
    end: int
    value: str
    instead: str


@dataclass(frozen=True)
class Cleaned:
    """A text after the door."""

    text: str
    pieces: tuple[Piece, ...] = ()

    def moved(self, start: int, end: int) -> tuple[int, int]:
        """Where a span of the text as given is now; one that meets a piece takes it in whole."""
        return self._shifted(start, is_end=False), self._shifted(end, is_end=True)

    @property
    def undone(self) -> "Cleaned":
        """The way back: from this text to the text as given."""
        given, pieces, at = [], [], 0
        for piece, (start, end) in zip(self.pieces, self._places(), strict=True):
            given += [self.text[at:start], piece.value]
            pieces.append(Piece(piece.kind, start, end, piece.instead, piece.value))
            at = end
        return Cleaned("".join([*given, self.text[at:]]), tuple(pieces))

    def _shifted(self, place: int, *, is_end: bool) -> int:
        here = there = 0  # ends of the piece passed last, before and now
        for piece, (start, end) in zip(self.pieces, self._places(), strict=True):
            if place < piece.start or (is_end and place == piece.start):
                break
            if place < piece.end or (is_end and place == piece.end):
                return end if is_end else start
            here, there = piece.end, end
        return place - here + there

    def _places(self) -> list[tuple[int, int]]:
        """Where the pieces are in this text."""
        found, shift = [], 0
        for piece in self.pieces:
            start = piece.start + shift
            found.append((start, start + len(piece.instead)))
            shift += len(piece.instead) - (piece.end - piece.start)
        return found


class Door:
    """What every text and every name comes through on its way into a workspace.

    Raises:
        BadConfig, NotFound: privacy.kinds names an unknown kind, or privacy.names_model no version that finds names.
    """

    def __init__(self, ws: Workspace) -> None:
        settings = ws.settings
        _check_kinds(settings.privacy.kinds)
        wanted = settings.privacy.kinds or KINDS
        self._folder = ws.state_folder
        self._recognisers = tuple(one for one in RECOGNISERS if one.kind in wanted)
        self._usual = settings.privacy.personal
        self._of_channel: dict[str, Personal] = {
            name: table.personal for name, table in settings.channels.items() if table.personal is not None
        }
        self.is_on = is_on(settings)
        """Whether any channel's texts are looked at; else nothing here costs anything."""
        self._names = names.finder(ws) if self.is_on else None
        self._keep_mapping = settings.privacy.keep_mapping

    def policy(self, channel: str | None) -> Personal:
        """Of a channel; of what is about no one channel, the workspace's, and `mask` where only a channel has one."""
        if channel is not None:
            return self._of_channel.get(channel, self._usual)
        return "mask" if self._usual == "off" and self.is_on else self._usual

    def takes_long(self, inputs: Sequence[Input]) -> bool:
        """Whether an event loop should not wait for these: a model reads each, or there is much text in them."""
        n_chars = sum(len(one) if isinstance(one, str) else len(one[0]) + len(one[1]) for one in inputs)
        return self._names is not None or n_chars > _LONG_CHARS

    def keeps(self, channel: str | None) -> bool:
        """Whether what is replaced in a channel can be found again."""
        return self._keep_mapping and self.policy(channel) == "replace"

    def clean(self, channel: str | None, text: str) -> Cleaned:
        """A text without what is personal in it.

        Raises:
            BadInput: there is some, and the policy is `drop`; the message has the kinds alone.
        """
        policy = self.policy(channel)
        if policy == "off":
            return Cleaned(text)
        found = self._found(text)
        if not found:
            return Cleaned(text)
        if policy == "drop":
            raise BadInput(
                "the text holds personal data, which this channel does not take",
                value=", ".join(sorted({one.kind for one in found})),
                next_step="Take it out and send the rest",
            )
        pieces = tuple(self._piece(policy, channel or "", text, one) for one in found)
        return Cleaned(_put_together(text, pieces), pieces)

    def input(self, channel: str | None, given: Input) -> tuple[Input, tuple[Cleaned, ...]]:
        """A text or a pair without what is personal in it, and what became of each part.

        Raises:
            BadInput: see `clean`.
        """
        if isinstance(given, str):
            one = self.clean(channel, given)
            return one.text, (one,)
        parts = self.clean(channel, given[0]), self.clean(channel, given[1])
        return (parts[0].text, parts[1].text), parts

    def value(self, channel: str | None, value: Any) -> Any:
        """A JSON value, such as a label or a correction, each text in it cleaned.

        Raises:
            BadInput: see `clean`.
        """
        if isinstance(value, str):
            return self.clean(channel, value).text
        if isinstance(value, Mapping):
            return {self.value(channel, key): self.value(channel, inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(channel, inner) for inner in value]
        return value

    def name(self, channel: str | None, name: str) -> str:
        """The name of somebody or something: of a labeller, a unit, an id, a group, a key of idempotency.

        What is personal in it becomes a keyed digest under every policy but `off`, so that names stay apart.
        """
        if self.policy(channel) == "off":
            return name
        found = sorted(find(name, self._recognisers), key=lambda one: one.start)
        if not found:
            return name
        pieces = tuple(
            Piece(one.kind, one.start, one.end, "", self._digest(one.kind, name[one.start : one.end])) for one in found
        )
        said = _put_together(name, pieces)
        return said if len(said) <= _MAX_NAME_CHARS else self._digest("name", name)

    def shown(self, text: str) -> str:
        """What may be said of a text in a log."""
        return _masked(text, self._found(text)) if self.is_on else text

    def brief(self, text: str) -> str:
        """What may be said of a text in an error, which costs the same however long the text is."""
        if not self.is_on or len(text) <= _LOOKED_AT_CHARS:
            return self.shown(text)
        found = [one for one in self._found(text[:_LOOKED_AT_CHARS]) if one.start < _SAID_CHARS]
        said = _masked(text[: max([_SAID_CHARS, *(one.end for one in found)])], found)
        cut = f"... ({len(text)} characters)"
        return said[: _SAID_CHARS - len(cut)] + cut

    def error(self, error: HeadraceError) -> HeadraceError:
        """An error that says nothing personal."""
        if self.is_on:
            value = error.value if isinstance(error.value, str | None) else repr(error.value)
            value = None if value is None else self.brief(value)
            HeadraceError.__init__(error, self.brief(error.problem), value=value, next_step=self.brief(error.next_step))
        return error

    def _found(self, text: str) -> list[Found]:
        found = find(text, self._recognisers)
        if self._names is not None:
            taken = [(one.start, one.end) for one in found]
            named = self._names([text])[0]
            found += [one for one in named if all(one.end <= start or end <= one.start for start, end in taken)]
        return sorted(found, key=lambda one: one.start)

    def _piece(self, policy: Personal, channel: str, text: str, one: Found) -> Piece:
        value = text[one.start : one.end]
        if policy == "mask":
            instead = f"<{one.kind}>"
        elif policy == "hash":
            instead = f"<{one.kind}:{surrogates.letters(self._key, channel, one.kind, value)}>"
        else:
            instead = surrogates.surrogate(self._key, channel, one.kind, value)
        return Piece(one.kind, one.start, one.end, value, instead)

    def _digest(self, kind: str, value: str) -> str:
        return f"{kind}-{surrogates.letters(self._key, 'name', kind, surrogates.normal(kind, value))}"

    @cached_property
    def _key(self) -> bytes:
        return secret_of(self._folder)


def is_on(settings: Settings) -> bool:
    """Whether any channel's texts are looked at for personal data."""
    policies = {settings.privacy.personal, *(one.personal for one in settings.channels.values())}
    return bool(policies - {"off", None})


def privacy_of(settings: Settings) -> dict[str, Any]:
    """What decides how texts come out of the door, as JSON; empty where they come out as they went in."""
    if not is_on(settings):
        return {}
    of_channel = {name: table.personal for name, table in sorted(settings.channels.items()) if table.personal}
    usual = settings.privacy.model_dump(mode="json", include={"personal", "kinds", "names_model"})
    return {**usual, "of_channel": of_channel}


def _check_kinds(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise BadConfig("no such kind of personal data", value=kind, next_step=nearest(kind, list(KINDS)))


def _masked(text: str, found: Sequence[Found]) -> str:
    return _put_together(text, [Piece(one.kind, one.start, one.end, "", f"<{one.kind}>") for one in found])


def _put_together(text: str, pieces: Sequence[Piece]) -> str:
    out, at = [], 0
    for piece in pieces:
        out += [text[at : piece.start], piece.instead]
        at = piece.end
    return "".join([*out, text[at:]])


def door_of(ws: Workspace) -> Door:
    """The door of a workspace that stays open, made once where a model has to be loaded for it."""
    if not ws.settings.privacy.names_model:
        return Door(ws)
    if ws.store not in _DOORS:
        _DOORS[ws.store] = Door(ws)
    return _DOORS[ws.store]


_DOORS: "WeakKeyDictionary[Store, Door]" = WeakKeyDictionary()
"""Of stores that are open, whose doors have a model."""
