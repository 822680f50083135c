"""Vectors of texts: mean of a model's last layer over the tokens, unit length.

Dimensions: N inputs, D width of the model.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from headrace.checkpoints.encoding import Encoder, input_names, like_length_batches, standalone_tokenizer
from headrace.checkpoints.network import Network
from headrace.config import TaskTable
from headrace.finetune import base_models
from headrace.finetune.training import has_bf16
from headrace.records import Input

_BATCH_TOKENS = 4096


def embed(
    base_model: str, texts: Sequence[str], task: TaskTable, *, report: Callable[..., None] | None = None
) -> NDArray[np.float32]:
    """Unit vectors (N, D) of texts (N) by a base model, cut as the task's are; in bf16 where the processor has it.

    Source: mean pooling as all-MiniLM-L6-v2 was trained, Reimers and Gurevych 2019, "Sentence-BERT", section 3.
    """
    folder: Path = base_models.find(base_model).folder
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would draw over ours
    model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
    network = Network(model, "retrieval", 1, dense=nn.Linear(model.config.hidden_size, 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device)
    whole = TaskTable(labels=("a", "b"), max_tokens=task.max_tokens, input=task.input)  # read at once, not in windows
    with torch.autocast(device, torch.bfloat16, enabled=has_bf16()):
        return vectors_of(network, AutoTokenizer.from_pretrained(folder), whole, texts, report=report)


def vectors_of(
    network: Network,
    tokenizer: Any,
    task: TaskTable,
    inputs: Sequence[Input],
    *,
    report: Callable[..., None] | None = None,
) -> NDArray[np.float32]:
    """Unit vectors (N, D) of inputs (N) by a network of the `embedding` form, cut as the task cuts."""
    encoder = Encoder(standalone_tokenizer(tokenizer, task))
    names = input_names(network.encoder, tokenizer)
    if not any(isinstance(one, tuple) for one in inputs):
        names = [name for name in names if name != "token_type_ids"]
    windows = encoder.encode(inputs)
    vectors = np.zeros((len(inputs), network.config.hidden_size), dtype=np.float32)
    device = next(network.parameters()).device
    was_training, n_done = network.training, 0
    network.eval()
    for batch in like_length_batches([len(window) for window in windows], batch_tokens=_BATCH_TOKENS):
        feed = encoder.feed([windows[i] for i in batch], names)
        with torch.no_grad():
            found = network(**{name: torch.from_numpy(array).to(device) for name, array in feed.items()}, embeds=True)
        vectors[batch] = found.float().cpu().numpy()
        n_done += len(batch)
        if report:
            report("embed", n_done, len(inputs))
    network.train(was_training)
    return vectors
