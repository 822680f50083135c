"""headrace.json: what an exported folder says about itself, and how to load it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from headrace.config import TaskTable
from headrace.errors import Damaged
from headrace.export.backends import BACKENDS
from headrace.files.names import plain_files
from headrace.records import Input
from headrace.tasks import Predictor

FACTS = "headrace.json"


class ArtifactFacts(BaseModel):
    """Everything a server must know of an artifact besides its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    precision: str
    task: TaskTable
    calibration: dict[str, Any] = {}
    """What decoding needs besides logits: fitted on the validation side by the task type, or left by training."""
    n_parameters: int = 0
    first_position: int | None = None
    """The number that positions of packed windows begin with; None where the graph takes padded batches."""
    bank: dict[str, Any] = {}
    """`targets` (paths of linear layers) and `rank` of the channel adapters there is room for; empty: none."""
    code_version: str = ""


class Backend(Protocol):
    """One format."""

    precisions: tuple[str, ...]
    """What it can write; the first is its default."""

    @staticmethod
    def write(
        checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[Input]
    ) -> ArtifactFacts:
        """Write a checkpoint (a Hugging Face directory) into an empty folder; the caller writes headrace.json."""
        ...

    @staticmethod
    def load(folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> Predictor:
        """The predictor of an artifact folder; 0 threads lets the backend choose."""
        ...


def write_facts(folder: Path, facts: ArtifactFacts) -> None:
    (folder / FACTS).write_text(facts.model_dump_json(indent=1), "utf-8")


def read_facts(folder: Path) -> ArtifactFacts:
    """Read headrace.json of an artifact folder.

    Raises:
        Damaged: missing or not as written by headrace.
    """
    try:
        data: Any = json.loads((folder / FACTS).read_text("utf-8"))
        return ArtifactFacts.model_validate(data)
    except (OSError, ValueError, ValidationError) as error:
        raise Damaged(
            f"{FACTS} cannot be read: {error}", value=str(folder), next_step="Export the version again"
        ) from None


def load(folder: Path, *, n_threads: int = 0) -> tuple[Predictor, ArtifactFacts]:
    """The predictor of an artifact folder, and what the folder says about itself.

    Raises:
        Damaged: it has links, cannot be read, or is not what its backend writes.
    """
    for _ in plain_files(folder):
        pass
    facts = read_facts(folder)
    predictor: Predictor = BACKENDS.get(facts.backend).load(folder, facts, n_threads=n_threads)
    return predictor, facts
