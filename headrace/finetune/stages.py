"""What stages before training share: a result that is there whole or not at all, and progress."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from headrace.artifacts import sync
from headrace.finetune.training import DivergedError, mark_whole


def once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder` as `build` fills it, unless an earlier call did before a kill."""
    if folder.exists():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    build(part)
    for path in [*part.rglob("*"), part]:
        sync(path)
    part.rename(folder)
    sync(folder.parent)
    return folder


class StageWatcher(TrainerCallback):
    """Tells the job how far a stage is, ends one whose loss is no number, and marks its checkpoints as whole."""

    def __init__(self, name: str, report: Callable[..., None]) -> None:
        self._name, self._report = name, report
        self._loss: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)
        if self._loss is not None and not math.isfinite(self._loss):
            raise DivergedError(state.global_step, self._loss, args.learning_rate)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report(self._name, state.global_step, state.max_steps, loss=self._loss)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")
