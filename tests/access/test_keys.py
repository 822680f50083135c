"""Keys and the keyring. Catches: a secret in the store, a digest that a copy of the database is enough to forge, a key
that goes on after it was revoked or has expired, a server that opens up again."""

import base64
import datetime as dt
import hashlib
import logging
import sqlite3
import stat
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import auditing
from headrace.access import keys
from headrace.access.keyring import ANYBODY, Keyring
from headrace.access.keys import Made
from headrace.access.scopes import SCOPES
from headrace.data import channels
from headrace.errors import BadInput, NotFound, Unauthorized, WrongState
from headrace.workspace import Workspace

NOW = dt.datetime(2026, 11, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ws(workspace: Workspace, clock: Clock) -> Workspace:
    return replace(workspace, clock=clock)


def made(ws: Workspace, **options: object) -> Made:
    return keys.create(ws, "app", **({"scopes": ["predict"]} | options))  # type: ignore[arg-type]


def why(ring: Keyring, key: str | None) -> str:
    with pytest.raises(Unauthorized) as refused:
        ring.caller(key)
    return str(refused.value)


def test_the_form_of_a_key_is_the_documented_one(ws: Workspace) -> None:
    one = made(ws)
    head, secret, crc = one.key.rsplit("_", 2)
    assert head == one.record.id
    assert head.startswith("hr_live_")
    assert len(head) == len("hr_live_") + 12
    assert (len(secret), len(crc)) == (43, 8)
    assert 62**43 > 2**256
    assert int(crc, 16) == zlib.crc32(f"{head}_{secret}".encode())
    assert made(ws, is_test=True).record.id.startswith("hr_test_")


def test_known_answer_of_the_check_digits() -> None:
    body = "hr_live_000000000000_" + "0" * 43
    assert zlib.crc32(body.encode()) == 0x42336234
    assert keys.id_of(f"{body}_42336234") == "hr_live_000000000000"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 72), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_mistyped_key_is_told_without_a_look_at_the_known_ones(place: int, character: str) -> None:
    body = "hr_live_000000000000_" + "0" * 43
    key = f"{body}_{zlib.crc32(body.encode()):08x}"
    changed = key[:place] + character + key[place + 1 :]
    assert keys.id_of(changed) == (None if changed != key else "hr_live_000000000000")


def test_the_database_has_no_secret_and_a_copy_of_it_cannot_make_one(ws: Workspace) -> None:
    one = made(ws)
    secret = one.key.split("_")[3]
    assert "_" + secret not in repr(one)
    content = b"".join(path.read_bytes() for path in ws.state_folder.glob("headrace.db*"))
    assert one.record.id.encode() in content
    assert secret.encode() not in content
    assert hashlib.sha256(one.key.encode()).digest() not in content
    pepper = ws.state_folder / keys.PEPPER
    assert stat.S_IMODE(pepper.stat().st_mode) == 0o600
    assert len(pepper.read_bytes()) == 32


