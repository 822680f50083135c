"""The registry against a sequential model: any order of calls, each right or refused as the model says, then checked.

Catches: two versions in charge of a channel, a channel that a whole-task line does not reach, a rollback that swings or
goes forward, a release decided twice or left open, a refused call that leaves a trace, a gap in numbers or hashes.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.errors import WrongState
from headrace.records import Decision, LedgerEntry, Release
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import releases as rows
from headrace.store import versions
from headrace.workspace import init, open_workspace
from planted import plant_channel, plant_version

CHANNELS = ("app", "shop", "web")
SCOPES: list[str | None] = [None, *CHANNELS]
ENDS = {"promote": "promoted", "reject": "rejected", "stop": "stopped"}
in_scope = st.sampled_from(SCOPES)
verdicts = st.sampled_from(["promote", "reject", "hold", "advance"])


class Model:
    """What should be, kept step by step: under each channel and under None a pile of who was in charge."""

    def __init__(self) -> None:
        self.n_versions = 0
        self.piles: dict[str | None, list[int]] = {name: [] for name in SCOPES}
        self.ever: dict[str | None, set[int]] = {name: set() for name in SCOPES}
        self.promoted: dict[str, bool] = {}
        """Channels that had a line of their own since the last one about the whole task: was it a promotion?"""
        self.candidate = 0
        self.scope: tuple[str, ...] | None = None
        self.ended: dict[str, str] = {}
        self.stage = 0
        self.n_lines = 0

    def put(self, version: int, channel: str | None, *, back: bool = False) -> None:
        for name in SCOPES if channel is None else [channel]:
            pile = self.piles[name]
            self.ever[name].add(version)
            if back and version in pile:
                del pile[pile.index(version) + 1 :]
            elif pile[-1:] != [version]:
                pile.append(version)
        if channel is None:
            self.promoted = {}
        else:
            self.promoted[channel] = not back
        self.n_lines += 1

    def control(self, channel: str | None) -> int:
        return self.piles[channel][-1] if self.piles[channel] else 0

    @property
    def everywhere(self) -> set[int]:
        return {self.control(name) for name in SCOPES}

    @property
    def left(self) -> list[str]:
        return [name for name in self.scope or CHANNELS if name not in self.ended]

    def is_tried_in(self, channel: str | None) -> bool:
        return bool(self.candidate) and (channel is None or channel in self.left)

    def end(self, kind: str, channels: list[str] | None) -> None:
        """End the open release, in some channels or in all that are left."""
        if self.scope is None and not self.ended and channels is None:
            self.close(kind)
            return
        for name in self.left if channels is None else channels:
            self.ended[name] = kind
            if kind == "promote":
                self.put(self.candidate, name)
            else:
                self.n_lines += 1
        if not self.left:
            self.candidate = 0

    def close(self, kind: str) -> None:
        if kind == "promote":
            self.put(self.candidate, None)
        else:
            self.n_lines += 1
        self.candidate = 0

    def before(self, channel: str | None) -> int:
        pile = self.piles[channel]
        ahead = [name for name, was in self.promoted.items() if was and self.control(name) != self.control(None)]
        if channel is None and ahead:
            return pile[-1]
        return pile[-2] if len(pile) > 1 else 0


class Registry(RuleBasedStateMachine):
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        root = Path(self.folder.name) / "ws"
        shutil.copytree(self.template, root)
        self.ws = open_workspace(root)
        self.model = Model()
        self.release: Release | None = None

    def teardown(self) -> None:
        found = ledger.verify(self.ws)
        assert (found["n_lines"], found["first_broken"]) == (self.model.n_lines, None)
        with self.ws.store.read() as conn:
            assert [v.number for v in versions.listing(conn, "tone")] == list(range(1, self.model.n_versions + 1))
        self.ws.close()
        self.folder.cleanup()

    def allowed(self, expected: bool, call: object) -> list[LedgerEntry] | None:
        """What the call wrote; None where it was refused, as expected."""
        try:
            written = call()  # type: ignore[operator]
        except WrongState:
            assert not expected, "refused what the model allows"
            return None
        assert expected, "allowed what the model refuses"
        return written if isinstance(written, list) else [written]

    @initialize(is_served=st.booleans())
    def first(self, is_served: bool) -> None:
        for _ in range(3):  # few, so that calls often meet
            self.create()
        if is_served:
            self.ensure()

    @precondition(lambda self: self.model.n_versions < 4)
    @rule()
    def create(self) -> None:
        self.model.n_versions += 1
        assert plant_version(self.ws).number == self.model.n_versions

    @precondition(lambda self: not self.model.control(None))
    @rule()
    def ensure(self) -> None:
        was = self.model.control(None)
        found = controls.ensure_control(self.ws).number
        assert found == (was or self.model.n_versions)
        if not was:
            self.model.put(found, None)

    @rule(data=st.data(), channel=in_scope)
    def promote(self, data: st.DataObject, channel: str | None) -> None:
        model = self.model
        tried = model.is_tried_in(channel)
        versions_of = st.integers(1, model.n_versions)
        version = data.draw(st.just(model.candidate) | versions_of if tried else versions_of)
        if tried:
            expected = version == model.candidate
        else:
            now = model.everywhere if channel is None else {model.control(channel)}
            expected = now != {version} and (channel is None or model.control(None) > 0)
        if self.allowed(expected, lambda: releases.promote(self.ws, str(version), channel=channel)):
            if tried:
                model.end("promote", None if channel is None else [channel])
            else:
                model.put(version, channel)

    @rule(data=st.data(), scope=st.sets(st.sampled_from(CHANNELS)))
    def start(self, data: st.DataObject, scope: set[str]) -> None:
        version = data.draw(st.integers(1, self.model.n_versions))
        model = self.model
        now = {model.control(name) for name in scope} or model.everywhere
        expected = model.control(None) > 0 and not model.candidate and now != {version}
        made: list[Release] = []
        self.allowed(
            expected, lambda: made.append(releases.start(self.ws, candidate=str(version), scope=sorted(scope)))
        )
        if made:
            model.candidate, model.scope, model.ended, model.stage = version, tuple(sorted(scope)) or None, {}, 0
            model.n_lines += 1
            (self.release,) = made

    @precondition(lambda self: self.release is not None)
    @rule(verdict=verdicts, by_channel=st.dictionaries(st.sampled_from(CHANNELS), verdicts), stale=st.booleans())
    def decide(self, verdict: str, by_channel: dict[str, str], stale: bool) -> None:
        assert self.release is not None
        with self.ws.store.read() as conn:
            current = rows.find(conn, self.release.id)
        seen = self.release if stale or current is None else current
        model = self.model
        is_open = bool(model.candidate)
        fresh = {n: v for n, v in by_channel.items() if v in ENDS and n in model.left}
        advances = verdict == "advance" and not fresh
        expected = is_open and not (advances and seen.stage != model.stage)
        decision = Decision(verdict, "because", {}, by_channel, {"control": 0.5, "candidate": 0.5})  # type: ignore[arg-type]
        written = self.allowed(expected, lambda: releases.decide(self.ws, seen, decision))
        if written is None:
            return
        if fresh:
            for name, kind in fresh.items():
                model.end(kind, [name])
        elif verdict in ENDS and not by_channel:
            model.end(verdict, None)
        else:
            model.stage += advances
            model.n_lines += 1

    @rule(channel=in_scope, rejects=st.booleans())
    def stop(self, channel: str | None, rejects: bool) -> None:
        expected = self.model.is_tried_in(channel)
        end = releases.reject if rejects else releases.stop
        if self.allowed(expected, lambda: end(self.ws, channel=channel)):
            self.model.end("reject" if rejects else "stop", None if channel is None else [channel])

    @rule(data=st.data(), channel=in_scope)
    def go_back_to(self, data: st.DataObject, channel: str | None) -> None:
        self.go_back(channel, data.draw(st.integers(1, self.model.n_versions)))

    @rule(channel=in_scope)
    def go_back(self, channel: str | None, to: int | None = None) -> None:
        model = self.model
        target = model.before(channel) if to is None else to
        now = model.everywhere if channel is None else {model.control(channel)}
        expected = target in model.ever[channel] and now != {target}
        call = lambda: rollbacks.rollback(self.ws, to=None if to is None else str(to), channel=channel)  # noqa: E731
        if self.allowed(expected, call):
            if model.is_tried_in(channel):
                model.end("stop", None if channel is None or model.scope is None else [channel])
            model.put(target, channel, back=True)

    @rule()
    def reopen(self) -> None:
        root = self.ws.root
        self.ws.close()
        self.ws = open_workspace(root)

    @invariant()
    def one_is_in_charge_of_each_channel(self) -> None:
        if not self.model.control(None):
            return
        serving = controls.serving(self.ws)
        assert serving.control.number == self.model.control(None)
        assert {c: serving.control_of(c).number for c in CHANNELS} == {c: self.model.control(c) for c in CHANNELS}
        asked = SCOPES[self.model.n_lines % len(SCOPES)]
        served = controls.served_at(self.ws, self.ws.clock(), channel=asked)
        assert served.version == f"tone/{self.model.control(asked)}"
        assert (serving.release is not None) == bool(self.model.candidate)
        if serving.release is not None:
            assert [c for c in CHANNELS if serving.is_tried_in(c)] == sorted(self.model.left)
            assert (serving.release.stage, serving.candidate and serving.candidate.number) == (
                self.model.stage,
                self.model.candidate,
            )

    @invariant()
    def a_closed_release_says_how(self) -> None:
        if self.release is None:
            return
        with self.ws.store.read() as conn:
            found = rows.find(conn, self.release.id)
        assert found is not None
        assert (found.state == "open") == bool(self.model.candidate)
        if not self.model.candidate and self.model.ended:
            kinds = {ENDS[kind] for kind in self.model.ended.values()}
            assert found.state == (kinds.pop() if len(kinds) == 1 else "mixed")


@pytest.mark.slow
def test_the_registry_does_what_its_model_does(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    with init(tmp_path / "template", task="tone", labels=("negative", "positive")) as ws:
        for name in CHANNELS:
            plant_channel(ws, name)
    Registry.template = tmp_path / "template"
    run_state_machine_as_test(
        Registry,
        settings=settings(max_examples=30, stateful_step_count=30, deadline=None, database=None, derandomize=True),
    )
