"""Zero-shot: a text gets the label whose description lies nearest to it, by the base model's vectors; nothing trains.

Requirements: a description for each label (`descriptions` of the task; its name where there is none), and a base model
whose vectors mean something, such as a sentence encoder. Cost: one forward pass a label.
Relations: `head` beats it from a few labelled rows a class on.
Source: Yin et al. 2019, "Benchmarking Zero-shot Text Classification", arXiv 1909.00161, section 4.
"""

import re

import torch

from headrace.checkpoints.network import Network
from headrace.config import TaskTable
from headrace.finetune.embeddings import vectors_of
from headrace.finetune.methods import Method, Plan
from headrace.tasks.retrieval import SCALE


def prepare(network: Network, plan: Plan) -> Network:
    """Logits are SCALE times the cosine of text and description."""
    dense = network.dense
    assert dense is not None
    texts = [described(plan.task, label) for label in plan.task_type.output_names]
    vectors = vectors_of(network, plan.tokenizer, plan.task, texts, report=plan.report)
    with torch.no_grad():
        dense.weight.copy_(SCALE * torch.from_numpy(vectors))
        dense.bias.zero_()
    network.requires_grad_(False)
    return network


def described(task: TaskTable, label: str) -> str:
    """What a label means: its description, or the words of its name."""
    return task.descriptions.get(label, "").strip() or re.sub(r"[\s_/-]+", " ", label).strip() or label


METHOD = Method(
    learning_rate=0.0,
    prepare=prepare,
    form="embedding",
    trains=False,
    problems=frozenset({"single_label_classification", "multi_label_classification", "retrieval"}),
)
