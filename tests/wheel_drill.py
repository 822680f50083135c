"""A workspace whose wheel turns without a model, and a process that turns it and is killed at a write of its choice.

    python tests/wheel_drill.py ROOT [N]      # one turn; dies by SIGKILL at its Nth write, inside it or just after

Versions answer as released.py makes them; training is the planting of a version, which takes no write of its own here.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import LABELS, sentences
from headrace import loop, reviewing, trusting, wheel
from headrace.data import snapshot
from headrace.feedback import intake
from headrace.ids import new_id
from headrace.records import ModelVersion, Prediction, Release
from headrace.release import controls
from headrace.store import Store, predictions, versions
from headrace.store import channels as channel_rows
from headrace.tasks.inputs import text_hash
from headrace.wheel import Step
from headrace.workspace import Workspace, init, open_workspace
from planted import log_row
from released import answer_with, fill, plant, right, sometimes_wrong

N_CORRECTIONS = 60
OVERRIDES = {
    "feedback.min_new_labels": 20,
    "release.min_agreement_share": 0.5,
    "release.labels": "all",  # every answer of a release is corrected here, right or wrong
}


def make(root: Path) -> Path:
    """Version 1 is in charge, and so many corrections of its answers wait."""
    with init(root, task="tone", labels=LABELS) as ws:
        fill(ws, root, n_rows=120, names=("web",))
        plant(ws)
        version = controls.ensure_control(ws, "tone")
        correct(ws, version, N_CORRECTIONS, seed=1)
    return root


def correct(ws: Workspace, version: ModelVersion, n: int, *, seed: int, release: Release | None = None) -> None:
    """Wrong answers of a version and their corrections, by ten labellers; a release's candidate answers rightly."""
    rows = sentences(n, seed=seed, channel="web")
    answers = [_answer(version, row["text"], _other(row["label"]), "control", None) for row in rows]
    with ws.store.write() as conn:
        channel = channel_rows.find(conn, "web")
        assert channel is not None
        logged = [log_row(answer, channel.id) for answer in answers]
        if release is not None:
            pairs = zip(answers, rows, strict=True)
            shadows = [_answer(version, r["text"], r["label"], "shadow", release.id, a.request_id) for a, r in pairs]
            logged += [log_row(answer, channel.id) for answer in shadows]
        predictions.add_rows(conn, logged, config_hash=ws.config_hash)
    said = [
        {"prediction_id": answer.id, "correction": row["label"], "labeller": f"user-{i % 10}"}
        for i, (answer, row) in enumerate(zip(answers, rows, strict=True))
    ]
    list(intake.give_all(ws, said))


def _other(label: str) -> str:
    return LABELS[(LABELS.index(label) + 1) % 3]


def _answer(
    version: ModelVersion, text: str, label: str, arm: str, release_id: str | None, request_id: str = ""
) -> Prediction:
    return Prediction(
        id=new_id("prediction"), request_id=request_id or new_id("request"), task="tone", channel="web", unit=None,
        arm=arm, release_id=release_id, version_id=version.id, artifact=version.artifact, adapter=None, text=text,
        text_hash=text_hash(text), output={"label": label, "confidence": 0.9, "scores": {}}, latency_ms=1.0,
        error=None, at=version.created_at,
    )  # fmt: skip


def stand_in(patch: pytest.MonkeyPatch, ws: Workspace) -> None:
    """Put what needs no model in the place of what does."""
    held_out = [row for row in snapshot.current(ws, "tone")[0] if row.side == "test"]
    answer_with(patch, ws, held_out, {n: right if n > 1 else sometimes_wrong(3) for n in range(1, 20)})
    patch.setattr(loop, "train", _train)
    patch.setattr(trusting, "_doubts", lambda *_, **__: trusting.Doubts(left_out="there is no model"))
    patch.setattr(reviewing, "suspects", lambda *_, **__: [])


def _train(ws: Workspace, *, task: str | None = None, **_: Any) -> dict[str, Any]:
    """The version of the rows of now, made once."""
    frozen = trusting.freeze(ws, task=task)
    with ws.store.read() as conn:
        made = [one for one in versions.listing(conn, "tone") if one.snapshot_id == frozen.id]
    with _UNCOUNTED, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "freeze", lambda *_, **__: frozen)
        version = made[0] if made else plant(ws)
    return {"version": version.name}


class _Killer:
    """Counts the writes of this process and ends it at one of them. Within the killer itself nothing is counted."""

    def __init__(self) -> None:
        self._n, self._at, self._is_off = 0, 0, 0

    def arm(self, at: int) -> None:
        self._at, write, killer = at, Store.write, self

        @contextmanager
        def counted(store: Store, **options: Any) -> Iterator[Any]:
            killer._n += not killer._is_off
            is_mine = killer._n == killer._at and not killer._is_off
            with write(store, **options) as conn:
                yield conn
                if is_mine and killer._at % 2:  # inside: nothing of it may stay
                    os.kill(os.getpid(), signal.SIGKILL)
            if is_mine:
                os.kill(os.getpid(), signal.SIGKILL)

        Store.write = counted  # type: ignore[method-assign]

    def __enter__(self) -> None:
        self._is_off += 1

    def __exit__(self, *_: object) -> None:
        self._is_off -= 1


_UNCOUNTED = _Killer()


def turn(ws: Workspace) -> list[Step]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, ws)
        return list(wheel.run(ws, once=True, stop=threading.Event()))


if __name__ == "__main__":
    with open_workspace(sys.argv[1], overrides=OVERRIDES) as mine:
        if len(sys.argv) > 2:
            _UNCOUNTED.arm(int(sys.argv[2]))
        for done in turn(mine):
            print(done.step, done.said)
