"""Who keeps an adapter. Catches: an adapter kept by chance, one kept that harms the main metric, a small channel that
costs the others their power, a reason that does not fit its numbers."""

import json

import numpy as np
import pytest
from scipy import stats

from headrace.config import TaskTable
from headrace.evaluate import adapters
from headrace.records import SnapshotRow
from headrace.tasks import TASK_TYPES, TaskType, TokenLogits

LABELS = ("a", "b", "c")


def task_of(kind: str = "text-classification", **more: object) -> TaskType:
    labels = () if kind == "text-regression" else LABELS
    made: TaskType = TASK_TYPES.get(kind)(TaskTable(type=kind, labels=labels, **more))  # type: ignore[arg-type]
    return made


def rows_of(channel: str, targets: list[object]) -> list[SnapshotRow]:
    return [
        SnapshotRow(f"{channel}{i}", channel, str(i), f"text {i}", target, "validation", 1.0, "import")
        for i, target in enumerate(targets)
    ]


def said(answers: list[str]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[[LABELS.index(answer) for answer in answers]]


def world(*channels: tuple[str, int, int, int]) -> tuple[list[SnapshotRow], np.ndarray, np.ndarray]:
    """Rows and both outputs, of channels given as (name, rows, won, lost); the truth is "a" and "b" in turn."""
    rows, shared, own = [], [], []
    for name, n, won, lost in channels:
        truth = ["a" if i % 2 else "b" for i in range(n)]
        rows += rows_of(name, truth)  # type: ignore[arg-type]
        shared += ["c" if i < won else truth[i] for i in range(n)]
        own += ["c" if won <= i < won + lost else truth[i] for i in range(n)]
    return rows, said(shared), said(own)


def test_the_evidence_is_the_binomial_test_corrected_for_the_channels() -> None:
    rows, shared, own = world(("much", 200, 30, 6), ("some", 200, 14, 6), ("worse", 200, 5, 20))
    found = adapters.decide(task_of(), rows, shared, own, alpha=0.05)
    p_values = {name: stats.binomtest(k, n, alternative="greater").pvalue
                for name, (k, n) in {"much": (30, 36), "some": (14, 20), "worse": (5, 25)}.items()}  # fmt: skip
    for name, p in p_values.items():
        assert found[name]["p"] == pytest.approx(p)
    assert found["much"]["p_holm"] == pytest.approx(3 * p_values["much"])
    assert found["some"]["p_holm"] == pytest.approx(2 * p_values["some"])
    assert [found[name]["kept"] for name in ("much", "some", "worse")] == [True, False, False]
    assert (found["much"]["n"], found["much"]["n_won"], found["much"]["n_lost"]) == (200, 30, 6)
    assert found["much"]["shared"] < found["much"]["own"]
    assert "30 won and 6 lost of 200 validation rows" in found["much"]["reason"]
    assert "may be chance" in found["some"]["reason"]
    assert "not better on the mean" in found["worse"]["reason"]
    json.dumps(found)


def test_channels_that_could_not_be_told_cost_the_others_nothing() -> None:
    alone = adapters.decide(task_of(), *world(("big", 100, 8, 0)), alpha=0.05)["big"]
    assert alone["kept"]
    crowd = [(f"c{i:03}", 10, 1, 0) for i in range(300)]
    found = adapters.decide(task_of(), *world(("big", 100, 8, 0), *crowd), alpha=0.05)
    assert found["big"]["p_holm"] == alone["p_holm"]
    small = found["c000"]
    assert not small["kept"]
    assert small["p_holm"] is None
    assert small["reason"] == (
        "10 validation rows are too few to tell: 1 won and 0 lost of 10 validation rows, and it takes 5 that differ, "
        "all won; at this rate about 50 rows or more would be needed"
    )
    assert "no better and no worse" in adapters.decide(task_of(), *world(("x", 9, 0, 0)), alpha=0.05)["x"]["reason"]


def test_more_rows_right_is_not_enough_where_the_main_metric_falls() -> None:
    rows = rows_of("x", ["a"] * 90 + ["b"] * 5 + ["c"] * 5)
    shared = said(["b"] * 20 + ["a"] * 70 + ["b"] * 5 + ["c"] * 5)
    own = said(["a"] * 100)  # always the frequent one
    found = adapters.decide(task_of(), rows, shared, own, alpha=0.2)["x"]
    assert found["p_holm"] < 0.2
    assert not found["kept"]
    assert "but macro_f1 falls from" in found["reason"]


@pytest.mark.parametrize(("n_won", "n_lost", "is_worse"), [(0, 5, True), (0, 4, False), (9, 0, False), (2, 9, True)])
def test_an_adapter_is_turned_down_where_the_one_before_is_better_by_the_binomial_test(
    n_won: int, n_lost: int, is_worse: bool
) -> None:
    rows, old, own = world(("web", 30, n_won, n_lost))
    found = adapters.against_old(task_of(), rows, old, own, alpha=0.05)
    assert found["p_worse"] == pytest.approx(stats.binom.sf(n_lost - 1, n_won + n_lost, 0.5))
    assert (found["n_won"], found["n_lost"], found["is_worse"]) == (n_won, n_lost, is_worse)


def test_alpha_of_1_keeps_what_is_better_on_the_mean() -> None:
    found = adapters.decide(task_of(), *world(("x", 4, 1, 0), ("y", 4, 1, 1), ("z", 4, 1, 2)), alpha=1.0)
    assert [found[name]["kept"] for name in "xyz"] == [True, False, False]


def test_other_kinds_are_tested_by_the_score_of_each_row() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60).tolist()
    near, far = (np.float32(np.add(truth, rng.normal(0, s, 60)))[:, None] for s in (0.1, 1.0))
    found = adapters.decide(task_of("text-regression"), rows_of("x", truth), far, near, alpha=0.05)["x"]
    assert found["kept"]
    assert found["paired_test"] == "sign-flips"
    assert found["mean_gain"] == pytest.approx(np.abs(far[:, 0] - truth).mean() - np.abs(near[:, 0] - truth).mean())

    many = task_of("multi-label")
    targets: list[object] = [["a"], ["a", "b"], [], ["c"]] * 5
    good, bad = (np.array([[3, -3, -3], [3, s, -3], [-3, -3, s], [-3, -3, 3]] * 5, dtype=np.float32) for s in (-1, 1))
    scores = adapters.row_scores(many, rows_of("x", targets), good, {})
    assert scores[:4] == pytest.approx([1, 2 / 3, 1, 1])
    assert adapters.row_scores(many, rows_of("x", targets), bad, {})[:4] == pytest.approx([1, 1, 0, 1])
    assert not adapters.decide(many, rows_of("x", targets), good, bad, alpha=0.05)["x"]["kept"]

    on_tokens = TASK_TYPES.get("token-classification")(TaskTable(type="token-classification", labels=("PER",)))
    spans = np.array([[0, 4], [5, 6]], dtype=np.int32)
    outputs = np.empty(2, dtype=object)
    for i, tag in enumerate((0, 1)):
        logits = np.eye(3, dtype=np.float32)[[tag, 0]] * 9
        outputs[i] = TokenLogits("text 0", spans, logits, np.zeros(2, dtype=np.int32))
    assert adapters.row_scores(on_tokens, rows_of("x", [[], [[0, 4, "PER"]]]), outputs, {}) == pytest.approx([1, 1])
    assert adapters.row_scores(on_tokens, rows_of("x", [[[0, 4, "PER"]], []]), outputs, {}) == pytest.approx([0, 0])


