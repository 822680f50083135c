"""LoRA: low-rank updates of all linear layers train, the rest is frozen; merged into the weights at the end.

Requirements: peft. Cost: gradients and moments for about 1 % of the weights.
Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

from typing import Any

from peft import LoraConfig, TaskType, get_peft_model

_RANK = 8  # section 7.2 of the paper: small ranks suffice
_ALPHA = 16


class Lora:
    learning_rate = 1e-3

    @staticmethod
    def prepare(model: Any) -> Any:
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS, r=_RANK, lora_alpha=_ALPHA, lora_dropout=0.0, target_modules="all-linear"
        )
        return get_peft_model(model, config)

    @staticmethod
    def finish(model: Any) -> Any:
        return model.merge_and_unload()
