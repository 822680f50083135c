"""Adversarial moves, R-Drop and mixup. Catches: a move longer than allowed or of padding, gradients of the search that
end in the weights' own, a mix of texts with others' labels, hooks that outlive an error and change later answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from finetune import toy
from headrace.checkpoints.encoding import Encoder, standalone_tokenizer
from headrace.checkpoints.loading import fresh
from headrace.checkpoints.network import Network
from headrace.config import FinetuneTable, RobustTable
from headrace.errors import BadConfig
from headrace.finetune.batching import Padding
from headrace.finetune.checking import check_robust
from headrace.finetune.features import IGNORED, featurise
from headrace.finetune.losses import class_loss
from headrace.finetune.methods import Plan
from headrace.finetune.methods.lora import prepare
from headrace.finetune.objectives import Batch, Objective, Plain
from headrace.finetune.robust import Adversarial, Mixup, RDrop, distance, hardened, mixed
from headrace.finetune.running import tune
from headrace.tasks.text_classification import TextClassification

PLAIN = Plain(class_loss)


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = FinetuneTable(epochs=8, batch_tokens=128, learning_rate=1e-2, patience=30, evals_per_epoch=1)
    folder = tmp_path_factory.mktemp("run")
    return tune(folder, tiny_base, toy.TASK, settings, toy.rows(), lambda *_a, **_f: None)


@pytest.fixture
def network(trained: Any) -> Network:
    found: Network = trained.network
    return found.eval()


@pytest.fixture
def batch(trained: Any) -> Batch:
    encoder = Encoder(standalone_tokenizer(trained.tokenizer, toy.TASK))
    side = featurise(encoder, TextClassification(toy.TASK), toy.rows(24), has_types=False)
    return Padding(0, "single_label_classification")(side.features)


class _Seen:
    """An objective that notes what the embeddings gave in each pass."""

    def __init__(self) -> None:
        self.embeddings: list[Tensor] = []

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        note = lambda _module, _args, output: self.embeddings.append(output.detach())  # noqa: E731
        handle = network.encoder.get_input_embeddings().register_forward_hook(note)
        try:
            return PLAIN(network, batch)
        finally:
            handle.remove()

    def refresh(self, network: Network) -> None:
        pass


KINDS = [{"n_steps": 1}, {"n_steps": 3}, {"n_steps": 3, "averages": True}]


@pytest.mark.parametrize("kind", KINDS)
def test_moved_embeddings_cost_more(network: Network, batch: Batch, kind: dict[str, Any]) -> None:
    clean, logits = PLAIN(network, batch)
    loss, answered = Adversarial(PLAIN, 0.5, **kind)(network, batch)
    assert bool(loss > clean)
    assert torch.equal(answered, logits)


@pytest.mark.parametrize("kind", KINDS)
def test_no_move_is_the_clean_loss(network: Network, batch: Batch, kind: dict[str, Any]) -> None:
    assert torch.allclose(Adversarial(PLAIN, 0.0, **kind)(network, batch)[0], PLAIN(network, batch)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_moves_are_bounded_and_padding_stays(network: Network, batch: Batch, kind: dict[str, Any]) -> None:
    inner = _Seen()
    Adversarial(inner, 0.5, **kind)(network, batch)
    clean, *others = inner.embeddings
    assert len(others) == kind["n_steps"]
    moves = [other - clean for other in others]
    lengths = torch.stack([move.flatten(1).norm(dim=1) for move in moves])
    assert float(lengths.max()) < 0.5001
    assert lengths[0].tolist() == pytest.approx([0.5 if kind["n_steps"] == 1 else 0.5 * 2.5 / 3] * len(clean), abs=1e-3)
    assert float(lengths[-1].median()) == pytest.approx(0.5, abs=1e-3)  # the last step of a row may turn back
    assert all(float(move[batch["attention_mask"] == 0].abs().max()) == 0 for move in moves)


def test_more_steps_find_a_worse_place(network: Network, batch: Batch) -> None:
    losses = [Adversarial(PLAIN, 3.0, n_steps=n)(network, batch)[0].item() for n in (1, 8)]
    assert losses[1] > losses[0]


def test_the_search_leaves_no_gradients(network: Network, batch: Batch) -> None:
    network.zero_grad()
    loss, _ = Adversarial(PLAIN, 0.5, n_steps=3)(network, batch)
    assert all(p.grad is None for p in network.parameters())
    loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_two_passes_without_dropout_are_one(network: Network, batch: Batch) -> None:
    assert torch.allclose(RDrop(PLAIN, 5.0)(network, batch)[0], PLAIN(network, batch)[0])


def test_distances_by_problem() -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.3, 0.3, 0.4]])
    both = (entropy(p[0], q[0]) + entropy(q[0], p[0])) / 2
    label = torch.tensor([0])
    assert float(distance("single_label_classification", p.log(), q.log(), label)) == pytest.approx(both, rel=1e-5)
    words = torch.stack([p, q], dim=1).log(), torch.stack([q, p * 0 + 1 / 3], dim=1).log()
    tags = torch.tensor([[1, IGNORED]])
    assert float(distance("token_classification", *words, tags)) == pytest.approx(both, rel=1e-5)
    places = p.log()[..., None].repeat(1, 1, 2), q.log()[..., None].repeat(1, 1, 2)
    assert float(distance("question_answering", *places, label)) == pytest.approx(both, rel=1e-5)
    a, b = torch.tensor([[0.7]]), torch.tensor([[0.4]])
    two = (entropy([0.7, 0.3], [0.4, 0.6]) + entropy([0.4, 0.6], [0.7, 0.3])) / 2
    found = distance("multi_label_classification", a.logit(), b.logit(), label)
    assert float(found) == pytest.approx(two, rel=1e-4)
    assert float(distance("regression", a, b, label)) == pytest.approx(0.09, rel=1e-4)


def test_padding_is_no_place_for_an_answer() -> None:
    """Catches: a distance that depends on how long the longest text of a batch is."""
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 2, 5, 2, generator=generator)
    answers = iter([logits, other, *(torch.cat([one, torch.ones(2, 3, 2) * 9], dim=1) for one in (logits, other))])
    with_room = torch.cat([torch.ones(2, 5), torch.zeros(2, 3)], dim=1)
    found = [
        _apart(lambda *_: next(answers), {"attention_mask": mask, "labels": torch.zeros(2, 2)})
        for mask in (torch.ones(2, 5), with_room)
    ]
    assert float(found[0]) > 0.1
    assert torch.allclose(*found)


def _apart(answer: Any, batch: Batch) -> Tensor:
    """What R-Drop adds to a loss of 0 on questions, whose network answers as told."""
    network = Network(torch.nn.Linear(1, 1), "question_answering", 2)
    return RDrop(_Given(answer), 1.0)(network, batch)[0]


@dataclass(frozen=True)
class _Given:
    """An objective without a loss."""

    answer: Any

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        return torch.tensor(0.0), self.answer(network, batch)

    def refresh(self, network: Network) -> None:
        pass


def test_a_row_that_weighs_nothing_is_not_learnt_from() -> None:
    logits, other = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind()
    given = [one.clone().requires_grad_() for one in (logits, other)]
    answers = iter(given)
    network = Network(torch.nn.Linear(1, 1), "single_label_classification", 4)
    batch = {"labels": torch.zeros(3), "weight": torch.tensor([1.0, 0.0, 0.5])}
    RDrop(_Given(lambda *_: next(answers)), 1.0)(network, batch)[0].backward()
    for one in given:
        assert one.grad is not None
        assert one.grad[1].abs().max() == 0
        assert one.grad[[0, 2]].abs().min() > 0


def test_only_the_batchs_own_texts_are_moved(network: Network, batch: Batch) -> None:
    """A catalogue's texts may happen to have the shape of the batch."""
    other = {**batch, "input_ids": batch["input_ids"].flip(0)}
    embeddings = network.encoder.get_input_embeddings()
    seen: list[Tensor] = []

    class Two:
        def __call__(self, network: Network, own: Batch) -> tuple[Tensor, Tensor]:
            handle = embeddings.register_forward_hook(lambda _m, _a, output: seen.append(output.detach()))
            try:
                PLAIN(network, other)
            finally:
                handle.remove()
            return PLAIN(network, own)

        def refresh(self, network: Network) -> None:
            pass

    Adversarial(Two(), 0.5)(network, batch)
    assert torch.equal(seen[0], seen[1])


