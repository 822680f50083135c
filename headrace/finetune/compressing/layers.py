"""Layers: some of the encoder's layers stay, spread evenly; the uncompressed version teaches what is left.

Gains: time and size of the layers that go, on every backend. Loses: depth; usually the cheapest way to be fast.
Source: Sanh et al. 2019, "DistilBERT", section 3 (every other layer of the teacher as the start); Sun et al. 2019,
"Patient Knowledge Distillation for BERT Model Compression", section 4.
"""

from typing import Any

from headrace.checkpoints.loading import keep_layers
from headrace.checkpoints.network import Network
from headrace.finetune.compressing import Way
from headrace.finetune.methods import Plan


def cut(network: Network, plan: Plan, share: float) -> Any:
    keep_layers(network, max(1, round(share * len(network.layers))))
    return plan.tokenizer


WAY = Way(cut=cut, share=0.5)
