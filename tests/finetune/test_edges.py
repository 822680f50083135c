"""Training at the edges of what data and settings can be; each name says what happens. Catches: a traceback where an
answer is due, a class that breaks the loss because it is new or empty."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AutoModel, AutoTokenizer, DistilBertConfig, GPT2Config

from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.checkpoints.encoding import Encoder, standalone_tokenizer
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadConfig, BadInput, Unusable
from headrace.finetune.features import featurise
from headrace.finetune.methods import contrastive
from headrace.finetune.running import Tuned, tune
from headrace.finetune.steps import count_steps
from headrace.finetune.training import train_sampler
from headrace.records import SnapshotRow
from headrace.tasks.text_classification import TextClassification
from headrace.tasks.token_classification import TokenClassification

SHORT = {"epochs": 1, "min_steps": 0, "batch_tokens": 256, "precision": "fp32"}
WIDER = TaskTable(labels=(*toy.TASK.labels, "never"), max_tokens=32)


def _tune(base: Path, folder: Path, rows: list[SnapshotRow], task: TaskTable = toy.TASK, **options: Any) -> Tuned:
    settings = FinetuneTable.model_validate({**SHORT, **options})
    return tune(folder, base, task, settings, rows, lambda *_a, **_f: None)


def _is_finite(tuned: Tuned) -> bool:
    values = [v for entry in tuned.history for k, v in entry.items() if "loss" in k]
    return bool(values) and bool(np.isfinite(values).all())


def test_a_loss_that_is_no_number_says_which_rate_to_set(tiny_base: Path, tmp_path: Path) -> None:
    """A rate that takes the weights beyond what a float holds; a fifth of it would too, the method's own would not."""
    with pytest.raises(Unusable, match=r"no number any more at step \d+.*1e\+38.*Set finetune.learning_rate to 0.0002"):
        _tune(tiny_base, tmp_path, toy.rows(80), learning_rate=1e38, epochs=4, warmup_share=0.0)


def test_one_example_per_class_trains(tiny_base: Path, tmp_path: Path) -> None:
    first = {row.target: row for row in toy.rows(60)}
    rows = [replace(row, side=side) for row in first.values() for side in ("train", "validation")]
    tuned = _tune(tiny_base, tmp_path, rows, min_steps=5, loss={"class_weights": "balanced"})
    assert _is_finite(tuned)
    assert tuned.facts["n_train_rows"] == 3


def test_a_label_in_validation_that_training_never_saw_does_not_end_training(tiny_base: Path, tmp_path: Path) -> None:
    rows = [replace(row, target="never") if i % 8 == 0 else row for i, row in enumerate(toy.rows(60))]
    assert {row.side for row in rows if row.target == "never"} == {"validation"}
    loss = {"class_weights": "balanced", "label_smoothing": 0.1}
    assert _is_finite(_tune(tiny_base, tmp_path, rows, WIDER, loss=loss))


@pytest.mark.parametrize("loss", [{}, {"class_weights": "balanced", "focal_gamma": 2.0}])
def test_a_class_without_any_row_trains_and_is_improbable(tiny_base: Path, tmp_path: Path, loss: Any) -> None:
    tuned = _tune(tiny_base, tmp_path, toy.rows(60), WIDER, loss=loss)
    assert _is_finite(tuned)
    bias = tuned.network.head.bias.detach()
    assert int(bias.argmin()) == WIDER.labels.index("never")


def test_ten_thousand_tokens_are_cut_at_max_tokens(tiny_base: Path, tmp_path: Path) -> None:
    rows = toy.rows(24)
    long = [replace(row, text=row.text + " good" * 10_000) if i % 6 in (0, 1) else row for i, row in enumerate(rows)]
    assert _is_finite(_tune(tiny_base, tmp_path, long))


