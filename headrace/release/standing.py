"""How a release stands: overall and in each channel, with what it waits for, in one shape for all policies. Pure.

A part (all channels together, or one) is JSON:

    verdict      worse | better | no worse | inconclusive, by evidence that may be looked at at any time
    says         the same in plain words, with what is missing
    waits_for    traffic | labels | differences | evidence; None where there is a verdict
    n_requests, n_labelled, n_differing    to the candidate; with a label; of these, where just one of two was right
    gain         accuracy that the candidate gains; None without labels
    pooled_gain  of a channel: the same, drawn towards that of all channels the more the fewer labels it has (see
                 stats/pooling.py); None where no channel has any, and of all channels together. It decides nothing
    e_benefit, e_harm, e_needed            e-values now, and what it takes; of a release with release.max_labels an
                                           exact test with that end decides over all channels together
    e_no_worse                             with a margin in the shadow: the e-value
    n_waiting                              differences that reviewers are asked about and have not answered
    n_more_labels                          {low, middle, high} that would decide at the rates that are likely now

Verdicts on channels hold for all of them together, at the release's alpha. What shadows answer is compared in pairs, so
`n_differing` is known; where each request meets one arm, it is None.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from headrace.compared import Compared
from headrace.records import Answered, Evidence, Outcome, Release, Score, Traffic
from headrace.release.policies import guardrails, labelled, no_worse, shadow
from headrace.release.policies.guardrails import Arms, channels_of, shown_e, traffic_of
from headrace.stats import confidence_sequences, evalues, multiplicity, pooling
from headrace.stats.confidence_sequences import Comparison, Finding
from headrace.stats.evalues import Forecast, Pairs
from headrace.stats.multiplicity import Judged, Verdict

_MOST_POINTS = 48  # of a curve
_CENTRE = 0.8  # accuracy of a model worth serving, as policies take it
_FINDINGS: Mapping[Finding, Verdict] = {"benefit": "better", "harm": "worse", "undecided": "inconclusive"}
Part = dict[str, Any]
Parts = dict[str, Any]
"""`{"all": part, "channels": {name: part}}`."""
Curve = dict[str, list[float]]
"""`n_labelled`, `e_benefit` and `e_harm`, of the same length."""


def compared_arms(release: Release, evidence: Evidence) -> list[Arms]:
    """The candidates of a release, each with the arm that it is compared with."""
    candidates = [arm for arm in release.weights if arm.startswith("candidate")]
    if not candidates:
        return [Arms("shadow", "control")]
    control = "baseline" if "baseline" in release.weights else "control"
    found = []
    for arm in candidates:
        n, n_control = release.weights[arm], release.weights[control]
        changes = control == "control" and len(evidence.batches) > 1
        found.append(Arms(arm, control, None if changes else n / (n + n_control)))
    return found


def stands(release: Release, evidence: Evidence) -> dict[str, Parts]:
    """Candidate arm to the parts of what is known of it. A candidate in the shadow is `shadow`."""
    found = {}
    for arms in compared_arms(release, evidence):
        if arms.candidate == "shadow":
            found[arms.candidate] = _paired(release, evidence)
        else:
            found[arms.candidate] = _labelled(release, evidence, arms)
    return found


def guardrails_of(release: Release, evidence: Evidence) -> list[dict[str, Any]]:
    """The state of every guardrail of every candidate; of one in the shadow those that its policy asks."""
    found = []
    for arms in compared_arms(release, evidence):
        only = shadow.RAILS if arms.candidate == "shadow" else guardrails.GUARDRAILS
        found += guardrails.looked_at(evidence, arms, release.options, only=only)
    return found


def over_time(
    release: Release, *, outcomes: Sequence[Outcome] = (), answers: Sequence[Answered] = (), arms: Sequence[Arms]
) -> dict[str, Any]:
    """Candidate arm to the e-values after each of its labels, thinned: `{"all": curve, "channels": {name: curve}}`.

    Args:
        outcomes, answers: of the release so far, in the order they came.
    """
    found = {}
    for pair in arms:
        if pair.candidate == "shadow":
            series: Sequence[Outcome | Answered] = shadow.counted(outcomes, release.options)
        else:
            series = [one for one in answers if one.arm in (pair.candidate, pair.control)]
        by_channel: dict[str, list[Outcome | Answered]] = {}
        for one in series:
            by_channel.setdefault(one.channel, []).append(one)
        curves = {name: _curve(some, pair) for name, some in sorted(by_channel.items())}
        found[pair.candidate] = {"all": _curve(series, pair), "channels": curves}
    return found


def _curve(series: Sequence[Outcome | Answered], arms: Arms) -> Curve:
    marks = {round(len(series) * k / _MOST_POINTS) for k in range(_MOST_POINTS + 1)}
    curve: Curve = {"n_labelled": [0], "e_benefit": [1.0], "e_harm": [1.0]}
    pairs, scores = Pairs(), dict[float, dict[str, Score]]()
    for n, one in enumerate(series, start=1):
        if isinstance(one, Outcome):
            pairs += _pair(one)
        elif _both_meet(one.shares, arms):
            by_arm = scores.setdefault(_share(one.shares, arms), {})
            by_arm[one.arm] = by_arm.get(one.arm, Score()) + Score(1, int(one.is_right))
        if n in marks:
            benefit, harm = _log_es(scores, arms) if scores else _log_es_of_pairs(pairs)
            curve["n_labelled"].append(n)
            curve["e_benefit"].append(shown_e(benefit))
            curve["e_harm"].append(shown_e(harm))
    return curve


def _pair(one: Outcome) -> Pairs:
    if one.candidate_correct == one.control_correct:
        return Pairs(0, 0, 1)
    return Pairs(1, 0, 0) if one.candidate_correct else Pairs(0, 1, 0)


def _log_es_of_pairs(pairs: Pairs) -> tuple[float, float]:
    return evalues.log_e(pairs.wins, pairs.losses), evalues.log_e(pairs.losses, pairs.wins)


def _share(shares: Mapping[str, float], arms: Arms) -> float:
    """The candidate's, of the requests to the two arms."""
    return shares[arms.candidate] / (shares[arms.candidate] + shares[arms.control])


