"""LoRA: low-rank updates of all linear layers train, the rest is frozen; merged into the weights at the end.

Requirements: peft. Cost: gradients and moments for about 1 % of the weights.
Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

from peft import LoraConfig, get_peft_model

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.merging import PEFT_TASKS, merge


def prepare(network: Network, plan: Plan) -> Network:
    settings = plan.settings.adapter
    config = LoraConfig(
        task_type=PEFT_TASKS[network.problem] if network.form == "head" else "FEATURE_EXTRACTION",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
    )
    network.model = get_peft_model(network.model, config)
    return network


METHOD = Method(learning_rate=1e-3, prepare=prepare, finish=merge)
