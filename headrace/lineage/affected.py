"""What was made of rows: from examples to every snapshot, run, version, adapter and release that used them.

A run *used* a row in one of these ways; all but `measured` mean that its weights may hold something of the row:

    trained, validated, measured   by the side of the row in the run's snapshot
    pretrained                     as a text without a label (continue-pretraining)
    inherited                      it stands on, or learnt from, a run that did
    unknown                        it may have: the files of its snapshot are gone, by an earlier erasure

An adapter used the rows of its channel alone, so what is affected of a version is its shared model, some of its
adapters, or both.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.ancestry import Line, name_of, parents
from headrace.registry import resolve
from headrace.store import ledger, lineage
from headrace.workspace import Workspace

_BY_SIDE = {"train": "trained", "validation": "validated", "test": "measured", "unknown": "unknown"}
_OF_A_ROW = ("side", "target", "weight", "origin")
_STRENGTH = ("trained", "validated", "pretrained", "inherited", "unknown", "measured")


@dataclass(frozen=True)
class Held:
    """Rows of interest in one snapshot."""

    snapshot: Line
    counts: Mapping[str, Mapping[str, int]]
    """Channel to side to rows. Of a snapshot whose files are gone the side is `unknown`, and so many at most."""
    row: Line | None = None
    """Side, target, weight and origin, where one example is asked about."""


@dataclass(frozen=True)
class Affected:
    """All that used some rows. Each entry is JSON with ids and names, and `how` it used them."""

    snapshots: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    adapters: list[dict[str, Any]] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)


def of_examples(ws: Workspace, channel: str, example_ids: Collection[str]) -> Affected:
    """What used any of some examples of a channel.

    Raises:
        MissingExtra: there are snapshots and pyarrow is not installed.
    """
    if not example_ids:
        return Affected()
    with ws.store.read() as conn:
        known = lineage.snapshots(conn)
        earliest = lineage.oldest(conn, sorted(example_ids))
    return used(ws, holding(ws, known, channel, example_ids, earliest), earliest)


def of_channel(ws: Workspace, channel: str) -> Affected:
    """What used any example of a channel; see `of_examples`."""
    with ws.store.read() as conn:
        known = lineage.snapshots(conn)
        found = lineage.channel_named(conn, channel)
    return used(ws, holding(ws, known, channel, None, None), None if found is None else found["created_at"])


def holding(
    ws: Workspace,
    snapshots: Sequence[Line],
    channel: str,
    example_ids: Collection[str] | None,
    earliest: datetime | None,
) -> list[Held]:
    """Those of the snapshots that hold rows of a channel: of some examples, or of any with None.

    Args:
        earliest: when the first of the rows came, for snapshots that can only be judged by their time.
    """
    found = []
    for one in snapshots:
        n = one["n_by_channel"].get(channel, 0)
        folder = None if one["erased_at"] is not None else ws.artifacts.look(one["artifact"])
        if n and folder is not None:
            found.append(_found_in(folder, one, channel, example_ids))
        elif n and (earliest is None or one["created_at"] >= earliest):
            most = n if example_ids is None else min(n, len(example_ids))
            found.append(Held(one, {channel: {"unknown": most}}))
    return [one for one in found if one.counts]


def _found_in(folder: Path, snapshot: Line, channel: str, example_ids: Collection[str] | None) -> Held:
    purpose = "looking into snapshots"
    if example_ids is None or len(example_ids) != 1:
        count_rows = resolve("headrace.data.parquet:count_rows", purpose=purpose)
        return Held(snapshot, count_rows(folder, channel, example_ids))
    row = resolve("headrace.data.parquet:find_row", purpose=purpose)(folder, next(iter(example_ids)))
    return Held(snapshot, {} if row is None else {row["channel"]: {row["side"]: 1}}, row)


def used(ws: Workspace, held: Sequence[Held], earliest: datetime | None) -> Affected:
    """What used rows that are in these snapshots, or texts that came at some time."""
    with ws.store.read() as conn:
        runs, versions = lineage.runs(conn), lineage.versions(conn)
        adapters, releases = lineage.adapters(conn), lineage.releases(conn)
        in_charge = {task: ledger.controls(conn, task) for task in {one["task"] for one in versions}}
    how = ways(runs, versions, held, earliest)
    of_adapters = [
        {"version": name_of(version), "version_id": version["id"], "channel": one["channel"], "weights": one["weights"]}
        | {"how": sides}
        for version, one, sides in _used_adapters(versions, adapters, runs, held)
    ]
    touched = {one["version_id"] for one in of_adapters}
    shown = [
        {
            "id": one["id"],
            "name": name_of(one),
            "run_id": one["run_id"],
            "how": how.get(one["run_id"], "adapter"),
            "in_charge": sorted(name or "all" for name, i in in_charge[one["task"]].items() if i == one["id"]),
        }
        for one in versions
        if one["run_id"] in how or one["id"] in touched
    ]
    return Affected(
        snapshots=[_snapshot(one) for one in held],
        runs=[
            {"id": one["id"], "task": one["task"], "method": one["method"], "state": one["state"]}
            | {"how": how[one["id"]]}
            for one in runs
            if one["id"] in how
        ],
        versions=shown,
        adapters=of_adapters,
        releases=list(_releases(releases, {one["id"]: one["name"] for one in shown})),
    )


def in_charge(ws: Workspace) -> set[str]:
    """Names of the versions that answer now, for any task in any channel."""
    with ws.store.read() as conn:
        versions = lineage.versions(conn)
        ids = {i for task in {one["task"] for one in versions} for i in ledger.controls(conn, task).values()}
    return {name_of(one) for one in versions if one["id"] in ids}


def ways(
    runs: Sequence[Line], versions: Sequence[Line], held: Sequence[Held], earliest: datetime | None
) -> dict[str, str]:
    """Run id to how the model that it made used the rows. Pure.

    Args:
        earliest: when the first of the rows came; None: no run read them as texts alone.
    """
    by_snapshot = {one.snapshot["id"]: one for one in held}
    found = {
        one["id"]: how
        for one in runs
        if (how := _direct(one, by_snapshot, earliest if "per_channel" not in one["params"] else None))
    }
    above_of = {one["id"]: list(parents(one, runs, versions)) for one in runs}
    while True:
        hold = {run_id for run_id, how in found.items() if how != "measured"}
        more = {i: "inherited" for i, above in above_of.items() if i not in hold and not hold.isdisjoint(above)}
        if not more:
            return found
        found |= more


def _direct(run: Line, by_snapshot: Mapping[str, Held], earliest: Any) -> str | None:
    """How a run's own model read the rows; the model under adapters was made by another run."""
    own, material = by_snapshot.get(run["snapshot_id"]), run["params"].get("material", {})
    if "per_channel" in run["params"]:
        return "measured" if own is not None and _sides(own) & {"test"} else None
    hows = set() if own is None else {_BY_SIDE[side] for side in _sides(own)}
    if earliest is not None and "unlabelled" in material and earliest <= run["created_at"]:
        hows.add("pretrained")
    return min(hows, key=_STRENGTH.index, default=None)


