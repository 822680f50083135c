"""What a lineup and its pools hold. Catches: a thread of a load that ends with a traceback and no word in the log, a
candidate whose workers are gone taken for one that answers."""

import logging
from typing import Any

import pytest

from headrace.serve.pool import Pool
from headrace.server.holding import Holdings, _Load
from headrace.server.lineup import Drawn, Lineup
from headrace.workspace import Workspace
from planted import plant_version


class Broken(Pool):
    """Workers whose machine fails, at the next load, in a way that nobody thought of."""

    def __init__(self, *, has_all: bool) -> None:
        self.has_all = has_all

    def is_loaded(self, digest: str, adapter: str | None = None) -> bool:
        return self.has_all

    def load(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")


def test_a_load_that_fails_in_an_unknown_way_is_told_and_over(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, pool = plant_version(workspace), Broken(has_all=False)
    monkeypatch.setattr("headrace.server.holding.signing.folder_of", lambda *_: workspace.root)
    holdings, load = Holdings(workspace), _Load()
    with caplog.at_level(logging.WARNING, "headrace.lineup"):
        holdings._try(pool, version, load)
    assert "version tone/1 could not be loaded" in caplog.text
    assert "can't start new thread" in caplog.text
    assert load.ended_at is not None


def test_a_candidate_whose_workers_are_gone_does_not_answer(workspace: Workspace) -> None:
    version, pool = plant_version(workspace), Broken(has_all=True)
    lineup = Lineup(workspace, pool, make_pool=lambda _: pool, on_swap=lambda _: None)
    assert not lineup.is_loaded(Drawn(version, "candidate", 0.1, version))
    assert lineup.is_loaded(Drawn(version, "control", 0.9, version))
