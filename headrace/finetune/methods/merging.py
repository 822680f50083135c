"""What methods that stand on peft share: its names for our problems, and merging into a plain model."""

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Plan

PEFT_TASKS = {
    "single_label_classification": "SEQ_CLS",
    "multi_label_classification": "SEQ_CLS",
    "regression": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
}


def merge(network: Network, plan: Plan) -> Network:
    """The updates added to the weights they update: a plain transformers model again."""
    network.model = network.model.merge_and_unload()
    return network