def test_ten_thousand_tokens_of_a_task_on_tokens_are_read_in_windows(tiny_base: Path, tmp_path: Path) -> None:
    rows = toy.ner_rows(8)
    end = " the" * 10_000
    long = [replace(row, text=row.text + end) if i < 2 else row for i, row in enumerate(rows)]
    long[1] = replace(long[1], text=long[1].text + " hate", target=[*long[1].target, _last(long[1].text)])
    encoder = Encoder(standalone_tokenizer(AutoTokenizer.from_pretrained(tiny_base), toy.NER))
    side = featurise(encoder, TokenClassification(toy.NER), [long[1]], has_types=False)
    assert len(side.features) > 400
    assert max(side.lengths) <= 32
    assert 1 in side.features[-1]["labels"]  # the name after the ten thousandth token
    assert _is_finite(_tune(tiny_base, tmp_path, long, toy.NER, batch_tokens=4096))


def _last(text: str) -> list[Any]:
    return [len(text) + 1, len(text) + 5, "PER"]


def test_a_text_without_words_does_not_end_training(tiny_base: Path, tmp_path: Path) -> None:
    rows = [replace(row, text=" ", target=[]) if i in (0, 1) else row for i, row in enumerate(toy.ner_rows(16))]
    for name, options in (("a", {}), ("b", {"loss": {"crf": True}})):
        assert _is_finite(_tune(tiny_base, tmp_path / name, rows, toy.NER, batch_tokens=16, **options))


def test_settings_that_do_not_fit_the_task_end_before_training(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"finetune\.loss\.crf"):
        _tune(tiny_base, tmp_path, toy.rows(24), loss={"crf": True})
    with pytest.raises(BadConfig, match=r"finetune\.robust\.rdrop_weight"):
        _tune(tiny_base, tmp_path, toy.rows(24), robust={"rdrop_weight": 1.0})


@pytest.mark.slow
def test_everything_at_once_trains(tiny_base: Path, tmp_path: Path) -> None:
    rows = [replace(row, channel="b" if i % 5 == 0 else "a") for i, row in enumerate(toy.rows(60))]
    options = {
        "dropout": 0.1,
        "method": "lora",
        "loss": {"class_weights": "balanced", "focal_gamma": 1.0, "label_smoothing": 0.1},
        "robust": {"adversarial": "freelb", "rdrop_weight": 1.0, "mixup_alpha": 0.4},
        "augment": {"kinds": ("swap", "delete")},
        "sampling": {"channels": "equal"},
        "layer_decay": 0.9,
    }
    found = [_tune(tiny_base, tmp_path / name, rows, **options) for name in "ab"]
    assert _is_finite(found[0])
    assert found[0].history == found[1].history


@pytest.mark.parametrize(("method", "max_tokens"), [("full", 161), ("prefix", 150)])
def test_more_tokens_than_the_model_has_positions_end_before_training(
    tiny_base: Path, tmp_path: Path, method: str, max_tokens: int
) -> None:
    task = toy.TASK.model_copy(update={"max_tokens": max_tokens})
    with pytest.raises(BadConfig, match=r"max_tokens is more than the model can read"):
        _tune(tiny_base, tmp_path, toy.rows(24), task, method=method)


@pytest.mark.parametrize("form", ["head", "embedding"])
def test_a_base_model_in_half_precision_trains_in_float32(tiny_base: Path, tmp_path: Path, form: Any) -> None:
    """Catches: weights, gradients and moments in float16, which is what many published files hold."""
    AutoModel.from_pretrained(tiny_base).half().save_pretrained(tmp_path)
    network = fresh(tmp_path, TextClassification(toy.TASK), form=form)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [DistilBertConfig, AlbertConfig, GPT2Config])
def test_dropout_of_heads_is_that_of_the_settings(tmp_path: Path, kind: Any) -> None:
    sizes = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16}
    AutoModel.from_config(kind(vocab_size=20, **sizes)).save_pretrained(tmp_path)
    network = fresh(tmp_path, TextClassification(toy.TASK), dropout=0.0)
    assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


def test_accumulated_steps_are_counted_as_the_trainer_does(tiny_base: Path, tmp_path: Path) -> None:
    """Catches: a last step of an epoch, of fewer batches, that warm-up and the rank schedule do not know of."""
    settings = FinetuneTable.model_validate({**SHORT, "epochs": 2, "accumulate_batches": 4})
    tuned = _tune(tiny_base, tmp_path, toy.rows(60), **settings.model_dump(include={"epochs", "accumulate_batches"}))
    encoder = Encoder(standalone_tokenizer(AutoTokenizer.from_pretrained(tiny_base), toy.TASK))
    rows = [row for row in toy.rows(60) if row.side == "train"]
    sampler = train_sampler(featurise(encoder, TextClassification(toy.TASK), rows, has_types=False), settings)
    assert len(sampler) % 4
    assert max(entry["step"] for entry in tuned.history) == count_steps(settings, len(sampler))[1]


