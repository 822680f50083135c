"""How much the loss hangs on each head and each neuron.

Dimensions: B rows of a batch, T tokens, F inputs of a linear layer, G groups of W neighbouring inputs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from headrace.checkpoints.encoding import Encoder, input_names, standalone_tokenizer
from headrace.checkpoints.network import Network
from headrace.finetune.batching import Padding, TokenBudgetSampler
from headrace.finetune.features import featurise
from headrace.finetune.methods import Method, Plan
from headrace.finetune.wrapping import objective_of

_N_ROWS = 1024  # a ranking needs few; Michel et al. use a validation set
_PLAIN = Method(learning_rate=0.0)


def importance(network: Network, plan: Plan, linears: Sequence[nn.Linear], *, width: int = 1) -> list[Tensor]:
    """For each linear layer (G,): the change of the loss to be expected, to first order, without a group of its inputs.

    Sum over rows of |sum over tokens and group of input times gradient|, on labelled rows of the training side.
    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, section 4 (heads);
    Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", arXiv 1611.06440,
    section 2.2 (neurons).

    Args:
        width: inputs in a group, W.
    """
    rows = plan.train[:: -(-len(plan.train) // _N_ROWS)]
    plan = replace(plan, train=rows)
    encoder = Encoder(standalone_tokenizer(plan.tokenizer, plan.task))
    has_types = "token_type_ids" in input_names(network.encoder, plan.tokenizer)
    side = featurise(encoder, plan.task_type, rows, has_types=has_types)
    plain, _ = objective_of(plan, _PLAIN, network, side)
    plain.refresh(network)
    padding = Padding(plan.tokenizer.pad_token_id or 0, network.problem)
    sampler = TokenBudgetSampler(side.lengths, batch_tokens=plan.settings.batch_tokens, seed=0, shuffle=False)
    found = [torch.zeros(linear.in_features // width) for linear in linears]
    network.eval()
    with _Inputs(linears) as seen:
        for done, batch in enumerate(sampler):
            seen.clear()
            loss, _ = plain(network, padding([side.features[i] for i in batch]))
            _add(found, loss * len(batch), seen.inputs, width)
            plan.report("importance", done + 1, len(sampler))
    return found


def _add(found: list[Tensor], loss: Tensor, inputs: list[list[Tensor]], width: int) -> None:
    flat = [one for mine in inputs for one in mine]
    gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    for total, mine in zip(found, inputs, strict=True):
        for one in mine:
            gradient = next(gradients)
            if gradient is not None:
                taken = (one.detach() * gradient).sum(dim=1)  # (B, F)
                total += taken.view(len(taken), -1, width).sum(dim=2).abs().sum(dim=0)


class _Inputs:
    """What linear layers were given since `clear`, while it is open."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self._linears = linears
        self._hooks: list[Any] = []
        self.clear()

    def clear(self) -> None:
        self.inputs: list[list[Tensor]] = [[] for _ in self._linears]

    def __enter__(self) -> "_Inputs":
        for i, linear in enumerate(self._linears):
            self._hooks.append(linear.register_forward_pre_hook(lambda _module, given, i=i: self._keep(i, given[0])))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, place: int, given: Tensor) -> None:
        if given.requires_grad:
            self.inputs[place].append(given)
