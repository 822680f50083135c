"""What labelled answers of two arms say, where each request met one of them: overall, and in each channel.

The statistics are those of stats/confidence_sequences.py (betting). Harm in any channel counts by e-Holm over the
channels, so that what is better on average but ruins one of them is found.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.records import Batch, Evidence, Score
from headrace.release.policies.guardrails import SUSPICION_E, Arms, channels_of, parts, score_of, shown_e
from headrace.stats import confidence_sequences, multiplicity
from headrace.stats.confidence_sequences import Comparison

N_LABELS_A_CHANNEL = 150
"""Of the candidate, on average, before all channels are promoted, where `min_labels` does not say. Simulated
(`python -m bench.release_traffic`): one of five channels that loses 20 points while the others gain 12 is promoted by
canary and ab in 4 % of releases or fewer; with 100 in up to 15 %, without such a rule in up to 30 % (ab) and 97 %
(canary, 50 labels in all).
"""
_NOTHING = Comparison("undecided", None, -1.0, 1.0, 1.0, 0.0, 0.0)
_CENTRE = 0.8  # of a model worth serving; a wrong guess costs labels, not validity


@dataclass(frozen=True)
class Labelled:
    """The candidate's labelled answers beside the control's."""

    overall: Comparison
    channels: Mapping[str, Comparison]
    counts: Mapping[str, tuple[int, int, int, int]]
    """Channel ("" for all) to labelled and right answers of the candidate, then of the control."""
    silent: list[str]
    """Channels that no request came from."""
    unheard: list[str]
    """Channels that requests came from, but no labels of both arms: nothing says how they fare."""
    n_needed: int
    """Labelled answers of the candidate, for a ruined channel to have its chance to show."""
    harmed: list[str]
    """Channels told to be worse, strongest first."""
    better: list[str]
    """Channels told to be better, strongest first."""
    alpha: float

    @property
    def is_harmed(self) -> bool:
        return self.overall.log_e_harm >= math.log(1 / self.alpha)

    @property
    def is_better(self) -> bool:
        return self.overall.log_e_benefit >= math.log(1 / self.alpha)

    @property
    def suspected(self) -> list[str]:
        """Channels in which a harm is likelier than not, and "" where it is so overall."""
        tested = {"": self.overall, **self.channels}
        return [name for name, found in tested.items() if found.log_e_harm >= math.log(SUSPICION_E)]

    def line(self, channel: str = "") -> str:
        n, right, n_control, right_control = self.counts[channel]
        return f"{right} of {n} labelled answers right, {right_control} of {n_control} of the control"

    def harm(self) -> str:
        """Why the candidate is worse, as a sentence; empty where that is not told."""
        if self.is_harmed:
            return f"The candidate answers worse than the control: {self.line()}"
        if self.harmed:
            lines = "; ".join(f"{name}: {self.line(name)}" for name in self.harmed)
            return f"The candidate answers worse than the control in a channel ({lines})"
        return ""

    def suspicion(self) -> str:
        """Where it may be worse, as part of a sentence; empty where nothing points that way."""
        lines = [f"{name or 'all channels'}: {self.line(name)}" for name in self.suspected]
        return f"it may be worse ({'; '.join(lines)})" if lines else ""

    def missing(self) -> str:
        """What a promotion of all channels waits for, as part of a sentence; empty where nothing speaks against it.

        A channel that sends requests is not promoted unheard. A release that names its channels waits for those alone.
        """
        if self.unheard:
            return f"no labelled answers of both arms came from: {', '.join(self.unheard)}"
        n = self.counts[""][0]
        if not n >= self.n_needed:
            return f"it has {n} of the {self.n_needed} labelled answers with which a ruined channel would show"
        return self.suspicion()

    def waits_for(self) -> str:
        return f"labels from {', '.join(self.unheard)}" if self.unheard else "labels"

    def told(self) -> str:
        """The evidence of a promotion, and the channels that it says nothing about."""
        return f"{self.line()}. No requests came from: {', '.join(self.silent)}" if self.silent else self.line()

    def as_json(self) -> dict[str, Any]:
        tested = {"": self.overall, **self.channels}
        rows = {name: {**_counts(self.counts[name]), **_figures(found)} for name, found in tested.items()}
        return {"overall": rows.pop(""), "channels": rows, "harmed_channels": self.harmed, "alpha": self.alpha}


def compare(evidence: Evidence, arms: Arms, options: Mapping[str, Any]) -> Labelled:
    """The labelled answers of two arms. Each kind of error (harm, benefit) has level `alpha` over all looks.

    Channels have intervals only where a decision needs them, which is with `margin` and `each_channel`: they take a
    hundred times as long, and a server looks twice a second. They hold at that level all together (Bonferroni).
    """
    alpha, names = options["alpha"], channels_of(evidence, options)
    met = {name for by in evidence.traffic.values() for name, traffic in by.items() if traffic.n_requests}
    of = {name: _scores(evidence, arms, None if name == "" else [name]) for name in ["", *names]}
    found = _without_intervals(evidence, arms, names, of, options)
    if arms.share is not None:
        found[""] = _with_interval(*of[""], arms.share, options, alpha)
    if arms.share is not None and options.get("margin") and options.get("each_channel"):
        found |= {name: _with_interval(*of[name], arms.share, options, alpha / len(names)) for name in names}
    return Labelled(
        found.pop(""),
        found,
        {name: (tried.n, tried.n_right, control.n, control.n_right) for name, (control, tried) in of.items()},
        [name for name in names if name not in met],
        [name for name in names if name in met and not min(score.n for score in of[name])],
        options.get("min_labels") or N_LABELS_A_CHANNEL * len(met),
        multiplicity.refuted({name: one.log_e_harm for name, one in found.items()}, alpha=alpha),
        multiplicity.refuted({name: one.log_e_benefit for name, one in found.items()}, alpha=alpha),
        alpha,
    )


def _scores(evidence: Evidence, arms: Arms, channels: Sequence[str] | None) -> tuple[Score, Score]:
    """Of the control, then of the candidate."""
    return score_of(evidence, arms.control, channels), score_of(evidence, arms.candidate, channels)


def _with_interval(control: Score, tried: Score, share: float, options: Mapping[str, Any], alpha: float) -> Comparison:
    centre = options.get("accuracy", _CENTRE)
    return confidence_sequences.compare(control, tried, alpha=alpha, candidate_share=share, centre=centre)


def _without_intervals(
    evidence: Evidence,
    arms: Arms,
    names: Sequence[str],
    of: Mapping[str, tuple[Score, Score]],
    options: Mapping[str, Any],
) -> dict[str, Comparison]:
    """Of each channel, and of all of them (""): what all parts say together, each with a share of its own."""
    stages = [(share, _cells(part, arms, names)) for part, share in parts(evidence, arms)]
    log_es = confidence_sequences.log_es(stages, n_groups=len(names), centre=options.get("accuracy", _CENTRE))
    both = zip(["", *names], log_es, strict=True)
    return {name: _compared(*of[name], benefit, harm, options) for name, (benefit, harm) in both}


def _cells(part: Evidence | Batch, arms: Arms, names: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Of each channel the control's wrong and right answers, then the candidate's."""
    of_control, of_candidate = (part.feedback.get(arm, {}) for arm in (arms.control, arms.candidate))
    both = [(of_control.get(name, Score()), of_candidate.get(name, Score())) for name in names]
    return [(one.n - one.n_right, one.n_right, two.n - two.n_right, two.n_right) for one, two in both]


def _compared(control: Score, tried: Score, benefit: float, harm: float, options: Mapping[str, Any]) -> Comparison:
    """From log e-values."""
    if not control.n and not tried.n:
        return _NOTHING
    estimate = tried.n_right / tried.n - control.n_right / control.n if tried.n and control.n else None
    finding = confidence_sequences.finding(benefit, harm, alpha=options["alpha"])
    return Comparison(finding, estimate, -1.0, 1.0, confidence_sequences.p_value(benefit, harm), benefit, harm)


def _counts(counts: tuple[int, int, int, int]) -> dict[str, int]:
    return dict(zip(("n", "n_right", "n_control", "n_right_control"), counts, strict=True))


def _figures(found: Comparison) -> dict[str, float | None]:
    return {
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "e_benefit": shown_e(found.log_e_benefit),
        "e_harm": shown_e(found.log_e_harm),
    }
