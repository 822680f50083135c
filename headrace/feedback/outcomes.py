"""Corrections joined to what control and candidate answered: the evidence of a release."""

from headrace.records import Outcome, Release
from headrace.store import outcomes as rows
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace


def paired(ws: Workspace, release: Release) -> tuple[list[Outcome], int]:
    """One outcome per input that both arms answered and someone corrected, and the number of inputs both answered.

    Several labellers of one input are one outcome, by the task type's `combine`: they speak about the same two answers,
    so counting each would count the same evidence twice. A labeller's latest correction counts. Outcomes come in the
    order in which they became what they are, which is the order that sequential evidence needs.
    """
    settings = ws.task(release.task)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    with ws.store.read() as conn:
        corrections = rows.shadowed_corrections(conn, release.id)
        n_shadowed = rows.n_shadowed(conn, release.id)
    said: dict[str, dict[str, object]] = {}  # prediction -> labeller -> latest correction; newest prediction last
    answers = {}
    for line in corrections:
        by_labeller = said.pop(line["prediction_id"], {})
        said[line["prediction_id"]] = {**by_labeller, line["labeller"]: line["correction"]}
        answers[line["prediction_id"]] = line
    outcomes = []
    for prediction_id, by_labeller in said.items():
        truth = task_type.combine(list(by_labeller.values()))
        line = answers[prediction_id]
        outcomes.append(
            Outcome(
                channel=line["channel"],
                control_correct=task_type.answers_match(line["control"], truth),
                candidate_correct=task_type.answers_match(line["candidate"], truth),
            )
        )
    return outcomes, n_shadowed
