"""Masked words before a method. Catches: a stage without effect, a pooler lost on the way, a resume that ends
elsewhere, a method after it that cannot be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from conftest import make_tiny_base, sentences
from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.config import FinetuneTable
from headrace.errors import BadConfig, BadInput, Cancelled
from headrace.finetune.methods import continue_pretraining
from headrace.finetune.running import Tuned, tune

SETTINGS = FinetuneTable(method="continue-pretraining", epochs=1, min_steps=4, batch_tokens=256, pretrain_epochs=3)
TEXTS = [row["text"] for row in sentences(120, channel="d")]


def _tune(
    folder: Path, base: Path, kind: str = "text-classification", report: object = None, **changes: object
) -> Tuned:
    settings = SETTINGS.model_copy(update=changes)
    told = report or (lambda *_a, **_f: None)
    return tune(folder, base, TASKS[kind], settings, rows_of(kind, 40), told, unlabelled=TEXTS)


@pytest.mark.slow
def test_words_are_learnt_and_a_resume_is_exact(tiny_base: Path, tmp_path: Path) -> None:
    losses: list[float] = []

    def watch(stage: str, done: int, total: int, **facts: object) -> None:
        if stage == "pretrain" and facts["loss"] is not None:
            losses.append(float(facts["loss"]))  # type: ignore[arg-type]

    whole = _tune(tmp_path / "a", tiny_base, report=watch)
    assert losses[-1] < losses[0]
    before = AutoModel.from_pretrained(tiny_base).state_dict()
    after = AutoModel.from_pretrained(tmp_path / "a" / "pretrained").state_dict()
    assert before.keys() == after.keys()
    assert torch.equal(before["pooler.dense.weight"], after["pooler.dense.weight"])
    assert not torch.equal(before["encoder.layer.0.output.dense.weight"], after["encoder.layer.0.output.dense.weight"])

    def stop(stage: str, done: int, total: int, **facts: object) -> None:
        if stage == "pretrain" and done == total - 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        _tune(tmp_path / "b", tiny_base, report=stop)
    assert list((tmp_path / "b" / "pretrain").glob("checkpoint-*/whole"))
    steps: list[int] = []
    resumed = _tune(
        tmp_path / "b",
        tiny_base,
        report=lambda stage, done, *_a, **_f: steps.append(done) if stage == "pretrain" else None,
    )
    assert steps[0] > 1
    state = resumed.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in whole.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "then"), [("extractive-qa", "full"), ("text-pair", "head")])
def test_then_comes_another_method(tiny_base: Path, tmp_path: Path, kind: str, then: str) -> None:
    tuned = _tune(tmp_path, tiny_base, kind, pretrain_epochs=1, pretrain_then=then)
    assert tuned.network.form == ("embedding" if then == "head" else "head")


@pytest.mark.parametrize(
    ("then", "kind"),
    [("continue-pretraining", "text-classification"), ("head", "retrieval"), ("zero-shot", "text-regression")],
)  # fmt: skip
def test_what_cannot_come_then(tiny_base: Path, tmp_path: Path, then: str, kind: str) -> None:
    with pytest.raises(BadConfig, match="pretrain_then cannot be this method"):
        _tune(tmp_path, tiny_base, kind, pretrain_then=then)


def test_the_first_stage_has_its_own_optimiser(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: SGD at AdamW's rate, at which nothing is learnt; a name that is also the training's."""
    seen: list[Any] = []

    class Seen(Exception):
        pass

    def noting(*_: Any, args: Any, **__: Any) -> None:
        seen.append(args)
        raise Seen

    monkeypatch.setattr(continue_pretraining, "_MaskedTrainer", noting)
    with pytest.raises(Seen):
        _tune(tmp_path, tiny_base, optimizer="sgd", learning_rate=0.5)
    (args,) = seen
    assert (args.optim, args.learning_rate) == ("adamw_torch_fused", 1e-4)
    assert args.run_name == f"{tmp_path.name}-pretrain"


def test_a_base_model_without_a_mask_token(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(base)
    with pytest.raises(BadInput, match="no mask token"):
        _tune(tmp_path / "run", base)


def test_a_family_that_does_not_guess_masked_words(tiny_base: Path, tmp_path: Path) -> None:
    base = toy.base_of_family("gpt2", tiny_base, tmp_path / "base")
    with pytest.raises(BadInput, match=r"does not guess masked words.*of the BERT family"):
        _tune(tmp_path / "run", base)
