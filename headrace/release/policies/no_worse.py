"""Is a candidate in the shadow worse by less than a margin? By what reviewers say of the differences. Pure.

All inputs that both arms answered are evidence; only differences need an answer (stats/noninferiority.py). There are
two counts: of the inputs up to the first difference that waits for a reviewer, and of all up to now, where those that
wait are losses. Each holds at all times, so the better one is taken. A channel is *suspected* as a harm is (shadow.py),
with what waits or was skipped as losses: one that differs much and that nobody answers for keeps all waiting, while a
candidate that hardly ever differs needs no answers.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headrace.compared import Compared
from headrace.records import Evidence
from headrace.release.policies.guardrails import SUSPICION_E
from headrace.stats import evalues, noninferiority
from headrace.stats.evalues import Pairs


@dataclass(frozen=True)
class Shown:
    """What one way of counting comes to."""

    total: Compared
    pairs: Pairs
    """Of all channels, those that wait as losses."""
    log_e: float
    suspected: tuple[str, ...]
    """Channels."""

    @property
    def n_answered(self) -> int:
        """Differences asked about on which one side alone was right, or that were skipped."""
        return self.total.wins + self.total.losses


def shown(evidence: Evidence, options: Mapping[str, Any]) -> Shown | None:
    """The better of the two counts; None without a margin, or where nothing was asked."""
    if not options.get("margin") or evidence.asked is None:
        return None
    both = [_counted(groups, options) for groups in (evidence.asked.settled, evidence.asked.looked_at)]
    return max(both, key=lambda one: (not one.suspected, one.log_e))


def log_es(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    """Channel to its own evidence, the better of the two counts; empty without a margin."""
    if not options.get("margin") or evidence.asked is None:
        return {}
    both = evidence.asked.settled, evidence.asked.looked_at
    return {
        name: max(_log_e(_pairs(groups.get(name, Compared())), options) for groups in both)
        for name in sorted(evidence.asked.looked_at)
    }


def n_waiting(evidence: Evidence) -> dict[str, int]:
    """Channel to the differences that wait for a reviewer, of those channels that have any."""
    groups = {} if evidence.asked is None else evidence.asked.looked_at
    return {name: counts.n_waiting for name, counts in sorted(groups.items()) if counts.n_waiting}


def n_lost(evidence: Evidence) -> int:
    """Losses among the differences asked about, with those that were skipped or answered by nobody who counts."""
    return 0 if evidence.asked is None else sum(counts.losses for counts in evidence.asked.looked_at.values())


def in_words(shown: Shown) -> str:
    counts, lost = shown.total, shown.total.losses + shown.total.n_waiting
    told = (
        f"{counts.n:,} inputs that both answered, {_count(counts.wins, 'win')} and {_count(lost, 'loss')} among those"
    )
    unsaid = f", {counts.n_waiting} of them without an answer yet" if counts.n_waiting else ""
    return f"{told} asked about{unsaid}"


def wait(shown: Shown | None, evidence: Evidence, options: Mapping[str, Any]) -> str:
    """What it takes to show that the candidate is no worse."""
    if shown is None:
        return ""
    told = f"For the margin of {options['margin']:g}: {in_words(shown)}"
    if waiting := n_waiting(evidence):
        places = ", ".join(f"{name} {n}" for name, n in waiting.items())
        told += f"; {sum(waiting.values())} differences wait for a reviewer ({places})"
    share = options.get("ask_share", 1.0)
    more = noninferiority.n_more(shown.pairs, margin=options["margin"], alpha=options["alpha"], share=share)
    if more is None:
        return f"{told}; at these rates it will not show"
    answers = math.ceil(more * shown.n_answered / max(1, shown.total.n))
    return f"{told}; at these rates about {more:,} more inputs with {answers:,} more answers would show it"


def _count(n: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{n:,} {word if n == 1 else plural}"


def as_json(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that the answer rests on, for the ledger; empty without a margin."""
    if not options.get("margin") or evidence.asked is None:
        return {}
    counts = {
        name: {channel: asdict(one) for channel, one in sorted(groups.items())}
        for name, groups in (("settled", evidence.asked.settled), ("looked_at", evidence.asked.looked_at))
    }
    return {"no_worse": {"margin": options["margin"], "ask_share": options.get("ask_share", 1.0), **counts}}


def _counted(groups: Mapping[str, Compared], options: Mapping[str, Any]) -> Shown:
    pairs = {name: _pairs(counts) for name, counts in groups.items()}
    whole = sum(pairs.values(), Pairs())
    log_e_harm = {name: evalues.log_e(one.losses, one.wins) for name, one in sorted(pairs.items())}
    return Shown(
        total=sum(groups.values(), Compared()),
        pairs=whole,
        log_e=_log_e(whole, options),
        suspected=tuple(name for name, log_e in log_e_harm.items() if log_e >= math.log(SUSPICION_E)),
    )


def _log_e(pairs: Pairs, options: Mapping[str, Any]) -> float:
    return noninferiority.log_e(pairs, margin=options["margin"], share=options.get("ask_share", 1.0))


def _pairs(counts: Compared) -> Pairs:
    losses = counts.losses + counts.n_waiting
    return Pairs(counts.wins, losses, counts.n - counts.wins - losses)
