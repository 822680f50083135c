"""LitServe with batching, its queue for hundreds of requests a second, and a worker a core.

Source: lightning.ai/docs/litserve/features/batching, and the docstring of LitServer.

Run: CHECKPOINT=DIR PORT=8101 python litserve_app.py
"""

import os
from typing import Any

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_N_CORES = os.cpu_count() or 1
_N_WORKERS = int(os.environ.get("WORKERS", _N_CORES))


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        torch.set_num_threads(max(1, _N_CORES // _N_WORKERS))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(os.environ["CHECKPOINT"])
        self.model = AutoModelForSequenceClassification.from_pretrained(os.environ["CHECKPOINT"]).to(device).eval()

    def decode_request(self, request):  # LitServe reads JSON only where there is no annotation
        return list(request["inputs"])

    def batch(self, inputs: list[list[str]]) -> tuple[list[str], list[int]]:
        return [text for texts in inputs for text in texts], [len(texts) for texts in inputs]

    def predict(self, x: tuple[list[str], list[int]]) -> tuple[list[Any], list[int]]:
        texts, sizes = x
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            probs = self.model(**encoded).logits.softmax(dim=1)
        return probs.tolist(), sizes

    def unbatch(self, output: tuple[list[Any], list[int]]) -> list[list[Any]]:
        probs, sizes = output
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [probs[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    def encode_response(self, output):
        names = self.model.config.id2label
        best = [max(range(len(row)), key=row.__getitem__) for row in output]
        return {"predictions": [{"label": names[k], "scores": row} for k, row in zip(best, output, strict=True)]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=_N_WORKERS, fast_queue=True)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