@pytest.fixture
def decoder(tiny_base: Path, tmp_path: Path) -> Path:
    """A base model whose head reads every token and has no bias."""
    folder = tmp_path / "decoder"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.save_pretrained(folder)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "pad_token_id": 0}
    AutoModel.from_config(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return folder


def test_numbers_from_a_head_without_a_bias_are_refused_before_training(decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no bias"):
        _tune(decoder, tmp_path / "run", toy.rows(24, regression=True), toy.REGRESSION)


def test_mixup_is_refused_where_the_head_reads_every_token(decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="reads every token"):
        _tune(decoder, tmp_path / "run", toy.rows(24), robust={"mixup_alpha": 0.5})


_SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import Unusable
from headrace.finetune.running import tune
from headrace.records import SnapshotRow

def rows(n, side):
    text = "good bad " * 60
    return [SnapshotRow(f"{side}{i}", "c", f"{side}{i}", text, "ab"[i % 2], side, 1.0, "import") for i in range(n)]

def report(step, done, total, **facts):
    if done == 1:  # what training needs besides the batch is there by now
        limit = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

settings = FinetuneTable(epochs=1, min_steps=0, batch_tokens=int(sys.argv[3]), precision="fp32")
task = TaskTable(labels=("a", "b"))
try:
    tune(Path(sys.argv[1]), Path(sys.argv[2]), task, settings, rows(8, "train") + rows(4000, "validation"), report)
except Unusable as error:
    print(error)
"""


@pytest.mark.slow
def test_too_little_memory_says_which_settings_to_change(tiny_base: Path, tmp_path: Path) -> None:
    """The limit is real: the first evaluation, of 4,000 long texts in one batch, cannot get what it asks for."""
    command = [sys.executable, "-c", _SHORT_OF_MEMORY, str(tmp_path), str(tiny_base), "512000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "memory is not enough" in done.stdout
    assert "finetune.batch_tokens = 512000" in done.stdout
    assert "finetune.gradient_checkpointing" in done.stdout


def _rows(kind: str, nothing: Any) -> list[SnapshotRow]:
    return [replace(row, target=nothing) for row in rows_of(kind, 20)]


@pytest.mark.parametrize(
    ("kind", "target", "problem"),
    [
        ("text-classification", "positive", "one class only"),
        ("multi-label", [], "no training row has a label"),
        ("token-classification", [], "no training row has an entity"),
        ("extractive-qa", {"answers": []}, "no training row has an answer"),
        ("text-regression", 2.5, "all training rows have the same number"),
    ],
)
def test_nothing_to_learn_is_refused(kind: str, target: Any, problem: str, tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=problem):
        _tune(tiny_base, tmp_path, _rows(kind, target), TASKS[kind])


@pytest.mark.slow
def test_a_first_stage_whose_loss_is_no_number_ends(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: vectors that are no numbers under a head that trains on them all the same."""
    monkeypatch.setattr(contrastive, "_RATE", 1e38)
    with pytest.raises(Unusable, match=r"no number any more.*another finetune\.method"):
        _tune(tiny_base, tmp_path, toy.rows(40), method="contrastive")


@pytest.mark.parametrize("part", ["copies_of", "fresh", "activations.keep", "training.make_trainer"])
def test_whatever_part_lacks_memory(
    part: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a traceback where memory ends before the first batch."""
    monkeypatch.setattr(f"headrace.finetune.running.{part}", _raising(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(Unusable, match=r"memory is not enough.*finetune\.batch_tokens"):
        _tune(tiny_base, tmp_path, toy.rows(8))


def test_an_error_about_memory_that_settings_do_not_mend_is_left_as_it_is(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr("headrace.finetune.running.fresh", _raising(error))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        _tune(tiny_base, tmp_path, toy.rows(8))


def _raising(error: Exception) -> Any:
    def fail(*_args: Any, **_facts: Any) -> None:
        raise error

    return fail
