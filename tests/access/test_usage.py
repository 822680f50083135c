"""What the bill says. Catches: an hour in the wrong month, a sum that loses a source, a column that moves, a cell that
a spreadsheet runs, a name that is not told from nobody's."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Say
from headrace.access import keys
from headrace.access.usage import BY, COUNTS, usage, write_csv
from headrace.errors import BadInput, Unusable
from headrace.store import usage as rows
from headrace.store.usage import Place, Used
from headrace.workspace import Workspace
from planted import plant_channel

SOME = Used(n_requests=2, n_refused=1, n_rows=5, n_tokens=60, seconds=0.25)


def hour(month: int, day: int, at: int, year: int = 2026) -> datetime:
    return datetime(year, month, day, at, tzinfo=UTC)


def put(ws: Workspace, counts: dict[Place, Used], source: str = "a server") -> None:
    with ws.store.write() as conn:
        rows.add(conn, counts, source=source)


def test_hours_fall_into_their_months_also_over_new_year(workspace: Workspace) -> None:
    web = plant_channel(workspace, "web").id
    at = [hour(12, 1, 0), hour(12, 31, 23), hour(1, 1, 0, 2027), hour(11, 30, 23)]
    put(workspace, {Place("k", web, "tone", one): SOME for one in at})
    found = usage(workspace, by=())
    assert [(line.month, line.used) for line in found.lines] == [
        ("2026-11", SOME), ("2026-12", SOME + SOME), ("2027-01", SOME)
    ]  # fmt: skip
    assert found.total == SOME + SOME + SOME + SOME
    assert usage(workspace, by=(), month="2026-12").total == SOME + SOME
    assert usage(workspace, month="2025-01").lines == []


@pytest.mark.parametrize("by", [BY, ("task",), ()])
def test_a_csv_has_the_same_columns_before_anything_was_used(
    workspace: Workspace, tmp_path: Path, by: tuple[str, ...]
) -> None:
    headers = []
    for _ in range(2):
        write_csv(usage(workspace, by=by), tmp_path / "usage.csv")
        headers.append((tmp_path / "usage.csv").read_text().splitlines()[0])
        put(workspace, {Place("k", "c", "tone", hour(11, 1, 0)): SOME})
    assert headers[0] == headers[1]


places = st.builds(
    Place,
    st.sampled_from(["", "k1", "k2"]),
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from(["", "tone", "other"]),
    st.sampled_from([hour(1, 1, 0), hour(1, 31, 23), hour(2, 1, 0)]),
)
counts = st.builds(Used, *[st.integers(0, 1000)] * 4, st.integers(0, 100).map(float))


@given(st.lists(st.tuples(st.dictionaries(places, counts, max_size=6), st.sampled_from("ab")), max_size=6))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_it_is_told_apart_it_adds_up_to_what_was_counted(
    workspace: Workspace, flushes: list[tuple[dict[Place, Used], str]]
) -> None:
    with workspace.store.write() as conn:
        conn.exec_driver_sql("DELETE FROM usage")
    for counted, source in flushes:
        put(workspace, counted, source)
    everything = sum((used for counted, _ in flushes for used in counted.values()), Used())
    for by in (BY, ("key",), ("channel",), ("task",), ("task", "key"), (*BY, "task", "key") * 2, ()):
        assert usage(workspace, by=by).total == everything
    of_k1 = sum((u for counted, _ in flushes for place, u in counted.items() if place.key_id == "k1"), Used())
    lines = [line.used for line in usage(workspace, by=("key",)).lines if line.names["key"] == "k1"]
    assert sum(lines, Used()) == of_k1


def test_what_cannot_be_asked_for_is_said(workspace: Workspace) -> None:
    with pytest.raises(BadInput, match="Did you mean 'channel'"):
        usage(workspace, by=["chanel"])
    for month in ("9999-12", "2026", "2026-13", "last", "2026-11-01"):
        with pytest.raises(BadInput, match="no such month"):
            usage(workspace, month=month)
    with pytest.raises(Unusable):
        write_csv(usage(workspace), workspace.root)


def test_the_verb_prints_lines_and_a_total_and_writes_a_csv(workspace: Workspace, say: Say, tmp_path: Path) -> None:
    web = plant_channel(workspace, "web").id
    assert say("usage").out == "Nothing was used yet.\n"
    key = keys.create(workspace, "=cmd()", scopes=["predict"]).record
    put(workspace, {Place(key.id, web, "tone", hour(11, 2, 3)): SOME, Place("", "", "", hour(11, 2, 3)): Used(0, 4)})
    shown = say("usage", "--csv", str(tmp_path / "usage.csv")).out
    assert "=cmd()" in shown
    assert shown.splitlines()[-2].split() == ["total", "2", "5", "5", "60", "0.25"]
    with (tmp_path / "usage.csv").open(newline="") as file:
        nobody, ours = csv.DictReader(file)
    assert list(ours) == ["month", "key", "key_name", "channel", "task", *COUNTS]
    assert (ours["key"], ours["key_name"], ours["n_rows"]) == (key.id, "'=cmd()", "5")
    assert (nobody["key"], nobody["channel"], nobody["n_refused"]) == ("", "", "4")
    by_channel = json.loads(say("usage", "--by", "channel", "--json").out)
    assert by_channel["lines"][1] == {"month": "2026-11", "channel": "web", **vars(SOME)}
    assert by_channel["total"] == vars(SOME + Used(0, 4))
