"""What every export format must do with a checkpoint."""

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from headrace.artifacts import MANIFEST, digest_of, manifest_of
from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export import BACKENDS, ArtifactFacts, load, write_facts
from headrace.export.checkpoint import load as load_checkpoint
from headrace.records import Input
from headrace.serve.worker import load_model
from headrace.tasks import TASK_TYPES, Outputs, Predictor, TaskType

NEAR = {"fp32": 1e-4, "bf16": 0.15, "int8": 0.25}
"""Largest distance of a row's logits alone from those in a batch, in standard deviations of all logits.

int8 rounds what f32 computes, and a sum in another order may fall on the other side of a step: .07 of 150 real texts on
MiniLM-L6 with a random head. A fault of OpenVINO's kernels there (see backends/openvino.py) was 2.5. bf16 keeps 8 bits
of every product's sum.
"""
_FAR = {"fp32": 1e-3, "bf16": 0.5}
"""Largest distance of a row's logits from the checkpoint's, in the same unit; int8 is held to its answers alone."""


def check_backend(
    name: str,
    checkpoint: Path,
    task: TaskTable,
    inputs: Sequence[Input],
    *,
    min_agreement_share: float = 0.95,
    is_written_twice: bool = True,
) -> None:
    """For every precision: writes the same bytes twice, loads, answers as the checkpoint does and in any company.

    Args:
        inputs: 50 or more, of many lengths, some beyond the task's `max_tokens`.
        is_written_twice: check that the second time gives the same bytes, too.

    Raises:
        AssertionError: naming what the format got wrong.
    """
    backend = BACKENDS.get(name)
    assert backend.precisions, f"{name}: no precisions"
    assert "n_threads" in inspect.signature(backend.load).parameters, f"{name}: load takes no n_threads"
    expected = load_checkpoint(checkpoint, task).logits(inputs)
    for precision in backend.precisions:
        what = f"{name} {precision}"
        with tempfile.TemporaryDirectory() as place:
            folder, other = Path(place, "one"), Path(place, "two")
            facts = _written(name, checkpoint, folder, task, precision, inputs)
            if is_written_twice:
                assert facts == _written(name, checkpoint, other, task, precision, inputs), f"{what}: other facts"
                digests = {digest_of(manifest_of(written)) for written in (folder, other)}
                assert len(digests) == 1, f"{what}: other bytes the second time"
            predictor, _ = load(folder, n_threads=1)
            _check_answers(what, predictor, task, inputs, expected, precision, min_agreement_share)
            _check_odd_inputs(what, predictor, task)
            _check_threads(what, predictor, inputs)


def check_damage(name: str, checkpoint: Path, task: TaskTable, inputs: Sequence[Input]) -> None:
    """A worker loads the artifact, and refuses it with any file of it damaged, cut or missing, in any precision.

    Raises:
        AssertionError: naming the file whose damage was not seen.
    """
    harms: dict[str, Callable[[Path], object]] = {
        "missing": Path.unlink,
        "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "flipped": _flip,
    }
    for precision in BACKENDS.get(name).precisions:
        with tempfile.TemporaryDirectory() as place:
            whole, broken = Path(place, "whole"), Path(place, "broken")
            _written(name, checkpoint, whole, task, precision, inputs)
            manifest = manifest_of(whole)
            digest = digest_of(manifest)
            (whole / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1), "utf-8")
            model = load_model(whole, digest, n_threads=1)
            assert len(model.predictor.logits(inputs[:3])) == 3
            for path in [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]:
                for harm, do in harms.items():
                    shutil.copytree(whole, broken)
                    do(broken / path)
                    _check_refused(f"{name} {precision}: {path} {harm}", broken, digest)
                    shutil.rmtree(broken)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _check_refused(what: str, folder: Path, digest: str) -> None:
    try:
        load_model(folder, digest, n_threads=1)
    except Damaged:
        return
    except Exception as error:  # whatever else it is, it must be told
        raise AssertionError(f"{what}: {type(error).__name__} instead of Damaged: {error}") from error
    raise AssertionError(f"{what}: served all the same")


def _written(
    name: str, checkpoint: Path, folder: Path, task: TaskTable, precision: str, inputs: Sequence[Input]
) -> ArtifactFacts:
    folder.mkdir()
    facts: ArtifactFacts = BACKENDS.get(name).write(
        checkpoint, folder, task=task, precision=precision, calibration=inputs
    )
    assert (facts.backend, facts.task) == (name, task), f"{name}: facts name another backend or task"
    write_facts(folder, facts)
    return facts


def _check_answers(
    what: str,
    predictor: Predictor,
    task: TaskTable,
    inputs: Sequence[Input],
    expected: Outputs,
    precision: str,
    min_agreement_share: float,
) -> None:
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    outputs = predictor.logits(inputs)
    assert len(outputs) == len(inputs), f"{what}: {len(outputs)} outputs for {len(inputs)} inputs"
    if outputs.dtype == object:
        for mine, theirs in zip(outputs, expected, strict=True):
            same = np.array_equal(mine.spans, theirs.spans) and np.array_equal(mine.windows, theirs.windows)
            assert mine.text == theirs.text, f"{what}: outputs of another text"
            assert same, f"{what}: other tokens than the checkpoint's"
    found, wanted = _rows(outputs), _rows(expected)
    assert found.dtype == np.float32, f"{what}: logits are {found.dtype}"
    assert found.shape == (len(wanted), task_type.n_outputs), f"{what}: logits of shape {found.shape}"
    if task_type.problem in ("single_label_classification", "token_classification", "retrieval"):
        share = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
        assert share >= min_agreement_share, f"{what}: answers {share:.1%} of the inputs as the checkpoint does"
    spread = float(wanted.std())
    alone = np.concatenate([_rows(predictor.logits([one])) for one in inputs])
    distance = float(np.abs(alone - found).max()) / spread
    assert distance < NEAR.get(precision, NEAR["int8"]), (
        f"{what}: alone, an input gets logits {distance:.3f} deviations away"
    )
    if precision in _FAR:
        distance = float(np.abs(found - wanted).max()) / spread
        assert distance < _FAR[precision], f"{what}: logits {distance:.4f} deviations from the checkpoint's"


def _check_threads(what: str, predictor: Predictor, inputs: Sequence[Input]) -> None:
    """Two threads at once get what one gets."""
    halves = [inputs[::2], inputs[1::2]] * 4
    alone = [_rows(predictor.logits(half)) for half in halves]
    with ThreadPoolExecutor(2) as threads:
        together = [_rows(outputs) for outputs in threads.map(predictor.logits, halves)]
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-3 * float(one.std())), f"{what}: two threads disturb each other"


def _rows(outputs: Outputs) -> Any:
    """Logits (N, K), or those of all tokens of all inputs."""
    return np.concatenate([one.logits for one in outputs]) if outputs.dtype == object else outputs


def _check_odd_inputs(what: str, predictor: Predictor, task: TaskTable) -> None:
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    assert len(predictor.logits([])) == 0, f"{what}: no inputs are not no outputs"
    texts = ["", "word " * 3_000, "\u200b", "🙂 日本語 \x00"]
    odd: list[Input] = list(texts) if len(task_type.fields) == 1 else [(text, "one two") for text in texts]
    if len(task_type.fields) == 2:
        odd += [("what", text) for text in texts]
    outputs = predictor.logits(odd)
    assert len(outputs) == len(odd), f"{what}: lost an odd input"
    assert np.isfinite(_rows(outputs)).all(), f"{what}: an odd input has no finite logits"
    assert len(task_type.decode(outputs)) == len(odd), f"{what}: no answer to an odd input"
