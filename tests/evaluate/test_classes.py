"""Which classes a candidate harms, and the gates on classes, size and latency.

Catches: false alarms for a class that count as nothing, a class ruined in one channel hidden by the others, chance
taken for harm when there are many classes.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.rows import CLASSES, ENTRIES, LABELS, NUMBERS, SETS, TAGS, answers, rows_of, tagged
from headrace.evaluate import gates
from headrace.evaluate.classes import compare
from headrace.evaluate.gates import no_harm, no_harm_in_classes

PER, ORG = [0, 3, "PER"], [8, 12, "ORG"]


def failed(found: list[gates.Gate]) -> list[str]:
    return [gate["gate"] for gate in found if not gate["passed"]]


def one_hot(targets: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([[4.0 if label in target else -4.0 for label in LABELS] for target in targets], np.float32)


def counts_by_hand(truth: Sequence[str], a: Sequence[str], b: Sequence[str], label: str) -> dict[str, int]:
    rows = [triple for triple in zip(truth, a, b, strict=True) if label in triple]
    right = [((x == label) == (t == label), (y == label) == (t == label)) for t, x, y in rows]
    return {"n": len(rows), "wins": right.count((False, True)), "losses": right.count((True, False))}


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 3), min_size=1, max_size=40))
def test_counts_are_those_of_the_definition(rows: list[tuple[str, str, str]]) -> None:
    truth, a, b = ([row[i] for row in rows] for i in range(3))
    found = compare(CLASSES, rows_of(truth), answers(a), answers(b))
    expected = {label: counts_by_hand(truth, a, b, label) for label in LABELS}
    assert found["overall"] == {name: c for name, c in sorted(expected.items()) if c["wins"] + c["losses"]}
    assert found["n_classes"] == len({*truth, *a, *b})
    assert found["channels"] == {}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("task_type", "truth", "a", "b"),
    [
        (CLASSES, ["no", "yes"], answers(["no", "yes"]), answers(["yes", "yes"])),
        (ENTRIES, ["no", "yes"], answers(["no", "yes"]), answers(["yes", "yes"])),
        (SETS, [["no"], ["yes"]], one_hot([["no"], ["yes"]]), one_hot([["yes"], ["yes"]])),
        (TAGS, [[PER], [ORG]], tagged([[PER], [ORG]]), tagged([[[0, 3, "ORG"]], [ORG]])),
    ],
)
def test_a_wrong_answer_harms_the_class_it_misses_and_the_class_it_takes_it_for(
    task_type: Any, truth: Any, a: np.ndarray, b: np.ndarray
) -> None:
    found = compare(task_type, rows_of(truth), a, b)["overall"]
    missed, taken = ("PER", "ORG") if task_type is TAGS else ("no", "yes")
    assert found == {missed: {"n": 1, "wins": 0, "losses": 1}, taken: {"n": 2, "wins": 0, "losses": 1}}


def test_a_task_without_classes_passes_and_says_so() -> None:
    found = compare(NUMBERS, rows_of([1.0, 2.0]), np.zeros((2, 1)), np.ones((2, 1)))
    (gate,) = no_harm_in_classes(found, max_drop_share=0.01)
    assert gate["passed"]
    assert "no classes" in gate["reason"]


def test_a_swapped_class_fails_though_all_rows_together_gain() -> None:
    truth = ["no"] * 900 + ["maybe"] * 60 + ["yes"] * 40
    control = answers(["no"] * 750 + ["yes"] * 150 + ["maybe"] * 60 + ["yes"] * 40)
    candidate = answers(["no"] * 960 + ["yes"] * 40)  # never answers "maybe" any more
    found = no_harm_in_classes(compare(CLASSES, rows_of(truth), control, candidate), max_drop_share=0.01)
    assert failed(found) == ["no harm in class maybe"]
    assert found[0]["figure"] == -1.0
    assert "60 answers about it become wrong" in found[0]["reason"]


def test_a_class_ruined_in_one_channel_is_found_there() -> None:
    # Over both channels "yes" wins as much as it loses.
    channels = ["a"] * 100 + ["b"] * 100
    truth = ["yes"] * 200
    control = answers(["yes"] * 100 + ["no"] * 100)
    candidate = answers(["no"] * 100 + ["yes"] * 100)
    found = no_harm_in_classes(compare(CLASSES, rows_of(truth, channels), control, candidate), max_drop_share=0.01)
    assert failed(found) == ["no harm in class no of channel a", "no harm in class yes of channel a"]
    assert {gate["channel"] for gate in found} == {"a"}


def test_chance_fails_a_class_no_more_often_than_promised_however_many_there_are() -> None:
    rng, n_failed, n_runs = np.random.default_rng(5), 0, 400
    for _ in range(n_runs):
        found = {}
        for k in range(50):
            n_differing = int(rng.integers(0, 60))
            wins = int(rng.binomial(n_differing, 0.5))
            found[f"class{k}"] = {"n": 60, "wins": wins, "losses": n_differing - wins}
        n_failed += bool(failed(no_harm_in_classes(compared_of(found), max_drop_share=0.01)))
    assert n_failed / n_runs <= gates.LEVEL + 5 * (gates.LEVEL * (1 - gates.LEVEL) / n_runs) ** 0.5


def compared_of(classes: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {"n_classes": len(classes), "overall": classes, "channels": {}}


@pytest.mark.parametrize(
    ("wins", "losses", "passes"),
    [(0, 4, True), (0, 5, False), (1, 7, False), (2, 7, True), (5, 5, True), (9, 0, True)],
)
def test_one_class_is_judged_by_mcnemars_exact_test(wins: int, losses: int, passes: bool) -> None:
    counts = {"n": 50, "wins": wins, "losses": losses}
    (gate,) = no_harm_in_classes(compared_of({"x": counts}), max_drop_share=0.01)
    assert gate["passed"] is passes


def test_a_sure_but_small_drop_of_a_class_passes() -> None:
    (gate,) = no_harm_in_classes(compared_of({"x": {"n": 10_000, "wins": 0, "losses": 50}}), max_drop_share=0.01)
    assert (gate["passed"], gate["figure"]) == (True, -0.005)


def part(estimate: float, half: float) -> dict[str, Any]:
    difference = {"estimate": estimate, "low": estimate - half, "high": estimate + half, "level": 0.95}
    return {"n": 300, "difference": difference}


@pytest.mark.parametrize(("n_channels", "fails"), [(1, True), (2, True), (20, False)])
def test_among_many_channels_a_drop_must_be_surer(n_channels: int, fails: bool) -> None:
    # p = .019 one-sided by itself: beyond Holm's bound for twenty
    channels = {f"c{i:02}": part(0.0, 0.02) for i in range(n_channels)} | {"c00": part(-0.0212, 0.02)}
    compared = {"main_metric": "macro_f1", "overall": part(0.0, 0.01), "channels": channels}
    assert failed(no_harm(compared, max_drop_share=0.01)) == (["no harm in channel c00"] if fails else [])
    sure = compared | {"channels": channels | {"c00": part(-0.05, 0.02)}}
    assert failed(no_harm(sure, max_drop_share=0.01)) == ["no harm in channel c00"]


def test_channels_without_width_or_figure_are_counted_too() -> None:
    unknown = {"n": 1, "difference": {"estimate": None, "low": None, "high": None, "level": 0.95, "reason": "one row"}}
    channels = {"same": part(0.0, 0.0), "unknown": unknown, "lost": part(-1.0, 0.0)}
    compared = {"main_metric": "macro_f1", "overall": part(0.0, 0.01), "channels": channels}
    assert failed(no_harm(compared, max_drop_share=0.01)) == ["no harm in channel lost"]


def test_the_gates_of_size() -> None:
    (relative,) = gates.size(40_000_000, 25_000_000, max_times=1.5, max_bytes=0)
    assert (relative["passed"], relative["figure"], relative["limit"]) == (False, 1.6, 1.5)
    assert relative["reason"].startswith("40.0 MB, 1.60 times the control's 25.0 MB")
    relative, absolute = gates.size(40, 40, max_times=1, max_bytes=39)
    assert (relative["passed"], absolute["passed"]) == (True, False)
    assert (absolute["figure"], absolute["limit"]) == (40, 39)


@pytest.mark.parametrize(("ms", "passes"), [(1.0, True), (2.0, True), (2.01, False)])
def test_the_gate_of_latency(ms: float, passes: bool) -> None:
    (gate,) = gates.latency(ms, 1.0, n_rows=512, max_times=2.0)
    assert gate["passed"] is passes
    assert "512 rows measured in turn" in gate["reason"]
