"""What every format asks of a checkpoint: that it fits its task."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from headrace.checkpoints.encoding import check_length
from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.records import Input
from headrace.tasks import TASK_TYPES, TaskType

_MIN_CALIBRATION = 10  # as settings.export.n_calibration; below it, ranges of activations are mostly chance


def check_checkpoint(network: Any, tokenizer: Any, task: TaskTable) -> None:
    """See that a checkpoint's head and length are those of the task.

    Raises:
        BadInput: another number of outputs, or other names for them.
        BadConfig: `max_tokens` is more than the model can read.
    """
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    config = network.config
    if network.n_outputs != task_type.n_outputs:
        raise BadInput(
            f"the checkpoint has {network.n_outputs} outputs and the task has {task_type.n_outputs}",
            value=task_type.output_names,
            next_step="Train again after changing a task's labels",
        )
    named = [config.id2label.get(i) for i in range(network.n_outputs)]
    generic = [f"LABEL_{i}" for i in range(network.n_outputs)]
    if task.labels and config.id2label and named not in (generic, task_type.output_names):
        raise BadInput(
            "the checkpoint's labels are not the task's",
            value=named,
            next_step=f"The task has {task_type.output_names}, in this order; train again after changing them",
        )
    check_length(config, tokenizer, task)


def check_calibration(precision: str, calibration: Sequence[Input]) -> None:
    """See that there is enough to fix the ranges of int8 on.

    Raises:
        BadInput: too few inputs.
    """
    if precision == "int8" and len(calibration) < _MIN_CALIBRATION:
        raise BadInput(
            f"int8 needs {_MIN_CALIBRATION} or more inputs to calibrate on",
            value=len(calibration),
            next_step="Export with --precision fp32, or import more rows",
        )


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars, notes and warnings of transformers, the tracer and nncf, which are not for our users.

    nncf draws its bars on standard output, where they would spoil `--json`.
    """
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