@pytest.mark.parametrize("kind", ["sha256:", "hmac:", "", "hmac:not base64 "])
def test_a_row_that_is_written_into_the_database_is_no_key(
    ws: Workspace, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a digest that counts though the pepper is not in it: who can write to the database makes a key."""
    one = made(ws)
    body = "hr_live_000000000000_" + "0" * 43
    forged = _signed(body)
    written = kind + base64.b64encode(hashlib.sha256(forged.encode()).digest()).decode()
    with sqlite3.connect(ws.state_folder / "headrace.db") as raw:
        columns = [name for _, name, *_ in raw.execute("PRAGMA table_info(api_keys)")]
        raw.row_factory = sqlite3.Row
        row = {**raw.execute("SELECT * FROM api_keys").fetchone()} | {"id": body[:20], "secret_hash": written}
        raw.execute(f"INSERT INTO api_keys VALUES ({', '.join('?' * len(columns))})", [row[name] for name in columns])
    raw.close()
    ring = Keyring(ws)
    assert "no such key" in why(ring, forged)
    assert ring.caller(one.key).key_id == one.record.id
    if kind != "hmac:":
        assert body[:20] in caplog.text
    (ws.state_folder / keys.PEPPER).unlink()
    assert "no such key" in why(Keyring(ws), forged)


def test_a_key_counts_for_what_it_was_made_for(ws: Workspace) -> None:
    channels.add(ws, "web")
    ring = Keyring(ws)
    assert ring.caller(None) is ANYBODY  # no key was ever made
    one = made(ws, scopes=["scores", "predict"], channels=["web"])
    ring.load()
    caller = ring.caller(one.key)
    assert (caller.key_id, caller.scopes, caller.channels) == (one.record.id, {"predict", "scores"}, {"web"})
    assert caller.may_use("web")
    assert not caller.may_use("phone")
    assert "needs a key" in why(ring, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda key: key[:-1], "no key, or not all"),
        (lambda key: key + "0", "no key, or not all"),
        (lambda key: key.upper(), "no key, or not all"),
        (lambda key: "", "no key, or not all"),
        (lambda key: "hr_live_ä", "no key, or not all"),
        (lambda key: _signed(key[:-9].replace("hr_live", "hr_test")), "no such key"),
        (lambda key: _signed(key[:-10] + ("A" if key[-10] != "A" else "B")), "no such key"),
        (lambda key: _signed(key[:8] + "000000000000" + key[20:-9]), "no such key"),
    ],
    ids=["cut", "longer", "capitals", "empty", "letters", "kind", "secret", "id"],
)
def test_what_is_not_a_key_is_refused(ws: Workspace, change: Callable[[str], str], words: str) -> None:
    one = made(ws)
    ring = Keyring(ws)
    said = why(ring, change(one.key))
    assert words in said
    assert one.key.split("_")[3] not in said


def _signed(body: str) -> str:
    """A key with check digits that fit."""
    return f"{body}_{zlib.crc32(body.encode()):08x}"


def test_a_key_expires_though_nobody_looks(ws: Workspace, clock: Clock) -> None:
    one = made(ws, expires_at=NOW + timedelta(hours=1))
    ring = Keyring(ws)
    clock.now = NOW + timedelta(minutes=59)
    assert ring.caller(one.key).key_id == one.record.id
    clock.now = NOW + timedelta(hours=1)
    assert "expired" in why(ring, one.key)


def test_a_revoked_key_is_gone_at_the_next_look(ws: Workspace) -> None:
    one, other = made(ws), made(ws)
    ring = Keyring(ws)
    revoked = keys.revoke(ws, one.record.id)
    assert revoked.revoked_at == NOW
    ring.load()
    assert "revoked" in why(ring, one.key)
    assert ring.caller(other.key).key_id == other.record.id
    with pytest.raises(WrongState, match="revoked before"):
        keys.revoke(ws, one.record.id)
    assert keys.find(ws, one.record.id) == revoked


def test_rotation_lets_both_count_for_a_while(ws: Workspace, clock: Clock) -> None:
    channels.add(ws, "web")
    one = made(ws, channels=["web"], requests_per_s=5.0, rows_per_day=9, expires_at=NOW + timedelta(days=30))
    clock.now = NOW + timedelta(days=10)
    new = keys.rotate(ws, one.record.id, overlap=timedelta(hours=2))
    assert new.record.replaces == one.record.id
    assert new.record.expires_at == clock.now + timedelta(days=30)
    same = ("name", "scopes", "channels", "requests_per_s", "rows_per_day")
    assert [getattr(new.record, name) for name in same] == [getattr(one.record, name) for name in same]
    ring = Keyring(ws)
    assert ring.caller(one.key).channels == ring.caller(new.key).channels == {"web"}
    clock.now += timedelta(hours=2)
    assert "expired" in why(ring, one.key)
    assert ring.caller(new.key).key_id == new.record.id
    with pytest.raises(WrongState, match="expired"):
        keys.rotate(ws, one.record.id)


def test_rotation_never_lets_a_key_live_longer(ws: Workspace) -> None:
    one = made(ws, expires_at=NOW + timedelta(hours=1))
    keys.rotate(ws, one.record.id, overlap=timedelta(days=7))
    assert keys.find(ws, one.record.id).expires_at == NOW + timedelta(hours=1)


def test_a_key_that_is_revoked_while_it_is_rotated_has_no_successor(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: who revokes a leaked key leaves its holder a valid one."""
    one, pepper = made(ws), keys._made_pepper

    def revoke_first(ws: Workspace) -> bytes:
        keys.revoke(ws, one.record.id)
        return pepper(ws)

    monkeypatch.setattr(keys, "_made_pepper", revoke_first)
    with pytest.raises(WrongState, match="the key is revoked"):
        keys.rotate(ws, one.record.id)
    assert [key.id for key in keys.listing(ws)] == [one.record.id]


def test_a_server_that_had_keys_stays_closed(ws: Workspace) -> None:
    one = made(ws)
    ring = Keyring(ws)
    keys.revoke(ws, one.record.id)
    ring.load()
    assert "needs a key" in why(ring, None)
    with sqlite3.connect(ws.state_folder / "headrace.db") as raw:  # as if another database were put in its place
        raw.execute("DELETE FROM api_keys")
    raw.close()
    ring.load()
    assert "needs a key" in why(ring, None)


def test_while_the_store_cannot_be_read_what_was_known_counts(
    ws: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, brief = made(ws), made(ws, expires_at=NOW + timedelta(hours=1))
    ring = Keyring(ws)

    @contextmanager
    def gone() -> object:
        raise OSError("the disk is gone")
        yield

    monkeypatch.setattr(ws.store, "read", gone)
    with caplog.at_level(logging.WARNING):
        ring.renew()
        ring.renew()
    assert caplog.text.count("could not be looked at") == 1
    assert ring.caller(one.key).key_id == one.record.id
    clock.now = NOW + timedelta(hours=1)
    assert "expired" in why(ring, brief.key)
    assert "no such key" in why(ring, _signed(one.key[:-10] + ("A" if one.key[-10] != "A" else "B")))


def test_without_its_pepper_no_key_counts_and_none_is_made(ws: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    one = made(ws)
    pepper = ws.state_folder / keys.PEPPER
    kept = pepper.read_bytes()
    pepper.unlink()
    with caplog.at_level(logging.ERROR):
        ring = Keyring(ws)
    assert one.record.id in caplog.text
    assert "no such key" in why(ring, one.key)
    with pytest.raises(WrongState, match="Put it back"):
        made(ws)
    pepper.write_bytes(kept)
    assert Keyring(ws).caller(one.key).key_id == one.record.id
    pepper.unlink()
    keys.revoke(ws, one.record.id)
    assert Keyring(ws).is_closed
    made(ws)


def test_who_used_a_key_last_is_written_down(ws: Workspace, clock: Clock) -> None:
    one, other = made(ws), made(ws)
    ring = Keyring(ws)
    clock.now = NOW + timedelta(minutes=5)
    ring.caller(one.key)
    ring.note_use()
    found = {key.id: key.last_used_at for key in keys.listing(ws)}
    assert found == {one.record.id: clock.now, other.record.id: None}


def test_a_key_of_yesterday_may_be_looked_for_and_junk_may_not(ws: Workspace) -> None:
    made(ws)
    ring = Keyring(ws)
    new = made(ws)
    ring._looked_at -= 1
    assert ring.may_be_new(new.key)
    assert not ring.may_be_new(new.key[:-1])
    assert not ring.may_be_new(None)
    ring.load()
    assert not ring.may_be_new(new.key)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"scopes": []}, BadInput, "allows nothing"),
        ({"scopes": ["predct"]}, BadInput, "predict"),
        ({"channels": ["wep"]}, NotFound, "no such channel"),
        ({"expires_at": NOW}, BadInput, "expires between"),
        ({"expires_at": dt.datetime.max.replace(tzinfo=UTC)}, BadInput, "expires between"),
        *(({"requests_per_s": n}, BadInput, "requests in a second") for n in (0.0, float("nan"), 1e308, 1e-308)),
        *(({"rows_per_day": n}, BadInput, "rows in a day") for n in (0, 2**31, 10**20)),
    ],
)
def test_what_cannot_be_is_told(ws: Workspace, options: dict[str, object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        made(ws, **options)
    assert keys.listing(ws) == []


def test_a_whole_key_is_no_name_for_it(ws: Workspace) -> None:
    one = made(ws)
    with pytest.raises(BadInput, match=one.record.id) as refused:
        keys.revoke(ws, one.key)
    assert one.key not in str(refused.value)
    with pytest.raises(NotFound, match="key list"):
        keys.revoke(ws, "hr_live_000000000000")
    for name in ("", "a\nb", "n" * 201):
        with pytest.raises(BadInput, match="name"):
            keys.create(ws, name, scopes=["predict"])
    for overlap in (timedelta(seconds=-1), timedelta.max):
        with pytest.raises(BadInput, match="overlap"):
            keys.rotate(ws, one.record.id, overlap=overlap)
    last = made(ws, expires_at=dt.datetime(9999, 12, 31, tzinfo=UTC))
    assert keys.rotate(ws, last.record.id).record.expires_at == last.record.expires_at


def test_the_audit_log_tells_of_keys_and_holds_none(ws: Workspace) -> None:
    one = made(ws)
    new = keys.rotate(ws, one.record.id)
    keys.revoke(ws, one.record.id)
    lines = auditing.listing(ws)
    assert [(line.action, line.object) for line in lines] == [
        ("key.create", one.record.id), ("key.rotate", new.record.id), ("key.revoke", one.record.id),
    ]  # fmt: skip
    assert lines[1].facts["replaces"] == one.record.id
    assert not any(key.split("_")[3] in repr(lines) for key in (one.key, new.key))


def test_a_fresh_workspace_has_no_key(ws: Workspace) -> None:
    assert keys.listing(ws) == []
    assert not keys.were_made(ws)
    assert not (ws.state_folder / keys.PEPPER).exists()
    assert len(SCOPES) == 8
