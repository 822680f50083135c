"""BentoML with adaptive batching. Source: docs.bentoml.com/en/latest/get-started/adaptive-batching.html.

Run: CHECKPOINT=DIR BENTOML_DO_NOT_TRACK=True bentoml serve bentoml_app:Classifier --port 8102
"""

import os
from typing import Any

import bentoml
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_N_CORES = os.cpu_count() or 1
_N_WORKERS = int(os.environ.get("WORKERS", _N_CORES))


@bentoml.service(workers=_N_WORKERS, traffic={"timeout": 60, "max_concurrency": 1024}, metrics={"enabled": False})
class Classifier:
    def __init__(self) -> None:
        torch.set_num_threads(max(1, _N_CORES // _N_WORKERS))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(os.environ["CHECKPOINT"])
        self.model = AutoModelForSequenceClassification.from_pretrained(os.environ["CHECKPOINT"]).eval()

    # The latency is its timeout: what it refused with less, the others answer late.
    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=60_000)
    def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
        encoded = self.tokenizer(inputs, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            probs = self.model(**encoded).logits.softmax(dim=1)
        names = self.model.config.id2label
        return [{"label": names[int(row.argmax())], "scores": row.tolist()} for row in probs]
