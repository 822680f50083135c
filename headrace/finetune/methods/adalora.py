"""AdaLoRA: LoRA whose ranks shrink, while it trains, to where they matter most; merged into the weights at the end.

Starts with half as many more ranks as `finetune.adapter.rank`, and from a sixth of the steps to two thirds masks those
that matter least, until there are `rank` for each matrix on average. Fewer than ten steps mask nothing. The checkpoint
that is kept is the best one, which may be from before the last were masked.

Requirements: peft. Cost: as lora at 1.5 times the rank, and a running mean of what each of its weights matters.
Source: Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv 2303.10512.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import AdaLoraConfig
from torch import Tensor, nn

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.merging import merge, outside_head, wrap
from headrace.finetune.objectives import Batch, Objective, unwrapped

_ORTHOGONALITY = 0.1  # weight of the penalty; the paper's for most tasks (table 8)
_MIN_STEPS = 10
_UNKNOWN = 10**9  # steps, until the objective is made


class Importance(nn.Module):
    """What peft's allocator remembers between steps, as buffers, so that a checkpoint holds it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = [name for name, _ in model.named_parameters() if "lora_" in name and "default" in name]
        self.ranks = [name for name in self.names if "lora_E" in name]
        own = dict(model.named_parameters())
        for i, name in enumerate(self.names):
            self.register_buffer(f"sensitivity_{i}", torch.zeros_like(own[name]))
            self.register_buffer(f"uncertainty_{i}", torch.zeros_like(own[name]))
        for i, name in enumerate(self.ranks):
            self.register_buffer(f"kept_{i}", torch.ones(own[name].numel(), dtype=torch.bool))

    def give(self, adalora: Any) -> None:
        """Have the allocator of peft's model know what is remembered here."""
        allocator = adalora.rankallocator
        allocator.exp_avg_ipt = {n: self.get_buffer(f"sensitivity_{i}") for i, n in enumerate(self.names)}
        allocator.exp_avg_unc = {n: self.get_buffer(f"uncertainty_{i}") for i, n in enumerate(self.names)}
        allocator.ipt = dict(allocator.exp_avg_ipt)
        kept = {name: self.get_buffer(f"kept_{i}").tolist() for i, name in enumerate(self.ranks)}
        adalora.peft_config["default"].rank_pattern = kept

    def take(self, adalora: Any) -> None:
        """Remember what the allocator found."""
        allocator = adalora.rankallocator
        for i, name in enumerate(self.names):
            if name in allocator.exp_avg_ipt:
                self.get_buffer(f"sensitivity_{i}").copy_(allocator.exp_avg_ipt[name])
                self.get_buffer(f"uncertainty_{i}").copy_(allocator.exp_avg_unc[name])
        pattern = adalora.peft_config["default"].rank_pattern
        for i, name in enumerate(self.ranks):
            self.get_buffer(f"kept_{i}").copy_(torch.tensor(pattern[name]))


@dataclass(frozen=True)
class Orthogonal:
    """A loss and the distance of both sides of each update from orthogonal; section 3.1 of the paper."""

    inner: Objective
    n_steps: int

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        schedule(unwrapped(network).model.peft_config["default"], self.n_steps)
        loss, logits = self.inner(network, batch)
        return loss + _ORTHOGONALITY * _distance(network), logits

    def refresh(self, network: Network) -> None:
        self.inner.refresh(network)


def _distance(network: nn.Module) -> Tensor:
    distances = []
    for name, side in network.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            with torch.autocast(side.device.type, enabled=False):
                products = side @ side.T if "lora_A" in name else side.T @ side
                distances.append(torch.linalg.matrix_norm(products - torch.eye(len(products), device=side.device)))
    return torch.stack(distances).mean()


def schedule(config: Any, n_steps: int) -> None:
    """When the ranks shrink, in steps, once it is known how many there are."""
    config.total_step = n_steps
    config.tinit, config.tfinal = n_steps // 6, n_steps // 3
    config.deltaT = max(1, n_steps // 100)


def prepare(network: Network, plan: Plan) -> Network:
    settings = plan.settings.adapter
    config = AdaLoraConfig(
        init_r=max(settings.rank + 1, round(1.5 * settings.rank)),
        target_r=settings.rank,
        total_step=_UNKNOWN,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        exclude_modules=outside_head(network),
    )
    network = wrap(network, config)
    network.importance = Importance(network.model.base_model.model)
    return network


def allot(network: Network, step: int) -> None:
    """One step of the allocator; gradients are those of the step."""
    network = unwrapped(network)
    adalora, importance = network.model.base_model, network.importance
    assert isinstance(importance, Importance)
    if adalora.peft_config["default"].total_step < _MIN_STEPS:
        return
    importance.give(adalora)
    adalora.update_and_allocate(step)
    importance.take(adalora)


def finish(network: Network, plan: Plan) -> Network:
    del network.importance
    return merge(network, plan)


METHOD = Method(
    learning_rate=5e-3,
    prepare=prepare,
    finish=finish,
    after_step=allot,
    objective=lambda inner, plan: Orthogonal(inner, plan.n_steps),
)
