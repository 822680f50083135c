"""LoRA: low-rank updates of all linear layers and the head train; merged into the weights at the end.

Requirements: peft. Cost: gradients and moments for about 1 % of the weights.
Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

from typing import Any

from peft import LoraConfig

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.merging import merge, outside_head, wrap


def prepare(network: Network, plan: Plan) -> Network:
    return low_rank(network, plan)


def low_rank(network: Network, plan: Plan, **kind: Any) -> Network:
    """Updates of finetune.adapter's rank beside every linear layer of the encoder; `kind` goes to peft."""
    settings = plan.settings.adapter
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        exclude_modules=outside_head(network),
        **kind,
    )
    return wrap(network, config)


METHOD = Method(learning_rate=1.5e-3, prepare=prepare, finish=merge)
