"""Training for retrieval. Catches: a text scored against the wrong entry, neighbours that are the entry itself, vectors
of entries that are not those of the saved model, entries beyond the budget left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional
from transformers import AutoTokenizer

from conftest import FILLER, LABELS, WORDS
from finetune import toy
from headrace.checkpoints.encoding import Encoder, standalone_tokenizer
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable, TaskTable
from headrace.finetune.batching import Padding
from headrace.finetune.embeddings import vectors_of
from headrace.finetune.features import featurise
from headrace.finetune.methods import Plan
from headrace.finetune.objectives import Objective
from headrace.finetune.retrieval import Catalogue, objectives_of
from headrace.finetune.running import tune
from headrace.tasks.retrieval import Retrieval

ENTRIES = {f"{label}-{i}": f"{word} service phone" for label in LABELS for i, word in enumerate(WORDS[label][:3])}
TASK = TaskTable(type="retrieval", labels=tuple(ENTRIES), descriptions=ENTRIES, max_tokens=32)


def _plan(base: Path, folder: Path, **changes: object) -> Plan:
    settings = FinetuneTable.model_validate(changes)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [replace(row, target=f"{row.target}-{i % 3}") for i, row in enumerate(toy.rows(24))]
    return Plan(folder, base, TASK, Retrieval(TASK), settings, tokenizer, rows, rows)


def _built(plan: Plan) -> tuple[torch.nn.Module, Objective, Objective, dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    network = fresh(plan.base_folder, plan.task_type, form="embedding")
    measured, trained = objectives_of(plan, network)
    encoder = Encoder(standalone_tokenizer(plan.tokenizer, TASK))
    side = featurise(encoder, plan.task_type, plan.train[:8], has_types=False)
    return network, measured, trained, Padding(0, "retrieval")(side.features)


def test_the_loss_by_hand(tiny_base: Path, tmp_path: Path) -> None:
    plan = _plan(tiny_base, tmp_path, batch_tokens=4096)
    network, _, trained, batch = _built(plan)
    loss, logits = trained(network, batch)
    entries = vectors_of(network, plan.tokenizer, TASK, list(ENTRIES.values()))
    texts = vectors_of(network, plan.tokenizer, TASK, [row.input for row in plan.train[:8]])
    nearest = NearestNeighbors(n_neighbors=2, metric="cosine").fit(entries).kneighbors(entries)[1][:, 1]
    chosen = sorted({k for own in batch["labels"].tolist() for k in (own, int(nearest[own]))})
    scores = torch.from_numpy(20 * texts @ entries[chosen].T)
    wanted = torch.tensor([chosen.index(own) for own in batch["labels"].tolist()])
    assert loss.item() == pytest.approx(functional.cross_entropy(scores, wanted).item(), abs=1e-4)
    assert np.allclose(logits.detach().numpy(), 20 * texts @ entries.T, atol=1e-3)
    assert not network.dense.weight.requires_grad


def test_entries_beyond_the_budget_keep_their_last_vectors(tiny_base: Path, tmp_path: Path) -> None:
    plan = _plan(tiny_base, tmp_path, batch_tokens=16)
    network, measured, trained, batch = _built(plan)
    measured.refresh(network)
    catalogue: Catalogue = measured.catalogue  # type: ignore[attr-defined]
    passes = []
    network.register_forward_pre_hook(lambda _m, _a, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True)
    catalogue.token_ids = [ids * 3 for ids in catalogue.token_ids]  # long ones
    entries = torch.arange(len(ENTRIES))
    found = catalogue.vectors(network, entries)
    ((n_rows, n_tokens),) = passes
    assert 0 < n_rows < len(ENTRIES)
    assert n_rows * n_tokens <= 4 * 16
    expected = vectors_of(network, plan.tokenizer, TASK, list(ENTRIES.values()))
    is_known = np.isclose(found.detach().numpy(), expected, atol=1e-5).all(axis=1)
    assert is_known.sum() == len(ENTRIES) - n_rows
    found.sum().backward()
    assert torch.isfinite(trained(network, batch)[0])


def test_measuring_sees_the_whole_catalogue(tiny_base: Path, tmp_path: Path) -> None:
    network, measured, _, batch = _built(_plan(tiny_base, tmp_path))
    measured.refresh(network)
    loss, logits = measured(network, batch)
    assert logits.shape == (8, len(ENTRIES))
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, batch["labels"]).item())


@pytest.mark.slow
def test_training_ranks_the_right_entry_first(tiny_base: Path, tmp_path: Path) -> None:
    """Texts are fillers and a word of their entry; the saved vectors are those of the saved model."""
    rows = []
    for i, row in enumerate(toy.rows(160)):
        entry = f"{row.target}-{i % 3}"
        words = [word for word in row.text.split() if word in FILLER] + ENTRIES[entry].split()[:1]
        rows.append(replace(row, text=" ".join(words), target=entry))
    settings = FinetuneTable(epochs=12, batch_tokens=512, learning_rate=3e-3, patience=20, evals_per_epoch=1)
    tuned = tune(tmp_path, tiny_base, TASK, settings, rows, lambda *_a, **_f: None)
    figures = [entry["eval_metric_main"] for entry in tuned.history if "eval_metric_main" in entry]
    assert max(figures) > 0.95 > figures[0]
    vectors = vectors_of(tuned.network, tuned.tokenizer, TASK, list(ENTRIES.values()))
    assert np.allclose(tuned.network.dense.weight.detach().numpy(), 20 * vectors, atol=1e-3)