def _sides(held: Held) -> set[str]:
    return {side for sides in held.counts.values() for side, n in sides.items() if n}


def _used_adapters(
    versions: Sequence[Line], adapters: Sequence[Line], runs: Sequence[Line], held: Sequence[Held]
) -> Iterator[tuple[Line, Line, str]]:
    """(version, adapter, how) of kept adapters whose own training read rows of their channel."""
    by_id = {one["id"]: one for one in versions}
    snapshot_of = {one["id"]: one["snapshot_id"] for one in runs}
    by_snapshot = {one.snapshot["id"]: one for one in held}
    for one in adapters:
        trained_on = by_snapshot.get(snapshot_of.get(one["facts"].get("run", ""), ""))
        sides = {} if trained_on is None else trained_on.counts.get(one["channel"], {})
        hows = {_BY_SIDE[side] for side, n in sides.items() if n} - {"measured"}
        if hows:
            yield by_id[one["version_id"]], one, min(hows, key=_STRENGTH.index)


def _snapshot(held: Held) -> dict[str, Any]:
    one = held.snapshot
    facts = {"id": one["id"], "task": one["task"], "content_hash": one["content_hash"], "created_at": one["created_at"]}
    facts["rows"] = {channel: dict(sides) for channel, sides in held.counts.items()}
    return facts | {name: held.row[name] for name in _OF_A_ROW if held.row is not None}


def _releases(releases: Sequence[Line], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for one in releases:
        versions = [one["control_id"], one["candidate_id"], *one["others"]]
        if used_versions := [names[i] for i in versions if i in names]:
            times = {"started_at": one["started_at"], "ended_at": one["ended_at"]}
            yield {"id": one["id"], "task": one["task"], "state": one["state"], "versions": used_versions, **times}
