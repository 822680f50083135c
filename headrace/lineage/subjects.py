"""Whom an erasure is about, and which rows that are.

labeller    of one channel: what they labelled, said and answered in reviews; what they asked (predictions whose unit is
            their name) with all that came of it; examples that no import brought and nobody else labelled
channel     everything of it; its name stays in the ledger, in the counts of snapshots and in evaluations
example     it and all of its input in its channel: other examples, labels, predictions with their feedback, reviews

Known answers with one of these inputs go too, unless another channel has the input as an example.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from headrace import retention
from headrace.errors import BadInput, NotFound, nearest
from headrace.lineage import tombstones
from headrace.lineage.tombstones import Tombstone
from headrace.personal.policies import door_of
from headrace.records import Channel
from headrace.store import channels, erasures, lineage
from headrace.store.erasures import Doomed
from headrace.store.votes import OWNER
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_SHORTENED = 400  # characters that are looked for of a text in a quarantined row, which holds the begin of it
_LEAST_CHARS = 4


@dataclass(frozen=True)
class Subject:
    """Whom or what an erasure is about, as found in the store."""

    kind: str
    channel: str
    channel_id: str
    names: frozenset[str] = frozenset()
    example_id: str = ""
    text_hashes: frozenset[str] = frozenset()
    """Of an example's input."""


@dataclass(frozen=True)
class Rows:
    """The rows that go, and the examples by which what used them is found."""

    doomed: Doomed
    touched: frozenset[str]
    """Examples that go, or lose a label; none for a channel, all of which is meant."""

    @property
    def people(self) -> set[str] | None:
        """Whose values are shredded, by names and by hashes of inputs; None: the channel's."""
        return None if self.doomed.whole_channel else {*self.doomed.names, *self.doomed.text_hashes}


def asked_for(ws: Workspace, *, labeller: str | None, channel: str | None, example: str | None) -> Subject:
    """What three options mean.

    Raises:
        BadInput: options that do not go together.
        NotFound: no such channel or example.
    """
    if (example is None) == (channel is None) or (labeller is not None and channel is None):
        raise BadInput(
            "say of whom: a labeller of a channel, a channel, or an example",
            value=", ".join(f"--{k} {v}" for k, v in _given(labeller, channel, example)) or "nothing",
            next_step="--labeller NAME --channel C, --channel C, or --example ID",
        )
    with ws.store.read() as conn:
        if channel is not None:
            found = channels.named(conn, channel)
            names = frozenset() if labeller is None else frozenset({_kept_name(ws, conn, found, labeller)})
            return Subject("channel" if labeller is None else "labeller", found.name, found.id, names)
        assert example is not None
        row = lineage.example(conn, example)
    if row is None:
        raise NotFound("no such example", value=example, next_step="`headrace history row ID` finds it by other ids")
    return Subject("example", row["channel"], row["channel_id"], frozenset(), example, frozenset({row["text_hash"]}))


def _kept_name(ws: Workspace, conn: "Connection", channel: Channel, name: str) -> str:
    """What somebody is called here: as asked for, or without what is personal in it, where that is looked for."""
    return name if name in lineage.names_in(conn, channel.id) else door_of(ws).name(channel.name, name)


def _given(labeller: str | None, channel: str | None, example: str | None) -> Iterator[tuple[str, str]]:
    for name, value in (("labeller", labeller), ("channel", channel), ("example", example)):
        if value is not None:
            yield name, value


def check_known(ws: Workspace, subject: Subject) -> None:
    """
    Raises:
        NotFound: nobody of this name has said or asked anything in the channel.
    """
    if subject.kind != "labeller":
        return
    with ws.store.read() as conn:
        known = lineage.names_in(conn, subject.channel_id)
    (name,) = subject.names
    if name not in known and next(retention.read(ws, channel=subject.channel, unit=name), None) is None:
        problem = f"no such labeller in channel {subject.channel}"
        raise NotFound(problem, value=name, next_step=nearest(name, sorted(known)))


def tombstone_of(subject: Subject, key: bytes, *, erasure_id: str, at: str, keep_files: bool) -> Tombstone:
    """The intent to erase a subject."""
    return Tombstone(
        id=erasure_id,
        kind=subject.kind,
        channel_id=subject.channel_id,
        subject=identity(subject, key),
        inputs=tuple(sorted(_of_input(key, one) for one in subject.text_hashes)),
        at=at,
        key=tombstones.key_name(key),
        keep_files=keep_files,
        state=tombstones.BEGUN,
    )


def identity(subject: Subject, key: bytes) -> str:
    """What a tombstone calls a subject."""
    if subject.kind == "labeller":
        (name,) = subject.names
        return _of_name(key, subject.channel_id, name)
    return subject.channel_id if subject.kind == "channel" else subject.example_id


