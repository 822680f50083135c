"""How many optimiser steps a training takes: its epochs, or more where those would be too few. Without torch."""

import math

from headrace.config import FinetuneTable
from headrace.tasks import TaskType

LEAST_STEPS = 60
"""A fresh head answers at random after a few steps, however often these showed it every row (docs/log.md)."""
_STEPS_A_CLASS = 3
"""Each class has weights of its own in the head; with 77 classes, 60 steps are too few for them (docs/log.md)."""
_WITH_CLASSES = ("single_label_classification", "multi_label_classification")


def settled(settings: FinetuneTable, task_type: TaskType, n_rows: int) -> FinetuneTable:
    """The settings with a number for `min_steps`; where none is set, it hangs on the task's classes.

    Args:
        n_rows: of the training side; there are no more classes to learn than that.
    """
    if settings.min_steps is not None:
        return settings
    n_classes = min(task_type.n_outputs, n_rows) if task_type.problem in _WITH_CLASSES else 0
    return settings.model_copy(update={"min_steps": max(LEAST_STEPS, _STEPS_A_CLASS * n_classes)})


def count_steps(settings: FinetuneTable, n_batches: int) -> tuple[float, int]:
    """Epochs, and optimiser steps in all, from the batches an epoch has."""
    steps_per_epoch = math.ceil(n_batches / settings.accumulate_batches)  # the last of an epoch has fewer batches
    least = LEAST_STEPS if settings.min_steps is None else settings.min_steps
    epochs = max(settings.epochs, least / steps_per_epoch)
    return epochs, math.ceil(steps_per_epoch * epochs)


def steps_between(settings: FinetuneTable, n_steps: int) -> int:
    """Steps from one evaluation to the next."""
    return max(1, int(n_steps / (settings.epochs * settings.evals_per_epoch)))