def test_a_whole_share_is_the_clean_loss(network: Network, batch: Batch) -> None:
    partner = torch.randperm(len(batch["labels"]))
    assert torch.allclose(mixed(PLAIN, network, batch, 1.0, partner)[0], PLAIN(network, batch)[0])


@pytest.mark.parametrize("is_lora", [False, True])
def test_no_share_is_the_partners_loss(network: Network, batch: Batch, tiny_base: Path, is_lora: bool) -> None:
    """Texts and labels go together: had only one of them gone, the loss would be that of wrong labels."""
    if is_lora:
        kinds = TextClassification(toy.TASK)
        network = fresh(tiny_base, kinds)
        plan = Plan(tiny_base, tiny_base, toy.TASK, kinds, FinetuneTable(), None, [], [])
        network = prepare(network, plan).eval()
    partner = torch.arange(len(batch["labels"])).roll(1)
    loss, logits = mixed(PLAIN, network, batch, 0.0, partner)
    clean, own = PLAIN(network, batch)
    assert torch.allclose(loss, clean)
    assert torch.allclose(logits, own[partner], atol=1e-5)


class _Fails:
    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        PLAIN(network, batch)
        raise MemoryError

    def refresh(self, network: Network) -> None:
        pass


@pytest.mark.parametrize("wrapper", [lambda o: Adversarial(o, 0.5), lambda o: Mixup(o, 0.4)])
def test_hooks_are_gone_after_an_exception(network: Network, batch: Batch, wrapper: Any) -> None:
    with pytest.raises(MemoryError):
        wrapper(_Fails())(network, batch)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_all_together_are_the_same_with_the_same_seed(network: Network, batch: Batch) -> None:
    table = RobustTable(adversarial="freelb", rdrop_weight=1.0, mixup_alpha=0.4)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        objective: Objective = hardened(PLAIN, table)
        losses.append(objective(network, batch)[0].item())
    assert losses[0] == losses[1] != losses[2]
    assert hardened(PLAIN, RobustTable()) is PLAIN


def test_a_network_whose_embeddings_do_not_run_is_told(network: Network, batch: Batch) -> None:
    class Cached:
        def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
            return torch.zeros(()), torch.zeros(1, 3)

        def refresh(self, network: Network) -> None:
            pass

    with pytest.raises(BadConfig, match=r"finetune\.cache_bytes = 0"):
        Adversarial(Cached(), 0.5)(network, batch)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"rdrop_weight.*dropout is 0"):
        check_robust("regression", FinetuneTable(robust=RobustTable(rdrop_weight=1.0)))
    with pytest.raises(BadConfig, match="mixup_alpha"):
        check_robust("token_classification", FinetuneTable(robust=RobustTable(mixup_alpha=1.0)))
