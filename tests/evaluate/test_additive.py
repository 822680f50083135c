"""Task types whose figures are sums over rows: several labels, entities, entries of a catalogue. Catches: an interval
that misses its figure or has no width after a few right rows, thresholds that one part of an evaluation forgets, a
difference with the wrong sign, an output of tokens that breaks what worked for arrays."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.rows import ENTRIES, LABELS, SETS, TAGS, TEXT, rows_of, tagged
from headrace.evaluate.agreement import agreement
from headrace.evaluate.comparison import compare, same
from headrace.evaluate.evaluating import evaluate
from headrace.evaluate.gates import no_harm
from headrace.stats import intervals
from headrace.tasks.sums import share

PER, ORG, WRONG = [0, 3, "PER"], [8, 12, "ORG"], [8, 12, "PER"]


def some_sets(n: int, seed: int, *, noise: float) -> tuple[list[list[str]], np.ndarray]:
    rng = np.random.default_rng(seed)
    flags = rng.random((n, 3)) < [0.2, 0.4, 0.6]
    outputs = (np.where(flags, 1, -1) + rng.normal(size=(n, 3)) * noise).astype(np.float32)
    return [[label for label, yes in zip(LABELS, row, strict=True) if yes] for row in flags], outputs


def some_tags(n: int, seed: int, *, share_right: float) -> tuple[list[Any], np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds: list[list[Any]] = [[PER, ORG], [PER], [ORG], []]
    truth = [kinds[k] for k in rng.integers(0, 4, n)]
    return truth, tagged([t if rng.random() < share_right else [WRONG] for t in truth])


def some_entries(n: int, seed: int, *, noise: float) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    return [LABELS[k] for k in truth], (np.eye(3)[truth] + rng.normal(size=(n, 3)) * noise).astype(np.float32)


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "several labels": (SETS, some_sets(150, 1, noise=0.6), some_sets(150, 1, noise=2.5)),
    "entities": (TAGS, some_tags(150, 1, share_right=0.9), some_tags(150, 1, share_right=0.4)),
    "entries": (ENTRIES, some_entries(150, 1, noise=0.4), some_entries(150, 1, noise=3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_inside_its_interval(kind: str) -> None:
    task_type, (targets, outputs), _ = KINDS[kind]
    rows = rows_of(targets, ["big" if i % 4 else "small" for i in range(150)])
    found = evaluate(task_type, rows, outputs, seed=3)
    assert found == evaluate(task_type, rows, outputs, seed=3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for part in (found["overall"], *found["channels"].values()):
        assert task_type.main_metric in part["intervals"]
        for name, interval in part["intervals"].items():
            figure, _, label = name.partition(":")
            estimate = part["per_class"][label][figure] if label else part[name]
            assert interval["estimate"] == pytest.approx(estimate)
            assert interval["low"] <= estimate <= interval["high"]
    widths = [
        part["intervals"][task_type.main_metric]["high"] - part["intervals"][task_type.main_metric]["low"]
        for part in (found["channels"]["small"], found["channels"]["big"], found["overall"])
    ]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_better_of_two_has_a_positive_difference(kind: str) -> None:
    task_type, (targets, better), (same_targets, worse) = KINDS[kind]
    assert targets == same_targets
    rows = rows_of(targets)
    forth, back = (compare(task_type, rows, *pair)["overall"] for pair in ((worse, better), (better, worse)))
    metric = task_type.main_metric
    expected = task_type.metrics(targets, better)[metric] - task_type.metrics(targets, worse)[metric]
    assert forth["difference"]["estimate"] == pytest.approx(expected)
    assert forth["difference"]["low"] > 0 > back["difference"]["high"]
    assert (forth["wins"], forth["losses"]) == (back["losses"], back["wins"])
    assert forth["wins"] > forth["losses"]
    assert not no_harm(compare(task_type, rows, better, worse), max_drop_share=0.01)[0]["passed"]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_agree_with_themselves_and_less_with_others(kind: str) -> None:
    task_type, (_, a), (_, b) = KINDS[kind]
    assert agreement(task_type, a, a)["share"] == 1
    assert agreement(task_type, a, a)["max_logit_difference"] == 0
    found = agreement(task_type, a, b)
    assert found["low"] < found["share"] < 1
    assert found["max_logit_difference"] > 0
    assert agreement(task_type, a[:0], a[:0])["share"] is None
    assert all(same(task_type, answer, answer) for answer in task_type.decode(a))


def test_tokens_that_differ_have_no_largest_difference() -> None:
    a, b = tagged([[PER]]), tagged([[PER]])
    b[0] = type(b[0])(TEXT, b[0].spans[:2], b[0].logits[:2], b[0].windows[:2])
    found = agreement(TAGS, a, b)
    assert (found["share"], found["max_logit_difference"]) == (1, None)


def test_thresholds_reach_figures_intervals_and_comparison() -> None:
    targets, outputs = some_sets(200, 4, noise=0.6)
    shy, rows = outputs - 2, rows_of(targets)
    calibration = SETS.calibrate(targets, shy)
    found = evaluate(SETS, rows, shy, calibration=calibration)["overall"]
    assert found["macro_f1"] > evaluate(SETS, rows, shy)["overall"]["macro_f1"] + 0.2
    assert found["intervals"]["macro_f1"]["estimate"] == pytest.approx(found["macro_f1"])
    compared = compare(SETS, rows, shy, shy, calibration_a=calibration, calibration_b=calibration)["overall"]
    assert (compared["n_disagreements"], compared["difference"]["estimate"]) == (0, 0)
    compared = compare(SETS, rows, shy, shy, calibration_b=calibration)["overall"]
    assert compared["difference"]["low"] > 0
    assert compared["wins"] > 0
    assert agreement(SETS, shy, outputs, calibration)["share"] < 1


def test_a_few_right_rows_prove_little() -> None:
    found = evaluate(ENTRIES, rows_of(["no", "yes"]), np.eye(3)[[0, 2]] * 20)["overall"]
    assert found["mrr"] == found["intervals"]["mrr"]["high"] == 1
    assert found["intervals"]["mrr"]["low"] < 0.5
    none = evaluate(SETS, rows_of([[], []]), np.full((2, 3), -5.0))["overall"]
    assert none["intervals"]["macro_f1"] == {
        "estimate": None, "low": None, "high": None, "level": 0.95, "reason": "nothing to divide by on these rows",
    }  # fmt: skip
    assert none["subset_accuracy"] == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_redraws_of_sums_are_redraws_of_rows(rows: list[tuple[int, int]], seed: int) -> None:
    counts = np.array([[min(pair), max(pair)] for pair in rows], dtype=float)

    def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
        parts, wholes = sums[..., 0], sums[..., 1]
        return {"share": np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)}

    found = intervals.of_sums(figures, counts, seed=seed)["share"]
    if not counts[:, 1].any():
        assert found is None
        return
    assert found is None or found.low <= counts[:, 0].sum() / counts[:, 1].sum() <= found.high


def test_the_interval_of_a_mean_is_the_plain_bootstraps() -> None:
    values = np.random.default_rng(0).random(60)
    counts = np.stack([values, np.ones(60)], axis=1)
    found = intervals.of_sums(lambda sums: {"mean": sums[..., 0] / sums[..., 1]}, counts, seed=1)["mean"]
    plain = intervals.bootstrap(intervals.mean(values), np.ones(60), seed=1)
    assert found is not None
    assert plain is not None
    assert (found.low, found.high) == (pytest.approx(plain.low, abs=0.005), pytest.approx(plain.high, abs=0.005))


def test_intervals_of_shares_hold_what_they_say() -> None:
    rng, n_held = np.random.default_rng(0), 0
    for seed in range(150):
        entities = rng.poisson(1.5, 80)  # of a row, all right or wrong together: wider than if each stood alone
        right = entities * (rng.random(80) < 0.8)
        found = intervals.of_sums(
            lambda s: {"recall": share(s[..., 0], s[..., 1])}, np.stack([right, entities], 1), seed=seed
        )
        n_held += found["recall"] is not None and found["recall"].low <= 0.8 <= found["recall"].high
    assert n_held / 150 >= 0.89


def test_a_figure_that_never_varies_gets_the_width_of_the_rows_it_speaks_about() -> None:
    # 2 of 200 rows have an ORG, both found: that is no proof of a recall near 1
    targets = [[ORG]] * 2 + [[PER]] * 198
    found = evaluate(TAGS, rows_of(targets), tagged(targets))["overall"]["intervals"]
    wilson = intervals.wilson(2, 2)
    assert wilson is not None
    assert (found["recall:ORG"]["low"], found["f1:ORG"]["low"]) == (wilson.low, wilson.low)
    assert found["recall:PER"]["low"] > 0.9


@pytest.mark.parametrize(("n", "passed"), [(1, True), (5, True), (6, False), (40, False)])
def test_a_few_rows_lost_are_no_proof_of_harm(n: int, passed: bool) -> None:
    right, wrong = np.tile([[1.0, 0.0, 0.0]], (n, 1)), np.tile([[0.0, 1.0, 0.0]], (n, 1))
    compared = compare(ENTRIES, rows_of([LABELS[0]] * n), right, wrong)
    assert {gate["passed"] for gate in no_harm(compared, max_drop_share=0.01)} == {passed}
