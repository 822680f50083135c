"""Every export format of the registry. Catches: answers that differ from the checkpoint's, or that depend on which
other texts share the batch; a format that is not repeatable or fails on empty, odd or very long texts."""

from pathlib import Path

import pytest

from export.checkpoints import REGRESSION, TASK, TEXTS, make_checkpoint
from headrace.export import BACKENDS
from headrace.testing.backends import check_backend


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_backend(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_backend(name, make_checkpoint(tiny_base, tmp_path), TASK, TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_regression(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_backend(name, make_checkpoint(tiny_base, tmp_path, task=REGRESSION), REGRESSION, TEXTS)
