"""Fine-tuning as users meet it. Catches: a resume that ends elsewhere than an uninterrupted run, a partial checkpoint
taken for whole, bad rows met with a traceback."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from finetune import toy
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable
from headrace.errors import BadInput, HeadraceError, NotFound, Unavailable, Unusable
from headrace.finetune import base_models, resuming
from headrace.finetune.beginning import start_at_prior
from headrace.finetune.running import tune
from headrace.finetune.training import newest_whole_checkpoint
from headrace.tasks.text_classification import TextClassification
from headrace.tasks.text_regression import TextRegression
from headrace.tasks.token_classification import TokenClassification

SETTINGS = FinetuneTable(epochs=3, batch_tokens=128, evals_per_epoch=4, patience=20, seed=5)

KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from finetune import toy
from headrace.config import FinetuneTable
from headrace.finetune.running import tune
settings = FinetuneTable.model_validate_json({settings!r})
tune(Path({folder!r}), Path({base!r}), toy.TASK, settings, toy.rows(), lambda *a, **f: print(a[1], flush=True))
"""


def _weights(model: object) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in model.state_dict().items()}  # type: ignore[attr-defined]


def _assert_same_weights(found: object, expected: object) -> None:
    a, b = _weights(found), _weights(expected)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "patience", "kill_at"), [("full", 20, 20), ("full", 3, 8), ("adalora", 20, 30)])
def test_resume_after_kill_gives_the_same_weights(
    tiny_base: Path, tmp_path: Path, method: str, patience: int, kill_at: int
) -> None:
    """Also when training stops early: evaluations without gain before the kill count after it. And where a method
    remembers more than weights: adalora masks ranks by what it saw of all steps."""
    settings = SETTINGS.model_copy(update={"patience": patience, "method": method})
    whole = tune(tmp_path / "a", tiny_base, toy.TASK, settings, toy.rows(), lambda *_a, **_f: None)
    assert whole.facts["stopped_early"] == (patience == 3)
    folder = tmp_path / "b"
    code = KILLED.format(
        tests=str(Path(__file__).parents[1]),
        settings=settings.model_dump_json(),
        folder=str(folder),
        base=str(tiny_base),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit() and int(line) >= kill_at:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (folder / "checkpoint-9999").mkdir()  # what a kill in the middle of saving leaves
    resumed = tune(folder, tiny_base, toy.TASK, settings, toy.rows(), lambda *_a, **_f: None)
    assert resumed.facts["resumed"]
    _assert_same_weights(resumed.network, whole.network)
    again = tune(tmp_path / "a", tiny_base, toy.TASK, settings, toy.rows(), lambda *_a, **_f: None)
    _assert_same_weights(again.network, whole.network)  # killed after the last checkpoint
    assert resumed.history == whole.history


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from finetune import toy
from headrace.config import FinetuneTable
from headrace.errors import Unusable
from headrace.finetune.running import tune
settings = FinetuneTable.model_validate_json({settings!r})
def report(_phase, step, *_, **__):
    if step == 20:  # from here on no file can grow, as on a full disk; 15 was saved
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    tune(Path({folder!r}), Path({base!r}), toy.TASK, settings, toy.rows(), report)
except Unusable as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_ends_it_with_the_last_checkpoint_whole(tiny_base: Path, tmp_path: Path) -> None:
    """The error says what to do, no half checkpoint takes up room, and the same command goes on to the same weights."""
    whole = tune(tmp_path / "a", tiny_base, toy.TASK, SETTINGS, toy.rows(), lambda *_a, **_f: None)
    folder = tmp_path / "b"
    given = {"settings": SETTINGS.model_dump_json(), "folder": str(folder), "base": str(tiny_base)}
    code = FULL.format(tests=str(Path(__file__).parents[1]), **given)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "could not be written" in said
    assert "Make room" in said
    assert not (folder / "checkpoint-20").exists()
    assert newest_whole_checkpoint(folder) == folder / "checkpoint-15"
    resumed = tune(folder, tiny_base, toy.TASK, SETTINGS, toy.rows(), lambda *_a, **_f: None)
    assert resumed.facts["resumed"]
    _assert_same_weights(resumed.network, whole.network)


def test_a_checkpoint_that_cannot_be_written_leaves_no_half_of_it(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resuming, "write", full)
    settings = SETTINGS.model_copy(update={"epochs": 1, "min_steps": 0})
    with pytest.raises(Unusable, match=r"could not be written: .*No space left.*Make room"):
        tune(tmp_path, tiny_base, toy.TASK, settings, toy.rows(40), lambda *_a, **_f: None)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for n, whole in ((10, True), (9, True), (20, False)):
        folder = tmp_path / f"checkpoint-{n}"
        folder.mkdir()
        (folder / "weights").write_text("1.0")
        if whole:
            (folder / "whole").write_text('{"weights": 3}')
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()


def test_a_checkpoint_half_deleted_does_not_count(tmp_path: Path) -> None:
    """The trainer deletes old checkpoints in any order of files, and may be killed while it does."""
    for n in (10, 20):
        folder = tmp_path / f"checkpoint-{n}"
        folder.mkdir()
        (folder / "weights").write_text("1.0")
        (folder / "whole").write_text('{"weights": 3}')
    (tmp_path / "checkpoint-20" / "weights").unlink()
    assert newest_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


@pytest.mark.slow
def test_few_rows_still_make_enough_steps(tiny_base: Path, tmp_path: Path) -> None:
    settings = FinetuneTable(epochs=3, min_steps=40, patience=40)
    tuned = tune(tmp_path, tiny_base, toy.TASK, settings, toy.rows(24), lambda *_a, **_f: None)
    assert tuned.history[-1]["step"] == 40
    assert (
        len([entry for entry in tuned.history if "eval_loss" in entry]) <= 7
    )  # not one an epoch: patience would end it


def test_the_fresh_head_answers_the_prior(tiny_base: Path) -> None:
    task_type = TextRegression(toy.REGRESSION)
    model = fresh(tiny_base, task_type)
    start_at_prior(model, task_type, toy.rows(4))
    assert model.head.bias.tolist() == [0.0], "targets are standardised"
    kinds = TextClassification(toy.TASK)
    model = fresh(tiny_base, kinds)
    targets = ["positive"] * 7 + ["negative"] * 2
    rows = [replace(row, target=target, weight=1) for row, target in zip(toy.rows(9), targets, strict=True)]
    start_at_prior(model, kinds, rows)
    assert np.allclose(np.exp(model.head.bias.detach().numpy()), [3 / 12, 1 / 12, 8 / 12])


def test_a_word_is_no_entity_before_anything_is_learnt(tiny_base: Path) -> None:
    """Or the first steps teach that alone, with all that trains, and some methods find no entity ever after."""
    task_type = TokenClassification(toy.NER)
    model = fresh(tiny_base, task_type)
    row = replace(toy.ner_rows(1)[0], text="Ann met Bob Lee, today.", target=[[0, 3, "PER"], [8, 15, "PER"]])
    start_at_prior(model, task_type, [row, replace(row, weight=0.5)])
    tags = {"O": 4, "B-PER": 2, "I-PER": 1}  # the words of a row, signs among them
    seen = [1.5 * tags.get(tag, 0) + 1 for tag in task_type.output_names]
    assert np.allclose(np.exp(model.head.bias.detach().numpy()), np.asarray(seen) / sum(seen))


def test_one_class_only_says_so(tiny_base: Path, tmp_path: Path) -> None:
    rows = [replace(row, target="positive") for row in toy.rows(40)]
    with pytest.raises(BadInput, match=r"one class only: positive. Import rows of the other classes"):
        tune(tmp_path, tiny_base, toy.TASK, SETTINGS, rows, lambda *_a, **_f: None)


def test_an_empty_side_says_so(tiny_base: Path, tmp_path: Path) -> None:
    rows = [replace(row, side="train") for row in toy.rows(40)]
    with pytest.raises(BadInput, match="no validation rows"):
        tune(tmp_path, tiny_base, toy.TASK, SETTINGS, rows, lambda *_a, **_f: None)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model"])
def test_unknown_base_model_directory(name: str) -> None:
    with pytest.raises(NotFound, match="no such base model directory"):
        base_models.find(name)


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [("no such", NotFound, "no such base model"), ("some/model", Unavailable, "the hub cannot be reached")],
)
def test_a_name_that_is_none_or_not_cached_where_no_hub_can_be_reached(
    name: str, error: type[HeadraceError], problem: str
) -> None:
    with pytest.raises(error, match=problem) as refused:
        base_models.find(name)
    assert refused.value.value == name
    assert "Set base_model to one of ['minilm-l6']" in refused.value.next_step