def test_small_channels_are_not_tried_and_say_what_they_lack() -> None:
    found = adapters.too_small(
        {"big": 100, "few": 3, "unseen": 7, "one": 8}, {"big": 20, "one": 1}, alpha=0.05, min_rows=5
    )
    assert found.keys() == {"few", "unseen", "one"}
    assert found["few"]["reason"] == "3 training rows to learn from, and it takes 5; not trained"
    assert found["unseen"]["reason"] == (
        "0 validation rows are too few to tell: at least 5 would be needed; not trained"
    )
    assert found["one"]["reason"].startswith("1 validation row is too few")
    assert not found["one"]["kept"]


def test_no_channel_of_many_keeps_an_adapter_that_only_differs_by_chance() -> None:
    """25 worlds of 100 channels whose adapters answer 15 % of rows otherwise, for better or worse alike."""
    rng = np.random.default_rng(2)
    n_bad = 0
    for _ in range(25):
        channels = []
        for i in range(100):
            n = int(rng.integers(5, 60))
            differing = int(rng.binomial(n, 0.15))
            won = int(rng.binomial(differing, 0.5))
            channels.append((f"c{i:03}", n, won, differing - won))
        found = adapters.decide(task_of(), *world(*channels), alpha=0.05)
        n_bad += any(one["kept"] for one in found.values())
    assert n_bad <= stats.binom.ppf(0.999, 25, 0.05)
