"""What is watched of one channel, or of all together, under one version: streams that go on answer by answer.

A stream first gathers its reference: what the version met when it took charge. Held-out rows would not do: they came
another way, so that the first day of traffic would be an alarm, and there are too few of most channels. From then on
every answer moves its detector (stats.drift), and the reference stays.

States are JSON, and all there is to keep: going on from one gives what the whole would have given, however it was cut.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.feedback.auditing import confidence_of
from headrace.records import Interval
from headrace.stats import audits, drift
from headrace.stats.drift import Categories, Errors

N_REFERENCE = 1000
"""Answers that a reference is made of, at least."""
_ROWS_PER_CATEGORY = 50
_MOST_NAMES = 50
N_FIRST_AUDITS = 200
"""Answered audits that say what share of errors is usual, where no held-out rows do."""
_LEAST_ALLOWED = 0.002  # a model that was never seen to be wrong may be
OTHER = "other"
_NOTHING = "nothing"
Value = str | float
Bars = Mapping[str, float]
"""Stream to the logarithm of the evidence that is an alarm."""


def bars(share: float) -> Bars:
    """Of streams that have this share of the budget of false alarms."""
    return {name: math.log(drift.ARL / (part * share)) for name, part in drift.SHARES.items()}


def class_of(output: Mapping[str, Any]) -> str | None:
    """What an answer as served says, as one of few names; None where it is a number."""
    if "label" in output:
        return str(output["label"])
    if "labels" in output:
        return " + ".join(sorted(output["labels"])) or _NOTHING
    if "entities" in output:
        return " + ".join(sorted({entity["label"] for entity in output["entities"]})) or _NOTHING
    if "answer" in output:
        return "an answer" if output["answer"] else "no answer"
    return None


def number_of(output: Mapping[str, Any]) -> float | None:
    """How sure an answer as served is, or the number that it is; None where it has neither."""
    confidence = confidence_of(output)
    found = output.get("score", output.get("value")) if confidence is None else confidence
    return None if found is None else float(found)


@dataclass(frozen=True, eq=False)
class Stream:
    """Values of answers: names, or numbers that are put into parts of the reference."""

    gathered: tuple[Value, ...] = ()
    """Of the reference, until there are enough."""
    names: tuple[str, ...] = ()
    """The categories; the last one is all other names. While the reference is gathered: those that may come."""
    edges: tuple[float, ...] = ()
    """Between the categories of numbers."""
    detector: Categories | None = None

    def after(self, values: Sequence[Value], log_bar: float) -> tuple["Stream", int | None]:
        """The stream when these have come, and the place of the first that took the evidence to the bar, or None."""
        if self.detector is not None:
            return self._watched(values, log_bar)
        seen, n = set(self.gathered), len(self.gathered)
        for place, value in enumerate(values):
            seen.add(value)
            n += 1
            if n >= _n_needed(value, len(seen)):
                found = _with_reference((*self.gathered, *values[: place + 1]), self.names)
                later, crossed = found._watched(values[place + 1 :], log_bar)
                return later, None if crossed is None else crossed + place + 1
        return replace(self, gathered=(*self.gathered, *values)), None

    def _watched(self, values: Sequence[Value], log_bar: float) -> tuple["Stream", int | None]:
        assert self.detector is not None
        detector, crossed = self.detector.until(self._places(values), log_bar)
        return replace(self, detector=detector), crossed

    def _places(self, values: Sequence[Value]) -> drift.Ints:
        """The category of each value."""
        if not self.names:
            return drift.Bins(np.array(self.edges)).of(np.array(values, dtype=np.float64))
        known = {name: place for place, name in enumerate(self.names)}
        return np.array([known.get(str(value), len(self.names) - 1) for value in values], dtype=np.int64)

    def category(self, place: int) -> str:
        """A category in words."""
        if self.names:
            return self.names[place]
        if not self.edges:
            return "any"
        if place == 0:
            return f"below {self.edges[0]:.3g}"
        return (
            f"{self.edges[place - 1]:.3g} to {self.edges[place]:.3g}" if place < len(self.edges) else _top(self.edges)
        )

    def changes(self) -> tuple[list[dict[str, Any]], int]:
        """Categories whose share has changed, most first, and for how many answers that has been so."""
        if self.detector is None:
            return [], 0
        found = self.detector.changes()
        n = int(self.detector.since[0, int(self.detector.cusum[0].argmax())].sum())
        return [{"what": self.category(one.category), "before": one.before, "now": vars(one.now)} for one in found], n

    def state(self) -> dict[str, Any]:
        """As JSON."""
        kept = {"gathered": list(self.gathered), "names": list(self.names), "edges": list(self.edges)}
        return {**kept, "detector": None if self.detector is None else _kept(self.detector)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Stream":
        detector = None if state["detector"] is None else _restored(state["detector"])
        return cls(tuple(state["gathered"]), tuple(state["names"]), tuple(state["edges"]), detector)


@dataclass(frozen=True, eq=False)
class ErrorStream:
    """Audited answers, in the order of their audits' answers, and the requests that came between."""

    detector: Errors | None = None
    gathered: tuple[tuple[float, float], ...] = ()
    """Wrong or not, and probability, of the first audits, where nothing else says what share of errors is usual."""
    floor: float = 1.0
    """Least probability of an audit so far."""
    n_before: int = 0
    """Requests since the last answered audit."""
    n_audits: int = 0

    @classmethod
    def allowing(cls, held_out: Interval | None) -> "ErrorStream":
        """A stream that alarms of more errors than held-out rows had; without them, than the first audits have."""
        return cls() if held_out is None else cls(_errors(1 - held_out.low))

    @property
    def log_evidence(self) -> float:
        return -math.inf if self.detector is None else float(self.detector.log_evidence[0])

    def after_requests(self, n: int, floor: float) -> "ErrorStream":
        """The stream when more requests have come, with this least probability of an audit."""
        return replace(self, n_before=self.n_before + n, floor=min(self.floor, floor))

    def after_audit(self, is_wrong: bool, probability: float) -> "ErrorStream":
        """The stream when an audit was answered."""
        if self.detector is None:
            return self._gathering(float(is_wrong), probability)
        told = self.detector.told(
            np.array([self.n_before]), np.array([float(is_wrong)]), np.array([probability]), self.floor
        )
        return replace(self, detector=told, n_before=0, n_audits=self.n_audits + 1)

    def _gathering(self, wrong: float, probability: float) -> "ErrorStream":
        if len(self.gathered) >= N_FIRST_AUDITS:  # so many errors that more of them could not be told
            return self
        gathered = (*self.gathered, (wrong, probability))
        if len(gathered) < N_FIRST_AUDITS:
            return replace(self, gathered=gathered)
        errors, p = np.array(gathered).T
        found = audits.estimate(audits.tally(p, np.ones(len(p), dtype=bool), 1 - errors))
        assert found is not None
        return replace(self, detector=_errors(1 - found.low), gathered=gathered, n_before=0)

    def state(self) -> dict[str, Any]:
        detector = self.detector and {
            "allowed_share": self.detector.allowed_share, "log_r": _finite(self.detector.log_r), "n": self.detector.n,
        }  # fmt: skip
        kept = {"floor": self.floor, "n_before": self.n_before, "n_audits": self.n_audits}
        return {"detector": detector, "gathered": [list(one) for one in self.gathered], **kept}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "ErrorStream":
        kept = state["detector"]
        detector = kept and Errors(kept["allowed_share"], _numbers(kept["log_r"]), kept["n"])
        gathered = tuple((wrong, p) for wrong, p in state["gathered"])
        return cls(detector, gathered, state["floor"], state["n_before"], state["n_audits"])