def _both_meet(shares: Mapping[str, float], arms: Arms) -> bool:
    """Whether units could meet either arm; else nothing compares them."""
    return all(shares.get(arm, 0.0) > 0 for arm in (arms.candidate, arms.control))


def _log_es(scores: Mapping[float, Mapping[str, Score]], arms: Arms) -> tuple[float, float]:
    """Of benefit and of harm, from labelled answers by the candidate's share when they were asked for."""
    capitals = [
        confidence_sequences.capitals(
            by_arm.get(arms.control, Score()),
            by_arm.get(arms.candidate, Score()),
            candidate_share=share,
            centre=_CENTRE,
        )
        for share, by_arm in scores.items()
    ]
    if not capitals:
        return 0.0, 0.0
    benefit, harm = confidence_sequences.log_e(sum(capitals[1:], capitals[0]))
    return float(benefit), float(harm)


def _paired(release: Release, evidence: Evidence) -> Parts:
    alpha, names = release.options["alpha"], channels_of(evidence, release.options)
    outcomes = shadow.counted(evidence.outcomes, release.options)
    groups = {name: Pairs() for name in sorted({*names, *(one.channel for one in outcomes)})}
    for one in outcomes:
        groups[one.channel] += _pair(one)
    log_es = no_worse.log_es(evidence, release.options)
    judged = multiplicity.judged(groups, alpha=alpha, no_worse=log_es or None)
    traffic = evidence.traffic.get("shadow", {})
    n_all = max(evidence.n_requests, sum(one.n_requests for one in traffic.values()))
    overall = _overall(release, evidence, sum(groups.values(), Pairs()))
    asked, needed = {} if evidence.asked is None else evidence.asked.looked_at, max(1, len(judged)) / alpha
    n = {name: traffic.get(name, Traffic()).n_requests for name in judged}
    parts = {
        name: _of_pairs(release, one, n[name], needed, asked.get(name, Compared())) for name, one in judged.items()
    }
    if overall.pairs.n:
        for name, part in parts.items():
            scale = _scale(judged[name], asked.get(name, Compared()), release.options)
            part["pooled_gain"] = judged[name].pooled_gain * scale
    return {"all": _of_pairs(release, overall, n_all, 1 / alpha, sum(asked.values(), Compared())), "channels": parts}


