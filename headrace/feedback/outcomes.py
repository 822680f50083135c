"""Corrections joined to what the arms of a release answered: its evidence.

Several labellers of one input are one outcome, by the task type's `combine`: they speak about the same answer, so
counting each would count the same evidence twice. A labeller's latest correction counts. What sources say who do not
count at all (trust.not_counted) is no evidence about versions either.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from headrace.compared import Asked
from headrace.feedback import asking, trust
from headrace.feedback.sources import Source
from headrace.records import Answered, Batch, Evidence, Outcome, Release, Score, Traffic
from headrace.store import ledger, traffic
from headrace.store import outcomes as rows
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping

SHADOW = "shadow"


@dataclass(frozen=True)
class Labels:
    """What corrections say of a release so far."""

    outcomes: Sequence[Outcome] = ()
    feedback: Mapping[str, Mapping[str, Score]] | None = None
    batches: Sequence[Batch] = ()
    answers: Sequence[Answered] = ()
    """What `feedback` and `batches` count, one by one, in the order in which the labels came."""
    n_shadowed: int = 0
    asked: Asked | None = None
    newest: str | None = None
    """Id of the newest feedback of the workspace when this was read."""


@dataclass(frozen=True)
class _Stage:
    """Shares of the arms, from an instant on."""

    at: datetime
    shares: Mapping[str, float]


def evidence(
    ws: Workspace, release: Release, *, labels: Labels | None = None, stage_elapsed_s: float = 0.0
) -> Evidence:
    """All that a release has seen until now.

    Args:
        labels: what `labels_of` said, where it was asked already.
        stage_elapsed_s: how long the release has been in its stage, by the clock of who watches it.
    """
    labels = labels or labels_of(ws, release)
    with ws.store.read() as conn:
        all_time = traffic.totals(conn, release.id)
        in_stage = traffic.totals(conn, release.id, stage=release.stage)
    arms = {arm for arm, weight in release.weights.items() if weight > 0}
    watched = arms - {"control"} if "baseline" in arms else arms
    counts = {arm: sum(by_channel.values(), Traffic()).n_requests for arm, by_channel in all_time.items()}
    stage_counts = [sum(in_stage.get(arm, {}).values(), Traffic()).n_requests for arm in watched]
    return Evidence(
        outcomes=labels.outcomes,
        traffic=all_time,
        feedback=labels.feedback or {},
        batches=labels.batches,
        asked=labels.asked,
        n_requests=labels.n_shadowed if release.policy == SHADOW else sum(counts.values()),
        stage=release.stage,
        stage_elapsed_s=stage_elapsed_s,
        stage_requests=min(stage_counts, default=0),
    )


def labels_of(ws: Workspace, release: Release) -> Labels:
    """What the corrections so far say of a release."""
    with ws.store.read() as conn:
        newest = rows.newest_feedback(conn)
    if release.policy == SHADOW:
        found, n_shadowed = paired(ws, release)
        return Labels(found, n_shadowed=n_shadowed, asked=asking.asked_of(ws, release), newest=newest)
    feedback, batches, answers = _by_arm(ws, release)
    return Labels((), feedback, batches, answers, newest=newest)


def are_current(ws: Workspace, labels: Labels) -> bool:
    """Whether no feedback came since."""
    with ws.store.read() as conn:
        return rows.newest_feedback(conn) == labels.newest


def paired(ws: Workspace, release: Release) -> tuple[list[Outcome], int]:
    """One outcome per input that both arms answered and someone corrected, and the number of inputs both answered.

    Outcomes come in the order in which they became what they are, which is the order that sequential evidence needs.
    """
    task_type = _task_type(ws, release)
    with ws.store.read() as conn:
        corrections = rows.shadowed_corrections(conn, release.id)
        n_shadowed = rows.n_shadowed(conn, release.id)
    outcomes = []
    for line, truth in with_truth(task_type, _counted(ws, release.task, corrections)):
        outcomes.append(
            Outcome(
                channel=line["channel"],
                control_correct=task_type.answers_match(line["control"], truth),
                candidate_correct=task_type.answers_match(line["candidate"], truth),
            )
        )
    return outcomes, n_shadowed


def _by_arm(ws: Workspace, release: Release) -> tuple[dict[str, dict[str, Score]], list[Batch], list[Answered]]:
    """Labelled answers by arm and channel, by the shares that held when they were given, and one by one."""
    task_type = _task_type(ws, release)
    with ws.store.read() as conn:
        corrections = rows.labelled_answers(conn, release.id)
        lines = [line for line in ledger.of_release(conn, release.id) if line.kind in ("start", "advance")]
    stages = [_Stage(line.at, _shares(line.evidence["weights"])) for line in lines]
    feedback: dict[str, dict[str, Score]] = {}
    scores: list[dict[str, Score]] = [{} for _ in stages]
    answers = []
    for line, truth in with_truth(task_type, _counted(ws, release.task, corrections)):
        is_right, place = task_type.answers_match(line["output"], truth), _stage_of(line, stages)
        score, by_channel, by_stage = Score(1, int(is_right)), feedback.setdefault(line["arm"], {}), scores[place]
        by_channel[line["channel"]] = by_channel.get(line["channel"], Score()) + score
        by_stage[line["arm"]] = by_stage.get(line["arm"], Score()) + score
        answers.append(Answered(line["arm"], line["channel"], is_right, stages[place].shares))
    return feedback, [Batch(stage.shares, of) for stage, of in zip(stages, scores, strict=True)], answers


def _stage_of(line: "RowMapping", stages: Sequence[_Stage]) -> int:
    """In which stage an answer was given: the latest that had begun and gave its arm the probability it was drawn with.

    A server learns of a stage a moment after it began, so time alone does not say.
    """
    begun = [place for place, stage in enumerate(stages) if stage.at <= line["answered_at"]] or [0]
    alike = [place for place in begun if abs(stages[place].shares.get(line["arm"], 0) - line["probability"]) < 1e-9]
    return (alike or begun)[-1]


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {arm: weight / total for arm, weight in weights.items()}


def _counted(ws: Workspace, task: str, corrections: "Sequence[RowMapping]") -> "list[RowMapping]":
    """Without those of barred sources, and those that are suspended."""
    if not corrections:
        return []
    is_nothing = trust.not_counted(ws, task)
    return [line for line in corrections if not is_nothing(Source(line["channel"], line["labeller"]), line["at"])]


def with_truth(task_type: TaskType, corrections: "Sequence[RowMapping]") -> "list[tuple[RowMapping, object]]":
    """Each corrected answer once with what is right, in the order of the last correction of each.

    Args:
        corrections: with prediction_id, labeller and correction, in the order they came.
    """
    said: dict[str, dict[str, object]] = {}  # prediction -> labeller -> latest correction; newest prediction last
    answers = {}
    for line in corrections:
        by_labeller = said.pop(line["prediction_id"], {})
        said[line["prediction_id"]] = {**by_labeller, line["labeller"]: line["correction"]}
        answers[line["prediction_id"]] = line
    return [(answers[name], task_type.combine(list(by_labeller.values()))) for name, by_labeller in said.items()]


def _task_type(ws: Workspace, release: Release) -> TaskType:
    settings = ws.task(release.task)
    found: TaskType = TASK_TYPES.get(settings.type)(settings)
    return found
