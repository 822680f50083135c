"""Who counts, by known answers, and what the labels that came back amount to.

In this order: known answers, caps, aggregation, suspected label errors, influence on held-out rows. The last two need
vectors of the inputs, which the layer above has (headrace/trusting.py). Nothing is deleted: who does not count today
counts again as soon as what is known of them says so.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from headrace.config import FeedbackTable
from headrace.feedback.sources import Said, Source, covered, gather, source_of
from headrace.records import Interval
from headrace.stats import annotators, intervals
from headrace.stats.annotators import Gate
from headrace.store import runs, snapshots
from headrace.store.votes import OWNER
from headrace.workspace import Workspace

_N_RECENT = 20
_RECENT_LEVEL = 0.98
"""The latest known answers bar alone, too, so that nobody lives on earlier ones: 7 or fewer right of 20. Of honest
people right in 70 to 98 %, 1.7 % are barred at one of the looks at 1 to 100 answers, in place of 1.5 %."""


@dataclass(frozen=True)
class SourceTrust:
    """What is known of a source, and what its labels count."""

    source: Source
    n_asked: int
    """Known answers asked for, each once."""
    n_right: int
    accuracy: Interval | None
    """None: nothing known was asked."""
    weight: float
    """0, feedback.new_source_weight or 1; of a channel, 0 where its newcomers do not count."""
    n_labels: int
    share: float
    """Of all labels that came back."""
    n_suspended: int
    """Labels that fall under a suspension."""
    reason: str


def judge(ws: Workspace, task: str | None = None) -> tuple[SourceTrust, ...]:
    """Every source that said anything, by channel: the channel itself, then its labellers.

    One that harmed held-out rows when the newest snapshot was frozen is said to count 0, as it did there.
    """
    name = ws.task_name(task)
    harmful = _harmful(ws, name)
    return tuple(
        replace(one, weight=0.0, reason=f"does not count in the newest snapshot: {why}; else {one.reason}")
        if (why := harmful.get(str(one.source)))
        else one
        for one in judged(gather(ws, name), ws.settings.feedback)
    )


def _harmful(ws: Workspace, task: str) -> dict[str, str]:
    """Source to how it harms held-out rows, by the facts of the newest snapshot (headrace/trusting.py)."""
    with ws.store.read() as conn:
        frozen = snapshots.listing(conn, task)
        artifact = runs.find_artifact(conn, frozen[-1].artifact) if frozen else None
    return {} if artifact is None else artifact.facts.get("trust", {}).get("harmful", {})


NotCounted = Callable[[Source, datetime], bool]


def not_counted(ws: Workspace, task: str) -> NotCounted:
    """A function that says whether what a source said at an instant counts nothing: barred, or suspended.

    What who runs the workspace says always counts.
    """
    said = gather(ws, task, on_known=True)
    barred = {one.source for one in judged(said, ws.settings.feedback) if one.weight == 0 and one.source.labeller}
    is_suspended = covered(said.suspensions)
    return lambda source, at: source.labeller != OWNER and (source in barred or is_suspended(source, at))


def weights_of(trusted: Sequence[SourceTrust]) -> dict[Source, float]:
    """What a label of each labeller counts."""
    return {one.source: one.weight for one in trusted if one.source.labeller is not None}


def judged(said: Said, settings: FeedbackTable) -> tuple[SourceTrust, ...]:
    """`judge` on what was read."""
    labellers = sorted({*map(source_of, said.votes), *said.answers}, key=str)
    gate = gate_of(settings)
    weights = dict(zip(labellers, _weights([said.answers.get(one, ()) for one in labellers], gate), strict=True))
    newcomers = _newcomers([one for one in labellers if weights[one] > 0], said.answers, settings)
    shut = {channel for channel, answers in newcomers.items() if _is_barred(answers, gate)}
    n_labels = Counter(source_of(vote) for vote in said.votes)
    is_suspended = covered(said.suspensions)
    n_held = Counter(source_of(vote) for vote in said.votes if is_suspended(source_of(vote), vote.at))
    found = []
    for channel in sorted({one.channel for one in labellers}):
        own = [one for one in labellers if one.channel == channel]
        together = [is_right for one in own for is_right in said.answers.get(one, ())]
        of_channel = sum(n_labels[one] for one in own), sum(n_held[one] for one in own)
        weight, why = _of_channel(newcomers.get(channel, ()), is_shut=channel in shut)
        found.append(_shown(Source(channel), together, weight, of_channel, len(said.votes), why))
        for one in own:
            answers = said.answers.get(one, ())
            weight = weights[one]
            if channel in shut and len(answers) < settings.min_known_answers:
                weight, why = 0.0, "does not count: the newcomers of the channel are not right often enough"
            else:
                why = _why(answers, weight, settings)
            found.append(_shown(one, answers, weight, (n_labels[one], n_held[one]), len(said.votes), why))
    return tuple(found)


def gate_of(settings: FeedbackTable) -> Gate:
    return Gate(
        bar=settings.gate_accuracy,
        newcomer_until=settings.min_known_answers,
        newcomer_weight=settings.new_source_weight,
    )


def _weights(answers: Sequence[Sequence[bool]], gate: Gate) -> list[float]:
    """What a label counts of each whose known answers are these."""
    asked, right = (np.array([count(one) for one in answers], dtype=np.int64) for count in (len, sum))
    latest = [one[-_N_RECENT:] for one in answers]
    recent, recently_right = (np.array([count(one) for one in latest], dtype=np.int64) for count in (len, sum))
    sharper = replace(gate, level=_RECENT_LEVEL, min_known=_N_RECENT)
    fallen = annotators.is_barred(recent, recently_right, sharper)
    found: list[float] = np.where(fallen, 0.0, annotators.weights(asked, right, gate)).tolist()
    return found


def _is_barred(answers: Sequence[bool], gate: Gate) -> bool:
    asked, right = np.array([len(answers)]), np.array([sum(answers)])
    return bool(annotators.is_barred(asked, right, gate)[0])


def _newcomers(
    labellers: Sequence[Source], answers: Mapping[Source, Sequence[bool]], settings: FeedbackTable
) -> dict[str, list[bool]]:
    """Channel to the known answers of its newcomers together: many accounts with a few labels each are one stranger.

    Args:
        labellers: those who are not barred by themselves, since the honest should not answer for them.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    for one in labellers:
        own = answers.get(one, ())
        found[one.channel] += own if len(own) < settings.min_known_answers else ()
    return found


