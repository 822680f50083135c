"""R31: candidates whose fault, or gain, is known: is each rolled back, or promoted, how soon, and at what price?

A client asks for labels that stand in the text, so the truth is known; it corrects a share of the answers through the
feedback route. The server decides by itself; a shadow release is promoted by `improve`, as its users do.
"""

import asyncio
import itertools
import json
import random
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.drills import served
from bench.drills.asking import Asker, Reply

if TYPE_CHECKING:
    from headrace.records import Evidence, LedgerEntry, Release
    from headrace.workspace import Workspace
    from stub_model import Server

LABELS = ("negative", "neutral", "positive")
CHANNELS = ("web", "phone", "mail", "shop")
WRONG_SHARE = 0.15  # of the control's answers
_AFTER_S = 1.0  # how long requests go on after the decision, to see who answers them
_CANARY = {
    "release__policy": "canary", "release__ramp": [25, 50], "release__dwell_requests": 50, "release__dwell_s": 0.5,
    "release__min_labels": 150,
}  # fmt: skip
_NOTED = "noted.jsonl"
_NOTING = f"""
import json, sys
from headrace.server.traffic import TrafficCounts
def note(self, release_id, place, unit, seen, *, _note=TrafficCounts.note, **facts):
    if place[0] != "shadow":
        with open(sys.argv[1] + "/{_NOTED}", "a") as file:
            print(json.dumps([unit, seen.seconds]), file=file)
    _note(self, release_id, place, unit, seen, **facts)
TrafficCounts.note = note
"""
"""The server writes down how long it found each answer to take without the wait for its turn, which no log has."""
_SHADOW = {"release__policy": "shadow", "release__labels": "all"}  # a share of all answers is told, right or wrong


@dataclass(frozen=True)
class Drill:
    """One kind of candidate, and what is to become of it."""

    name: str
    says: Mapping[str, Any]
    """How the candidate's stub differs from the control's; its wrong answers are others unless it has its seed."""
    settings: Mapping[str, Any]
    wanted: str = "reject"
    """Or `promote`; or `hold`: whatever comes of it but a promotion, in `most_s`."""
    label_share: float = 1.0
    row_s: float = 0.0
    """Time that a row takes, of both where `says` has no other."""
    most_s: float = 120.0
    """After which the drill gives up."""


DRILLS = (
    Drill("5 % errors", {"error_share": 0.05}, _CANARY, label_share=0.2),
    Drill("3x latency", {"row_s": 0.15}, _CANARY, label_share=0.2, row_s=0.05),
    Drill("memory leak", {"leak_bytes": 2**28}, _CANARY | {"serve__worker_memory_bytes": 2**32}, label_share=0.2),
    Drill("crash on start", {"dies_at_start": True}, _CANARY, label_share=0.2),
    Drill("-10 points", {"wrong_share": WRONG_SHARE + 0.1}, _SHADOW),
    Drill("one class swapped", {"says_instead": {"negative": "positive"}}, _SHADOW),
    Drill("one channel ruined", {"wrong_share": 0.02, "wrong_by_word": {"phone": 0.45}}, _SHADOW),
    Drill("+1 point", {"wrong_share": WRONG_SHARE - 0.01}, _CANARY | {"release__min_labels": 60}, "promote"),
    Drill(
        "a third of the errors gone",
        {"wrong_share": WRONG_SHARE - 0.05, "seed": "control"},
        _SHADOW,
        "promote",
        label_share=0.5,
    ),
    Drill("+10 points, A/B", {"wrong_share": WRONG_SHARE - 0.1}, {"release__policy": "ab"}, "promote"),
    Drill("equal, shadow", {"wrong_share": WRONG_SHARE}, _SHADOW, "hold", most_s=10),
)


@dataclass(frozen=True)
class Ran:
    """What came of one release."""

    verdict: str
    reason: str
    n_requests: int
    """From its start to the decision."""
    n_labels: int
    n_failed: int
    """Requests without an answer, before and after."""
    n_candidate: int
    """Answers of the candidate that users saw."""
    n_bad: int
    """Of them, wrong ones."""
    seconds: float
    """From its start to the decision."""
    to_decide_s: float | None
    """From the moment when what had happened told the policy enough; None where that cannot be told."""
    to_follow_s: float
    """From the decision to the last request that the candidate was given."""


