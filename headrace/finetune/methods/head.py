"""Head only: the base model is frozen, one linear layer on its mean vector trains (a linear probe).

Tasks on tokens have transformers' own head on the frozen model instead.

Requirements: few labels, or a quick first version. Cost: one forward pass a row in all, whose outcome is kept (see
headrace/finetune/activations.py), then next to nothing an epoch.
Relations: cheapest of the methods that train; weaker than `full` with many labels. `contrastive` tunes the vectors.
Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", arXiv 1610.01644.
"""

from headrace.checkpoints.network import Network
from headrace.finetune.methods import PROBLEMS, Method, Plan


def prepare(network: Network, plan: Plan) -> Network:
    frozen = network.encoder if network.form == "head" else network.model
    frozen.requires_grad_(False)
    return network


METHOD = Method(
    learning_rate=0.1,  # unit vectors need great weights: .93 on Banking77, .91 at 0.03 (one look each)
    token_learning_rate=5e-3,
    prepare=prepare,
    form="embedding",
    problems=PROBLEMS - {"retrieval"},  # whose vectors are all that could train
)
