"""Counts of traffic. Catches: a total counted twice when it is sent again, one process's counts over another's,
a stage or a release that takes another's counts.
"""

from types import SimpleNamespace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.ids import new_id
from headrace.records import Channel, Release, Traffic
from headrace.store import Store, channels, releases, traffic
from planted import NOON, plant_version

ARMS, NAMES, SOURCES = ("control", "candidate"), ("app", "web"), ("one", "two", "three")
counts = st.builds(Traffic, *[st.integers(0, 2**31)] * 6)
said = st.tuples(
    st.sampled_from(SOURCES),
    st.dictionaries(st.tuples(st.sampled_from(ARMS), st.sampled_from(NAMES), st.integers(0, 2)), counts, max_size=4),
)


def a_release(store: Store) -> str:
    version = plant_version(SimpleNamespace(store=store))  # type: ignore[arg-type]
    release = Release(
        new_id("release"), version.task, version.id, version.id, "canary", {}, "open", NOON, None, others=(version.id,),
        scope=("app",), weights={"control": 0.9, "candidate": 0.1}, stage=2,
    )  # fmt: skip
    with store.write() as conn:
        releases.add(conn, release, config_hash="0" * 16)
        assert releases.find(conn, release.id) == release
    return release.id


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(said, max_size=6))
def test_totals_are_the_last_word_of_every_process(
    store: Store, reports: list[tuple[str, dict[tuple[str, str, int], Traffic]]]
) -> None:
    with store.write(durable=False) as conn:
        ids = {one.name: one.id for one in channels.listing(conn)}
        for name in set(NAMES) - ids.keys():
            ids[name] = new_id("channel")
            channels.add(conn, Channel(ids[name], name, "", "", "", NOON))
    release_id, another = a_release(store), a_release(store)
    last: dict[tuple[str, str, str, int], Traffic] = {}
    with store.write(durable=False) as conn:
        for source, report in reports:
            by_id = {(arm, ids[name], stage): total for (arm, name, stage), total in report.items()}
            traffic.put(conn, release_id, by_id, source=source, now=NOON)
            last |= {(source, *place): total for place, total in report.items()}
    with store.read() as conn:
        by_stage = traffic.by_stage(conn, release_id)
        for stage in (None, 0, 1, 2):
            expected: dict[str, dict[str, Traffic]] = {}
            for (_, arm, name, at), total in last.items():
                if stage in (None, at):
                    mine = expected.setdefault(arm, {})
                    mine[name] = mine.get(name, Traffic()) + total
            found = traffic.totals(conn, release_id) if stage is None else by_stage.get(stage, {})
            assert found == expected
        assert traffic.totals(conn, another) == {}
