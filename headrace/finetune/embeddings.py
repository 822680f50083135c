"""Vectors of the frozen base model: mean of the last layer's tokens, unit length."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from headrace.finetune import base_models
from headrace.finetune.batching import Padding, TokenBudgetSampler
from headrace.finetune.running import tokenize
from headrace.finetune.training import has_bf16

_BATCH_TOKENS = 4096


def embed(
    base_model: str, texts: Sequence[str], *, max_tokens: int, report: Callable[..., None] | None = None
) -> NDArray[np.float32]:
    """Unit vectors (N, D) of texts (N).

    Source: mean pooling as all-MiniLM-L6-v2 was trained, Reimers and Gurevych 2019, "Sentence-BERT", section 3.
    """
    folder = base_models.find(base_model).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    token_ids = tokenize(tokenizer, texts, max_tokens)
    lengths = [len(ids) for ids in token_ids]
    sampler = TokenBudgetSampler(lengths, batch_tokens=_BATCH_TOKENS, seed=0, shuffle=False)
    padding = Padding(tokenizer.pad_token_id or 0, is_float=False)
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    n_done = 0
    for batch in sampler:
        inputs = padding([{"input_ids": token_ids[i], "labels": 0} for i in batch])
        mask = inputs["attention_mask"]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
            hidden = model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state.float()
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[batch] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        n_done += len(batch)
        if report:
            report("embed", n_done, len(texts))
    return vectors
