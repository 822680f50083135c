"""Keys in the memory of a server: who a key stands for, without a look into the store.

A key that was made, revoked or rotated elsewhere is known here after the next `renew`. While the store cannot be read,
what was known goes on to count, until it expires.
"""

import hmac
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from headrace.access import keys
from headrace.access.scopes import SCOPES
from headrace.errors import Unauthorized
from headrace.records import ApiKey
from headrace.store import keys as rows
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.access")

EVERY_S = 0.25
_LEAST_S = 0.05  # between looks for a key that may be new
_NOTE_USE_EVERY = 120  # renewals
_HOW = "Send a key: Authorization: Bearer hr_..."


@dataclass(frozen=True)
class Caller:
    """Who asks, and what the key allows."""

    key_id: str
    """Empty where no key was asked for."""
    scopes: frozenset[str]
    channels: frozenset[str] | None
    """Names; None: all."""
    source: str | None = None
    """The first of the keys that took each other's place: whose feedback it is. None: no key was asked for."""

    def may_use(self, channel: str) -> bool:
        return self.channels is None or channel in self.channels

    @property
    def is_test(self) -> bool:
        """Whether what it asks takes no part in releases and audits."""
        return self.key_id.startswith(keys.PREFIXES[True])


ANYBODY = Caller("", frozenset(SCOPES), None)
"""Who asks a server of a workspace in which no key was ever made."""
NOBODY = Caller("", frozenset(), frozenset())
"""Who asks for what needs no key."""


@dataclass(frozen=True)
class _Held:
    record: ApiKey
    caller: Caller
    pepper: bytes
    digest: bytes


class Keyring:
    """The keys that count now. Safe to use from any thread."""

    def __init__(self, ws: Workspace) -> None:
        """Raises: see `load`."""
        self._ws = ws
        self._held: dict[str, _Held] = {}
        self._state: tuple[object, ...] | None = None
        self._used: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._n_renewals = 0
        self._looked_at = 0.0
        self._is_blind = False
        self.is_closed = False
        """Whether a key was ever made; once seen, that stays so."""
        self.load()

    def load(self) -> None:
        """Read the keys, if any changed.

        Raises:
            HeadraceError: the store cannot be read.
        """
        with self._lock, self._ws.store.read() as conn:
            self._looked_at = time.monotonic()
            state = rows.state(conn)
            if state != self._state:
                held = self._read(rows.with_hashes(conn), rows.replaced(conn))
                self.is_closed = self.is_closed or state[0] > 0
                self._held, self._state = held, state

    def renew(self, _stop: threading.Event | None = None) -> None:
        """`load`, which may fail; now and then, write down which keys were used."""
        try:
            self.load()
            self._n_renewals += 1
            if self._n_renewals % _NOTE_USE_EVERY == 0:
                self.note_use()
            self._is_blind = False
        except Exception:  # the border of one look: what is known goes on to count
            if not self._is_blind:  # else it was said already, a moment ago
                _log.warning("the keys could not be looked at", exc_info=True)
            self._is_blind = True

    def note_use(self) -> None:
        """Write down which keys were used since the last time."""
        used, self._used = self._used, {}
        if used:
            with self._ws.store.write(durable=False) as conn:
                rows.note_used(conn, used.copy())  # the last request may still write to it

    def caller(self, key: str | None) -> Caller:
        """Who sends a key.

        Raises:
            Unauthorized: there is none, or it does not count.
        """
        if not self.is_closed:
            return ANYBODY
        if key is None:
            raise Unauthorized("a request needs a key", next_step=_HOW)
        key_id = keys.id_of(key)
        if key_id is None:
            raise Unauthorized("this is no key, or not all of it", next_step=_HOW)
        held = self._held.get(key_id)
        if held is None or not hmac.compare_digest(keys.digest(key, held.pepper), held.digest):
            raise Unauthorized("no such key, or it was revoked", value=key_id, next_step="Ask for a new one")
        now = self._ws.clock()
        if held.record.expires_at is not None and held.record.expires_at <= now:
            raise Unauthorized("the key has expired", value=key_id, next_step="Ask for a new one")
        self._used[key_id] = now
        return held.caller

    def may_be_new(self, key: str | None) -> bool:
        """Whether a key that does not count may have been made since the last look, and another one is due."""
        key_id = None if key is None else keys.id_of(key)
        is_known = key_id is None or key_id in self._held
        return not is_known and time.monotonic() - self._looked_at > _LEAST_S

    def find(self, key_id: str) -> ApiKey | None:
        """The record of a key that counts, for its limits."""
        held = self._held.get(key_id)
        return None if held is None else held.record

    def _read(self, found: list[tuple[ApiKey, str]], replaced: Mapping[str, str]) -> dict[str, _Held]:
        pepper, held, uncounted = keys.read_pepper(self._ws), {}, []
        for record, written in found:
            digest = keys.read_digest(written)
            if pepper is None or digest is None:
                uncounted.append(record.id)
                continue
            channels = None if record.channels is None else frozenset(record.channels)
            caller = Caller(record.id, frozenset(record.scopes), channels, _first(record.id, replaced))
            held[record.id] = _Held(record, caller, pepper, digest)
        if uncounted:
            why = f".headrace/{keys.PEPPER} is gone" if pepper is None else "something else wrote them to the database"
            _log.error("keys that do not count, since %s: %s", why, ", ".join(uncounted))
        return held


def _first(key_id: str, replaced: Mapping[str, str]) -> str:
    """The first of the keys that took each other's place."""
    while key_id in replaced:
        key_id = replaced[key_id]
    return key_id
