"""Rules that turn evidence into a decision. Pure: no store, no clock, no randomness.

To add one: copy shadow.py; give it `decide`; add its line to POLICIES. The conformance tests find it through the table.
"""

from collections.abc import Sequence
from typing import Protocol

from headrace.records import Decision, Outcome
from headrace.registry import Registry

POLICIES = Registry("policies", {"shadow": "headrace.release.policies.shadow:Shadow"})


class Policy(Protocol):
    """Decides on a release from all paired outcomes so far, in the order they came."""

    @staticmethod
    def decide(
        outcomes: Sequence[Outcome], *, alpha: float, n_requests: int, channels: Sequence[str] = ()
    ) -> Decision: ...
