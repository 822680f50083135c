"""Watch what is asked and answered for changes, answer by answer, with one budget of false alarms for all of it.

Watched are the versions in charge, in each channel and in all channels together:

    classes      what is answered
    confidence   how sure the model is, or the number that it answers
    errors       audited answers that were wrong, by reviewers who count as it is looked at (trust.not_counted)
    embeddings   what the inputs are like, in blocks (headrace/watching.py, where a model that embeds is installed)

A look goes on where the last one ended, whoever took that, and gives what one look at everything would have given.
Each request adds at most 1 to the evidence of all channels together and 1 to that of its own channel, so the budget is
halved once for the two and not divided by the number of channels (stats.drift, equation 1).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace import auditing
from headrace.feedback import alarms, trust
from headrace.feedback.alarms import CLASSES, CONFIDENCE, EMBEDDINGS, ERRORS, Alarm, Scope
from headrace.feedback.panels import Bars, ErrorStream, Stream, bars, class_of, number_of
from headrace.feedback.sources import author_of
from headrace.ids import first_id, made_at, new_id
from headrace.records import Input
from headrace.stats.drift import Blocks
from headrace.store import channels, ledger, versions
from headrace.store import drift as rows
from headrace.store.channels import check_channel
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping

_LAG = timedelta(seconds=60)  # answers are logged behind requests: later than that, none comes before another
_CHUNK = 5_000  # answers at once
_SHOWN, _ENDED = 500, 10  # alarms, and those that are over, shown


@dataclass
class _Panel:
    """The streams of one scope while answers come."""

    scope: Scope
    streams: dict[str, Stream]
    errors: ErrorStream
    crossed: dict[str, str] = field(default_factory=dict)
    """Stream to the id of the answer with which its evidence came to the bar."""

    def see(
        self, mine: "Sequence[RowMapping]", audited: "Sequence[RowMapping]", task_type: TaskType, bars: Bars
    ) -> None:
        for name, value_of in ((CLASSES, class_of), (CONFIDENCE, number_of)):
            pairs = [(row["id"], value) for row in mine if (value := value_of(row["output"])) is not None]
            self.streams[name], place = self.streams[name].after([value for _, value in pairs], bars[name])
            if place is not None:
                self.crossed[name] = pairs[place][0]
        self._see_audits(mine, audited, task_type, bars[ERRORS])

    def _see_audits(
        self, mine: "Sequence[RowMapping]", audited: "Sequence[RowMapping]", task_type: TaskType, bar: float
    ) -> None:
        """Requests and answered audits in the order of time, to the millisecond that ids know."""
        place = 0
        for row in audited:
            start = place
            while place < len(mine) and made_at(mine[place]["id"]) <= row["answered_at"]:
                place += 1
            self.errors = self.errors.after_requests(place - start, _least(mine[start:place]))
            is_wrong = not task_type.answers_match(row["output"], row["answer"])
            self.errors = self.errors.after_audit(is_wrong, row["probability"])
            if ERRORS not in self.crossed and self.errors.log_evidence >= bar:
                self.crossed[ERRORS] = first_id("prediction", row["answered_at"])
        self.errors = self.errors.after_requests(len(mine) - place, _least(mine[place:]))

    def evidence(self, conn: "Connection", task: str, by: alarms.Look, stream: str, before: str) -> dict[str, Any]:
        """What the alarm of a stream says now."""
        if stream == ERRORS:
            return alarms.evidence_of_errors(conn, task, by, self.scope, self.errors, before=before)
        return alarms.evidence_of(conn, task, by, self.scope, self.streams[stream], before=before)

    def states(self) -> dict[str, dict[str, Any]]:
        return {**{name: stream.state() for name, stream in self.streams.items()}, ERRORS: self.errors.state()}


@dataclass(frozen=True)
class _Look:
    """What one look is about: the scopes of the versions in charge, and from which id up to which."""

    whole: Scope
    own: Mapping[str, Scope]
    """By id of the channel."""
    cursor: str | None
    first: str
    before: str

    @property
    def versions(self) -> list[str]:
        return [scope.version_id for scope in self.scopes]

    @property
    def scopes(self) -> list[Scope]:
        return [self.whole, *self.own.values()]


def watch(ws: Workspace, task: str | None = None) -> list[Alarm]:
    """Look at the answers and audits that came since the last look; the alarms that this look gave.

    Answers of the last minute wait for the next look. Alarms of versions that are no longer in charge are ended.

    Raises:
        NotFound: no such task.
    """
    task = ws.task_name(task)
    raised: list[Alarm] = []
    while True:
        found, is_done = _go_on(ws, task)
        raised += found
        if is_done:
            return raised


def standing(ws: Workspace, task: str | None = None) -> dict[str, Any]:
    """How the streams of a task stand, as JSON: what is watched, since when, the open alarms and the latest ended ones.

    Raises:
        NotFound: no such task.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        look = _look_at(ws, conn, task)
        kept = {} if look is None else rows.streams(conn, task, look.versions)
        cursor = rows.cursor(conn, task)
        told = [alarms.alarm_of(row) for row in rows.alarms(conn, task, limit=_SHOWN)]
        names = {version.id: version.name for version in versions.listing(conn, task)}
    watched = [
        {"channel": scope.channel, "version": names[scope.version_id], "streams": _shown(kept[scope.key])}
        for scope in ([] if look is None else look.scopes)
        if scope.key in kept
    ]
    return {
        "task": task,
        "looked_until": None if cursor is None else made_at(cursor).isoformat(),
        "watched": watched,
        "alarms": [_as_json(alarm, names) for alarm in told if alarm.ended_at is None],
        "ended": [_as_json(alarm, names) for alarm in told if alarm.ended_at is not None][:_ENDED],
    }