@dataclass
class _Seen:
    """What the client sent and got."""

    replies: list[tuple[Reply, str]] = field(default_factory=list)
    """With what is right."""
    n_labels: int = 0


def runs(drill: Drill, n: int, *, seed: int = 1, n_connections: int = 8) -> list[Ran]:
    """Releases of one kind, one after the other on one server."""
    from headrace.workspace import open_workspace
    from planted import plant_channel

    control = {"wrong_share": WRONG_SHARE, "seed": "control", "row_s": drill.row_s}
    overrides = {name.replace("__", "."): value for name, value in drill.settings.items()}
    with (
        served(control, prelude=_NOTING, **drill.settings) as server,
        open_workspace(server.root, overrides=overrides) as ws,
    ):
        for name in set(CHANNELS) - {"web", "phone"}:
            plant_channel(ws, name)
        return [_run(server, ws, drill, seed=seed * 1000 + k, n_connections=n_connections) for k in range(n)]


def _run(server: "Server", ws: "Workspace", drill: Drill, *, seed: int, n_connections: int) -> Ran:
    from headrace.release import controls, releases
    from stub_model import plant_stub

    before = controls.serving(ws, "tone").control
    says = {"wrong_share": WRONG_SHARE, "row_s": drill.row_s, "seed": f"candidate {seed}", **drill.says}
    release = releases.start(ws, candidate=plant_stub(ws, **says), task="tone")
    seen = asyncio.run(_traffic(server, ws, drill, release, seed, n_connections))
    line = _last_line(ws, release)
    if line is None:
        releases.stop(ws, "tone", reason="the drill gives up")
    elif line.kind == "promote":
        releases.promote(ws, before, task="tone", reason="the drill begins anew")
    return _ran(ws, drill, release, line, seen)


async def _traffic(
    server: "Server", ws: "Workspace", drill: Drill, release: "Release", seed: int, n_connections: int
) -> _Seen:
    """Ask over some connections, each again as soon as it has its answer, until a while after the decision."""
    asker, seen, numbers = Asker(server.url), _Seen(), itertools.count()
    rng, over = random.Random(seed), asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            number = next(numbers)
            truth, channel = rng.choice(LABELS), rng.choice(CHANNELS)
            body = {
                "task": "tone", "channel": channel, "unit": f"u{seed}-{number}",
                "inputs": [{"text": f"{truth} {channel} {seed}-{number}"}],
            }  # fmt: skip
            reply = await asker.post(body)
            seen.replies.append((reply, truth))
            if reply.status == 200 and rng.random() < drill.label_share:
                row_id = reply.body["predictions"][0]["id"]
                told = await asker.post({"prediction_id": row_id, "correction": truth}, path="/v1/feedback")
                seen.n_labels += told.status == 200

    async def watch() -> None:
        until = time.monotonic() + drill.most_s
        while await asyncio.to_thread(_last_line, ws, release) is None and time.monotonic() < until:
            await asyncio.sleep(0.05)
            if drill.wanted != "reject" and release.policy == "shadow":
                await asyncio.to_thread(_promote_if_told, ws, release)
        await asyncio.sleep(_AFTER_S)
        over.set()

    await asyncio.gather(watch(), *(ask() for _ in range(n_connections)))
    asker.close()
    return seen


def _promote_if_told(ws: "Workspace", release: "Release") -> None:
    """What `headrace improve` does with an open release; a line that holds is left out."""
    from headrace.releasing import judging

    judging.carry_out(ws, release, judging.decision_of(ws, release), actor="improve")
    time.sleep(0.2)


def _last_line(ws: "Workspace", release: "Release") -> "LedgerEntry | None":
    from headrace.store import ledger

    with ws.store.read() as conn:
        lines = ledger.of_release(conn, release.id)
    return next((line for line in reversed(lines) if line.kind in ("promote", "reject")), None)


