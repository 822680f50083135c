"""A directory that plain libraries load: transformers, peft or sentence-transformers (see headrace/checkpoints).

It serves where there is a GPU, and is how a checkpoint is measured (see export/checkpoint.py). Needs torch and
transformers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from headrace.checkpoints.encoding import Encoder, Window, input_names, like_length_batches, standalone_tokenizer
from headrace.checkpoints.heads import drop_silent
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import read_decoding, save
from headrace.checkpoints.windows import outputs_of
from headrace.config import TaskTable
from headrace.errors import Damaged, HeadraceError
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.checkpoint_files import check_checkpoint, quietly
from headrace.records import Input
from headrace.tasks import TASK_TYPES, Outputs, TaskType
from headrace.version import VERSION

_BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class HuggingFace:
    """The format that other people's code loads."""

    precisions = ("fp32", "bf16")

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
            network.model.to(_DTYPES[precision])
            if network.dense is not None:
                network.config.num_labels = 0  # or a pipeline would answer with these labels by a head made at random
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
        return TorchPredictor(folder, facts.task, facts.precision, n_threads=n_threads)


class TorchPredictor:
    """A torch model on the GPU if there is one, else on the CPU, on batches of like length.

    Several threads may use it at once. `n_threads` sets torch's number for the whole process.
    """

    def __init__(self, folder: Path, task: TaskTable, precision: str = "fp32", *, n_threads: int = 0) -> None:
        if n_threads:
            torch.set_num_threads(n_threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network, tokenizer = _opened(folder, TASK_TYPES.get(task.type)(task))
        check_checkpoint(self._network, tokenizer, task)
        drop_silent(self._network)
        self._encoder = Encoder(standalone_tokenizer(tokenizer, task))
        self._names = input_names(self._network.encoder, tokenizer)
        self._network.model.to(_DTYPES[precision])  # and a linear layer on unit vectors stays in fp32
        self._network.to(self._device)

    @torch.inference_mode()
    def logits(self, inputs: Sequence[Input]) -> Outputs:
        """Raw outputs in the order of `inputs`."""
        windows = self._encoder.encode(inputs)
        batches = like_length_batches([len(w) for w in windows], batch_tokens=_BATCH_TOKENS[self._device])
        scores = [self._scores([windows[i] for i in rows]) for rows in batches]
        found: list[Any] = [None] * len(windows)
        for rows, own in zip(batches, scores, strict=True):  # a GPU works on all batches before the first is asked for
            for i, one in zip(rows, own.float().cpu().numpy(), strict=True):
                found[i] = one
        return outputs_of(self._network.problem, self._network.n_outputs, inputs, windows, found)

    def _scores(self, windows: Sequence[Window]) -> torch.Tensor:
        feed = self._encoder.feed(windows, self._names)
        on_device = {name: torch.from_numpy(array).to(self._device) for name, array in feed.items()}
        scores: torch.Tensor = self._network(**on_device)
        return scores


def _opened(folder: Path, task_type: TaskType) -> tuple[Any, Any]:
    try:
        with quietly():
            return load(folder, task_type)
    except (HeadraceError, ImportError):
        raise
    except Exception as error:  # transformers, peft, safetensors and tokenizers raise kinds of their own
        raise Damaged(
            f"the checkpoint cannot be read: {error}", value=str(folder), next_step="Export the version again"
        ) from None
