"""Corrections joined to what the arms of a release answered: its evidence.

Several labellers of one input are one outcome, by the task type's `combine`: they speak about the same answer, so
counting each would count the same evidence twice. A labeller's latest correction counts. What sources say who do not
count at all (trust.not_counted) is no evidence about versions either.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from headrace.compared import Asked
from headrace.feedback import asking, trust
from headrace.feedback.sources import author_of
from headrace.records import Answered, Batch, Evidence, Outcome, Release, Score, Traffic
from headrace.store import ledger, traffic
from headrace.store import outcomes as rows
from headrace.store.votes import Who, after
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping

SHADOW = "shadow"
_Scores = dict[str, dict[str, Score]]
"""Arm to channel to labelled answers."""


@dataclass(frozen=True)
class Labels:
    """What corrections say of a release so far."""

    outcomes: Sequence[Outcome] = ()
    feedback: Mapping[str, Mapping[str, Score]] | None = None
    stages: Sequence[Mapping[str, Mapping[str, Score]]] = ()
    """The same by stage."""
    answers: Sequence[Answered] = ()
    """What `feedback` and `stages` count, one by one, in the order in which the labels came."""
    n_repeated: int = 0
    """Labelled answers that do not count, as an earlier one of their unit does."""
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
        by_stage = traffic.by_stage(conn, release.id)
        stages = _stages(conn, release)
    in_stage, batches = by_stage.get(release.stage, {}), []
    for place, stage in enumerate(stages if release.policy != SHADOW else ()):
        feedback = labels.stages[place] if place < len(labels.stages) else {}  # labels may be of an earlier stage
        batches.append(Batch(stage.shares, feedback, by_stage.get(place, {})))
    arms = {arm for arm, weight in release.weights.items() if weight > 0}
    watched = arms - {"control"} if "baseline" in arms else arms
    counts = {arm: sum(by_channel.values(), Traffic()).n_requests for arm, by_channel in all_time.items()}
    stage_counts = [sum(in_stage.get(arm, {}).values(), Traffic()).n_requests for arm in watched]
    return Evidence(
        outcomes=labels.outcomes,
        traffic=all_time,
        feedback=labels.feedback or {},
        batches=batches,
        n_repeated_labels=labels.n_repeated,
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
    return replace(_by_arm(ws, release), newest=newest)


def are_current(ws: Workspace, labels: Labels) -> bool:
    """Whether no feedback came since."""
    with ws.store.read() as conn:
        return rows.newest_feedback(conn) == labels.newest


def paired(ws: Workspace, release: Release) -> tuple[list[Outcome], int]:
    """One outcome per input that both arms answered and someone labelled, and the number of inputs both answered.

    What a reviewer was asked about is what he or she says, whatever others say by themselves, unless all labels count.
    Outcomes keep the place of their first label: one that is sent again, or changed, changes no order.
    """
    task_type = _task_type(ws, release)
    with ws.store.read() as conn:
        corrections, answers = rows.shadowed_corrections(conn, release.id), rows.asked_answers(conn, release.id)
        n_shadowed = rows.n_shadowed(conn, release.id)
    asked = with_truth(task_type, _counted(ws, release.task, answers))
    ids = {line["prediction_id"] for line, _ in asked}
    told = with_truth(task_type, _counted(ws, release.task, corrections))
    if release.options.get("labels") != "all":
        told = asked + [(line, truth) for line, truth in told if line["prediction_id"] not in ids]
    outcomes = [
        Outcome(
            channel=line["channel"],
            control_correct=task_type.answers_match(line["control"], truth),
            candidate_correct=task_type.answers_match(line["candidate"], truth),
            is_asked=line["prediction_id"] in ids,
            at=line["at"],
        )
        for line, truth in told
    ]
    return outcomes, n_shadowed


def _by_arm(ws: Workspace, release: Release) -> Labels:
    """Labelled answers by arm and channel, the same by the stage in which they were given, and one by one."""
    task_type = _task_type(ws, release)
    with ws.store.read() as conn:
        corrections = rows.labelled_answers(conn, release.id)
        stages = _stages(conn, release)
    counted, n_repeated = _first_of_units(release, _counted(ws, release.task, corrections))
    feedback: _Scores = {}
    by_stage: list[_Scores] = [{} for _ in stages]
    answers = []
    for line, truth in with_truth(task_type, counted):
        is_right, place = task_type.answers_match(line["output"], truth), _stage_of(line, stages)
        for scores in (feedback, by_stage[place]):
            by_channel = scores.setdefault(line["arm"], {})
            by_channel[line["channel"]] = by_channel.get(line["channel"], Score()) + Score(1, int(is_right))
        answers.append(Answered(line["arm"], line["channel"], is_right, stages[place].shares, line["at"]))
    return Labels((), feedback, by_stage, answers, n_repeated)


def _stages(conn: "Connection", release: Release) -> list[_Stage]:
    """In their order."""
    lines = [line for line in ledger.of_release(conn, release.id) if line.kind in ("start", "advance")]
    return [_Stage(line.at, _shares(line.evidence["weights"])) for line in lines]


def _first_of_units(release: Release, corrections: "Sequence[RowMapping]") -> "tuple[list[RowMapping], int]":
    """Corrections of the answers that count, and how many other labelled answers there are of the same units.

    All answers of a unit come from the arm it was assigned to, and they are alike, so together they are one draw of an
    arm, not many. The one that counts is the one that was labelled first, whatever was said of it and whatever comes
    later. Without a unit a request is one, with all its rows. Where a slice of the control is an arm, the rest of the
    control is compared with nothing, and a unit that comes from there into a slice has not counted yet.
    """
    is_compared = [line for line in corrections if line["arm"] != "control" or "baseline" not in release.weights]
    first: dict[tuple[bool, str], str] = {}
    for line in is_compared:
        unit = line["unit"]
        first.setdefault((unit is None, line["request_id"] if unit is None else unit), line["prediction_id"])
    kept, labelled = set(first.values()), {line["prediction_id"] for line in is_compared}
    return [line for line in is_compared if line["prediction_id"] in kept], len(labelled) - len(kept)


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
    return [line for line in corrections if not is_nothing(author_of(line), line["at"])]


def with_truth(task_type: TaskType, corrections: "Sequence[RowMapping]") -> "list[tuple[RowMapping, object]]":
    """Each corrected answer once with what is right by the latest word of each labeller, in the order in which answers
    were first corrected.

    Args:
        corrections: with prediction_id, labeller, key_id and correction, in the order they came.
    """
    said: dict[str, dict[Who, object]] = {}  # prediction -> labeller and key -> latest correction
    answers = {}
    for line in corrections:
        before, who = said.get(line["prediction_id"], {}), (line["labeller"], line["key_id"])
        said[line["prediction_id"]] = after(before, who, line["correction"])
        answers[line["prediction_id"]] = line
    return [(answers[name], task_type.combine(list(by_labeller.values()))) for name, by_labeller in said.items()]


def _task_type(ws: Workspace, release: Release) -> TaskType:
    settings = ws.task(release.task)
    found: TaskType = TASK_TYPES.get(settings.type)(settings)
    return found
