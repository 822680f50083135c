"""Triton with its dynamic batching, by NVIDIA's PyTriton, and an instance of the model a core.

Source: triton-inference-server.github.io/pytriton, "Binding Model to Triton", "Multi-instance model inference" and
"Dynamic batching". It speaks the Open Inference Protocol: POST /v2/models/classifier/infer.

Its stub is an older Python 3.11 than 3.11.7, whose multiprocessing it cannot run, so texts go to the model without
shared memory: PYTRITON_NO_TENSORSTORE.

Run: CHECKPOINT=DIR PORT=8103 PYTRITON_NO_TENSORSTORE=1 python triton_app.py
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_N_CORES = os.cpu_count() or 1
_N_WORKERS = int(os.environ.get("WORKERS", _N_CORES))


def made() -> Callable[..., dict[str, Any]]:
    """An instance of the model."""
    tokenizer: Any = AutoTokenizer.from_pretrained(os.environ["CHECKPOINT"])
    model = AutoModelForSequenceClassification.from_pretrained(os.environ["CHECKPOINT"]).eval()

    @batch
    def predict(text: Any) -> dict[str, Any]:
        texts = [one.decode("utf-8") for one in text[:, 0]]
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            return {"scores": model(**encoded).logits.softmax(dim=1).numpy()}

    return predict


if __name__ == "__main__":
    torch.set_num_threads(max(1, _N_CORES // _N_WORKERS))
    settings = TritonConfig(
        http_address="127.0.0.1", http_port=int(os.environ["PORT"]), allow_grpc=False, allow_metrics=False
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=5000)
    with Triton(config=settings) as triton:
        triton.bind(
            model_name="classifier",
            infer_func=[made() for _ in range(_N_WORKERS)],
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=64, batcher=batcher),
        )
        triton.serve()
