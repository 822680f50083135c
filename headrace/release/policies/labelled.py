"""What labelled answers of two arms say, where each request met one of them: overall, and in each channel.

The statistics are those of stats/confidence_sequences.py (betting). Harm in any channel counts by e-Holm over the
channels, so that what is better on average but ruins one of them is found.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.records import Evidence, Score
from headrace.release.policies.guardrails import SUSPICION_E, Arms, channels_of, score_of, shown_e
from headrace.stats import confidence_sequences, multiplicity
from headrace.stats.confidence_sequences import Comparison

_NOTHING = Comparison("undecided", None, -1.0, 1.0, 1.0, 0.0, 0.0)
_CENTRE = 0.8  # of a model worth serving; a wrong guess costs labels, not validity


@dataclass(frozen=True)
class Labelled:
    """The candidate's labelled answers beside the control's."""

    overall: Comparison
    channels: Mapping[str, Comparison]
    counts: Mapping[str, tuple[int, int, int, int]]
    """Channel ("" for all) to labelled and right answers of the candidate, then of the control."""
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
    of = {name: _scores(evidence, arms, None if name == "" else [name]) for name in ["", *names]}
    found = {name: _without_interval(*of[name], arms, options) for name in names}
    if options.get("margin") and options.get("each_channel"):
        found = {name: _with_interval(*of[name], arms, options, alpha / len(names)) for name in names}
    return Labelled(
        _with_interval(*of[""], arms, options, alpha),
        found,
        {name: (tried.n, tried.n_right, control.n, control.n_right) for name, (control, tried) in of.items()},
        multiplicity.refuted({name: one.log_e_harm for name, one in found.items()}, alpha=alpha),
        multiplicity.refuted({name: one.log_e_benefit for name, one in found.items()}, alpha=alpha),
        alpha,
    )


def _scores(evidence: Evidence, arms: Arms, channels: Sequence[str] | None) -> tuple[Score, Score]:
    """Of the control, then of the candidate."""
    return score_of(evidence, arms.control, channels), score_of(evidence, arms.candidate, channels)


def _with_interval(control: Score, tried: Score, arms: Arms, options: Mapping[str, Any], alpha: float) -> Comparison:
    centre = options.get("accuracy", _CENTRE)
    return confidence_sequences.compare(control, tried, alpha=alpha, candidate_share=arms.share, centre=centre)


def _without_interval(control: Score, tried: Score, arms: Arms, options: Mapping[str, Any]) -> Comparison:
    if not control.n and not tried.n:
        return _NOTHING
    centre = options.get("accuracy", _CENTRE)
    capitals = confidence_sequences.capitals(control, tried, candidate_share=arms.share, centre=centre)
    benefit, harm = (float(log_e) for log_e in confidence_sequences.log_e(capitals))
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
