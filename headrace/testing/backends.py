"""What every export format must do with a checkpoint."""

import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headrace.artifacts import digest_of, manifest_of
from headrace.config import TaskTable
from headrace.export import BACKENDS, ArtifactFacts, load, write_facts
from headrace.export.checkpoint import load as load_checkpoint
from headrace.tasks import TASK_TYPES, FloatArray, Predictor, TaskType

_NEAR = {"fp32": 1e-4, "int8": 0.25}
"""Largest distance of a row's logits alone from those in a batch, in standard deviations of all logits.

int8 rounds what f32 computes, and a sum in another order may fall on the other side of a step: .07 of 150 real texts on
MiniLM-L6 with a random head. A fault of OpenVINO's kernels there (see backends/openvino.py) was 2.5.
"""


def check_backend(
    name: str, checkpoint: Path, task: TaskTable, texts: Sequence[str], *, min_agreement_share: float = 0.95
) -> None:
    """For every precision: writes the same bytes twice, loads, answers as the checkpoint does and in any company.

    Args:
        texts: 50 or more, of many lengths, some beyond the task's `max_tokens`.

    Raises:
        AssertionError: naming what the format got wrong.
    """
    backend = BACKENDS.get(name)
    assert backend.precisions, f"{name}: no precisions"
    assert "n_threads" in inspect.signature(backend.load).parameters, f"{name}: load takes no n_threads"
    expected = load_checkpoint(checkpoint, task).logits(texts)
    for precision in backend.precisions:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            facts = [_written(name, checkpoint, Path(place), task, precision, texts) for place in (one, two)]
            assert facts[0] == facts[1], f"{name} {precision}: other facts the second time"
            digests = {digest_of(manifest_of(Path(place))) for place in (one, two)}
            assert len(digests) == 1, f"{name} {precision}: other bytes the second time"
            predictor, _ = load(Path(one), n_threads=1)
            _check_answers(f"{name} {precision}", predictor, task, texts, expected, precision, min_agreement_share)


def _written(
    name: str, checkpoint: Path, folder: Path, task: TaskTable, precision: str, texts: Sequence[str]
) -> ArtifactFacts:
    facts: ArtifactFacts = BACKENDS.get(name).write(
        checkpoint, folder, task=task, precision=precision, calibration=texts
    )
    assert (facts.backend, facts.task) == (name, task), f"{name}: facts name another backend or task"
    write_facts(folder, facts)
    return facts


def _check_answers(
    what: str,
    predictor: Predictor,
    task: TaskTable,
    texts: Sequence[str],
    expected: FloatArray,
    precision: str,
    min_agreement_share: float,
) -> None:
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    found = predictor.logits(texts)
    assert found.dtype == np.float32, f"{what}: logits are {found.dtype}"
    assert found.shape == (len(texts), task_type.n_outputs), f"{what}: logits of shape {found.shape}"
    if task_type.problem != "regression":
        share = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
        assert share >= min_agreement_share, f"{what}: answers {share:.1%} of the texts as the checkpoint does"
    spread = float(expected.std())
    alone = np.concatenate([predictor.logits([text]) for text in texts])
    distance = float(np.abs(alone - found).max()) / spread
    assert distance < _NEAR.get(precision, _NEAR["int8"]), (
        f"{what}: alone, a text gets logits {distance:.3f} deviations away"
    )
    if precision == "fp32":
        distance = float(np.abs(found - expected).max()) / spread
        assert distance < 1e-3, f"{what}: logits {distance:.4f} deviations from the checkpoint's"
    assert predictor.logits([]).shape == (0, task_type.n_outputs), f"{what}: no texts are not no logits"
    odd = predictor.logits(["", "word " * 10_000, "\u200b", "🙂 日本語 \x00"])
    assert np.isfinite(odd).all(), f"{what}: an odd text has no finite logits"
