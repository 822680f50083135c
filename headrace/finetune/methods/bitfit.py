"""BitFit: the biases and the head train, every weight matrix of the base model is frozen.

Requirements: a base model with biases. Cost: gradients and moments for about 0.1 % of the weights.
Source: Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning", arXiv 2106.10199.
"""

from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.parts import train_head


def prepare(network: Network, plan: Plan) -> Network:
    biases = {name for name, _ in network.encoder.named_parameters() if name.endswith("bias")}
    if not biases:
        raise BadInput(
            "bitfit trains biases, and the base model has none",
            value=network.config.model_type,
            next_step="Choose method lora or full, or another base model",
        )
    for name, parameter in network.encoder.named_parameters():
        parameter.requires_grad = name in biases
    train_head(network)
    return network


METHOD = Method(learning_rate=2e-3, prepare=prepare)
"""Above the 1e-4 to 1e-3 that the paper tries on large models; 1e-2 was too much for MiniLM-L6."""
