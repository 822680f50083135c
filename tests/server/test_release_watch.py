"""What a server counts of a release, and when it acts. Catches: a unit counted as often as it asks, counts lost on a
failed write, a stage that a jump of the clock skips, an own idea of what is slow that favours an arm.
"""

import math
import random
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.errors import Unavailable
from headrace.records import Channel, Decision, Release, Traffic
from headrace.release import ledger, releases
from headrace.release.controls import serving
from headrace.server import release_watch
from headrace.server.lineup import Drawn
from headrace.server.metrics import Metrics
from headrace.server.release_watch import ReleaseWatch
from headrace.server.traffic import Seen, SlowLimit, TrafficCounts, abstains
from headrace.store import traffic
from headrace.workspace import Workspace, utc_now
from planted import plant_channel, plant_version

PLACE = ("candidate", "ch_1", 0)


def note(counts: TrafficCounts, seen: Seen, unit: str | None = None, place: tuple[str, str, int] = PLACE) -> None:
    counts.note("rel", place, unit, seen, is_control=False, slowdown=1.5)


def test_events_count_once_per_unit_and_requests_always() -> None:
    counts = TrafficCounts()
    for unit in ("a", "a", "a", "b", None, None):
        note(counts, Seen(failed=True), unit)
    note(counts, Seen(), "a")
    later = ("candidate", "ch_1", 1)
    note(counts, Seen(failed=True), "a", later)
    found = counts.take_changed()["rel"]
    assert found[PLACE] == Traffic(n_requests=7, n_errors=4, n_units=4)
    assert found[later] == Traffic(n_requests=1)  # it stayed in its arm: no new draw of one
    assert counts.take_changed() == {}
    note(counts, Seen(late=True, abstained=True), "c", later)
    again = counts.take_changed()
    assert again == {"rel": {later: Traffic(2, 0, 1, 0, 1, 1)}}  # totals, not what is new
    counts.give_back("rel", again["rel"])
    assert counts.take_changed() == again
    counts.forget_all_but([])
    note(counts, Seen(), "a")
    assert counts.take_changed() == {"rel": {PLACE: Traffic(1, n_units=1)}}


def test_a_unit_counts_in_the_first_arm_it_met_of_those_that_are_compared() -> None:
    # Catches a unit that moves when shares change as a second draw of an arm.
    counts = TrafficCounts()
    for arm, stage in (("control", 0), ("candidate", 1), ("candidate-2", 2)):
        note(counts, Seen(failed=True), "mover", (arm, "ch_1", stage))
    for arm, is_apart in (("control", True), ("candidate", False), ("shadow", True)):
        counts.note("canary", (arm, "ch_1", 0), "u", Seen(), is_control=False, slowdown=1.5, is_apart=is_apart)
    found = counts.take_changed()
    assert {arm: (one.n_units, one.n_errors) for (arm, _, _), one in found["rel"].items()} == {
        "control": (1, 1),
        "candidate": (0, 0),
        "candidate-2": (0, 0),
    }
    assert {arm: one.n_units for (arm, _, _), one in found["canary"].items()} == dict.fromkeys(
        ("control", "candidate", "shadow"), 1
    )


def test_what_is_slow_hangs_on_what_was_usual() -> None:
    limit = SlowLimit(1.5)
    assert limit.seconds == math.inf
    for _ in range(64):
        limit.note(0.1)
    assert limit.seconds == pytest.approx(0.15)
    quick = SlowLimit(1.5)
    for _ in range(64):
        quick.note(0.001)
    assert quick.seconds == pytest.approx(0.006)  # half a millisecond more is nobody's harm


def test_equal_arms_are_as_often_slow() -> None:
    rng, counts = random.Random(1), TrafficCounts()
    for k in range(8000):
        arm = ("control", "candidate")[k % 2]
        seen = Seen(seconds=0.02 * rng.lognormvariate(0, 0.5))
        counts.note("rel", (arm, "ch", 0), None, seen, is_control=arm == "control", slowdown=1.0)
    found = counts.take_changed()["rel"]
    slow = [found[arm, "ch", 0].n_slow for arm in ("control", "candidate")]
    assert abs(slow[0] - slow[1]) < 5 * math.sqrt(sum(slow))
    assert 100 < sum(slow) < 800


@pytest.mark.parametrize(
    ("answers", "said_nothing"),
    [([], False), (["x"], False), ([[]], True), ([[], ["x"]], True), ([[], ["x"], ["y"]], False), ([0.0], False),
     ([{"answers": []}], True), ([{"answers": [{"text": "x"}]}], False)],
)  # fmt: skip
def test_abstaining_is_half_of_the_rows_or_more(answers: list[Any], said_nothing: bool) -> None:
    assert abstains(answers) is said_nothing


