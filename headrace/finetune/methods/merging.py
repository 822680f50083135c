"""What methods that stand on peft share: wrapping a model, and merging into a plain one."""

import warnings
from typing import Any

from peft import get_peft_model

from headrace.checkpoints.network import Network
from headrace.finetune.methods import Plan
from headrace.finetune.methods.parts import head_of, train_head


def wrap(network: Network, config: Any) -> Network:
    """Have what `config` describes train, and the head; all else is frozen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        network.model = get_peft_model(network.model, config)
    train_head(network)
    return network


def outside_head(network: Network) -> str:
    """A pattern of the names of the head's modules, for peft's `exclude_modules`."""
    return rf"(.*\.)?({'|'.join(head_of(network)) or '-'})(\..*)?"


def merge(network: Network, plan: Plan) -> Network:
    """The updates added to the weights they update: a plain transformers model again."""
    network.model = network.model.merge_and_unload()
    return network
