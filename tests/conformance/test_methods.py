"""Every fine-tuning method of the registry. Catches: a method that does not learn, is not repeatable, moves frozen
weights, or leaves a wrapped model behind."""

from pathlib import Path

import pytest

from finetune import toy
from headrace.finetune.methods import METHODS
from headrace.testing.methods import check_method


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS.names())
def test_method(name: str, tiny_base: Path) -> None:
    check_method(name, tiny_base, toy.TASK, toy.rows())


@pytest.mark.slow
def test_regression_learns(tiny_base: Path) -> None:
    check_method("full", tiny_base, toy.REGRESSION, toy.rows(regression=True))
