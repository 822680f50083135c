"""What a release's policy says of all that the release has seen, and carrying it out through the ledger.

Both a running server and the loop do it; of two at once the ledger takes the first.
"""

from headrace.errors import WrongState
from headrace.feedback import outcomes
from headrace.feedback.outcomes import Labels
from headrace.records import Decision, Evidence, LedgerEntry, Release
from headrace.release import endings, releases
from headrace.release.policies import POLICIES
from headrace.workspace import Workspace


def decision_of(
    ws: Workspace, release: Release, *, labels: Labels | None = None, stage_elapsed_s: float = 0.0
) -> Decision:
    """What the policy says now; changes nothing.

    Args:
        labels, stage_elapsed_s: see `feedback.outcomes.evidence`; without a clock no stage ends.
    """
    return decide(release, outcomes.evidence(ws, release, labels=labels, stage_elapsed_s=stage_elapsed_s))


def decide(release: Release, evidence: Evidence) -> Decision:
    """What the policy says of the evidence. Pure."""
    decision: Decision = POLICIES.get(release.policy).decide(evidence, release.options)
    return decision


def carry_out(ws: Workspace, release: Release, decision: Decision, *, actor: str) -> list[LedgerEntry]:
    """Write a decision that changes something to the ledger; the lines written, none where another was faster."""
    if not _changes_something(ws, release, decision):
        return []
    try:
        return releases.decide(ws, release, decision, actor=actor)
    except WrongState:
        return []


def _changes_something(ws: Workspace, release: Release, decision: Decision) -> bool:
    if decision.verdict == "advance" or (decision.verdict != "hold" and not decision.channels):
        return True
    ended = [name for name, verdict in decision.channels.items() if verdict in endings.ENDS]
    with ws.store.read() as conn:
        left = endings.left_of(conn, release) if ended else ()
    return any(left is None or name in left for name in ended)