def open_alarms(ws: Workspace, task: str | None = None) -> list[Alarm]:
    """The alarms that are not over, the newest first."""
    task = ws.task_name(task)
    with ws.store.read() as conn:
        return _open(conn, task)


def accept(ws: Workspace, task: str | None = None, *, channel: str | None = None) -> list[Alarm]:
    """End the open alarms, of one channel or of all: the change is to stay, and what comes now is the new reference.

    Raises:
        NotFound: no such task or channel.
    """
    task, now = ws.task_name(task), ws.clock()
    with ws.store.write() as conn:
        rows.lock(conn)
        check_channel(conn, channel)
        cursor = rows.cursor(conn, task) or first_id("prediction", now)
        ended = [alarm for alarm in _open(conn, task) if channel in (None, alarm.channel)]
        ids = {one.name: one.id for one in channels.listing(conn)}
        for alarm in ended:
            rows.change_alarm(conn, alarm.id, ended_at=now)
            scope = ("" if alarm.channel is None else ids[alarm.channel], alarm.version_id)
            rows.forget(conn, task, scope)
            fresh = {CONFIDENCE: Stream().state()} | ({} if scope[0] else {EMBEDDINGS: _blocks(cursor)})
            rows.put(conn, task, scope, fresh, seen=cursor, now=now)
        auditing.note(ws, conn, "drift.accept", task, facts={"channel": channel, "n_alarms": len(ended)})
    return [replace(alarm, ended_at=now) for alarm in ended]


@dataclass(frozen=True)
class Block:
    """Inputs to be compared with the reference, and how many answers they stand for."""

    inputs: list[Input]
    reference: str | None
    """As `note_block` was given it; None: these inputs are to be the reference."""
    n: int
    first: str
    before: str


def next_block(ws: Workspace, task: str, *, n_first: int, n_block: int, n_between: int) -> Block | None:
    """The latest inputs of the version in charge, where enough came since the last block; else None.

    Args:
        n_first: inputs of the reference.
        n_block: inputs of a block.
        n_between: answers from one block to the next.
    """
    with ws.store.read() as conn:
        look = _look_at(ws, conn, task)
        if look is None:
            return None
        state = rows.streams(conn, task, [look.whole.version_id]).get(look.whole.key, {}).get(EMBEDDINGS)
        reference, first = (None, look.whole.first) if state is None else (state["reference"], state["from"])
        n = rows.n_texts(conn, task, look.whole.version_id, first=first, before=look.before)
        if n < (n_first if reference is None else n_between):
            return None
        limit = n_first if reference is None else n_block
        inputs = rows.texts(conn, task, look.whole.version_id, before=look.before, limit=limit)
    return Block(inputs, reference, n, first, look.before)


