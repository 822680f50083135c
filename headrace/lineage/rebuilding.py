"""Make the versions in charge again without what was erased."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace import loop, warm_start
from headrace import per_channel as adapting
from headrace.errors import WrongState
from headrace.lineage import affected, erasing
from headrace.release import controls
from headrace.store import erasures
from headrace.store.erasures import Erasure
from headrace.workspace import Workspace

Report = Callable[..., None]


@dataclass(frozen=True)
class Way:
    """How a task is freed of what was erased."""

    what: str
    """nothing (what is in charge did not use it), adapter (of one channel), or all."""
    channel: str | None = None
    reason: str = ""


def rebuild(ws: Workspace, *, report: Report = loop.silent) -> list[dict[str, Any]]:
    """Train again what is in charge and used what was erased, for every erasure that waits for it.

    A new version takes charge by a release as any other does; this makes it.

    Returns:
        For each task: `task`, `what` (nothing, adapter, all), `channel`, `reason`, `version` (the new one, or None),
        and `erasures` that it answers.

    Raises:
        WrongState: a job is running, or the settings name a teacher or a start that used what was erased.
        BadInput, MissingExtra: see `loop.train`.
    """
    with ws.store.read() as conn:
        waiting = [one for one in erasures.listing(conn) if one.rebuilt_at is None and one.facts["state"] == "done"]
    erasing.check_no_job(ws)
    done = []
    for task in sorted({name.rpartition("/")[0] for one in waiting for name in one.facts["versions"]}):
        own = [one for one in waiting if any(_is_of(name, task) for name in one.facts["versions"])]
        done.append(_of_task(ws, task, own, report))
    for one in waiting:
        made = [line for line in done if one.id in line["erasures"]]
        facts = {**one.facts, "rebuilt": [{k: line[k] for k in ("task", "what", "version")} for line in made]}
        erasing.write_receipt(ws, one._replace(facts=facts, rebuilt_at=ws.clock()), done_at=ws.clock())
    return done


def _of_task(ws: Workspace, task: str, waiting: Sequence[Erasure], report: Report) -> dict[str, Any]:
    used = {name for one in waiting for name in one.facts["versions"] if _is_of(name, task)}
    way = way_of(_in_charge(ws, task), used, [line for one in waiting for line in one.facts["adapters"]])
    if way.what == "all":
        _refuse_handing_on(ws, task, used)
    version = None
    if way.what == "adapter":
        version = loop.train(ws, task=task, per_channel=True, channel=way.channel, report=report)["version"]
    elif way.what == "all":
        serving = controls.serving(ws, task).control if _in_charge(ws, task) else None
        with_adapters = serving is not None and adapting.has_adapters(ws, serving)
        version = loop.train(ws, task=task, per_channel=with_adapters, report=report)["version"]
    return {"task": task, **vars(way), "version": version, "erasures": [one.id for one in waiting]}


def way_of(in_charge: Collection[str], used: Collection[str], adapters: Sequence[Mapping[str, str]]) -> Way:
    """What has to be trained again. Pure.

    One channel's adapter is enough, and exact, where a single version is in charge, its shared model did not use the
    rows, and of its adapters one alone did: the new one is trained on the same shared model, beside the same others.

    Args:
        in_charge: names of the versions that answer.
        used: names of the versions that used the rows.
        adapters: version and channel, of versions of which only adapters did.
    """
    touched = sorted(set(in_charge) & set(used))
    if in_charge and not touched:
        return Way("nothing", reason="what is in charge did not use it")
    own = {line["channel"] for line in adapters if line["version"] in touched}
    only_adapters = {line["version"] for line in adapters} >= set(touched)
    if len(in_charge) == 1 and only_adapters and len(own) == 1:
        (channel,) = own
        return Way("adapter", channel, f"of {touched[0]} only the adapter of {channel} used it")
    return Way("all", reason=f"the shared model of {', '.join(touched) or 'every version'} may hold some of it")


def _in_charge(ws: Workspace, task: str) -> list[str]:
    """Names of the versions that answer for a task in any channel; none where no release was ever started."""
    return sorted(name for name in affected.in_charge(ws) if _is_of(name, task))


def _refuse_handing_on(ws: Workspace, task: str, used: Collection[str]) -> None:
    """Refuse a teacher or a start from which the new version would have what was erased."""
    settings = ws.settings.finetune
    teacher, start = settings.teacher, settings.start
    if teacher and controls.find_version(ws, task, teacher).name in used:
        raise WrongState(
            "finetune.teacher used what was erased, and would hand it on",
            value=teacher,
            next_step="Train without a teacher, or with one that did not use it",
        )
    if start and warm_start.version_of(ws, task, start).name in used:
        raise WrongState(
            "finetune.start used what was erased, and would hand it on",
            value=start,
            next_step="Start from the base model (--set finetune.start=), or from a version that did not use it",
        )


def _is_of(version: str, task: str) -> bool:
    return version.rpartition("/")[0] == task