def _errors(allowed_share: float) -> Errors | None:
    """A detector; None where the share leaves nothing to bet on."""
    try:
        return drift.errors(max(_LEAST_ALLOWED, allowed_share))
    except ValueError:
        return None


def _n_needed(value: Value, n_different: int) -> int:
    """Answers that make a reference, when there were so many different values and this one was the latest."""
    if not isinstance(value, str):
        return N_REFERENCE
    return max(N_REFERENCE, _ROWS_PER_CATEGORY * min(n_different, _MOST_NAMES + 1))


def _with_reference(values: Sequence[Value], known: Sequence[str]) -> Stream:
    if not isinstance(values[0], str):
        numbers = np.array(values, dtype=np.float64)
        parts = drift.bins(numbers)
        return Stream(edges=tuple(parts.edges.tolist()), detector=drift.categories(parts.counts(numbers)))
    counts: dict[str, int] = {}
    for value in values:
        counts[str(value)] = counts.get(str(value), 0) + 1
    names = sorted(counts | dict.fromkeys(known, 0), key=lambda name: (-counts.get(name, 0), name))[:_MOST_NAMES]
    found = [counts.get(name, 0) for name in names]
    return Stream(names=(*names, OTHER), detector=drift.categories(np.array([*found, len(values) - sum(found)])))


def _top(edges: Sequence[float]) -> str:
    return f"{edges[-1]:.3g} or more"


def _kept(detector: Categories) -> dict[str, Any]:
    return {
        "reference": detector.reference[0].tolist(),
        "reference_error": detector.reference_error,
        "memories": detector.memories.tolist(),
        "recent": detector.recent[0].tolist(),
        "log_r": _finite(detector.log_r[0]),
        "cusum": detector.cusum[0].tolist(),
        "since": detector.since[0].tolist(),
        "n": detector.n,
    }


def _restored(state: Mapping[str, Any]) -> Categories:
    return Categories(
        np.array([state["reference"]]),
        state["reference_error"],
        np.array(state["memories"]),
        np.array([state["recent"]]),
        _numbers(state["log_r"])[None],
        np.array([state["cusum"]]),
        np.array([state["since"]], dtype=np.int64),
        state["n"],
    )


def _finite(values: drift.Floats) -> list[float | None]:
    """JSON has no infinity: None is the logarithm of nothing."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _numbers(values: Sequence[float | None]) -> drift.Floats:
    return np.array([-math.inf if value is None else value for value in values])
