"""Head only: the base model is frozen, the pooler and the classifier on top of it train.

Requirements: few labels, or a quick first version. Cost: one forward pass a row, almost no memory for gradients.
Relations: the weakest and cheapest of the methods; `full` with all but the last layer frozen.
"""

from typing import Any


class Head:
    learning_rate = 2e-3

    @staticmethod
    def prepare(model: Any) -> Any:
        for parameter in model.base_model.parameters():
            parameter.requires_grad = False
        pooler = getattr(model.base_model, "pooler", None)
        if pooler is not None:  # what the sequence classifier reads; part of the head, not of the language model
            for parameter in pooler.parameters():
                parameter.requires_grad = True
        return model

    @staticmethod
    def finish(model: Any) -> Any:
        return model