def _overall(release: Release, evidence: Evidence, pairs: Pairs) -> Judged:
    """All channels together; by the exact test where the largest number of labels was stated."""
    shown, alpha = no_worse.shown(evidence, release.options), release.options["alpha"]
    told = None if shown is None else {"": 0.0 if shown.suspected else shown.log_e}
    (found,) = multiplicity.judged({"": pairs}, alpha=alpha, no_worse=told).values()
    test = shadow.horizon(release.options)
    if test is None:
        return found
    finding = shadow.finding(shadow.counted(evidence.outcomes, release.options), release.options)
    is_no_worse = told is not None and told[""] >= math.log(1 / alpha)
    verdict: Verdict = "no worse" if finding == "undecided" and is_no_worse else _FINDINGS[finding]
    left = max(0, test.n_most - pairs.n_disagreements)
    forecast = Forecast(None, None, left) if verdict == "inconclusive" else None
    return replace(found, verdict=verdict, forecast=forecast)


def _of_pairs(release: Release, judged: Judged, n_requests: int, e_needed: float, asked: Compared) -> Part:
    """
    Args:
        asked: of the part's inputs, where reviewers are asked about the differences; else empty.
    """
    pairs, n_waiting = judged.pairs, asked.n_waiting
    n_requests, more = max(n_requests, pairs.n), None
    waits_for = None if judged.verdict != "inconclusive" else _lacks(pairs.n, n_requests, pairs.n_disagreements)
    if waits_for == "evidence" and judged.forecast is not None:
        labels_each = pairs.n / pairs.n_disagreements
        more = {name: None if n is None else math.ceil(n * labels_each) for name, n in asdict(judged.forecast).items()}
    counts = f"right alone {_times(pairs.wins)}, wrong alone {_times(pairs.losses)}, in {_labels(pairs.n)}"
    counts += f"; {n_waiting:,} differences wait for a reviewer" if n_waiting else ""
    if waits_for == "labels" and release.options.get("labels") != "all":
        says = f"{n_requests:,} requests and no answer of a reviewer to a difference: {shadow.ANSWER} ({counts})"
    else:
        says = _says(judged.verdict, waits_for, counts, n_requests, more)
    return {
        "verdict": judged.verdict,
        "says": says,
        "waits_for": waits_for,
        "n_requests": n_requests,
        "n_labelled": pairs.n,
        "n_differing": pairs.n_disagreements,
        "gain": None if judged.gain is None else judged.gain * _scale(judged, asked, release.options),
        "pooled_gain": None,
        "e_benefit": shown_e(judged.log_e_benefit),
        "e_harm": shown_e(judged.log_e_harm),
        "e_needed": e_needed,
        "e_no_worse": None if judged.log_e_no_worse is None else shown_e(judged.log_e_no_worse),
        "n_waiting": n_waiting,
        "n_more_labels": more,
    }


def _scale(judged: Judged, asked: Compared, options: Mapping[str, Any]) -> float:
    """From a gain in the labelled inputs to one in all: where only differences have labels, how often there are any."""
    if not asked.n or options.get("labels") == "all":
        return 1.0
    return min(1.0, (judged.pairs.n + asked.n_waiting) / float(options.get("ask_share", 1.0)) / asked.n)


