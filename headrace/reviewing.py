"""The review queue filled with all that can be known: also with examples whose label is likely wrong.

Which labels are suspected is said by a linear model on frozen vectors of the base model, for rows that it was not
fitted on (`stats.linear_probe.out_of_fold`, `stats.label_errors`); it needs the training parts of the package. Without
them the queue is filled with the rest.
"""

import random
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from headrace import trusting, vectors
from headrace.data import snapshot
from headrace.feedback import filling
from headrace.feedback.filling import Filled
from headrace.stats import label_errors, linear_probe
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]
_WITH_CLASSES = ("single_label_classification", "retrieval")
_N_ROWS = 5_000  # that are looked at in one call; half a minute on one core, and then they are kept
_MIN_ROWS = 50
_N_FOLDS = 5
_SEED = 1


def fill(ws: Workspace, task: str | None = None, *, report: Report = lambda *_args, **_facts: None) -> Filled:
    """Open the reviews that are due, suspected label errors among them; see `feedback.filling.fill`.

    Raises:
        NotFound: no such task.
    """
    task = ws.task_name(task)
    return filling.fill(ws, task, suspects=suspects(ws, task, report=report))


def suspects(ws: Workspace, task: str, *, report: Report = lambda *_args, **_facts: None) -> list[str]:
    """Ids of examples whose labels are likely wrong: those whose feedback the newest snapshot left out as suspected or
    disputed, then those of its training rows with a label of their own, the likeliest first.

    None of the latter where there is no snapshot or its rows are gone since an erasure, the task has no classes, or the
    training parts are not installed.
    """
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    newest = snapshot.latest(ws, task)
    if newest is None:
        return []
    doubtful = trusting.doubtful(ws, newest)
    is_gone = newest.erased_at is not None
    if is_gone or task_type.problem not in _WITH_CLASSES or find_spec("transformers") is None:
        return doubtful
    rows = [row for row in snapshot.rows(ws, newest, "train") if row.origin == "import"]
    rows = random.Random(newest.content_hash).sample(rows, min(_N_ROWS, len(rows)))
    targets = task_type.encode_targets([row.target for row in rows])
    if len(rows) < _MIN_ROWS or len(np.unique(targets)) < 2:
        return doubtful
    x = vectors.of_inputs(ws, [row.input for row in rows], task=task, report=report)
    n_classes = len(task_type.output_names)
    places = {given: place for place, given in enumerate(dict.fromkeys(row.input for row in rows))}
    same = np.asarray([places[row.input] for row in rows])
    probs = linear_probe.out_of_fold(x, targets, n_classes, seed=_SEED, n_folds=_N_FOLDS, groups=same)
    return doubtful + [rows[place].example_id for place in label_errors.suspects(probs, targets).rows]
