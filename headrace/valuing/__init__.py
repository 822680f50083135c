"""What each channel's examples, and each channel's feedback, add: in points, with intervals, for itself and for others.

Values are measured on test rows, whose labels are never feedback alone. The fast ways need one vector a row and no
training (sources.py, frozen.py, curves.py); `retrain` leaves out one source after the other in real fine-tunes. The
fast ways value feedback as it was given; curves and fine-tunes read what it amounts to (headrace/trusting.py).
"""

from collections.abc import Mapping
from typing import Any

from headrace.ids import new_id
from headrace.making import hash_of
from headrace.records import Evaluation
from headrace.store import versions
from headrace.valuing import curves, frozen, retraining, sources
from headrace.valuing.sources import Report, Sides, Source
from headrace.version import VERSION
from headrace.workspace import Workspace

PREDICTOR = "value"
"""Under which values are kept among the evaluations."""


def value(
    ws: Workspace,
    *,
    task: str | None = None,
    retrain: bool = False,
    start: str = "version",
    report: Report = lambda *_args, **_facts: None,
) -> dict[str, Any]:
    """What each channel's examples and feedback add to the newest labelled rows, and what more labels would bring.

    The same rows and settings give the same values, which are kept.

    Args:
        retrain: also leave out one source after the other in real fine-tunes; waits for the job, and one that was
            killed goes on where it was.
        start: of those fine-tunes: `version`, the one in charge, or `base`, the base model.

    Returns:
        `task`, `snapshot`, `n_train_rows`, `n_test_rows`, `sources` (the best first; `n_counted` of their rows are
        trained on), `harmful` (names of those that harm or contradict), `curves` and `retrained` (None without). Where
        rows of this task type have no such figures, `inconclusive` is the reason, and `sources` and `curves` are empty.

    Raises:
        WrongState: nothing is labelled, or no version is in charge that fine-tunes could start from.
        BadInput: a start that is none.
    """
    name = ws.task_name(task)
    if retrain:
        retraining.check(ws, name, start)
    counted = sources.sides_of(ws, name)
    given = sources.as_given(ws, counted)
    found = kept(ws, counted, given) or _computed(ws, counted, given, report)
    return found | {"retrained": retraining.retrained(ws, counted, start, report) if retrain else None}


def harmful(values: Mapping[str, Any]) -> set[str]:
    """The channels whose examples or feedback harm or contradict."""
    return {one["channel"] for one in values["sources"] if one["source"] in values["harmful"]}


def _computed(ws: Workspace, counted: Sides, given: Sides, report: Report) -> dict[str, Any]:
    about = {
        "task": counted.task,
        "snapshot": counted.frozen.id,
        "n_train_rows": len(given.train),
        "n_test_rows": len(given.test),
    }
    reason = sources.reason_against(ws, counted.task)
    if reason is not None:
        return {**about, "inconclusive": reason, "sources": [], "harmful": [], "curves": []}
    material = sources.material(ws, given, report)
    report("value", 0, 2)
    of_sources = [
        {**one, "n_counted": counted.n_rows.get(Source(one["channel"], one["kind"]), 0)}
        for one in frozen.by_source(material)
    ]
    report("value", 1, 2)
    if counted.hash != given.hash:
        material = sources.material(ws, counted, report)
    found = {
        **about,
        "inconclusive": None,
        "sources": of_sources,
        "harmful": [one["source"] for one in of_sources if one["verdict"] in ("harms", "contradicts")],
        "curves": curves.by_channel(material),
    }
    report("value", 2, 2)
    _keep(ws, counted, given, found)
    return found


def kept(ws: Workspace, counted: Sides, given: Sides) -> dict[str, Any] | None:
    """The values of these rows, where they were computed before."""
    asked = _asked(ws, counted, given)
    with ws.store.read() as conn:
        known = versions.evaluations(conn, counted.task)
    mine = [one.results for one in reversed(known) if one.predictor == PREDICTOR and one.results["asked"] == asked]
    return {key: value for key, value in mine[0].items() if key != "asked"} if mine else None


def _asked(ws: Workspace, counted: Sides, given: Sides) -> str:
    """Hash of all that decides values."""
    settings = ws.task(counted.task)
    return hash_of([VERSION, counted.hash, given.hash, settings.model_dump(mode="json")])


def _keep(ws: Workspace, counted: Sides, given: Sides, found: dict[str, Any]) -> None:
    results = {**found, "asked": _asked(ws, counted, given)}
    evaluation = Evaluation(
        new_id("evaluation"), counted.task, None, PREDICTOR, counted.frozen.id, "test", results, ws.clock()
    )
    with ws.store.write() as conn:
        versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)