def note_block(ws: Workspace, task: str, block: Block, reference: str, log_e: float) -> Alarm | None:
    """Keep what a block said; the alarm that it gave, if any.

    Args:
        reference: what later blocks are compared with, in whatever form the caller likes.
        log_e: logarithm of the evidence of the block against "like the reference".
    """
    by = _by(ws, task)
    with ws.store.write() as conn:
        rows.lock(conn)
        look, cursor = _look_at(ws, conn, task), rows.cursor(conn, task)
        if look is None or cursor is None:
            return None
        scope = look.whole
        state = rows.streams(conn, task, [scope.version_id]).get(scope.key, {}).get(EMBEDDINGS) or _blocks(scope.first)
        if state["from"] != block.first:  # somebody else was faster, or another version took charge
            return None
        past = Blocks(-math.inf if state["log_r"] is None else state["log_r"], state["n"])
        later = past if block.reference is None else past.after(log_e, block.n)
        log_r = later.log_r if math.isfinite(later.log_r) else None
        kept = {"reference": reference, "log_r": log_r, "n": later.n, "from": block.before}
        rows.put(conn, task, scope.key, {EMBEDDINGS: kept}, seen=cursor, now=ws.clock())
        is_open = any(one.stream == EMBEDDINGS and one.version_id == scope.version_id for one in _open(conn, task))
        if is_open or later.log_r < bars(1.0)[EMBEDDINGS]:
            return None
        since, at = made_at(block.first), made_at(block.before)
        evidence = alarms.evidence_since(conn, task, by, scope, since, block.n, before=block.before)
        alarm = Alarm(new_id("alarm"), task, None, scope.version_id, EMBEDDINGS, evidence, at)
        _add(conn, scope, alarm)
    return alarm


def _blocks(first: str) -> dict[str, Any]:
    """The state of a stream of blocks that begins with an id."""
    return {"reference": None, "log_r": None, "n": 0, "from": first}


def _go_on(ws: Workspace, task: str) -> tuple[list[Alarm], bool]:
    """Look at some more answers; the alarms given, and whether that was all."""
    by = _by(ws, task)
    task_type = by.task_type
    with ws.store.read() as conn:
        look = _look_at(ws, conn, task)
        if look is None or look.before <= look.first:
            return [], True
        found = rows.answers(conn, task, look.versions, first=look.first, before=look.before, limit=_CHUNK)
        is_done = len(found) < _CHUNK
        before = look.before if is_done else f"{found[-1]['id']}0"  # the next id that there could be
        told = rows.audited(conn, task, look.versions, since=made_at(look.first), before=made_at(before))
        audited = [row for row in told if not by.is_nothing(author_of(row), row["answered_at"])]
        kept = rows.streams(conn, task, look.versions)
        panels = [
            (_panel(conn, task, task_type, scope, kept.get(scope.key)), mine, told)
            for scope, mine, told in _by_scope(look, found, audited)
        ]
    n_channels = len({key[0] for key in kept if key[0]} | {panel.scope.channel_id for panel, _, _ in panels} - {""})
    for panel, mine, told in panels:
        panel.see(mine, told, task_type, _bars(panel.scope, n_channels))
    raised = _write(ws, task, by, replace(look, before=before), [panel for panel, _, _ in panels])
    return ([], True) if raised is None else (raised, is_done)


def _by(ws: Workspace, task: str) -> alarms.Look:
    return alarms.Look(TASK_TYPES.get(ws.task(task).type)(ws.task(task)), trust.not_counted(ws, task))


def _write(ws: Workspace, task: str, by: alarms.Look, look: _Look, panels: Sequence[_Panel]) -> list[Alarm] | None:
    """Keep what was seen and give the alarms; None where somebody else was faster."""
    now = ws.clock()
    with ws.store.write() as conn:
        rows.lock(conn)
        if rows.cursor(conn, task) != look.cursor:
            return None
        told = {(alarm.channel, alarm.version_id, alarm.stream): alarm for alarm in _open(conn, task)}
        raised = []
        for panel in panels:
            scope = panel.scope
            rows.put(conn, task, scope.key, panel.states(), seen=look.before, now=now)
            for stream in (CLASSES, CONFIDENCE, ERRORS):
                alarm = told.pop((scope.channel, scope.version_id, stream), None)
                if alarm is None and stream not in panel.crossed:
                    continue
                evidence = panel.evidence(conn, task, by, stream, look.before)
                if alarm is not None:
                    rows.change_alarm(conn, alarm.id, evidence=evidence)
                    continue
                at = made_at(panel.crossed[stream])
                alarm = Alarm(new_id("alarm"), task, scope.channel, scope.version_id, stream, evidence, at)
                _add(conn, scope, alarm)
                raised.append(alarm)
        in_charge = {(scope.channel, scope.version_id) for scope in look.scopes}
        for channel, version_id, stream in told:
            if (channel, version_id) not in in_charge:
                rows.change_alarm(conn, told[channel, version_id, stream].id, ended_at=now)
    return raised


