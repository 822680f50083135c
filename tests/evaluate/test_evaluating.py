"""Evaluation as JSON. Catches: rows of one channel counted in another, an interval that misses its figure, a zero or a
NaN where nothing can be said, results that change from run to run."""

import json

import numpy as np
import pytest

from evaluate.rows import CLASSES, LABELS, NUMBERS, answers, noisy, rows_of
from headrace.errors import BadInput
from headrace.evaluate.evaluating import evaluate

TRUTH = [LABELS[i % 3] for i in range(120)]
CHANNELS = ["big" if i % 4 else "small" for i in range(120)]


def test_each_channel_is_measured_on_its_own_rows() -> None:
    logits = answers([t if c == "big" else "no" for t, c in zip(TRUTH, CHANNELS, strict=True)])
    found = evaluate(CLASSES, rows_of(TRUTH, CHANNELS), logits)
    assert list(found["channels"]) == ["big", "small"]
    assert (found["channels"]["big"]["n"], found["channels"]["big"]["accuracy"]) == (90, 1.0)
    assert (found["channels"]["small"]["n"], found["channels"]["small"]["accuracy"]) == (30, pytest.approx(1 / 3))
    assert found["overall"]["n"] == 120
    assert found["main_metric"] == "macro_f1"


def test_every_figure_is_inside_its_interval_and_the_same_again() -> None:
    rows, logits = rows_of(TRUTH, CHANNELS), noisy(TRUTH, share_right=0.7, seed=1)
    found = evaluate(CLASSES, rows, logits, seed=3)
    assert found == evaluate(CLASSES, rows, logits, seed=3)
    for part in (found["overall"], *found["channels"].values()):
        for name, interval in part["intervals"].items():
            figure, _, label = name.partition(":")
            estimate = part["per_class"][label][figure] if label else part[name]
            assert interval["estimate"] == pytest.approx(estimate)
            assert interval["low"] <= estimate <= interval["high"]
    width = {
        n: i["high"] - i["low"] for n, i in ((n, p["intervals"]["macro_f1"]) for n, p in found["channels"].items())
    }
    assert width["small"] > width["big"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_cannot_be_had_is_null_with_a_reason() -> None:
    found = evaluate(CLASSES, rows_of(["no", "no"]), answers(["no", "no"]))
    intervals = found["overall"]["intervals"]
    assert intervals["recall:yes"] == {
        "estimate": None, "low": None, "high": None, "level": 0.95, "reason": "no row of this class",
    }  # fmt: skip
    assert intervals["precision:yes"]["reason"] == "never answered"
    assert intervals["macro_f1"]["low"] < 0.8, "two right rows prove little"
    with pytest.raises(BadInput, match="no rows to evaluate"):
        evaluate(CLASSES, [], np.empty((0, 3)))


def test_regression_has_its_own_figures() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=80)
    logits = (truth + rng.normal(size=80) * 0.5)[:, None].astype(np.float32)
    channels = ["web"] * 79 + ["one row"]
    found = evaluate(NUMBERS, rows_of(truth.tolist(), channels), logits)
    for name in ("pearson", "spearman", "mae"):
        interval = found["overall"]["intervals"][name]
        assert interval["estimate"] == pytest.approx(found["overall"][name])
        assert interval["low"] < interval["estimate"] < interval["high"]
    lonely = found["channels"]["one row"]
    assert lonely["pearson"] is None
    assert lonely["intervals"]["pearson"]["estimate"] is None
    assert lonely["intervals"]["pearson"]["reason"]
    json.dumps(found, allow_nan=False)


def test_temperature_moves_calibration_only() -> None:
    rows, logits = rows_of(TRUTH), noisy(TRUTH, share_right=0.6, seed=2)
    cold, warm = (evaluate(CLASSES, rows, logits, calibration={"temperature": t})["overall"] for t in (0.5, 4.0))
    assert cold["ece"] != warm["ece"]
    assert cold["intervals"] == warm["intervals"]
