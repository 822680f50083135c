"""Advice from bench results. Catches: the dearest of equals chosen, advice from rows unlike the user's, times that do
not grow with rows, a method that the memory cannot hold, "enough" where labels help."""

from dataclasses import replace

import pytest

from headrace.finetune.choosing import Case, Result, choose, expect, is_enough, nearest, read_results
from headrace.finetune.methods import METHODS

CASE = Case(
    problem="single_label_classification", n_train_rows=1_000, rows_per_class=100, n_tokens=20.0, tokens_per_s=4_000.0,
    size_share=1.0, epochs=3,
)  # fmt: skip


def result(method: str, quality: float, seconds: float, *, corpus: str = "many", per_class: float = 90) -> Result:
    return Result(
        corpus=corpus, problem="single_label_classification", n_train_rows=2_000, rows_per_class=per_class,
        n_tokens=20.0, method=method, metric="macro_f1", quality=quality, cpu_seconds=seconds, peak_memory_bytes=2e9,
    )  # fmt: skip


FOUND = [result("full", 0.90, 60), result("freeze", 0.895, 30), result("head", 0.80, 5), result("lora", 0.905, 90)]


def test_the_cheapest_within_noise_of_the_best_is_chosen() -> None:
    chosen = choose(expect(FOUND, CASE), memory_bytes=8e9)
    assert chosen is not None
    assert (chosen.method, chosen.behind_best) == ("freeze", 0.01)
    assert choose(expect(FOUND, CASE), memory_bytes=1e9) is None


def test_time_follows_rows_tokens_and_the_speed_of_the_machine() -> None:
    by_method = {e.method: e.seconds for e in expect(FOUND, CASE)}
    assert by_method["full"] == pytest.approx(1_000 * 3 * 20 / 4_000)
    assert by_method["freeze"] == pytest.approx(by_method["full"] / 2)
    twice = expect(FOUND, replace(CASE, n_train_rows=2_000))
    assert {e.method: e.seconds for e in twice} == {name: 2 * s for name, s in by_method.items()}
    larger = expect(FOUND, replace(CASE, size_share=3.0))
    assert all(e.memory_bytes == 6e9 for e in larger)


def test_the_rows_that_resemble_most_are_taken() -> None:
    few = [replace(one, corpus="few", rows_per_class=10) for one in FOUND]
    found, is_same = nearest([*FOUND, *few], replace(CASE, rows_per_class=12))
    assert ({one.corpus for one in found}, is_same) == ({"few"}, True)
    found, is_same = nearest([*FOUND, *few], replace(CASE, problem="multi_label_classification"))
    assert ({one.corpus for one in found}, is_same) == ({"many"}, False)


@pytest.mark.parametrize(("simple", "better", "expected"), [(0.80, 0.805, True), (0.80, 0.90, False), (0.9, 0.8, True)])
def test_what_is_enough(simple: float, better: float, expected: bool) -> None:
    assert is_enough({"estimate": simple}, {"estimate": better}) is expected
    assert not is_enough({"estimate": None}, {"estimate": better})


def test_the_shipped_results_are_of_known_methods_and_have_full_beside() -> None:
    results = read_results()
    assert {one.method for one in results} <= set(METHODS.names())
    corpora = {one.corpus for one in results}
    assert corpora == {one.corpus for one in results if one.method == "full"}
    assert {one.problem for one in results} >= {"single_label_classification", "token_classification"}
    assert all(0 <= one.quality <= 1 and one.cpu_seconds > 0 and one.rows_per_class > 0 for one in results)