def _look_at(ws: Workspace, conn: "Connection", task: str) -> _Look | None:
    """What there is to look at; None while no version is in charge."""
    in_charge = ledger.controls(conn, task)
    if not in_charge:
        return None
    first = {name: _in_charge_from(conn, task, name) for name in in_charge}
    whole = Scope("", in_charge[None], first[None])
    own = {
        one.id: Scope(one.id, in_charge.get(one.name, whole.version_id), first.get(one.name, whole.first), one.name)
        for one in channels.listing(conn)
    }
    cursor = rows.cursor(conn, task)
    begins = min(scope.first for scope in (whole, *own.values()))
    return _Look(whole, own, cursor, max(cursor or "", begins), first_id("prediction", ws.clock() - _LAG))


def _in_charge_from(conn: "Connection", task: str, channel: str | None) -> str:
    seq = ledger.in_charge(conn, task, channel)
    assert seq is not None  # it is in charge
    return first_id("prediction", ledger.entry(conn, seq).at)


def _by_scope(
    look: _Look, found: "Sequence[RowMapping]", audited: "Sequence[RowMapping]"
) -> "Iterator[tuple[Scope, list[RowMapping], list[RowMapping]]]":
    """Answers and audits of all together, and of each channel that has any."""
    by_channel: dict[str, tuple[list[RowMapping], list[RowMapping]]] = {}
    for place, (lines, id_of) in enumerate(((found, "id"), (audited, "prediction_id"))):
        for row in lines:
            for scope in (look.whole, look.own.get(row["channel_id"])):
                if scope is not None and scope.has(row, id_of):
                    by_channel.setdefault(scope.channel_id, ([], []))[place].append(row)
    yield look.whole, *by_channel.pop("", ([], []))
    for channel_id, (mine, told) in by_channel.items():
        yield look.own[channel_id], mine, told


def _panel(
    conn: "Connection", task: str, task_type: TaskType, scope: Scope, states: Mapping[str, Any] | None
) -> _Panel:
    """The streams of a scope as they were left, or new ones."""
    states = states or {}
    streams = {name: Stream.of(states[name]) if name in states else Stream() for name in (CLASSES, CONFIDENCE)}
    if CLASSES not in states and task_type.problem == "single_label_classification":
        streams[CLASSES] = Stream(names=tuple(task_type.output_names))
    if ERRORS in states:
        return _Panel(scope, streams, ErrorStream.of(states[ERRORS]))
    return _Panel(scope, streams, ErrorStream.allowing(alarms.held_out(conn, task, scope)))


def _bars(scope: Scope, n_channels: int) -> Bars:
    """The budget is that of all channels together as long as there is one; then half of it is that of the channels."""
    if n_channels > 1:
        return bars(0.5)
    return bars(1.0) if not scope.channel_id else dict.fromkeys(bars(1.0), math.inf)


def _least(answers: "Sequence[RowMapping]") -> float:
    """The least probability of an audit."""
    return min((row["audit_probability"] for row in answers if row["audit_probability"]), default=1.0)


def _open(conn: "Connection", task: str) -> list[Alarm]:
    return [alarms.alarm_of(row) for row in rows.alarms(conn, task, is_open=True)]


def _add(conn: "Connection", scope: Scope, alarm: Alarm) -> None:
    values = {name: value for name, value in vars(alarm).items() if name != "channel"}
    rows.add_alarm(conn, **values, channel_id=scope.channel_id or None)


def _shown(states: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How far each stream is."""
    found: dict[str, dict[str, Any]] = {}
    for name, state in states.items():
        if name == ERRORS:
            allowed = state["detector"] and state["detector"]["allowed_share"]
            found[name] = {"n_audits": state["n_audits"] or len(state["gathered"]), "allowed_share": allowed}
        elif name == EMBEDDINGS:
            found[name] = {"n_answers": state["n"], "n_gathered": 0}
        else:
            detector = state["detector"]
            found[name] = {"n_answers": detector["n"] if detector else 0, "n_gathered": len(state["gathered"])}
        found[name]["is_watched"] = state["reference" if name == EMBEDDINGS else "detector"] is not None
    return found


def _as_json(alarm: Alarm, names: Mapping[str, str]) -> dict[str, Any]:
    at, ended_at = alarm.at.isoformat(), alarm.ended_at and alarm.ended_at.isoformat()
    facts = {name: value for name, value in vars(alarm).items() if name not in ("at", "ended_at", "version_id")}
    return {**facts, "version": names[alarm.version_id], "at": at, "ended_at": ended_at, "in_words": alarm.in_words}