def in_store(ws: Workspace, tombstone: Tombstone, key: bytes) -> Subject | None:
    """The subject of a tombstone as far as this store has something of it; None where it never had the channel."""
    with ws.store.read() as conn:
        channel = lineage.channel_named(conn, tombstone.channel_id)
        if channel is None:
            return None
        found = Subject(tombstone.kind, channel["name"], channel["id"], example_id=_example_id(tombstone))
        if tombstone.kind == "labeller":
            known = lineage.names_in(conn, channel["id"])
            mine = {name for name in known if _of_name(key, channel["id"], name) == tombstone.subject}
            return replace(found, names=frozenset(mine))
        if tombstone.kind == "example":
            inputs = lineage.inputs_in(conn, channel["id"])
            return replace(found, text_hashes=frozenset(h for h in inputs if _of_input(key, h) in tombstone.inputs))
    return found


def _example_id(tombstone: Tombstone) -> str:
    return tombstone.subject if tombstone.kind == "example" else ""


def rows_of(ws: Workspace, subject: Subject) -> Rows:
    """The rows of a subject."""
    c = subject.channel_id
    if subject.kind == "channel":
        return Rows(Doomed(c, whole_channel=True), frozenset())
    names, hashes = sorted(subject.names), sorted(subject.text_hashes)
    with ws.store.read() as conn:
        if subject.kind == "example":
            examples = lineage.like(conn, c, hashes)
            asked, touched = lineage.asked(conn, c, hashes), set(examples)
        else:
            mine = lineage.asked_by(conn, c, names) if names else []
            asked, hashes = [one for one, _ in mine], sorted({text_hash for _, text_hash in mine})
            labelled = lineage.labelled_by(conn, c, names) if names else []
            alone = lineage.only_from_feedback(conn, labelled, names)
            examples = sorted({*alone, *lineage.from_feedback_like(conn, c, hashes)})
            touched = {*examples, *labelled}
        says = _finder(names, lineage.texts(conn, examples, asked))
        aside = [row["seq"] for row in lineage.quarantined(conn, c) if says(row["raw"]) or says(row["detail"])]
    return Rows(Doomed(c, False, names, examples, asked, hashes, aside), frozenset(touched))


def logged(subject_kind: str, tombstone: Tombstone, key: bytes) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a row of a file of old predictions is to go; by digest, so that it can be asked again after a kill."""

    @cache
    def is_name(unit: str) -> bool:
        return _of_name(key, tombstone.channel_id, unit) == tombstone.subject

    @cache
    def is_input(text_hash: str) -> bool:
        return _of_input(key, text_hash) in tombstone.inputs

    def is_doomed(row: Mapping[str, Any]) -> bool:
        if row["channel_id"] != tombstone.channel_id:
            return False
        if subject_kind == "labeller":
            return row["unit"] is not None and is_name(row["unit"])
        return subject_kind == "channel" or is_input(row["text_hash"])

    return is_doomed


def texts_of(ws: Workspace, subject: Subject, doomed: Doomed) -> set[str]:
    """Every text that goes, comments too, and that is in no row that stays."""
    c, is_mine = subject.channel_id, _whose(subject)
    with ws.store.read() as conn:
        if doomed.whole_channel:
            found = {*lineage.texts_of_channel(conn, c), *lineage.comments(conn, c, None)}
        else:
            comments = lineage.comments(conn, c, list(doomed.names)) if doomed.names else ()
            found = {*lineage.texts(conn, doomed.example_ids, doomed.prediction_ids), *comments}
    found |= {one for row in retention.moved(ws) if is_mine(row) for one in _texts_in(row)}
    if found:
        with ws.store.read() as conn:
            found.difference_update(erasures.kept_texts(conn, doomed))
        found.difference_update(one for row in retention.moved(ws) if not is_mine(row) for one in _texts_in(row))
    return found


def _whose(subject: Subject) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a row of a file of old predictions is the subject's."""

    def is_mine(row: Mapping[str, Any]) -> bool:
        if row["channel_id"] != subject.channel_id:
            return False
        if subject.kind == "labeller":
            return row["unit"] in subject.names
        return subject.kind == "channel" or row["text_hash"] in subject.text_hashes

    return is_mine


def _texts_in(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (one for one in (row["text"], row["text_pair"]) if one)


def names_of(ws: Workspace, subject: Subject) -> set[str]:
    """Names of the labellers and units that go."""
    if subject.kind != "channel":
        return set(subject.names) - _COMMON_NAMES
    with ws.store.read() as conn:
        return lineage.names_in(conn, subject.channel_id) - _COMMON_NAMES


_COMMON_NAMES = {"import", "anonymous", OWNER}
"""Labellers that are nobody: of a row's own label, of feedback without a name, and who runs the workspace."""


def _finder(names: Iterable[str], texts: Iterable[str]) -> Callable[[str], bool]:
    """Whether a quarantined row has one of these names in it, as words, or a text as far as it was kept."""
    words = [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)") for name in names]
    cores = {core for text in texts if len(core := _core(text)) >= _LEAST_CHARS}
    return lambda raw: any(word.search(raw) for word in words) or any(core in raw for core in cores)


def _core(text: str) -> str:
    """The longest part of a text that looks the same wherever it is quoted."""
    return max(re.split(r"""[\\"'\x00-\x1f]""", text), key=len)[:_SHORTENED].strip()


def _of_name(key: bytes, channel_id: str, name: str) -> str:
    return tombstones.digest(key, "labeller", channel_id, name)


def _of_input(key: bytes, text_hash: str) -> str:
    return tombstones.digest(key, "input", text_hash)
