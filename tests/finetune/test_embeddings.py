"""Vectors by a base model as it is. Catches: a conversation whose newest turns are cut off, so that all long ones with
the same beginning look alike."""

from pathlib import Path

import numpy as np

from headrace.config import TaskTable
from headrace.finetune.embeddings import embed
from headrace.tasks.inputs import render_turns

OLD = [{"role": "user", "text": "the service was really awful today and the film"}] * 4


def test_what_is_too_long_is_cut_as_the_task_cuts_it(tiny_base: Path) -> None:
    texts = [render_turns([*OLD, {"role": "user", "text": newest}]) for newest in ("great phone", "slow box")]
    of_turns = embed(str(tiny_base), texts, TaskTable(labels=("a", "b"), max_tokens=12, input="turns"))
    of_text = embed(str(tiny_base), texts, TaskTable(labels=("a", "b"), max_tokens=12))
    assert np.abs(of_turns[0] - of_turns[1]).max() > 0.01
    assert np.array_equal(of_text[0], of_text[1])


def test_tasks_that_read_windows_give_one_vector_a_text(tiny_base: Path) -> None:
    task = TaskTable(type="token-classification", labels=("PER",), max_tokens=12)
    assert embed(str(tiny_base), ["the service was awful " * 20, "great"], task).shape[0] == 2
