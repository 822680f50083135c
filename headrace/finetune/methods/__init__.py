"""Ways to fine-tune a base model. One file each: what trains, and the learning rate that suits it.

To add one: copy head.py; give it the attributes of `Method`; add its line to METHODS. The conformance tests find it
through the table.
"""

from typing import Any, Protocol

from headrace.registry import Registry

METHODS = Registry(
    "methods",
    {
        "full": "headrace.finetune.methods.full:Full",
        "head": "headrace.finetune.methods.head:Head",
        "lora": "headrace.finetune.methods.lora:Lora",
    },
)


class Method(Protocol):
    """What a method does to a transformers sequence classifier."""

    learning_rate: float
    """Used when finetune.learning_rate is not set."""

    @staticmethod
    def prepare(model: Any) -> Any:
        """The model with only what trains left trainable; may wrap it."""
        ...

    @staticmethod
    def finish(model: Any) -> Any:
        """The trained model as a plain transformers model, ready to be saved."""
        ...
