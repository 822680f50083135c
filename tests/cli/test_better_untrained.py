"""The sentence about a version that a baseline beats. Catches: one that is kept silent, or said of a good version, a
command that cannot do the task or repeats what was done."""

from typing import Any

import pytest

from headrace.cli.models import better_untrained


def result(method: str, **estimates: float | None) -> dict[str, Any]:
    ends = {"low": 0.1, "high": 0.9}
    parts = {n: {"overall": {"intervals": {"macro_f1": {"estimate": e, **ends}}}} for n, e in estimates.items()}
    return {"version": "tone/3", "method": method, "main_metric": "macro_f1", "evaluations": parts}


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (result("full", version=0.4, majority=0.0, centroid=0.73), "headrace train --task tone --method head"),
        (result("head", version=0.4, centroid=0.73), "headrace train --task tone --search 10"),
        (result("full", version=0.4, **{"zero-shot": 0.7}), "headrace train --task tone --method zero-shot"),
        (result("full", version=None, centroid=0.2), "headrace train --task tone --method head"),
    ],
)
def test_what_beats_a_version_is_said_with_what_to_try(given: dict[str, Any], command: str) -> None:
    said = better_untrained(given)
    assert said is not None
    assert said.endswith(f"Try: {command}")


@pytest.mark.parametrize("given", [result("full", version=0.8, centroid=0.7, majority=None), result("full", version=1)])
def test_a_version_that_beats_them_is_left_alone(given: dict[str, Any]) -> None:
    assert better_untrained(given) is None
