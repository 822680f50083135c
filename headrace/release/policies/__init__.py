"""Rules that turn evidence into a decision. Pure: no store, no clock, no randomness.

To add one: copy ab.py; give it `weights` and `decide`; add its line to POLICIES. The conformance tests find it through
the table.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from headrace.config import ReleaseTable
from headrace.records import Decision, Evidence
from headrace.registry import Registry

POLICIES = Registry(
    "policies",
    {
        "shadow": "headrace.release.policies.shadow:Shadow",
        "canary": "headrace.release.policies.canary:Canary",
        "ab": "headrace.release.policies.ab:AB",
        "bandit": "headrace.release.policies.bandit:Bandit",
    },
)
_SETTINGS = (
    "alpha", "margin", "labels", "ask_share", "max_labels", "guardrail_alpha", "ramp", "dwell_requests", "dwell_s",
    "min_labels", "candidate_share", "floor_share", "max_error_share", "max_timeout_share", "max_slow_share",
    "max_abstained_share", "slowdown",
)  # fmt: skip


class Policy(Protocol):
    """Decides on a release from all that it has seen so far."""

    @staticmethod
    def weights(options: Mapping[str, Any]) -> dict[str, float]:
        """The shares of the arms at the start, in the order in which units are assigned."""
        ...

    @staticmethod
    def decide(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
        """What is to be done now.

        Args:
            options: as `options_of` gave them when the release started.
        """
        ...


def options_of(settings: ReleaseTable, channels: Sequence[str], *, n_candidates: int = 1) -> dict[str, Any]:
    """What a policy is asked with, from the settings of the moment a release starts, as JSON."""
    values = settings.model_dump(mode="json", include=set(_SETTINGS))
    each = {"each_channel": settings.scope == "channels", "channels": list(channels), "n_candidates": n_candidates}
    return {**values, **each}
