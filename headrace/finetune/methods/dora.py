"""DoRA: LoRA for the direction of each weight, and a magnitude for each neuron that trains too; merged at the end.

Requirements: peft. Cost: as lora, and a norm of every weight matrix in each step.
Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353.
"""

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.lora import low_rank
from headrace.finetune.methods.merging import merge


def prepare(network: Network, plan: Plan) -> Network:
    return low_rank(network, plan, use_dora=True)


METHOD = Method(learning_rate=1.5e-3, prepare=prepare, finish=merge)