class Ledger:
    """The part of a lineup that the watch needs."""

    def __init__(self) -> None:
        self.n_looks = 0

    def now(self) -> dict[str, Any]:
        return {"tone": None}

    def look(self) -> None:
        self.n_looks += 1


def opened(ws: Workspace, **options: Any) -> tuple[Release, Channel, ReleaseWatch, Ledger]:
    plant_version(ws)
    channel = plant_channel(ws, "a")
    releases.promote(ws, "1", reason="the first")
    small = {"dwell_requests": 5, "dwell_s": 0.0, "min_labels": 1, "ramp": [10, 50], **options}
    release = releases.start(ws, candidate=plant_version(ws), policy="canary", options=small)
    lineup = Ledger()
    return release, channel, ReleaseWatch(ws, lineup, Metrics()), lineup  # type: ignore[arg-type]


def send(ws: Workspace, watch: ReleaseWatch, channel: Channel, n: int, seen: Seen = Seen()) -> None:  # noqa: B008
    now = serving(ws)
    assert now.candidate is not None
    for arm, version in (("candidate", now.candidate), ("baseline", now.control)):
        drawn = Drawn(version, arm, 0.1, now.control, now.release)
        for _ in range(n):
            watch.note(drawn, channel.id, None, seen if arm == "candidate" else Seen())


def kinds(ws: Workspace) -> list[str]:
    return [line.kind for line in ledger.history(ws)][2:]


def test_a_look_writes_the_counts_and_acts_on_them(workspace: Workspace) -> None:
    release, channel, watch, lineup = opened(workspace)
    watch._look()
    assert kinds(workspace) == []  # holding is no line
    send(workspace, watch, channel, 5)
    watch._look()
    assert kinds(workspace) == ["advance"]
    assert lineup.n_looks == 1
    with workspace.store.read() as conn:
        assert traffic.totals(conn, release.id)["candidate"] == {"a": Traffic(5, n_units=5)}
    send(workspace, watch, channel, 20, Seen(failed=True))
    watch._look()
    assert kinds(workspace) == ["advance", "reject"]


def test_counts_of_other_processes_count_too(workspace: Workspace) -> None:
    _, channel, watch, lineup = opened(workspace)
    other = ReleaseWatch(workspace, lineup, Metrics())  # type: ignore[arg-type]
    send(workspace, watch, channel, 7, Seen(failed=True))
    send(workspace, other, channel, 7, Seen(failed=True))
    other._flush()
    assert kinds(workspace) == []
    watch._look()
    assert kinds(workspace) == ["reject"]
    other._look()  # finds it decided
    assert kinds(workspace) == ["reject"]


def test_counts_outlive_a_write_that_fails(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    release, channel, watch, _ = opened(workspace, dwell_s=3600)
    send(workspace, watch, channel, 3)

    def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("busy")

    monkeypatch.setattr(release_watch.traffic, "put", refuse)
    with pytest.raises(Unavailable):
        watch._look()
    monkeypatch.undo()
    watch._look()
    with workspace.store.read() as conn:
        assert traffic.totals(conn, release.id)["candidate"] == {"a": Traffic(3, n_units=3)}


def test_an_end_at_which_counts_cannot_be_written_is_one_all_the_same(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release, channel, watch, _ = opened(workspace, dwell_s=3600)

    def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("busy")

    with monkeypatch.context() as patched:
        patched.setattr(release_watch.traffic, "put", refuse)
        with watch:
            send(workspace, watch, channel, 3)
    assert "the last counts of traffic could not be written" in caplog.text
    watch._flush()
    with workspace.store.read() as conn:
        assert traffic.totals(conn, release.id)["candidate"] == {"a": Traffic(3, n_units=3)}


def test_a_jump_of_the_clock_ends_no_stage(workspace: Workspace) -> None:
    _, channel, watch, lineup = opened(workspace, dwell_s=0.3)
    watch._look()
    jumped = replace(workspace, clock=lambda: utc_now() + timedelta(days=400))
    watch._ws = jumped
    send(workspace, watch, channel, 50)
    watch._look()
    restarted = ReleaseWatch(jumped, lineup, Metrics())  # type: ignore[arg-type]
    restarted._look()
    assert kinds(workspace) == []
    time.sleep(0.35)
    watch._look()
    assert kinds(workspace) == ["advance"]
    watch._look()  # the next stage has a time of its own, and no requests yet
    assert kinds(workspace) == ["advance"]


def test_in_a_shadow_release_only_rejections_are_carried_out() -> None:
    shadow = Release("r", "tone", "v1", "v2", "shadow", {}, "open", utc_now(), None)
    promote = Decision("promote", "", channels={"a": "promote", "b": "reject"})
    assert release_watch._allowed(shadow, promote) == replace(promote, verdict="hold", channels={"b": "reject"})
    assert release_watch._allowed(replace(shadow, policy="ab"), promote) == promote
