"""What labelled answers of two arms say, where each request met one of them: overall, and in each channel.

The statistics are those of stats/confidence_sequences.py (betting). Harm in any channel counts by e-Holm over the
channels, so that what is better on average but ruins one of them is found.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.records import Evidence
from headrace.release.policies.guardrails import Arms, channels_of, score_of, shown_e
from headrace.stats import confidence_sequences, multiplicity
from headrace.stats.confidence_sequences import Comparison

SUSPICION_E = math.sqrt(10)
"""From here on evidence is called substantial (see shadow.py); a suspicion of harm delays a promotion."""
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

    The intervals of the channels hold at that level all together (Bonferroni).
    """
    alpha, centre = options["alpha"], options.get("accuracy", _CENTRE)
    names = channels_of(evidence, options)
    levels = {"": alpha, **{name: alpha / len(names) for name in names}}
    parts: dict[str, list[str] | None] = {"": None, **{name: [name] for name in names}}
    scores = {
        name: (score_of(evidence, arms.candidate, part), score_of(evidence, arms.control, part))
        for name, part in parts.items()
    }
    found = {
        name: confidence_sequences.compare(
            control, tried, alpha=levels[name], candidate_share=arms.share, centre=centre
        )
        for name, (tried, control) in scores.items()
    }
    overall = found.pop("")
    return Labelled(
        overall,
        found,
        {name: (tried.n, tried.n_right, control.n, control.n_right) for name, (tried, control) in scores.items()},
        multiplicity.refuted({name: one.log_e_harm for name, one in found.items()}, alpha=alpha),
        multiplicity.refuted({name: one.log_e_benefit for name, one in found.items()}, alpha=alpha),
        alpha,
    )


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
