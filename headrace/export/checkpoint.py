"""A checkpoint as a Predictor: torch in fp32, what exported artifacts are compared with."""

from pathlib import Path

from headrace.config import TaskTable
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends import BACKENDS
from headrace.tasks import Predictor


def load(folder: Path, task: TaskTable) -> Predictor:
    """The predictor of a checkpoint directory.

    Raises:
        MissingExtra: torch is not installed.
        BadInput: its outputs are not those of the task.
    """
    facts = ArtifactFacts(backend="hf", precision="fp32", task=task)
    predictor: Predictor = BACKENDS.get("hf").load(folder, facts)
    return predictor
