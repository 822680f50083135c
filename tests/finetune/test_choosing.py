"""Advice from bench results. Catches: the dearest of equals chosen, advice from rows unlike the user's, a method that
cannot do the task, times of another training than the one whose quality is told, a method that the memory cannot hold,
"enough" said of chance or where labels help."""

from dataclasses import replace

import pytest

from headrace.config import FinetuneTable, TaskTable
from headrace.finetune.choosing import (
    Case,
    Result,
    choose,
    expect,
    full_seconds,
    gain_over_head,
    is_enough,
    nearest,
    read_results,
)
from headrace.finetune.methods import METHODS
from headrace.finetune.steps import count_steps, settled
from headrace.tasks.text_classification import TextClassification

CASE = Case(
    problem="single_label_classification", rows_per_class=100, n_batches=50, n_validation_batches=6, batch_s=0.2,
    size_share=1.0, settings=FinetuneTable(evals_per_epoch=2),
)  # fmt: skip


def result(method: str, quality: float, seconds: float, *, corpus: str = "many", per_class: float = 90) -> Result:
    return Result(
        corpus=corpus, problem="single_label_classification", n_train_rows=2_000, rows_per_class=per_class,
        n_tokens=20.0, epochs=3, method=method, metric="macro_f1", quality=quality, cpu_seconds=seconds,
        peak_memory_bytes=2e9,
    )  # fmt: skip


FOUND = [result("full", 0.90, 60), result("freeze", 0.895, 30), result("head", 0.80, 5), result("lora", 0.905, 90)]


def test_the_cheapest_within_noise_of_the_best_is_chosen() -> None:
    chosen = choose(expect(FOUND, CASE), memory_bytes=8e9)
    assert chosen is not None
    assert (chosen.method, chosen.behind_best) == ("freeze", 0.01)
    assert choose(expect(FOUND, CASE), memory_bytes=1e9) is None


def test_time_is_that_of_the_steps_that_training_takes() -> None:
    by_method = {e.method: e.seconds for e in expect(FOUND, CASE)}
    assert by_method["full"] == pytest.approx(0.2 * (3 * 50 + 6 * 6 / 3))  # and two looks an epoch, forward alone
    assert by_method["freeze"] == pytest.approx(by_method["full"] / 2)
    longer = expect([replace(one, epochs=15) for one in FOUND], CASE)
    assert {e.method: e.seconds for e in longer} == pytest.approx({name: 5 * s for name, s in by_method.items()})
    few = replace(CASE, n_batches=1, n_validation_batches=1)  # so that three epochs are three steps
    assert full_seconds(few, 3) == pytest.approx(0.2 * (60 + 6 / 3))


def test_memory_is_that_of_the_model_and_of_a_batch() -> None:
    """The libraries stay; all else grows with the model, and what waits for the backward pass with the batch."""

    def memory(batch_tokens: int = 1024, size_share: float = 1.0) -> float:
        settings = FinetuneTable(batch_tokens=batch_tokens)
        return expect(FOUND, replace(CASE, settings=settings, size_share=size_share))[0].memory_bytes

    assert memory() == 2e9
    assert memory(size_share=3.0) == pytest.approx(0.5e9 + 3 * 1.5e9)
    assert memory(2048) == pytest.approx(2e9 + 1024 * 225e3)
    assert memory(16, size_share=0.01) > 0.5e9


@pytest.mark.parametrize(("n_classes", "n_rows", "steps"), [(3, 10_000, 60), (77, 770, 231), (500, 100, 300)])
def test_least_steps_grow_with_the_classes_that_rows_can_have(n_classes: int, n_rows: int, steps: int) -> None:
    task_type = TextClassification(TaskTable(type="text-classification", labels=[str(i) for i in range(n_classes)]))
    settings = settled(FinetuneTable(), task_type, n_rows)
    assert count_steps(settings, 1) == (steps, steps)
    assert count_steps(settings, 400) == (3, 1_200)
    assert settled(FinetuneTable(min_steps=0), task_type, n_rows).min_steps == 0  # what is set stays


def test_the_rows_that_resemble_most_are_taken() -> None:
    few = [replace(one, corpus="few", rows_per_class=10) for one in FOUND]
    found, is_same = nearest([*FOUND, *few], replace(CASE, rows_per_class=12))
    assert ({one.corpus for one in found}, is_same) == ({"few"}, True)
    found, is_same = nearest([*FOUND, *few], replace(CASE, problem="multi_label_classification"))
    assert ({one.corpus for one in found}, is_same) == ({"many"}, False)


def test_no_method_is_named_that_cannot_do_the_task() -> None:
    retrieval = replace(CASE, problem="retrieval")
    found, is_same = nearest([*FOUND, result("distil", 0.95, 1)], retrieval)
    assert [one.method for one in found] == ["full", "freeze", "lora"]  # neither head nor, without a teacher, distil
    expected = expect(found, retrieval, is_same_problem=is_same)
    assert {one.quality_in_bench for one in expected} == {None}  # nothing is known of it
    assert choose(expected, memory_bytes=8e9) is None
    taught = replace(CASE, settings=FinetuneTable(teacher="tone/1"))
    assert "distil" in {one.method for one in nearest([*FOUND, result("distil", 0.95, 1)], taught)[0]}


@pytest.mark.parametrize(
    ("estimate", "gain_high", "training_gain", "expected"),
    [
        (0.80, 0.02, 0.0, True),
        (0.80, 0.05, 0.0, False),  # all labels may give 5 points more
        (0.80, 0.02, 0.09, False),  # training gives more than the frozen base model
        (0.995, 0.02, 0.09, True),  # but not more than all
        (0.80, 0.02, -0.04, True),
        (0.51, -0.02, 0.0, False),  # chance, and so is all else
    ],
)
def test_what_is_enough(estimate: float, gain_high: float, training_gain: float, expected: bool) -> None:
    simple, gain = {"estimate": estimate, "low": estimate - 0.02}, {"estimate": 0.0, "high": gain_high}
    assert is_enough(simple, gain, chance=0.5, training_gain=training_gain) is expected
    assert not is_enough({"low": None}, gain, chance=0.5, training_gain=0.0)
    assert not is_enough(simple, {"high": None}, chance=0.5, training_gain=0.0)


def test_what_training_gained_on_a_linear_layer() -> None:
    assert gain_over_head(FOUND) == pytest.approx(0.105)
    assert gain_over_head([FOUND[0]]) is None


def test_the_shipped_results_are_of_known_methods_and_have_full_beside() -> None:
    results = read_results()
    assert {one.method for one in results} <= set(METHODS.names())
    corpora = {one.corpus for one in results}
    assert corpora == {one.corpus for one in results if one.method == "full"}
    assert {one.problem for one in results} >= {"single_label_classification", "token_classification"}
    assert all(
        one.epochs > 0 and 0 <= one.quality <= 1 and one.cpu_seconds > 0 and one.rows_per_class > 0 for one in results
    )
