"""Prefix tuning: keys and values of virtual tokens in every layer train, and the head.

Not mergeable: a layer's own weights cannot stand for keys that no token has. The checkpoint is a directory of peft's,
with its base model in `base/`.

Requirements: peft; a model that takes `past_key_values`, such as BERT and RoBERTa. Cost: 2 x n_virtual_tokens x model
width weights a layer; every token attends to the virtual ones too, also in serving.
Source: Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", arXiv 2101.00190; for
classification and tagging Liu et al. 2022, "P-Tuning v2", arXiv 2110.07602.
"""

import inspect

from peft import PrefixTuningConfig

from headrace.checkpoints.encoding import check_length
from headrace.checkpoints.network import Network
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.merging import wrap
from headrace.finetune.methods.parts import head_of

_PEFT_TASKS = {
    "single_label_classification": "SEQ_CLS",
    "multi_label_classification": "SEQ_CLS",
    "regression": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
}


def check(task: TaskTable, settings: FinetuneTable) -> None:
    """Refuse what switches off the cache that the virtual tokens live in.

    Raises:
        BadInput: gradient checkpointing.
    """
    if settings.gradient_checkpointing:
        raise BadInput(
            "prefix cannot compute activations twice: the virtual tokens live in the cache that this switches off",
            value="finetune.gradient_checkpointing = true",
            next_step="Set it to false, or choose method prompt or lora",
        )


def prepare(network: Network, plan: Plan) -> Network:
    check(plan.task, plan.settings)
    if "past_key_values" not in inspect.signature(network.encoder.forward).parameters:
        raise BadInput(
            "prefix needs a base model that takes past_key_values",
            value=network.config.model_type,
            next_step="Choose method prompt or lora, or a BERT or RoBERTa model",
        )
    n_tokens = plan.settings.adapter.n_virtual_tokens
    check_length(network.config, plan.tokenizer, plan.task, n_more=n_tokens)  # they take the first positions
    config = PrefixTuningConfig(
        task_type=_PEFT_TASKS[network.problem],
        num_virtual_tokens=n_tokens,
        modules_to_save=[name for name in head_of(network) if name != "pooler"],  # it is saved with the base model
    )
    return wrap(network, config)


METHOD = Method(learning_rate=2e-2, prepare=prepare, problems=frozenset(_PEFT_TASKS), check=check, starts_warm=False)
