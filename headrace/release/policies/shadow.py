"""Shadow: the candidate answers beside the control, unseen, and reviewers say who was right where the two differ.

Three questions are asked after every look, each with its own error level `alpha` over all looks together:
- Is the candidate better overall? E of benefit >= 1/alpha. With a `margin` also: is it worse by less than that? To
  that, all inputs that both answered speak, and what reviewers say of the differences asked about (no_worse.py).
- Is it worse overall? E of harm >= 1/alpha.
- Is it worse in some channel? e-Holm over the channels, so that what is better on average but ruins one is found.

Every E is the one of now, a function of counts alone, so neither the order of labels nor one that comes again changes a
decision. Ville's inequality holds for the largest E so far, hence for this one too; what is given up is a moment
between two looks. With `max_labels` the first and the second question have an exact test with that end instead, looked
at at fixed counts (stats/fixed_horizon.py); a release that it leaves undecided is stopped.

Which labels count, `labels` says. With "asked" those of reviewers who were asked by a coin (feedback/asking.py):
whether a pair gets a label must not hang on who is right, and users see the control's answer alone, and correct its
errors.

Harm rejects, before anything else, and so do answers that are missing or empty more often than the control's (see
guardrails.py). Benefit promotes unless a harm is *suspected*: the current E of harm, overall or in any channel, is at
least sqrt(10), where Jeffreys' scale calls evidence substantial (Vovk & Wang 2021, "E-values: calibration, combination
and applications", section 2). It takes three losses without a win to get there. A suspicion needs no alpha of its own:
it can only delay a promotion, and further labels clear it or turn it into a rejection. For a ruined channel to have its
chance to show, both arms must have answered N_REQUESTS_A_CHANNEL requests for each channel on average. All else holds;
no evidence never promotes.

With `each_channel` every channel is decided on its own: what is told of one, by e-Holm over the channels, ends the
release there, and the others go on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from headrace.records import Decision, Evidence, Outcome, Verdict
from headrace.release.policies import guardrails, no_worse
from headrace.release.policies.guardrails import GUARDRAILS, SUSPICION_E, Arms
from headrace.release.policies.no_worse import Shown
from headrace.stats import evalues, fixed_horizon, multiplicity
from headrace.stats.confidence_sequences import Finding
from headrace.stats.evalues import Pairs
from headrace.stats.fixed_horizon import Paired

ARMS = Arms("shadow", "control")
N_REQUESTS_A_CHANNEL = 100
"""Simulated (`python -m bench.release`): one of five channels that loses 20 points while the mean gains 2 is found
before a promotion in 99.8 % of releases, 93 % without this. It seldom delays one: benefit takes longer to show."""
N_LOOKS = 5
"""Of a release with an end: they cost almost no power and save about a fifth of the labels (docs/statistics.md)."""
ANSWER = "headrace review next"
_NOTHING = {"wins": 0, "losses": 0}
RAILS = [rail for rail in GUARDRAILS if rail.name in ("errors", "abstentions")]  # a shadow waits for others


class Shadow:
    """The policy `shadow`."""

    @staticmethod
    def weights(options: Mapping[str, Any]) -> dict[str, float]:
        """The shares of the arms at the start: the control answers every request."""
        return {"control": 1.0}

    @staticmethod
    def decide(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
        """What the outcomes so far, in the order they came, say about the candidate.

        Args:
            options: `alpha`, the chance of each kind of wrong decision over all looks; `channels`, all that the release
                may meet (one first seen later would change the thresholds of the others, so the error level over
                channels is exact when all are named from the start); `labels`, `max_labels`, `margin`, `each_channel`,
                `guardrail_alpha` and the limits of guardrails.py, where they are set.
        """
        if wrong := guardrails.unsound(evidence, ARMS):
            return Decision("hold", wrong)
        broken = guardrails.fired(evidence, ARMS, options, only=RAILS)
        facts, tested = _facts(evidence, options)
        facts |= {"guardrails": broken, **no_worse.as_json(evidence, options)}
        shown = no_worse.shown(evidence, options)
        if options.get("each_channel"):
            out = guardrails.channels_out(broken, facts["channels"])
            decision = _each_channel(tested, no_worse.log_es(evidence, options), out, facts, options)
        elif broken:
            decision = Decision("reject", guardrails.explained(broken), facts)
        else:
            decision = _verdict(tested[""], shown, facts, options)
        if decision.verdict != "hold":
            return decision
        waits = no_worse.wait(shown, evidence, options) or _unanswered(facts["waiting"])
        more = [text for text in (waits, _unasked(facts["n_unasked"])) if text]
        return replace(decision, reason=". ".join([decision.reason, *more]))


def counted(outcomes: Sequence[Outcome], options: Mapping[str, Any]) -> list[Outcome]:
    """Those of the outcomes that say which version is right more often."""
    return [one for one in outcomes if one.is_asked or options.get("labels") == "all"]


def finding(outcomes: Sequence[Outcome], options: Mapping[str, Any]) -> Finding:
    """What outcomes that count say of all channels together, in the order in which their labels came."""
    signs, alpha = _signs(outcomes), options["alpha"]
    if (test := horizon(options)) is not None:
        return test.first_finding(signs[: test.n_most])[0]
    wins, threshold = sum(signs), math.log(1 / alpha)
    if evalues.log_e(len(signs) - wins, wins) >= threshold:
        return "harm"
    return "benefit" if evalues.log_e(wins, len(signs) - wins) >= threshold else "undecided"


def horizon(options: Mapping[str, Any]) -> Paired | None:
    """The test of a release whose largest number of labels was stated; None without an end."""
    n_most = int(options.get("max_labels", 0))
    return _horizon(n_most, options["alpha"]) if n_most and not options.get("each_channel") else None


@cache
def _horizon(n_most: int, alpha: float) -> Paired:
    return fixed_horizon.paired(n_most, alpha=alpha, n_looks=min(N_LOOKS, n_most))


def _facts(evidence: Evidence, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What goes to the ledger, and what was found overall ("") and by channel."""
    alpha, outcomes = options["alpha"], counted(evidence.outcomes, options)
    names = sorted({o.channel for o in outcomes} | set(guardrails.channels_of(evidence, options)))
    overall = _weigh(outcomes)
    by_channel = {name: _weigh([o for o in outcomes if o.channel == name]) for name in names}
    harm = {name: tested["log_e_harm"] for name, tested in by_channel.items()}
    suspected = [name for name, value in harm.items() if value >= math.log(SUSPICION_E)]
    facts = {
        "labels": options.get("labels", "asked"),
        "max_labels": 0 if horizon(options) is None else options["max_labels"],
        "n_requests": evidence.n_requests,
        "n_labelled": overall["pairs"].n,
        "n_unasked": len(evidence.outcomes) - len(outcomes),
        "waiting": no_worse.n_waiting(evidence),
        "n_skipped": max(0, no_worse.n_lost(evidence) - overall["pairs"].losses),
        "finding": finding(outcomes, options),
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
        "harmed_channels": multiplicity.refuted(harm, alpha=alpha),
        "suspected_channels": suspected,
        "channels_without_labels": [name for name, tested in by_channel.items() if not tested["pairs"].n],
        **_what_is_missing(overall["pairs"], options, evidence.n_requests),
    }
    return facts, {"": overall, **by_channel}


