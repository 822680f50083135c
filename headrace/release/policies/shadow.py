"""Shadow: the candidate answers beside the control, unseen, and corrections say who was right.

Three questions are asked after every look, each with its own error level `alpha` over all looks together:
- Is the candidate better overall? E of benefit >= 1/alpha.
- Is it worse overall? E of harm >= 1/alpha.
- Is it worse in some channel? Holm over the channels, so that what is better on average but ruins one channel is found.

Harm rejects, before anything else. Benefit promotes unless a harm is *suspected*: the current E of harm, overall or in
any channel, is at least sqrt(10), where Jeffreys' scale calls evidence substantial (Vovk & Wang 2021, "E-values:
calibration, combination and applications", section 2). It takes three losses without a win to get there. A suspicion
needs no alpha of its own: it can only delay a promotion, and further labels clear it or turn it into a rejection.
All else holds; no evidence never promotes.
"""

import math
from collections.abc import Sequence
from typing import Any

from headrace.records import Decision, Outcome
from headrace.stats import evalues
from headrace.stats.evalues import Pairs

SUSPICION_E = math.sqrt(10)
_LARGEST_LOG = 690.0  # exp() of it is still a finite float; more evidence than this is shown as this


class Shadow:
    """The policy `shadow`."""

    @staticmethod
    def decide(outcomes: Sequence[Outcome], *, alpha: float, n_requests: int, channels: Sequence[str] = ()) -> Decision:
        """What the outcomes so far, in the order they came, say about the candidate.

        Args:
            alpha: chance of each kind of wrong decision, over all looks.
            n_requests: inputs answered by both arms, labelled or not.
            channels: all that the release may meet. A channel first seen later would change the thresholds of
                the others, so the error level over channels is exact when all are named here from the start.
        """
        names = sorted({o.channel for o in outcomes} | set(channels))
        overall = _weigh(outcomes)
        by_channel = {name: _weigh([o for o in outcomes if o.channel == name]) for name in names}
        harm = {name: tested["log_e_harm"] for name, tested in by_channel.items()}
        harmed = evalues.holm(harm, alpha=alpha, n_hypotheses=max(len(names), 1))
        suspected = [name for name, tested in by_channel.items() if tested["log_e_harm_now"] >= math.log(SUSPICION_E)]
        evidence = {
            "n_requests": n_requests,
            "n_labelled": overall["pairs"].n,
            "n_disagreements": overall["pairs"].n_disagreements,
            "alpha": alpha,
            "thresholds": {
                "benefit": 1 / alpha,
                "harm": 1 / alpha,
                "harm_in_a_channel": max(len(names), 1) / alpha,
                "suspicion": SUSPICION_E,
            },
            "overall": _as_json(overall),
            "channels": {name: _as_json(tested) for name, tested in by_channel.items()},
            "harmed_channels": harmed,
            "suspected_channels": suspected,
            "channels_without_labels": [name for name, tested in by_channel.items() if not tested["pairs"].n],
            **_what_is_missing(overall["pairs"], alpha, n_requests),
        }
        return _verdict(overall, harmed, suspected, evidence)


def _weigh(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts and evidence of one stream; `log_e_harm_now` is the current value, the others the largest so far."""
    signs = [o.candidate_correct for o in outcomes if o.candidate_correct != o.control_correct]
    wins = sum(signs)
    pairs = Pairs(wins, len(signs) - wins, len(outcomes) - len(signs))
    return {
        "pairs": pairs,
        "log_e_benefit": evalues.sup_log_e(signs),
        "log_e_harm": evalues.sup_log_e(not won for won in signs),
        "log_e_harm_now": evalues.log_e(pairs.losses, pairs.wins),
    }


def _as_json(tested: dict[str, Any]) -> dict[str, Any]:
    figures = {
        name.removeprefix("log_"): math.exp(min(value, _LARGEST_LOG))
        for name, value in tested.items()
        if name != "pairs"
    }
    return {**vars(tested["pairs"]), **figures}


def _what_is_missing(pairs: Pairs, alpha: float, n_requests: int) -> dict[str, int | None]:
    """How much more would decide if things go on as seen; None when that cannot be told."""
    more = evalues.n_more_wins_and_losses(pairs, alpha=alpha)
    if more is None:
        return {"n_more_disagreements": None, "n_more_requests": None}
    return {
        "n_more_disagreements": more,
        "n_more_requests": math.ceil(more * max(n_requests, pairs.n) / pairs.n_disagreements),
    }


def _verdict(overall: dict[str, Any], harmed: list[str], suspected: list[str], evidence: dict[str, Any]) -> Decision:
    threshold = math.log(1 / evidence["alpha"])
    pairs: Pairs = overall["pairs"]
    counts = f"{_count(pairs.wins, 'win')} and {_count(pairs.losses, 'loss')} in {pairs.n} labelled answers"
    if overall["log_e_harm"] >= threshold:
        return Decision("reject", f"The candidate answers worse than the control: {counts}", evidence)
    if harmed:
        lines = "; ".join(f"{name}: {_record(evidence['channels'][name])}" for name in harmed)
        return Decision("reject", f"The candidate answers worse than the control in a channel ({lines})", evidence)
    if overall["log_e_benefit"] < threshold:
        return Decision("hold", f"Not decided yet: {counts}. {_missing(pairs, evidence)}", evidence)
    if overall["log_e_harm_now"] >= math.log(SUSPICION_E):
        reason = f"The candidate led earlier but falls behind now: {counts}. More labels will tell"
        return Decision("hold", reason, evidence)
    if suspected:
        lines = "; ".join(f"{name}: {_record(evidence['channels'][name])}" for name in suspected)
        reason = f"The candidate answers better overall ({counts}), but may be worse in a channel ({lines})"
        return Decision("hold", f"{reason}. More labels from there will tell", evidence)
    unseen = evidence["channels_without_labels"]
    note = f". No labels came from: {', '.join(unseen)}" if unseen else ""
    return Decision("promote", f"The candidate answers better than the control: {counts}{note}", evidence)


def _missing(pairs: Pairs, evidence: dict[str, Any]) -> str:
    if not pairs.n:
        return "No correction of a shadowed answer has come back; send corrections as feedback"
    if not pairs.n_disagreements:
        return "Control and candidate were right and wrong together on all of them; only differences can decide"
    more = evidence["n_more_disagreements"]
    seen = f"They differed {_count(pairs.n_disagreements, 'time')}"
    if more is None:
        return f"{seen}, with no lead for either; it takes more labels to tell"
    return (
        f"{seen}; if it goes on like this, about {more:,} more labelled differences would decide "
        f"(about {evidence['n_more_requests']:,} more requests)"
    )


def _record(counts: dict[str, Any]) -> str:
    return f"{_count(counts['wins'], 'win')}, {_count(counts['losses'], 'loss')}"


def _count(n: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{n} {word if n == 1 else plural}"
