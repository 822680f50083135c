"""How fast this machine trains a base model on a team's own inputs, by trying a few steps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from headrace.checkpoints.encoding import Encoder, input_names, like_length_batches, standalone_tokenizer
from headrace.checkpoints.loading import fresh
from headrace.config import FinetuneTable, TaskTable
from headrace.finetune.training import computes_in_bf16
from headrace.records import Input
from headrace.tasks import TASK_TYPES, TaskType

_N_STEPS = 6  # after one to warm up: two seconds on two cores


@dataclass(frozen=True)
class Speed:
    """What a few steps of full fine-tuning took."""

    batch_s: float
    """Of one batch, forward, backward and the optimiser's step."""
    n_batches: int
    """That one pass over the inputs has."""
    n_inputs: int
    mean_tokens: float
    n_parameters: int


def measure(base_folder: Path, task: TaskTable, inputs: Sequence[Input], settings: FinetuneTable) -> Speed:
    """What a step takes in batches, in a precision and with the activations that training has: some of all lengths."""
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would draw over ours
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = fresh(base_folder, task_type, form="embedding").to(device).train()
    if settings.gradient_checkpointing:
        network.activation_checkpointing_enable()
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    encoder, names = Encoder(standalone_tokenizer(tokenizer, task)), input_names(network.encoder, tokenizer)
    windows = encoder.encode(inputs)
    lengths = [len(window) for window in windows]
    batches = like_length_batches(lengths, batch_tokens=settings.batch_tokens)
    chosen = [batches[i * len(batches) // (_N_STEPS + 1)] for i in range(_N_STEPS + 1)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    started = 0.0
    for i, rows in enumerate(chosen):
        if i == 1:
            started = time.perf_counter()
        feed = encoder.feed([windows[row] for row in rows], names)
        with torch.autocast(device, torch.bfloat16, enabled=computes_in_bf16(settings)):
            logits = network(**{name: torch.from_numpy(array).to(device) for name, array in feed.items()})
        logits.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - started
    n_parameters = sum(p.numel() for p in network.parameters())
    return Speed(seconds / _N_STEPS, len(batches), len(inputs), sum(lengths) / len(inputs), n_parameters)
