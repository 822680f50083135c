"""Full fine-tuning: every weight trains.

Requirements: none beyond transformers. Cost: gradients and two moments for every weight (4x the weights in memory).
Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", section 4.
"""

from headrace.finetune.methods import Method

METHOD = Method(learning_rate=2e-4)