def _labelled(release: Release, evidence: Evidence, arms: Arms) -> Parts:
    found = labelled.compare(evidence, arms, release.options)
    verdicts = {**dict.fromkeys(found.better, "better"), **dict.fromkeys(found.harmed, "worse")}
    overall = _FINDINGS[found.overall.finding]
    n_requests = {name: traffic_of(evidence, arms.candidate, [name]).n_requests for name in found.channels}
    needed = max(1, len(found.channels)) / found.alpha
    parts = {
        name: _of_labels(one, verdicts.get(name, "inconclusive"), found.counts[name], n_requests[name], needed)
        for name, one in found.channels.items()
    }
    for name, gain in pooling.differences({name: found.counts[name] for name in parts}).items():
        parts[name]["pooled_gain"] = gain
    return {
        "all": _of_labels(found.overall, overall, found.counts[""], sum(n_requests.values()), 1 / found.alpha),
        "channels": parts,
    }


def _of_labels(
    found: Comparison, verdict: str, counts: tuple[int, int, int, int], n_requests: int, e_needed: float
) -> Part:
    n, n_right, n_control, n_right_control = counts
    n_labelled = n + n_control
    waits_for = None if verdict != "inconclusive" else _lacks(min(n, n_control), n_requests, 1)
    more = _extrapolated(found, n_labelled, e_needed) if waits_for == "evidence" else None
    told = f"{n_right:,} of {_labels(n)} right, {n_right_control:,} of {n_control:,} of the control"
    return {
        "verdict": verdict,
        "says": _says(verdict, waits_for, told, n_requests, more),
        "waits_for": waits_for,
        "n_requests": n_requests,
        "n_labelled": n_labelled,
        "n_differing": None,
        "gain": found.estimate,
        "pooled_gain": None,
        "e_benefit": shown_e(found.log_e_benefit),
        "e_harm": shown_e(found.log_e_harm),
        "e_needed": e_needed,
        "e_no_worse": None,
        "n_waiting": 0,
        "n_more_labels": more,
    }


def _extrapolated(found: Comparison, n_labelled: int, e_needed: float) -> dict[str, int | None] | None:
    """Evidence grows about as the labels do, once there is some; before, nothing is known."""
    log_e = max(found.log_e_benefit, found.log_e_harm)
    if log_e < math.log(math.sqrt(10)):
        return None
    return {"low": None, "middle": math.ceil(n_labelled * max(0.0, math.log(e_needed) / log_e - 1)), "high": None}


def _lacks(n_labelled: int, n_requests: int, n_differing: int) -> str:
    if not n_labelled:
        return "labels" if n_requests else "traffic"
    return "evidence" if n_differing else "differences"


def _says(
    verdict: str, waits_for: str | None, counts: str, n_requests: int, more: Mapping[str, int | None] | None
) -> str:
    if waits_for == "traffic":
        return "no request has come yet"
    if waits_for == "labels":
        return f"{n_requests:,} requests and too few labels to compare: send corrections as feedback ({counts})"
    if waits_for == "differences":
        return f"both were right or wrong together every time: only differences can decide ({counts})"
    if waits_for is None:
        return f"the candidate is {verdict} than the control: {counts}"
    return f"{counts}. {_forecast(more)}"


def _forecast(more: Mapping[str, int | None] | None) -> str:
    if more is None:
        return "Nothing points either way yet; it takes more labels"
    low, middle, high = (more[name] for name in ("low", "middle", "high"))
    if low is None and middle is None and high is not None:
        return f"It takes {high:,} more labels at most (release.max_labels)"
    if middle is None:
        least = "many" if low is None else _about(low)
        return f"It takes {least} more labels or far more, if they ever decide: the two are much alike"
    if low is None:
        return f"About {_about(middle)} more labels would decide, if it goes on like this"
    return (
        f"About {_about(middle)} more labels would decide ({_about(low)} to {'any' if high is None else _about(high)})"
    )


def _about(n: int) -> str:
    """To two digits."""
    return f"{int(float(f'{n:.1e}')):,}"


def _labels(n: int) -> str:
    return f"{n:,} labelled {'answer' if n == 1 else 'answers'}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"