def _ran(ws: "Workspace", drill: Drill, release: "Release", line: "LedgerEntry | None", seen: _Seen) -> Ran:
    offset = time.time() - time.monotonic()
    decided_at = datetime.now(UTC).timestamp() if line is None else line.at.timestamp()
    before = [(reply, truth) for reply, truth in seen.replies if reply.sent_at + offset <= decided_at]
    of_candidate = [
        (reply, truth) for reply, truth in seen.replies if reply.status == 200 and reply.body["arm"] == "candidate"
    ]
    last = max((reply.sent_at + offset for reply, _ in of_candidate), default=decided_at)
    told_at = told(ws, release, line) if line is not None and line.kind == "reject" else None
    return Ran(
        verdict="none" if line is None else line.kind,
        reason="" if line is None else line.reason,
        n_requests=len(before),
        n_labels=seen.n_labels,
        n_failed=sum(reply.status != 200 for reply, _ in seen.replies),
        n_candidate=len(of_candidate),
        n_bad=sum(reply.body["predictions"][0]["label"] != truth for reply, truth in of_candidate),
        seconds=decided_at - release.started_at.timestamp(),
        to_decide_s=None if told_at is None else decided_at - told_at,
        to_follow_s=max(0.0, last - decided_at) if line is not None and line.kind == "reject" else 0.0,
    )


def told(ws: "Workspace", release: "Release", line: "LedgerEntry") -> float | None:
    """When the prediction log and the feedback told enough to reject; None where they do not tell what was counted."""
    from headrace.releasing import judging

    log = _Log(ws, release)
    moments = sorted({at for at in log.moments() if at <= line.at.timestamp()})

    def rejects(at: float) -> bool:
        return judging.decide(release, log.until(at)).verdict == "reject"

    place = bisect_left(moments, True, key=rejects)
    return moments[place] if place < len(moments) else None


class _Log:
    """What was answered and corrected in a release, to be seen as it was at any moment."""

    def __init__(self, ws: "Workspace", release: "Release") -> None:
        from headrace.store import ledger

        answers = (
            "select p.id, p.request_id, p.arm, c.name, p.error, p.unit, p.at, json_extract(p.output, '$.label') "
            "from predictions p join channels c on c.id = p.channel_id where p.release_id = ? order by p.at"
        )
        labels = (
            "select f.prediction_id, json_extract(f.correction, '$'), f.at from feedback f "
            "join predictions p on p.id = f.prediction_id where p.release_id = ? order by f.at"
        )
        with ws.store.read() as conn:
            self._answers = conn.exec_driver_sql(answers, (release.id,)).fetchall()
            self._labels = conn.exec_driver_sql(labels, (release.id,)).fetchall()
            self._stages = [one.at.timestamp() for one in ledger.of_release(conn, release.id) if one.kind == "advance"]
        self._release = release
        noted = (json.loads(line) for line in (ws.root / _NOTED).read_text("utf-8").splitlines())
        self._seconds: dict[str, float | None] = {unit: seconds for unit, seconds in noted if unit is not None}

    def moments(self) -> list[float]:
        return [_instant(row[-2]) for row in self._answers] + [_instant(row[-1]) for row in self._labels]

    def until(self, at: float) -> "Evidence":
        from headrace.records import Evidence, Outcome, Score, Traffic
        from headrace.server.traffic import Seen, TrafficCounts

        counts, known, shadows = TrafficCounts(), {}, {}
        for row_id, request_id, arm, channel, error, unit, when, label in self._answers:
            if _instant(when) > at:
                break
            known[row_id] = (request_id, arm, channel, label)
            if arm == "shadow":
                shadows[request_id] = label
            seen = Seen(self._seconds.get(unit) if arm != "shadow" and not error else None, failed=bool(error))
            counts.note(
                self._release.id, (arm, channel, 0), None, seen,
                is_control=not arm.startswith(("candidate", "shadow")), slowdown=self._release.options["slowdown"],
            )  # fmt: skip
        traffic: dict[str, dict[str, Traffic]] = {}
        for (arm, channel, _), total in counts.take_changed().get(self._release.id, {}).items():
            traffic.setdefault(arm, {})[channel] = total
        outcomes: list[Outcome] = []
        feedback: dict[str, dict[str, Score]] = {}
        for row_id, truth, when in self._labels:
            if _instant(when) > at or row_id not in known:
                continue
            request_id, arm, channel, label = known[row_id]
            if request_id in shadows:
                outcomes.append(Outcome(channel, label == truth, shadows[request_id] == truth))
            by_channel = feedback.setdefault(arm, {})
            by_channel[channel] = by_channel.get(channel, Score()) + Score(1, int(label == truth))
        is_shadow = self._release.policy == "shadow"
        stage = sum(began_at <= at for began_at in self._stages)
        return Evidence(outcomes, traffic, {} if is_shadow else feedback, n_requests=len(known), stage=stage)


def _instant(text: Any) -> float:
    """A database's instant, in seconds."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