def _of_channel(newcomers: Sequence[bool], *, is_shut: bool) -> tuple[float, str]:
    if is_shut:
        return 0.0, f"its newcomers do not count: {sum(newcomers)} of their {len(newcomers)} known answers are right"
    return 1.0, "its labellers count by what is known of each"


def _why(answers: Sequence[bool], weight: float, settings: FeedbackTable) -> str:
    right = f"{sum(answers)} of {len(answers)} known answers are right"
    if weight == 0.0 and answers:
        return f"does not count: {right}, surely less than {settings.gate_accuracy:g}"
    if len(answers) < settings.min_known_answers:
        asked = f"{len(answers)} of {settings.min_known_answers} known answers asked for"
        return f"new, counts {settings.new_source_weight:g}: {asked}"
    return f"counts: {right}"


def _shown(
    source: Source, answers: Sequence[bool], weight: float, counts: tuple[int, int], n_all: int, why: str
) -> SourceTrust:
    n_labels, n_suspended = counts
    if n_suspended:
        why = f"{n_suspended} of {n_labels} labels are suspended; {why}"
    return SourceTrust(
        source=source,
        n_asked=len(answers),
        n_right=sum(answers),
        accuracy=intervals.wilson(sum(answers), len(answers)),
        weight=weight,
        n_labels=n_labels,
        share=n_labels / max(1, n_all),
        n_suspended=n_suspended,
        reason=why,
    )
