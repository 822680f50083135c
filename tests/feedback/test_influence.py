"""What frozen vectors say against labels. Catches: labels that people vouch for held back by a model, honest people of
rare or hard rows called harmful, a hostile one that gets away, a model that knows nothing and accuses all the same, a
source that is listed as counting and does not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import LABELS
from crowds import Crowd
from headrace import trusting
from headrace.config import FeedbackTable, TaskTable
from headrace.errors import MissingExtra
from headrace.feedback import trust
from headrace.feedback.influence import doubts
from headrace.feedback.settling import HARMFUL, SUSPECTED, Doubts, Settlement, settle
from headrace.feedback.sources import Said, Source
from headrace.records import SnapshotRow
from headrace.store.votes import CastVote
from headrace.tasks import TASK_TYPES
from headrace.workspace import Workspace
from planted import NOON

SETTINGS = FeedbackTable(max_source_share=1.0)
TONE = TASK_TYPES.get("text-classification")(TaskTable(labels=LABELS))
CENTRES = np.random.default_rng(3).normal(size=(3, 12))


class World:
    """Rows around three centres: 400 checked ones to train on, 300 held out, and what people say of others."""

    def __init__(self, spread: float = 0.5, *, seed: int = 1) -> None:
        self._rng, self._spread = np.random.default_rng(seed), spread
        self.vectors: list[np.ndarray] = []
        self.checked = [
            self._row(f"c{i}", "train" if i < 400 else "validation", "import", int(self._rng.integers(3)))
            for i in range(700)
        ]
        self.truth: dict[str, str] = {}
        self.votes: list[CastVote] = []

    def _row(self, name: str, side: Any, origin: str, k: int) -> SnapshotRow:
        self.vectors.append(CENTRES[k] + self._spread * self._rng.normal(size=12))
        return SnapshotRow(name, "web", name, name, LABELS[k], side, 1.0, origin)

    def say(self, who: Sequence[str], n: int, *, wrong_share: float = 0.0, only: int | None = None) -> list[str]:
        """`n` new rows, each labelled alike by all of `who`; the names of the rows."""
        names = []
        for _ in range(n):
            name = f"f{len(self.truth):04}"
            k = int(self._rng.integers(3)) if only is None else only
            self._row(name, "train", "feedback", k)
            self.truth[name] = LABELS[k]
            said = LABELS[(k + 1) % 3] if self._rng.random() < wrong_share else LABELS[k]
            self.votes += [CastVote(name, "web", one, said, NOON, name, "train", NOON, False) for one in who]
            names.append(name)
        return names

    def judged(self, **weights: float) -> tuple[Doubts, Settlement]:
        """What is said against the labels, and what they amount to after."""
        said = Said(self.votes, {}, {}, (), 400)
        own = {Source("web", vote.labeller): weights.get(vote.labeller, 0.5) for vote in self.votes}
        first = settle(said, own, TONE, SETTINGS)
        rows = self.checked + [
            SnapshotRow(n, "web", n, n, s.target, "train", s.weight, "feedback")
            for n, s in first.settled.items()
            if s.held_back is None
        ]
        found = doubts(rows, np.array(self.vectors), first, TONE, SETTINGS)
        return found, settle(said, own, TONE, SETTINGS, found)

    def wrong(self) -> set[str]:
        return {vote.example_id for vote in self.votes if vote.value != self.truth[vote.example_id]}


def test_likely_errors_are_held_back_unless_people_vouch_for_them() -> None:
    world = World(0.4)
    alone = set(world.say(["ann"], 120, wrong_share=0.2))
    together = set(world.say(["bob", "eve"], 60, wrong_share=0.2))
    expert = set(world.say(["kim"], 60, wrong_share=0.2))
    found, settled = world.judged(kim=1.0)
    wrong = world.wrong()
    assert len(found.suspects & wrong & alone) >= 0.7 * len(wrong & alone)
    assert len(found.suspects - wrong) <= 0.2 * len(found.suspects)
    assert not found.suspects & (together | expert)
    assert {settled.settled[name].held_back for name in found.suspects} == {SUSPECTED}
    assert settled.facts["held_back"] == {SUSPECTED: len(found.suspects)}
    assert found.left_out is None


@pytest.mark.parametrize(("wrong_share", "low", "high"), [(0.0, 0, 15), (0.3, 45, 120)])
def test_of_narrow_cases_about_as_many_as_are_wrong_are_held_back(wrong_share: float, low: int, high: int) -> None:
    """Classes overlap, so that confident learning alone suspects a tenth of what is right."""
    world = World(1.6)
    world.say(["ann"], 300, wrong_share=wrong_share)
    found, _ = world.judged()
    assert low <= len(found.suspects) <= high


def test_a_source_that_harms_is_found_and_honest_ones_are_not() -> None:
    world = World(1.0)
    for who in ("ann", "bob", "eve"):
        world.say([who], 60)
    world.say(["rare"], 80, only=0)
    world.say(["mallory"], 150, wrong_share=0.9)
    found, settled = world.judged(mallory=1.0)  # who has passed every known question
    assert set(found.harmful) == {Source("web", "mallory")}
    assert "nats" in found.harmful[Source("web", "mallory")]
    assert settled.facts["held_back"][HARMFUL] == 150
    assert settled.gated[Source("web", "mallory")] == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_honest_people_are_hardly_ever_called_harmful(seed: int) -> None:
    world = World(1.2, seed=10 + seed)
    for who in range(10):
        world.say([f"user-{who}"], 40, wrong_share=0.1, only=who if who < 3 else None)
    assert world.judged()[0].harmful == {}


def test_a_model_that_knows_nothing_accuses_nobody() -> None:
    world = World(30.0)
    world.say(["ann"], 80, wrong_share=0.3)
    found, _ = world.judged()
    assert (found.suspects, found.harmful) == (frozenset(), {})
    assert "right about" in str(found.left_out)


def test_few_labels_and_other_task_types_are_passed_over() -> None:
    world = World()
    world.say(["ann"], 10)
    assert world.judged()[0] == Doubts(left_out="fewer than 30 labels that count")


def test_without_the_training_parts_the_step_is_left_out_and_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(workspace, n_rows=300)
    for who in ("ann", "bob"):
        crowd.say(who, [(f"{who} about {i}", LABELS[i % 3]) for i in range(40)])
    trusting.collect(crowd.ws)

    def missing(*_: object, **__: object) -> None:
        raise MissingExtra("train", library="torch", purpose="vectors of inputs")

    monkeypatch.setattr(trusting.vectors, "of_inputs", missing)
    facts = trusting.settlement(crowd.ws).facts
    assert "pip install 'headrace[train]'" in facts["left_out"]
    assert facts["n_examples"] > 40
    assert trusting.freeze(crowd.ws).n_from_feedback == facts["n_examples"]


def test_who_harms_is_listed_as_counting_nothing_and_why(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(workspace, n_rows=300)
    for who in ("ann", "mallory"):
        crowd.say(who, [(f"{who} about {i}", LABELS[i % 3]) for i in range(40)])
    trusting.collect(crowd.ws)
    found = Doubts(harmful={Source("web", "mallory"): "held-out rows lose"})
    monkeypatch.setattr(trusting.vectors, "of_inputs", lambda *_, **__: None)
    monkeypatch.setattr(trusting.influence, "doubts", lambda *_: found)

    def listed() -> dict[str, tuple[float, bool]]:
        return {str(one.source): (one.weight, "held-out rows lose" in one.reason) for one in trust.judge(crowd.ws)}

    assert listed()["web/mallory"] == (0.5, False)
    trusting.freeze(crowd.ws)
    assert listed() == {"web": (1.0, False), "web/ann": (0.5, False), "web/mallory": (0.0, True)}
