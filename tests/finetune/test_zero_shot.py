"""Labels by their descriptions. Catches: descriptions out of order, padding in the mean, a bias that stays."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from finetune import toy
from finetune.toy_tasks import TASKS, rows_of
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput
from headrace.finetune.methods.zero_shot import described
from headrace.finetune.running import tune
from headrace.tasks.text_classification import TextClassification

SETTINGS = FinetuneTable(method="zero-shot")


def test_logits_are_scaled_cosines(tiny_base: Path, tmp_path: Path) -> None:
    """Against plain transformers, one text at a time, from the saved directory."""
    task = toy.TASK.model_copy(update={"descriptions": {"negative": "awful bad service", "positive": "good"}})
    tuned = tune(tmp_path / "run", tiny_base, task, SETTINGS, toy.rows(40), lambda *_a, **_f: None)
    assert tuned.history == []
    (tmp_path / "saved").mkdir()
    save(tuned.network, tuned.tokenizer, tmp_path / "saved")
    network, tokenizer = load(tmp_path / "saved", TextClassification(task))
    model, own = AutoModel.from_pretrained(tiny_base).eval(), AutoTokenizer.from_pretrained(tiny_base)

    def vector(text: str) -> torch.Tensor:
        hidden = model(**own(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        return hidden / hidden.norm()

    text = "the phone was lovely today"
    with torch.no_grad():
        expected = [20 * vector(text) @ vector(words) for words in ("awful bad service", "neutral", "good")]
        found = network(**tokenizer(text, return_tensors="pt"))[0]
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


@pytest.mark.parametrize(
    ("label", "words"), [("card_not-working", "card not working"), ("a/b", "a b"), ("_", "_"), ("x", "what x means")]
)
def test_a_name_is_read_as_words(label: str, words: str) -> None:
    assert described(TaskTable(labels=(label, "y"), descriptions={"x": "what x means"}), label) == words


@pytest.mark.parametrize(("kind", "works"), [("multi-label", True), ("retrieval", True), ("text-regression", False)])
def test_which_tasks_it_does(tiny_base: Path, tmp_path: Path, kind: str, works: bool) -> None:
    def run() -> object:
        return tune(tmp_path, tiny_base, TASKS[kind], SETTINGS, rows_of(kind, 40), lambda *_a, **_f: None)

    if works:
        assert run()
    else:
        with pytest.raises(BadInput, match="zero-shot"):
            run()
