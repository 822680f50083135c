"""A plain Hugging Face directory: what `AutoModelForSequenceClassification.from_pretrained` loads anywhere.

Its predictor is also how a checkpoint is measured (see export/checkpoint.py). Needs torch and transformers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from headrace.config import TaskTable
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.checkpoint_files import check_checkpoint, input_names, quietly, standalone_tokenizer
from headrace.export.backends.encoding import Encoder, like_length_batches
from headrace.tasks import TASK_TYPES, FloatArray, TaskType
from headrace.version import VERSION

_BATCH_TOKENS = 2048


class HuggingFace:
    """The format that other people's code loads."""

    precisions = ("fp32",)

    @staticmethod
    def write(
        checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[str]
    ) -> ArtifactFacts:
        """Write weights, config with the task's labels, and tokenizer; `calibration` is not used."""
        model = _model(checkpoint)
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        check_checkpoint(model.config, tokenizer, task)
        task_type: TaskType = TASK_TYPES.get(task.type)(task)
        model.config.id2label = dict(enumerate(task_type.output_names))
        model.config.label2id = {name: i for i, name in enumerate(task_type.output_names)}
        model.config.problem_type = task_type.problem
        tokenizer.model_max_length = task.max_tokens
        with quietly():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return ArtifactFacts(
            backend="hf",
            precision=precision,
            task=task,
            n_parameters=sum(p.numel() for p in model.parameters()),
            code_version=VERSION,
        )

    @staticmethod
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> "TorchPredictor":
        return TorchPredictor(folder, facts.task, n_threads=n_threads)


class TorchPredictor:
    """A torch model in fp32, on batches of like length. `n_threads` sets torch's number for the whole process."""

    def __init__(self, folder: Path, task: TaskTable, *, n_threads: int = 0) -> None:
        if n_threads:
            torch.set_num_threads(n_threads)
        self._model = _model(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        check_checkpoint(self._model.config, tokenizer, task)
        self._encoder = Encoder(standalone_tokenizer(tokenizer, task))
        self._names = input_names(self._model, tokenizer)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> FloatArray:
        """Raw outputs (N, K) float32 in the order of `texts`."""
        out = np.empty((len(texts), self._model.config.num_labels), dtype=np.float32)
        encodings = self._encoder.encode(texts)
        for rows in like_length_batches([len(e) for e in encodings], batch_tokens=_BATCH_TOKENS):
            feed = self._encoder.feed([encodings[i] for i in rows], self._names)
            out[rows] = self._model(**{k: torch.from_numpy(v) for k, v in feed.items()}).logits.float().numpy()
        return out


def _model(folder: Path) -> Any:
    with quietly():
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
