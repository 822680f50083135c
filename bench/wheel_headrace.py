"""The package as `bench.wheel` turns it: everything real but the model, which is a probe on frozen vectors.

A round: the version in charge answers, and beside it the candidate of an open release; users speak; who spoke is asked
some questions of the review queue, known ones first; the release is decided or goes on; where none is open, labels are
judged and settled, a snapshot is frozen, a candidate is fitted to it, passes its gates or not, and its release starts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace
from bench.sentiment import LABELS
from bench.wheel_world import KEPT, TASK, Attack, Said, Sentences, World, word_of
from headrace import ids, trusting
from headrace.data import channels, importing, snapshot
from headrace.evaluate import comparison, gates
from headrace.feedback import filling, intake, known, reviews
from headrace.feedback.intake import Given
from headrace.ids import new_id
from headrace.records import Artifact, ModelVersion, Release, Run, Snapshot
from headrace.release import controls, releases
from headrace.releasing import judging
from headrace.stats import linear_probe
from headrace.store import predictions, runs, versions
from headrace.store.predictions import LogRow
from headrace.tasks import TASK_TYPES, UNCALIBRATED, TaskType
from headrace.tasks.inputs import text_hash

PENALTY = 1.0
"""Of the probe, in all ways: labels of single raters are right in two of three cases, and .1 learns them by heart."""
N_KNOWN = 40
"""Start sentences on which nearly all raters agree: what sources are judged by."""
_AGREED_SHARE = 0.9
N_REVIEWERS, N_EACH = 3, 10
"""Raters of each channel who answer the review queue, and how many questions in a round."""
N_FIRST = 3
"""Questions to a newcomer."""
_PATIENCE = 4
"""Rounds after which a release without a decision is stopped for a candidate that knows more."""
MARGIN = 0.02
"""release.margin: single raters agree with the mean of all in two of three cases, so that a gain takes long to show."""
ASK_SHARE = 0.4
"""release.ask_share: about as many differences as the reviewers of a round can answer."""
_MIN_NEW = 50  # as feedback.min_new_labels
_AUDIT_SHARE = 0.01
_ROUND = timedelta(hours=6)
_MODEL_SHA = "sha256:" + "0" * 64
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Turned:
    """What came of a round."""

    is_promoted: bool
    n_reviewed: int
    said: str


@dataclass(frozen=True)
class _Seeded:
    """Random bytes that are the same again."""

    rng: np.random.Generator

    def urandom(self, n: int) -> bytes:
        return self.rng.bytes(n)


class Wheel:
    """One workspace in a folder. Use as a context manager."""

    def __init__(self, folder: Path, of: Sentences, of_seed: World, attack: Attack | None, *, seed: int) -> None:
        self._of, self._world, self._attack = of, of_seed, attack
        self._rng = np.random.default_rng([seed, 2])
        ids.os = _Seeded(np.random.default_rng([seed, 3]))  # type: ignore[attr-defined]  # who is asked what hangs on ids
        self._place = {text: i for i, text in enumerate(of.texts)}
        headrace.init(folder / "workspace", task=TASK, labels=LABELS).close()
        self._ws = headrace.open_workspace(
            folder / "workspace",
            overrides={
                "release.margin": MARGIN,
                "release.ask_share": ASK_SHARE,
                "release.labels": "all",  # users speak about sentences drawn at random, whatever was answered
            },
        )
        (self._ws.state_folder / "cache").symlink_to(KEPT / ".headrace" / "cache")
        self._now = datetime(2026, 1, 5, tzinfo=UTC)
        object.__setattr__(self._ws, "clock", lambda: self._now)
        self._task_type: TaskType = TASK_TYPES.get("text-classification")(self._ws.task(TASK))
        self._weights: dict[str, Logits] = {}
        self._seen: set[str] = set()
        self._n_rounds_open = 0
        self._channel_ids = self._start(folder)
        self._reviewers = [f"{name}-rater-{number}" for name in of.names for number in range(N_REVIEWERS)]
        first = self._fitted(trusting.freeze(self._ws, task=TASK))
        releases.promote(self._ws, first, task=TASK, reason="the first")

    def __enter__(self) -> "Wheel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ws.close()

    def right(self) -> NDArray[np.bool_]:
        """Which measured sentences the version in charge answers rightly."""
        answers = self._logits(controls.serving(self._ws, TASK).control, self._world.measured).argmax(axis=1)
        return np.asarray(answers == self._of.truth[self._world.measured])

    def turn(self, asked: NDArray[np.int64], said: Sequence[Said]) -> Turned:
        """One round."""
        answered = self._answer(asked)
        n_reviewed = self._ask([one for one in dict.fromkeys(one.labeller for one in said) if one not in self._seen])
        with self._ws.store.write() as conn:
            for one in said:
                given = Given(answered[one.sentence], correction=LABELS[one.label], labeller=one.labeller)
                intake.receive(self._ws, conn, given)
        filling.fill(self._ws, TASK)
        n_reviewed += self._ask(list(dict.fromkeys(one.labeller for one in said)))
        n_reviewed += self._ask(self._reviewers, N_EACH)
        is_promoted, what = self._improve()
        self._now += _ROUND
        return Turned(is_promoted, n_reviewed, what)

    def _start(self, folder: Path) -> dict[str, str]:
        """Channels, the sentences to start with, and the known answers; channel to its id."""
        of, found = self._of, {}
        for number, name in enumerate(of.names):
            found[name] = channels.add(self._ws, name).id
            mine = [i for i in self._world.start if of.channels[i] == number]
            path = folder / f"{name}.jsonl"
            lines = ({"id": str(i), "text": of.texts[i], "label": LABELS[of.truth[i]]} for i in mine)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
            importing.import_rows(self._ws, name, path)
        sure = [i for i in self._world.start if (of.votes[i] == of.truth[i]).mean() >= _AGREED_SHARE]
        known.add(self._ws, [(of.texts[i], LABELS[of.truth[i]]) for i in sure[:N_KNOWN]], task=TASK)
        return found

    def _answer(self, asked: NDArray[np.int64]) -> dict[int, str]:
        """Log what the versions say; sentence to the id of the control's answer."""
        serving = controls.serving(self._ws, TASK)
        release = serving.release
        arms = [("control", serving.control)] + ([("shadow", serving.candidate)] if serving.candidate else [])
        requests = [new_id("request") for _ in asked]
        answered: dict[int, str] = {}
        for arm, version in arms:
            outputs = self._task_type.decode(self._logits(version, asked), UNCALIBRATED)
            rows = [self._row(arm, version, release, *one) for one in zip(asked, requests, outputs, strict=True)]
            with self._ws.store.write() as conn:
                predictions.add_rows(conn, rows, config_hash=self._ws.config_hash)
            if arm == "control":
                answered = {int(i): row.id for i, row in zip(asked, rows, strict=True)}
        return answered

    def _row(
        self, arm: str, version: ModelVersion, release: Release | None, i: int, request: str, output: dict[str, Any]
    ) -> LogRow:
        text, channel = self._of.texts[i], self._of.names[self._of.channels[i]]
        return LogRow(
            new_id("prediction"), request, 0, TASK, self._channel_ids[channel], None, arm,
            None if release is None else release.id, version.id, version.artifact, None, text, None, text_hash(text),
            output, 1.0, None, self._now, 1.0, _AUDIT_SHARE if arm == "control" else None,
        )  # fmt: skip

    def _ask(self, labellers: Sequence[str], n_each: int = 1) -> int:
        """Have labellers answer what the queue has for them, newcomers three at least; how many."""
        n_answered = 0
        for labeller in labellers:
            channel = labeller.split("-")[0]
            n = n_each if labeller in self._seen else max(n_each, N_FIRST)
            self._seen.add(labeller)
            if self._attack is not None and not self._attack.answers_reviews(labeller):
                continue
            for review in reviews.next_of(self._ws, TASK, labeller=labeller, channel=channel, n=n):
                word = word_of(self._of, self._place[review.text or ""], labeller, self._attack, self._rng)
                reviews.answer(self._ws, review.id, LABELS[word], labeller)
                n_answered += 1
        return n_answered

    def _improve(self) -> tuple[bool, str]:
        """Decide, or try a new candidate: whether another version is in charge now, and what was done."""
        serving = controls.serving(self._ws, TASK)
        is_promoted, said = False, ""
        if (release := serving.release) is not None:
            self._n_rounds_open += 1
            decision = judging.decision_of(self._ws, release)
            releases.decide(self._ws, release, decision, actor="wheel")
            is_promoted, said = decision.verdict == "promote", decision.verdict
            if decision.verdict == "hold":
                if self._n_rounds_open < _PATIENCE:
                    return False, said
                releases.stop(self._ws, task=TASK, reason="newer labels wait", actor="wheel")
        return is_promoted, f"{said} {self._try()}".strip()

    def _try(self) -> str:
        trusting.collect(self._ws, task=TASK)
        found = trusting.settlement(self._ws, task=TASK)
        frozen = trusting.frozen(self._ws, found, task=TASK)
        control = controls.serving(self._ws, TASK).control
        now = snapshot.rows(self._ws, frozen)
        if trusting.n_new(self._ws, found, self._snapshot_of(control), now) < _MIN_NEW:
            return "waiting"
        candidate = self._fitted(frozen)
        rows = [row for row in now if row.side == "test"]
        places = np.array([self._place[row.text] for row in rows])
        outputs = (self._logits(version, places).astype(np.float32) for version in (control, candidate))
        compared = comparison.compare(self._task_type, rows, *outputs)
        judged = gates.no_harm(compared, max_drop_share=self._ws.settings.release.max_drop_share)
        if not all(gate["passed"] for gate in judged):
            return "gate"
        releases.start(self._ws, candidate=candidate, task=TASK, policy="shadow", actor="wheel")
        self._n_rounds_open = 0
        return "shadow"

    def _snapshot_of(self, version: ModelVersion) -> Snapshot:
        return snapshot.find(self._ws, version.snapshot_id)

    def _fitted(self, frozen: Snapshot) -> ModelVersion:
        """A version of a snapshot: its training and validation rows, each with its weight."""
        rows = [row for row in snapshot.rows(self._ws, frozen) if row.side in ("train", "validation")]
        weights = linear_probe.fit(
            self._of.vectors[[self._place[row.text] for row in rows]],
            np.array([LABELS.index(row.target) for row in rows]),
            len(LABELS),
            row_weights=np.array([row.weight for row in rows]),
            penalty=PENALTY,
        )
        version = self._kept(frozen)
        self._weights[version.id] = weights
        return version

    def _kept(self, frozen: Snapshot) -> ModelVersion:
        ws = self._ws
        with ws.store.write() as conn:
            number = versions.next_number(conn, TASK)
            checkpoint, artifact = (f"sha256:{text_hash(f'{kind} {number}')}" for kind in ("checkpoint", "artifact"))
            for digest in (checkpoint, artifact):
                runs.add_artifact(conn, Artifact(digest, "probe", 1, {}), self._now)
            run = Run(
                new_id("run"), TASK, frozen.id, "minilm-l6", _MODEL_SHA, "head", {}, text_hash(str(number)), 1, "done",
                None, checkpoint, [], {}, self._now,
            )  # fmt: skip
            runs.add(conn, run, config_hash=ws.config_hash)
            version = ModelVersion(new_id("version"), TASK, number, run.id, frozen.id, checkpoint, artifact, self._now)
            versions.add(conn, version, config_hash=ws.config_hash)
        return version

    def _logits(self, version: ModelVersion, places: NDArray[np.int64]) -> Logits:
        return linear_probe.log_probs(self._weights[version.id], self._of.vectors[places])
