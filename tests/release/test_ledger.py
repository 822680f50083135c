"""The ledger. Catches: a changed, deleted, moved or inserted line that nobody sees; a formula of the hash that changed,
which would break every ledger there is; a wrong answer to who answered when, also where the clock went back.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import BadInput, NotFound, WrongState
from headrace.ids import new_id
from headrace.records import Decision
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import ledger as lines
from headrace.store import schema
from headrace.workspace import Workspace
from planted import NOON, plant_channel, plant_version

TABLE = schema.ledger


def fill(ws: Workspace) -> None:
    """Five lines: two versions in charge, one of them of a channel only, and a release that was rejected."""
    plant_channel(ws, "web")
    plant_version(ws)
    controls.ensure_control(ws)
    for _ in range(2):
        plant_version(ws)
    releases.promote(ws, "2", channel="web")
    release = releases.start(ws, candidate="3")
    releases.decide(ws, release, Decision("hold", "wait", {"n": 1.0, "e": 1e-300, "é": "ü"}))
    releases.decide(ws, release, Decision("reject", "worse", {"n": 3}))


def unlock(conn: sa.Connection) -> None:
    for verb in ("UPDATE", "DELETE"):
        conn.execute(sa.text(f"DROP TRIGGER ledger_no_{verb}"))


def test_the_hash_is_what_it_always_was() -> None:
    line = {
        "seq": 7, "id": "led_1", "task": "tone", "channel_id": None, "kind": "hold", "version_id": "ver_1",
        "release_id": None, "reason": "naïve", "evidence": {"b": (1, 2.5), "a": {3: None}}, "actor": "me",
        "at": datetime(2026, 3, 1, 12, tzinfo=UTC), "config_hash": "0" * 16, "code_version": "0.1",
        "prev_hash": "sha256:0", "hash": "not in it",
    }  # fmt: skip
    text = (
        '{"actor":"me","at":"2026-03-01T12:00:00.000000+00:00","channel_id":null,"code_version":"0.1",'
        '"config_hash":"0000000000000000","evidence":{"a":{"3":null},"b":[1,2.5]},"id":"led_1","kind":"hold",'
        '"prev_hash":"sha256:0","reason":"na\\u00efve","release_id":null,"seq":7,"task":"tone","version_id":"ver_1"}'
    )
    assert lines.line_hash(line) == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    assert lines.line_hash(line) == "sha256:43232ae5b85d2efb1f695f14c7c43156ac06d061f3e3c4f33902dcbc0be3a9b4"


def test_a_ledger_as_it_was_written_is_sound(workspace: Workspace) -> None:
    assert ledger.verify(workspace) == {"n_lines": 0, "first_broken": None, "head": ""}
    fill(workspace)
    written = ledger.history(workspace)
    assert ledger.verify(workspace) == {"n_lines": 5, "first_broken": None, "head": written[-1].hash}
    assert [line.seq for line in written] == [1, 2, 3, 4, 5]
    assert [line.prev_hash for line in written] == ["", *(line.hash for line in written[:-1])]


TAMPERINGS: dict[str, tuple[Callable[[], sa.Executable], int]] = {
    "reason": (lambda: sa.update(TABLE).where(TABLE.c.seq == 2).values(reason="better"), 2),
    "evidence": (lambda: sa.update(TABLE).where(TABLE.c.seq == 4).values(evidence={"n": 2.0}), 4),
    "actor of the last": (lambda: sa.update(TABLE).where(TABLE.c.seq == 5).values(actor="nobody"), 5),
    "channel": (lambda: sa.update(TABLE).where(TABLE.c.seq == 2).values(channel_id=None), 2),
    "time": (lambda: sa.update(TABLE).where(TABLE.c.seq == 3).values(at=NOON), 3),
    "settings": (lambda: sa.update(TABLE).where(TABLE.c.seq == 1).values(config_hash="f" * 16), 1),
    "deleted first": (lambda: sa.delete(TABLE).where(TABLE.c.seq == 1), 1),
    "deleted inside": (lambda: sa.delete(TABLE).where(TABLE.c.seq == 3), 3),
    "hash alone": (lambda: sa.update(TABLE).where(TABLE.c.seq == 3).values(hash="sha256:0"), 3),
    "renumbered": (lambda: sa.update(TABLE).where(TABLE.c.seq == 5).values(seq=9), 5),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_every_tampering_is_found_where_it_is(workspace: Workspace, name: str) -> None:
    fill(workspace)
    change, first = TAMPERINGS[name]
    with workspace.store.write() as conn:
        unlock(conn)
        conn.execute(change())
    assert ledger.verify(workspace)["first_broken"] == first


def test_a_line_that_was_hashed_anew_breaks_the_next(workspace: Workspace) -> None:
    fill(workspace)
    with workspace.store.write() as conn:
        unlock(conn)
        (line,) = [dict(row) for row in lines.all_lines(conn) if row["seq"] == 2]
        forged = {**line, "reason": "forged"}
        conn.execute(sa.update(TABLE).where(TABLE.c.seq == 2).values(reason="forged", hash=lines.line_hash(forged)))
    assert ledger.verify(workspace)["first_broken"] == 3


def test_lines_cut_off_at_the_end_show_in_the_head(workspace: Workspace) -> None:
    fill(workspace)
    noted = ledger.verify(workspace)["head"]
    with workspace.store.write() as conn:
        unlock(conn)
        conn.execute(sa.delete(TABLE).where(TABLE.c.seq == 5))
    found = ledger.verify(workspace)
    assert (found["first_broken"], found["n_lines"]) == (None, 4)
    assert found["head"] != noted


def test_the_history_of_a_channel_has_its_lines_and_those_of_the_task(workspace: Workspace) -> None:
    fill(workspace)
    plant_channel(workspace, "app")
    assert [line.seq for line in ledger.history(workspace, channel="web")] == [1, 2, 3, 4, 5]
    assert [line.seq for line in ledger.history(workspace, channel="app")] == [1, 3, 4, 5]
    with pytest.raises(NotFound, match="Did you mean 'web'"):
        ledger.history(workspace, channel="weeb")


def test_who_answered_when(workspace: Workspace) -> None:
    now = [NOON]
    workspace = replace(workspace, clock=lambda: now[0])
    plant_channel(workspace, "app")
    plant_channel(workspace, "web")
    plant_version(workspace)
    controls.ensure_control(workspace, actor="serve")
    plant_version(workspace)
    now[0] = NOON + timedelta(hours=1)
    release = releases.start(
        workspace, candidate="2", scope=["web"], weights={"control": 0.9, "candidate": 0.1}, actor="ann"
    )
    now[0] = NOON + timedelta(hours=2)
    shares = {"control": 0.5, "candidate": 0.5}
    releases.decide(workspace, release, Decision("advance", "no harm seen", {}, weights=shares))
    now[0] = NOON + timedelta(hours=3)
    releases.decide(workspace, release, Decision("promote", "better", {"channels": {"web": {"n": 9}, "app": {}}}))
    now[0] = NOON + timedelta(hours=9)

    first = controls.served_at(workspace, NOON, channel="web")
    assert (first.version, first.since, first.rule, first.tried) == ("tone/1", NOON, "first version", None)
    assert (first.line.actor, first.line.reason) == ("serve", controls.FIRST)
    during = controls.served_at(workspace, NOON + timedelta(hours=1, minutes=30), channel="web")
    assert during.version == "tone/1"
    assert during.tried == {
        "release": release.id, "policy": "shadow", "channels": ("web",), "versions": ["tone/2"],
        "weights": {"control": 0.9, "candidate": 0.1},
    }  # fmt: skip
    later = controls.served_at(workspace, NOON + timedelta(hours=2), channel="web")
    assert later.tried is not None
    assert later.tried["weights"] == shares
    after = controls.served_at(workspace, NOON + timedelta(hours=3), channel="web")
    assert (after.version, after.since, after.rule) == ("tone/2", NOON + timedelta(hours=3), "shadow")
    assert (after.line.evidence, after.tried) == ({"channels": {"web": {"n": 9}}}, None)
    for other in ("app", None):
        assert controls.served_at(workspace, now[0], channel=other).version == "tone/1"
    elsewhere = controls.served_at(workspace, NOON + timedelta(hours=2), channel="app")
    assert (elsewhere.version, elsewhere.tried) == ("tone/1", None)


def test_instants_that_nobody_can_answer_for(workspace: Workspace) -> None:
    plant_version(workspace)
    workspace = replace(workspace, clock=lambda: NOON)
    controls.ensure_control(workspace)
    with pytest.raises(WrongState, match="in charge at that time"):
        controls.served_at(workspace, NOON - timedelta(seconds=1))
    with pytest.raises(BadInput, match="still to come"):
        controls.served_at(workspace, NOON + timedelta(seconds=1))
    with pytest.raises(BadInput, match="no zone"):
        controls.served_at(workspace, NOON.replace(tzinfo=None))
    with pytest.raises(NotFound, match="no such channel"):
        controls.served_at(workspace, NOON, channel="web")


LINES = st.lists(
    st.tuples(
        st.sampled_from([None, "app", "web"]),
        st.sampled_from(["promote", "rollback", "hold", "reject"]),
        st.integers(1, 3),
        st.integers(0, 5),
    ),
    max_size=12,
)


@pytest.fixture
def versions(workspace: Workspace) -> list[str]:
    """Ids of three versions, beside two channels."""
    for name in ("app", "web"):
        plant_channel(workspace, name)
    return [plant_version(workspace).id for _ in range(3)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_who_is_in_charge_is_as_a_plain_search_finds_it(
    workspace: Workspace, versions: list[str], given_lines: list[tuple[str | None, str, int, int]]
) -> None:
    """Also where the clock jumped back between two lines, and with lines of another task between."""
    task = new_id("run")
    with ledger.writing(workspace) as conn:
        for channel, kind, number, hour in given_lines:
            then = replace(workspace, clock=lambda hour=hour: NOON + timedelta(hours=hour))
            for name in (task, "other"):
                version_id = versions[number - 1]
                ledger.append(then, conn, kind, task=name, version_id=version_id, reason="", actor="", channel=channel)
        for channel in (None, "app", "web"):
            for at in (None, *(NOON + timedelta(hours=hour, minutes=1) for hour in range(-1, 6))):
                mine = [
                    versions[number - 1]
                    for where, kind, number, hour in given_lines
                    if where in (None, channel) and kind in ("promote", "rollback")
                    if at is None or NOON + timedelta(hours=hour) <= at
                ]
                seq = lines.in_charge(conn, task, channel, at=at)
                assert (None if seq is None else lines.entry(conn, seq).version_id) == (mine[-1] if mine else None)
    assert ledger.verify(workspace)["first_broken"] is None


def test_evidence_of_any_shape_keeps_its_hash(workspace: Workspace) -> None:
    version = plant_version(workspace)
    odd = {
        "inf": float("inf"),
        "tuple": (1, 2),
        3: "three",
        "deep": {"z": 1, "a": [None, True, 1e22, -0.0]},
        "🙂": "\0",
    }
    with ledger.writing(workspace) as conn:
        ledger.append(workspace, conn, "hold", task="tone", version_id=version.id, reason="", actor="", evidence=odd)
    assert ledger.verify(workspace)["first_broken"] is None
    (line,) = ledger.history(workspace)
    assert line.evidence == json.loads(json.dumps(odd))


def test_rolling_back_the_last_change_is_in_the_chain(workspace: Workspace) -> None:
    fill(workspace)
    line = rollbacks.rollback(workspace, to="1", channel="web", evidence={"n_errors": 3}, actor="ann")
    assert (line.seq, line.channel, line.kind, line.evidence) == (6, "web", "rollback", {"n_errors": 3})
    assert ledger.verify(workspace) == {"n_lines": 6, "first_broken": None, "head": line.hash}
