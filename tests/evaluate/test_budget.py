"""Who is within the budget, and who is chosen. Catches: a small channel that vetoes by chance, a large one that is
excused, a comparison without a value that passes, the slower of two that are within."""

from typing import Any

import pytest

from headrace.evaluate.budget import chosen, judged, points


def part(estimate: float | None, half: float = 0.0, n: int = 1000) -> dict[str, Any]:
    """A part of a comparison, in points."""
    if estimate is None:
        return {"n": n, "difference": {"estimate": None, "low": None, "high": None, "reason": "no rows"}}
    ends = {"estimate": estimate / 100, "low": (estimate - half) / 100, "high": (estimate + half) / 100}
    return {"n": n, "difference": ends}


def compared(overall: dict[str, Any], **channels: dict[str, Any]) -> dict[str, Any]:
    return {"main_metric": "macro_f1", "overall": overall, "channels": channels}


def test_a_channel_whose_interval_tells_is_judged_by_its_own() -> None:
    found = judged(compared(part(0.1), a=part(1.0, 0.4), b=part(-3.0, 1.0)), max_drop=0.5)
    assert [(found[n]["judged_by"], found[n]["within"]) for n in ("overall", "a", "b")] == [
        ("own", True), ("own", True), ("own", False),
    ]  # fmt: skip
    assert found["b"]["reason"] == "-3.00 points, beyond the budget of 0.5"


def test_a_channel_with_few_rows_is_judged_with_the_others() -> None:
    found = judged(compared(part(0.0), a=part(0.1, 0.4), b=part(0.0, 0.4), c=part(-2.0, 6.0, n=30)), max_drop=0.5)
    assert found["c"]["judged_by"] == "pooled"
    assert found["c"]["within"]
    assert found["c"]["judged_points"] == pytest.approx(0.05, abs=0.02)
    assert "30 rows are too few to tell alone" in found["c"]["reason"]
    assert found["c"]["points"] == pytest.approx(-2.0)


def test_small_channels_that_all_lose_are_not_excused() -> None:
    channels = {name: part(-2.0, 3.0, n=60) for name in "abcdef"}
    found = judged(compared(part(-0.4), **channels), max_drop=0.5)
    assert not any(found[name]["within"] for name in "abcdef")


def test_a_few_rows_on_which_nothing_differs_are_not_sure_of_it() -> None:
    found = judged(compared(part(0.0), a=part(0.0, 0.0, n=20), b=part(0.0, 0.0, n=5000)), max_drop=0.5)
    assert found["a"]["judged_by"] == "pooled"
    assert found["b"]["judged_by"] == "own"
    assert found["a"]["within"]
    assert found["b"]["within"]


def test_what_has_no_value_does_not_pass() -> None:
    found = judged(compared(part(None), a=part(None), b=part(0.1, 0.2)), max_drop=0.5)
    assert not found["overall"]["within"]
    assert found["a"]["judged_by"] == "pooled"
    assert found["a"]["within"]


def test_channels_without_a_value_are_judged_by_all_rows() -> None:
    found = judged(compared(part(-2.0), a=part(None), b=part(None)), max_drop=0.5)
    assert not any(found[name]["within"] for name in ("overall", "a", "b"))


def test_the_budget_is_in_points() -> None:
    assert judged(compared(part(-0.5)), max_drop=0.5)["overall"]["within"]
    assert not judged(compared(part(-0.6)), max_drop=0.5)["overall"]["within"]
    assert not judged(compared(part(-0.1)), max_drop=0)["overall"]["within"]
    shown = points(compared(part(-0.5, 0.2), a=part(None, n=3)))
    assert shown["overall"] == pytest.approx({"n": 1000, "points": -0.5, "low": -0.7, "high": -0.3})
    assert shown["a"] == {"n": 3, "points": None, "low": None, "high": None}


def candidate(times: float, n_bytes: int, within: bool = True) -> dict[str, Any]:
    return {"speed_times": times, "n_bytes": n_bytes, "within": within}


def test_the_fastest_within_is_chosen_and_of_those_alike_the_smallest() -> None:
    whole = candidate(1.0, 100)
    assert chosen([whole, candidate(1.5, 80), candidate(2.5, 50, within=False)]) == 1
    assert chosen([whole, candidate(1.5, 80), candidate(1.49, 70)]) == 2
    assert chosen([whole, candidate(1.5, 80), candidate(1.2, 10)]) == 1
    assert chosen([whole, candidate(3.0, 10, within=False)]) == 0
    assert chosen([whole, candidate(1.02, 100)]) == 0  # noise is no gain
    assert chosen([whole, candidate(0.98, 60)]) == 1  # as fast, and smaller
