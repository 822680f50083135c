"""Full fine-tuning: every weight trains.

Requirements: none beyond transformers. Cost: gradients and two moments for every weight (4x the weights in memory).
Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 4.
"""

from typing import Any


class Full:
    # Higher than the paper's 2e-5..5e-5, as in the design's prototypes; not compared with other rates here.
    learning_rate = 1e-4

    @staticmethod
    def prepare(model: Any) -> Any:
        return model

    @staticmethod
    def finish(model: Any) -> Any:
        return model