def _weigh(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts of one stream, and what they say now."""
    signs = _signs(outcomes)
    wins = sum(signs)
    pairs = Pairs(wins, len(signs) - wins, len(outcomes) - len(signs))
    return {
        "pairs": pairs,
        "log_e_benefit": evalues.log_e(pairs.wins, pairs.losses),
        "log_e_harm": evalues.log_e(pairs.losses, pairs.wins),
    }


def _signs(outcomes: Sequence[Outcome]) -> list[bool]:
    """Whether the candidate won, of each outcome in which just one of the two was right."""
    return [one.candidate_correct for one in outcomes if one.candidate_correct != one.control_correct]


def _as_json(tested: dict[str, Any]) -> dict[str, Any]:
    figures = {
        name.removeprefix("log_"): guardrails.shown_e(value) for name, value in tested.items() if name != "pairs"
    }
    return {**vars(tested["pairs"]), **figures}


def _what_is_missing(pairs: Pairs, options: Mapping[str, Any], n_requests: int) -> dict[str, int | None]:
    """How much more would decide if things go on as seen, or at most; None when that cannot be told."""
    more = evalues.n_more_wins_and_losses(pairs, alpha=options["alpha"])
    if (test := horizon(options)) is not None:
        more = max(0, test.n_most - pairs.n_disagreements)
    if more is None or not pairs.n_disagreements:
        return {"n_more_disagreements": None, "n_more_requests": None}
    return {
        "n_more_disagreements": more,
        "n_more_requests": math.ceil(more * max(n_requests, pairs.n) / pairs.n_disagreements),
    }


def _verdict(
    overall: dict[str, Any], shown: Shown | None, facts: dict[str, Any], options: Mapping[str, Any]
) -> Decision:
    pairs: Pairs = overall["pairs"]
    counts = f"{_count(pairs.wins, 'win')} and {_count(pairs.losses, 'loss')} in {pairs.n} labelled answers"
    harmed, suspected = facts["harmed_channels"], facts["suspected_channels"]
    if facts["finding"] == "harm":
        return Decision("reject", f"The candidate answers worse than the control: {counts}", facts)
    if harmed:
        lines = "; ".join(f"{name}: {_record(facts['channels'][name])}" for name in harmed)
        return Decision("reject", f"The candidate answers worse than the control in a channel ({lines})", facts)
    is_better = facts["finding"] == "benefit"
    is_no_worse = shown is not None and shown.log_e >= math.log(1 / options["alpha"])
    if not is_better and not is_no_worse:
        return _undecided(pairs, counts, facts, options)
    if overall["log_e_harm"] >= math.log(SUSPICION_E):
        reason = f"By now the candidate seems to fall behind: {counts}. More labels will tell"
        return Decision("hold", reason, facts)
    told, n_seen = "answers better than the control", facts["n_requests"]
    if not is_better and shown is not None:
        told, n_seen, counts = f"is worse by less than {options['margin']:g}", shown.total.n, no_worse.in_words(shown)
        suspected = sorted({*suspected, *shown.suspected})
    if suspected:
        lines = "; ".join(f"{name}: {_record(facts['channels'].get(name, _NOTHING))}" for name in suspected)
        reason = f"Overall the candidate {told} ({counts}), but it may be worse in a channel ({lines})"
        return Decision("hold", f"{reason}. More labels from there will tell", facts)
    n_needed = N_REQUESTS_A_CHANNEL * len(facts["channels"])
    if n_seen < n_needed:
        seen = f"only {n_seen:,} requests of {n_needed:,} that it takes to see a channel suffer"
        return Decision("hold", f"The candidate {told} ({counts}), after {seen}", facts)
    unseen = facts["channels_without_labels"]
    note = f". No labels came from: {', '.join(unseen)}" if unseen else ""
    return Decision("promote", f"The candidate {told}: {counts}{note}", facts)


def _each_channel(
    tested: Mapping[str, dict[str, Any]],
    log_es: Mapping[str, float],
    out: Sequence[str],
    facts: dict[str, Any],
    options: Mapping[str, Any],
) -> Decision:
    names = list(facts["channels"])
    better = {name: tested[name]["log_e_benefit"] for name in names}
    good = []
    for told in (better, {name: log_es.get(name, 0.0) for name in names}):
        good += multiplicity.refuted(told, alpha=options["alpha"])
    verdicts: dict[str, Verdict] = {}
    for name in names:
        is_out = name in out or name in facts["harmed_channels"]
        is_good = name in good and name not in facts["suspected_channels"]
        verdicts[name] = "reject" if is_out else "promote" if is_good else "hold"
    lines = [f"{name}: {verdict} ({_record(facts['channels'][name])})" for name, verdict in verdicts.items()]
    return Decision("hold", "; ".join(lines) or "There is no channel to decide", facts, channels=verdicts)


def _undecided(pairs: Pairs, counts: str, facts: dict[str, Any], options: Mapping[str, Any]) -> Decision:
    test = horizon(options)
    if test is not None and pairs.n_disagreements >= test.n_most:
        told = f"Not decided with the {test.n_most:,} labels that were stated (release.max_labels): {counts}"
        return Decision("stop", f"{told}. The control stays", facts | {"is_used_up": True})
    return Decision("hold", f"Not decided yet: {counts}. {_missing(pairs, facts, test)}", facts)


def _missing(pairs: Pairs, evidence: dict[str, Any], test: Paired | None) -> str:
    if not pairs.n and evidence["labels"] == "all":
        return "No correction of a shadowed answer has come back; send corrections as feedback"
    if not pairs.n and evidence["n_skipped"]:
        skipped = _count(evidence["n_skipped"], "difference")
        return f"Of {skipped} asked about, none has an answer that counts: skipped, or no text kept (serve.log_inputs)"
    if not pairs.n:
        return "No reviewer has said yet who is right where the two differ"
    if not pairs.n_disagreements:
        return "Control and candidate were right and wrong together on all of them; only differences can decide"
    more = evidence["n_more_disagreements"]
    if test is not None:
        look, needed = test.next_look(pairs.n_disagreements)
        return f"At {look:,} labels that tell them apart, {needed:,} wins or losses decide; {more:,} are left"
    seen = f"They differed {_count(pairs.n_disagreements, 'time')}"
    if more is None:
        return f"{seen}, with no lead for either; it takes more labels to tell"
    return (
        f"{seen}; if it goes on like this, about {more:,} more labelled differences would decide "
        f"(about {evidence['n_more_requests']:,} more requests)"
    )


def _unanswered(waiting: Mapping[str, int]) -> str:
    """How many differences wait for a reviewer, where, and what answers them."""
    if not waiting:
        return ""
    places = ", ".join(f"{name} {n:,}" for name, n in waiting.items())
    return f"Waiting for a reviewer: {_count(sum(waiting.values()), 'difference')} ({places}). Answer them: {ANSWER}"


def _unasked(n: int) -> str:
    return f"Not counted: {_count(n, 'correction')} that nobody asked for (release.labels)" if n else ""


def _record(counts: dict[str, Any]) -> str:
    return f"{_count(counts['wins'], 'win')}, {_count(counts['losses'], 'loss')}"


def _count(n: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{n} {word if n == 1 else plural}"
