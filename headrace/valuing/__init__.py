"""What each channel's examples, and each channel's feedback, add: in points, with intervals, for itself and for others.

Values are measured on test rows, whose labels are never feedback alone. The fast ways need one vector a row and no
training (sources.py, frozen.py, curves.py); `retrain` leaves out one source after the other in real fine-tunes.
"""

from typing import Any

from headrace.ids import new_id
from headrace.making import hash_of
from headrace.records import Evaluation
from headrace.store import versions
from headrace.valuing import curves, frozen, retraining, sources
from headrace.valuing.sources import Report, Sides
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
        `task`, `snapshot`, `n_train_rows`, `n_test_rows`, `sources` (the best first), `harmful` (names of those that
        harm), `curves` and `retrained` (None without); `inconclusive` instead of figures where rows of this task type
        have none: the reason, with `sources` and `curves` empty.

    Raises:
        WrongState: nothing is labelled, or no version is in charge that fine-tunes could start from.
        BadInput: a start that is none.
    """
    name = ws.task_name(task)
    if retrain:
        retraining.check(ws, name, start)
    sides = sources.sides_of(ws, name)
    found = kept(ws, sides) or _computed(ws, sides, report)
    return found | {"retrained": retraining.retrained(ws, sides, start, report) if retrain else None}


def _computed(ws: Workspace, sides: Sides, report: Report) -> dict[str, Any]:
    about = {
        "task": sides.task,
        "snapshot": sides.frozen.id,
        "n_train_rows": len(sides.train),
        "n_test_rows": len(sides.test),
    }
    reason = sources.reason_against(ws, sides.task)
    if reason is not None:
        return {**about, "inconclusive": reason, "sources": [], "harmful": [], "curves": []}
    given = sources.material(ws, sides, report)
    report("value", 0, 2)
    of_sources = frozen.by_source(given)
    report("value", 1, 2)
    found = {
        **about,
        "inconclusive": None,
        "sources": of_sources,
        "harmful": [one["source"] for one in of_sources if one["verdict"] == "harms"],
        "curves": curves.by_channel(given),
    }
    report("value", 2, 2)
    _keep(ws, sides, found)
    return found


def kept(ws: Workspace, sides: Sides) -> dict[str, Any] | None:
    """The values of these rows, where they were computed before."""
    asked = _asked(ws, sides)
    with ws.store.read() as conn:
        known = versions.evaluations(conn, sides.task)
    mine = [one.results for one in reversed(known) if one.predictor == PREDICTOR and one.results["asked"] == asked]
    return {key: value for key, value in mine[0].items() if key != "asked"} if mine else None


def _asked(ws: Workspace, sides: Sides) -> str:
    """Hash of all that decides values."""
    settings = ws.task(sides.task)
    deciding = [VERSION, sides.frozen.content_hash, settings.model_dump(mode="json")]
    return hash_of(deciding)


def _keep(ws: Workspace, sides: Sides, found: dict[str, Any]) -> None:
    results = {**found, "asked": _asked(ws, sides)}
    evaluation = Evaluation(
        new_id("evaluation"), sides.task, None, PREDICTOR, sides.frozen.id, "test", results, ws.clock()
    )
    with ws.store.write() as conn:
        versions.add_evaluation(conn, evaluation, config_hash=ws.config_hash)