def test_a_name_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_a: object, **_k: object) -> None:
        response: Any = SimpleNamespace(headers={}, request=None)
        raise RepositoryNotFoundError("404 Client Error", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", unknown)
    with pytest.raises(NotFound, match=r"the hub has no such model: 404 Client Error.*Set base_model to one of"):
        base_models.find("some/model")


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadInput, match="no safetensors weights"):
        base_models.find(str(tmp_path))


def test_time_is_not_needed_to_find_the_packaged_model() -> None:
    started = time.perf_counter()
    assert base_models.find("minilm-l6").digest.endswith("b128d9db")
    assert time.perf_counter() - started < 30


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_computed_twice_change_no_loss(tiny_base: Path, tmp_path: Path, method: str) -> None:
    settings = SETTINGS.model_copy(update={"method": method, "epochs": 1, "min_steps": 0, "precision": "fp32"})
    twice = settings.model_copy(update={"gradient_checkpointing": True})
    kept = tune(tmp_path / "a", tiny_base, toy.TASK, settings, toy.rows(), lambda *_a, **_f: None)
    again = tune(tmp_path / "b", tiny_base, toy.TASK, twice, toy.rows(), lambda *_a, **_f: None)
    assert np.allclose(_losses(again), _losses(kept), atol=1e-6)
    assert len(_losses(kept)) > 3


@pytest.mark.slow
def test_accumulated_batches_make_one_step_together(tiny_base: Path, tmp_path: Path) -> None:
    """Two halves of the training side, of rows of one length, make the step that the whole makes."""
    rows = [replace(row, text=" ".join(row.text.split()[:2])) for row in toy.rows(80)]  # 60 for training, of 4 tokens
    whole = SETTINGS.model_copy(update={"batch_tokens": 240, "precision": "fp32", "epochs": 8, "min_steps": 0})
    halves = whole.model_copy(update={"batch_tokens": 120, "accumulate_batches": 2})
    one = tune(tmp_path / "a", tiny_base, toy.TASK, whole, rows, lambda *_a, **_f: None)
    two = tune(tmp_path / "b", tiny_base, toy.TASK, halves, rows, lambda *_a, **_f: None)
    assert [entry["step"] for entry in one.history] == [entry["step"] for entry in two.history]
    assert one.history[-1]["step"] == 8
    assert np.allclose(_losses(one), _losses(two), atol=1e-4)


def _losses(tuned: object) -> list[float]:
    return [entry["loss"] for entry in tuned.history if "loss" in entry]  # type: ignore[attr-defined]
