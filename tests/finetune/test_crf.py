"""The CRF against all paths written out. Catches: a path scored or summed wrongly, padding or word pieces that take
part, tags learnt in another order than they are decoded in, weights that are not saved."""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import toy
from headrace.checkpoints.loading import load
from headrace.checkpoints.network import Network
from headrace.checkpoints.saving import read_decoding, save
from headrace.config import FinetuneTable
from headrace.finetune.crf import Crf, fresh_crf, negative_log_likelihood, words_first
from headrace.finetune.features import IGNORED
from headrace.finetune.losses import class_loss
from headrace.finetune.running import tune
from headrace.tasks.token_classification import TokenClassification
from headrace.tasks.viterbi import best_path

K = 3


def _weights(seed: int) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=made, dtype=torch.float64) for shape in ((5, K), (K, K), (K,), (K,))]


def _score(path: tuple[int, ...], emissions: torch.Tensor, *weights: torch.Tensor) -> float:
    transitions, start, end = weights
    own = sum(float(emissions[t, tag]) for t, tag in enumerate(path))
    steps = sum(float(transitions[a, b]) for a, b in pairwise(path))
    return own + steps + float(start[path[0]]) + float(end[path[-1]])


@given(st.integers(0, 500), st.lists(st.integers(0, K - 1), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_likelihood_and_best_path_against_all_paths(seed: int, path: list[int]) -> None:
    emissions, *weights = _weights(seed)
    n = len(path)
    scores = {p: _score(p, emissions[:n], *weights) for p in product(range(K), repeat=n)}
    expected = np.logaddexp.reduce(list(scores.values())) - scores[tuple(path)]
    tags = torch.tensor([path + [0] * (5 - n)])
    mask = (torch.arange(5) < n)[None]
    found = negative_log_likelihood(emissions[None], tags, mask, *weights)
    assert float(found[0]) == pytest.approx(expected, abs=1e-9)
    best = best_path(emissions[:n].numpy(), *(w.numpy() for w in weights))
    assert tuple(best.tolist()) == max(scores, key=lambda p: scores[p])


def test_only_first_pieces_of_words_take_part() -> None:
    logits = torch.arange(2 * 5 * K, dtype=torch.float32).reshape(2, 5, K)
    labels = torch.tensor([[IGNORED, 2, IGNORED, 1, IGNORED], [IGNORED, 0, 1, 2, IGNORED]])
    words, tags, mask = words_first(logits, labels)
    assert mask.tolist() == [[True, True, False], [True, True, True]]
    assert tags.tolist() == [[2, 1, 0], [0, 1, 2]]
    assert torch.equal(words[0, :2], logits[0, [1, 3]])
    assert torch.equal(words[1], logits[1, 1:4])


class _Fixed(torch.nn.Module):
    """A network that always gives these logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.crf = torch.nn.Parameter(logits), fresh_crf(logits.shape[-1])

    def forward(self, **feed: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_at_the_start_it_is_the_loss_of_single_tags() -> None:
    """With all scores 0 the tags are independent; so the two losses compare, and the learning rate suits both."""
    labels = torch.tensor([[IGNORED, 2, IGNORED, 1], [IGNORED, IGNORED, IGNORED, IGNORED], [0, 1, 2, 0]])
    network = _Fixed(torch.randn(3, 4, K))
    loss, logits = Crf()(network, {"labels": labels})  # type: ignore[arg-type]
    assert torch.allclose(loss, class_loss(logits, labels))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_it_learns_that_one_tag_follows_another() -> None:
    """Emissions say nothing; only the order of the tags does."""
    network = _Fixed(torch.zeros(1, 6, 2))
    network.logits.requires_grad_(False)
    optimizer = torch.optim.Adam(network.crf.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        Crf()(network, {"labels": torch.tensor([[0, 1, 0, 1, 0, 1]])})[0].backward()  # type: ignore[arg-type]
        optimizer.step()
    weights = [network.crf[name].detach().numpy() for name in ("transitions", "start", "end")]
    assert best_path(np.zeros((6, 2)), *weights).tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.slow
def test_names_are_learnt_and_the_scores_saved(tiny_base: Path, tmp_path: Path) -> None:
    settings = FinetuneTable.model_validate(
        {"epochs": 12, "batch_tokens": 128, "learning_rate": 5e-3, "patience": 30, "loss": {"crf": True}}
    )
    tuned = tune(tmp_path / "run", tiny_base, toy.NER, settings, toy.ner_rows(), lambda *_a, **_f: None)
    assert max(entry.get("eval_metric_main", 0) for entry in tuned.history) > 0.9
    folder = tmp_path / "saved"
    folder.mkdir()
    save(tuned.network, tuned.tokenizer, folder)
    assert set(read_decoding(folder)["crf"]) == {"transitions", "start", "end"}
    network: Network = load(folder, TokenClassification(toy.NER))[0]
    assert network.crf is not None
    assert tuned.network.crf is not None
    for name, value in tuned.network.crf.items():
        assert torch.equal(network.crf[name], value)
        assert bool(value.abs().sum() > 0)
