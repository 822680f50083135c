"""Every export format of the registry. Catches: answers that differ from the checkpoint's, or that depend on which
other texts share the batch; a format that is not repeatable or fails on empty, odd or very long texts."""

from pathlib import Path

import pytest

from export.checkpoints import REGRESSION, TASK, TEXTS, make_checkpoint
from finetune.toy_tasks import TASKS, make_lively, rows_of
from headrace.checkpoints.saving import save
from headrace.export import BACKENDS
from headrace.finetune.running import tune
from headrace.records import Input
from headrace.testing.backends import check_backend
from headrace.testing.methods import settings_for


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_backend(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_backend(name, make_checkpoint(tiny_base, tmp_path), TASK, TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_regression(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_backend(name, make_checkpoint(tiny_base, tmp_path, task=REGRESSION), REGRESSION, TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("token-classification", "prompt"),
        ("extractive-qa", "prefix"),
        ("text-pair", "adapter"),
        ("retrieval", "prompt"),
        ("multi-label", "prefix"),
    ],
)
def test_every_form_of_a_network(name: str, kind: str, method: str, tiny_base: Path, tmp_path: Path) -> None:
    """Tasks on tokens, pairs, vectors; and methods that leave more than a plain model behind."""
    folders = [tmp_path / part for part in ("base", "run", "checkpoint")]
    base, task, rows = make_lively(tiny_base, folders[0]), TASKS[kind], rows_of(kind, 80)
    tuned = tune(folders[1], base, task, settings_for(method, epochs=1), rows, lambda *_a, **_f: None)
    folders[2].mkdir()
    save(tuned.network, tuned.tokenizer, folders[2])
    inputs = [row.input for row in rows]
    inputs += [_longer(given, n) for given, n in zip(inputs, range(2, 10), strict=False)]
    check_backend(name, folders[2], task, inputs, min_agreement_share=0.9)


def _longer(given: Input, n: int) -> Input:
    """With its text, or its context, several times over: beyond max_tokens, so that it is cut or read in windows."""
    return " ".join([given] * n) if isinstance(given, str) else (given[0], " ".join([given[1]] * n))
