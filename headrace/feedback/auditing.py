"""Which answers are audited: with a probability that is logged as they are given, drawn by a hash of their id.

The hot path works out a probability and no more. Whether an answer was drawn follows from its id and that probability,
today and in a year. Doubtful answers are drawn more often, since there is more to learn about them; none is drawn less
often than `stats.audits.FLOOR` says.
"""

import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.stats import audits

SHARES = (audits.FLOOR, 1.0)
"""Between which `feedback.audit_share` lies, where it is not 0."""
_N_DOUBTS, _RENEW_EVERY, _ENOUGH = 1024, 256, 100


def confidence_of(output: Mapping[str, Any]) -> float | None:
    """How sure an answer as served is to be right, 0..1; None where nothing in it says so.

    Of several labels, all have to be right; of entities, the least sure one counts.
    """
    if "confidence" in output:
        return float(output["confidence"])
    if "labels" in output and "scores" in output:
        return float(math.prod(max(p, 1 - p) for p in output["scores"].values()))
    if output.get("entities"):
        return min(float(entity["confidence"]) for entity in output["entities"])
    return None


def margin_of(output: Mapping[str, Any]) -> float | None:
    """How far an answer as served is from another one, 0..1: the less, the more a label of it teaches.

    The lead over the second class (Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models for information
    extraction"); of several labels, the distance from half of the one that is nearest to it.
    """
    scores = output.get("scores") or {}
    if "label" in output and len(scores) > 1:
        first, second = sorted(scores.values(), reverse=True)[:2]
        return float(first - second)
    if "labels" in output and scores:
        return float(min(abs(2 * p - 1) for p in scores.values()))
    hits = output.get("hits") or []
    if len(hits) > 1:
        return float(hits[0]["score"] - hits[1]["score"])
    confidence = confidence_of(output)
    return None if confidence is None else abs(2 * confidence - 1)


def is_drawn(prediction_id: str, probability: float | None, *, salt: str) -> bool:
    """Whether an answer with this probability of an audit is audited."""
    return probability is not None and place_of(prediction_id, salt) < probability


def place_of(row_id: str, salt: str) -> float:
    """A number in [0, 1), from 53 bits of the SHA-256 of an id."""
    digest = hashlib.sha256(f"{salt}\0{row_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class Doubts:
    """The latest answers' doubts, by version: they say by how much a doubt is multiplied to audit a share of all.

    A probability hangs on earlier answers and on its own answer alone, so it is known before anything is drawn.
    """

    def __init__(self, share: float) -> None:
        """
        Args:
            share: of the answers that is audited, about; 0: none is.
        """
        self._share = share
        self._latest: dict[str, deque[float]] = {}
        self._scales: dict[str, float] = {}
        self._n_seen: dict[str, int] = {}

    def probabilities(self, version_id: str, outputs: Sequence[Mapping[str, Any] | None]) -> list[float | None]:
        """Of an audit, for answers of one version in their order; None where there is no answer, or no audits are."""
        return [None if output is None else self._probability(version_id, output) for output in outputs]

    def _probability(self, version_id: str, output: Mapping[str, Any]) -> float | None:
        if not self._share:
            return None
        confidence = confidence_of(output)
        if confidence is None:
            return self._share
        doubt = math.sqrt(max(0.0, confidence * (1 - confidence)))
        scale = self._scales.get(version_id)
        found = self._share if scale is None else min(1.0, max(audits.FLOOR, doubt * scale))
        self._note(version_id, doubt)
        return found

    def _note(self, version_id: str, doubt: float) -> None:
        latest = self._latest.setdefault(version_id, deque(maxlen=_N_DOUBTS))
        latest.append(doubt)
        self._n_seen[version_id] = n = self._n_seen.get(version_id, 0) + 1
        if n == _ENOUGH or n % _RENEW_EVERY == 0:
            self._scales[version_id] = audits.scale_of(np.asarray(latest), self._share)
