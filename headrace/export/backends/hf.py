"""A directory that plain libraries load: transformers, peft or sentence-transformers (see headrace/checkpoints).

Its predictor is also how a checkpoint is measured (see export/checkpoint.py). Needs torch and transformers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from headrace.checkpoints.encoding import Encoder, input_names, like_length_batches, standalone_tokenizer
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import read_decoding, save
from headrace.checkpoints.windows import outputs_of
from headrace.config import TaskTable
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.checkpoint_files import check_checkpoint, quietly
from headrace.records import Input
from headrace.tasks import TASK_TYPES, Outputs, TaskType
from headrace.version import VERSION

_BATCH_TOKENS = 2048


class HuggingFace:
    """The format that other people's code loads."""

    precisions = ("fp32",)

    @staticmethod
    def write(
        checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[Input]
    ) -> ArtifactFacts:
        """Write weights, config with the task's labels, and tokenizer; `calibration` is not used."""
        task_type: TaskType = TASK_TYPES.get(task.type)(task)
        with quietly():
            network, tokenizer = load(checkpoint, task_type)
            check_checkpoint(network, tokenizer, task)
            tokenizer.model_max_length = task.max_tokens
            tokenizer.truncation_side = "left" if task.input == "turns" else "right"
            save(network, tokenizer, folder)
        return ArtifactFacts(
            backend="hf",
            precision=precision,
            task=task,
            calibration=read_decoding(checkpoint),
            n_parameters=sum(p.numel() for p in network.parameters()),
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
        task_type: TaskType = TASK_TYPES.get(task.type)(task)
        with quietly():
            self._network, tokenizer = load(folder, task_type)
        check_checkpoint(self._network, tokenizer, task)
        self._encoder = Encoder(standalone_tokenizer(tokenizer, task))
        self._names = input_names(self._network.encoder, tokenizer)

    @torch.inference_mode()
    def logits(self, inputs: Sequence[Input]) -> Outputs:
        """Raw outputs in the order of `inputs`."""
        windows = self._encoder.encode(inputs)
        found: list[Any] = [None] * len(windows)
        for rows in like_length_batches([len(w) for w in windows], batch_tokens=_BATCH_TOKENS):
            feed = self._encoder.feed([windows[i] for i in rows], self._names)
            scores = self._network(**{k: torch.from_numpy(v) for k, v in feed.items()}).float().numpy()
            for i, own in zip(rows, scores, strict=True):
                found[i] = own
        return outputs_of(self._network.problem, self._network.n_outputs, inputs, windows, found)
