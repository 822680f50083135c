"""What mentors look at: the newest labelled rows of a task, and what the version in charge answers to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import making
from headrace.errors import WrongState
from headrace.records import Interval, ModelVersion, SnapshotRow
from headrace.release import controls
from headrace.releasing import gating
from headrace.releasing.gating import Asked
from headrace.stats.intervals import wilson
from headrace.tasks import TaskType
from headrace.valuing import sources
from headrace.valuing.sources import Sides
from headrace.workspace import Workspace

Report = Callable[..., None]
N_ASKED = 2_000
"""Rows of a side that a version is asked about, at most: intervals of two points, seconds."""


def silent(*_args: object, **_facts: object) -> None:
    """A report to nobody."""


@dataclass(frozen=True, eq=False)
class Case:
    """A task as mentors see it."""

    ws: Workspace
    task: str

    @cached_property
    def sides(self) -> Sides:
        return sources.sides_of(self.ws, self.task)

    @cached_property
    def task_type(self) -> TaskType:
        return making.task_type_of(self.ws.task(self.task))

    @cached_property
    def control(self) -> ModelVersion | None:
        """The version in charge; None where there is none yet."""
        try:
            return controls.serving(self.ws, self.task).control
        except WrongState:
            return None

    @cached_property
    def test(self) -> list[SnapshotRow]:
        """Rows that no version was trained on, evenly over all there are."""
        return spread(self.sides.test, N_ASKED)

    @cached_property
    def test_answers(self) -> list[dict[str, Any]]:
        """What the version in charge answers to `test`."""
        return self.answers(self.test)

    @cached_property
    def test_right(self) -> NDArray[np.bool_]:
        return self.right(self.test, self.test_answers)

    def asked(self, rows: Sequence[SnapshotRow]) -> Asked:
        """The version in charge on rows, each by the adapter of its channel where it has one."""
        assert self.control is not None
        return gating.asked(self.ws, self.control, self.task_type, rows)

    def answers(self, rows: Sequence[SnapshotRow]) -> list[dict[str, Any]]:
        found = self.asked(rows)
        return self.task_type.decode(found.outputs, found.calibration)

    def right(self, rows: Sequence[SnapshotRow], answers: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
        match = self.task_type.answers_match
        return np.array([match(one, row.target) for one, row in zip(answers, rows, strict=True)], dtype=bool)

    def gain_of(self, curve: Mapping[str, Any]) -> Interval:
        """Points that more labels should bring to a channel, by its curve on frozen vectors.

        The version in charge cannot gain more than it gets wrong there.
        """
        gain = Interval(**curve["gain_points"])
        places = [i for i, row in enumerate(self.test) if row.channel == curve["channel"]] if self.control else []
        if not places:
            return gain
        middle, low, high = (
            min(one, 100 * most)
            for one, most in zip(_numbers(gain), _numbers(share_of(~self.test_right[places])), strict=True)
        )
        return Interval(middle, low, high, gain.level)

    def command(self, verb: str) -> str:
        """A command line for this task; the task is named where the workspace has several."""
        return f"headrace {verb}" if len(self.ws.settings.tasks) == 1 else f"headrace {verb} --task {self.task}"


def _numbers(one: Interval) -> tuple[float, float, float]:
    return one.estimate, one.low, one.high


def spread(rows: Sequence[SnapshotRow], n: int) -> list[SnapshotRow]:
    """At most `n` rows, evenly over all, which are in the order of channel and key."""
    places = np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)
    return [rows[i] for i in places]


def share_of(hits: NDArray[Any], *, level: float = 0.95) -> Interval:
    """The share of true values among one or more."""
    found = wilson(float(hits.sum()), len(hits), level=level)
    assert found is not None
    return found
