"""`train --search N` on a tiny base model.

Catches: a killed search that starts anew, forgets what it tried or proposes something else; a trial chosen by the
test side; a hopeless trial that is trained to its end; a search that ends without a version.
"""

import json
import os
import signal
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import LABELS, TINY_TRAINING, sentences, write_jsonl
from headrace import jobs, loop, making, search
from headrace.cli.models import _show_trials, show_version
from headrace.config import FinetuneTable, SearchTable
from headrace.data import channels, importing, snapshot
from headrace.errors import BadConfig, BadInput, Unusable
from headrace.finetune.methods import METHODS
from headrace.records import Trial
from headrace.release import controls
from headrace.workspace import Workspace, open_workspace
from planted import NOON

SETTINGS = (
    TINY_TRAINING
    + """epochs = 8
learning_rate = 0.01
min_steps = 0
evals_per_epoch = 1
patience = 8

[search]
learning_rate = [1e-6, 0.01]
epochs = [4, 8]
batch_tokens = [128, 256]

[export]
backend = "hf"
precision = "fp32"
"""
)


@pytest.fixture
def ws(tmp_path: Path, tiny_base: Path) -> Iterator[Workspace]:
    root = tmp_path / "ws"
    loop.init(root, task="tone", labels=LABELS).close()
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(tiny_base))))
    with open_workspace(root) as opened:
        channels.add(opened, "a")
        importing.import_rows(opened, "a", write_jsonl(tmp_path / "a.jsonl", sentences(200, channel="a")))
        yield opened


def planted(search_hash: str, number: int, rate: float, **values: Any) -> Trial:
    params = {"method": "full", "learning_rate": rate, "epochs": 5.0, "batch_tokens": 256}
    facts = {"state": "done", "value": values["curve"][-1], **values}
    return Trial(f"trl_{number}", search_hash, number, params, run_id="run_1", created_at=NOON, **facts)


def lines(ws: Workspace) -> list[Trial]:
    return search._listing(ws, search.search_of(ws, "tone", snapshot.freeze(ws)))


def test_proposals_follow_from_seed_and_history_alone(ws: Workspace) -> None:
    known = [planted("s", i, 0.001 * (i + 1), curve=[0.2, 0.1 * i]) for i in range(6)]

    def draw(ws: Workspace, history: list[Trial], number: int) -> dict[str, Any]:
        return search.proposal(search.study_of(ws, history, number).ask(), ws)

    assert draw(ws, known, 6) == draw(ws, known, 6)
    assert draw(ws, known[:2], 2) == draw(ws, known, 2)  # trials that came later change nothing
    assert draw(ws, known, 6) != draw(ws, known[:5], 5)
    with open_workspace(ws.root, overrides={"search.seed": 2}) as other:
        assert draw(other, known, 6) != draw(ws, known, 6)
    for number in range(20):
        drawn = search.settings_of(draw(ws, [], number), ws, ws.task_name())
        assert 1e-6 <= drawn.learning_rate <= 0.01
        assert 4 <= drawn.epochs <= 8
        assert drawn.batch_tokens in (128, 256)


def test_without_a_range_rates_lie_around_the_methods_own(ws: Workspace) -> None:
    ranges = SearchTable(methods=("full", "head"))
    wide = replace(ws, settings=ws.settings.model_copy(update={"search": ranges}))
    seen = set()
    for number in range(12):
        params = search.proposal(search.study_of(wide, [], number).ask(), wide)
        drawn = search.settings_of(params, wide, wide.task_name())
        own = METHODS.get(drawn.method).learning_rate
        assert drawn.learning_rate is not None
        assert own / 5.01 <= drawn.learning_rate <= own * 5.01
        seen.add(drawn.method)
    assert seen == {"full", "head"}


def test_what_falls_behind_the_median_is_pruned(ws: Workspace) -> None:
    known = [planted("s", i, 0.01, curve=[0.1, 0.5, 0.6 + 0.1 * i]) for i in range(3)]
    new = planted("s", 3, 0.01, curve=[0.0])
    assert not search.is_behind(ws, known, new, [0.0])  # the first evaluation is too early to tell
    assert search.is_behind(ws, known, new, [0.0, 0.2])
    assert not search.is_behind(ws, known, new, [0.0, 0.55])
    assert not search.is_behind(ws, known[:2], new, [0.0, 0.2])  # too few to have a median


def test_the_best_is_the_best_of_those_done(ws: Workspace) -> None:
    done = [planted("s", i, 0.01, curve=[value]) for i, value in enumerate([0.5, 0.7, 0.7])]
    pruned = planted("s", 3, 0.01, curve=[0.9], state="pruned")
    assert search.best_of([*done, pruned]).number == 1
    with pytest.raises(Unusable, match="no trial came to its end"):
        search.best_of([pruned])


def test_bad_searches_are_refused_at_once(ws: Workspace) -> None:
    with pytest.raises(BadInput, match="a search needs a trial"):
        search.start(ws, 0)
    for key, value in (("search.epochs", [3, 1]), ("search.learning_rate", [0.0, 1]), ("search.batch_tokens", [2])):
        with open_workspace(ws.root, overrides={key: value}) as bad, pytest.raises(BadConfig, match=key):
            search.start(bad, 2)


@pytest.mark.slow
def test_a_search_ends_in_the_version_of_its_best_trial(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(search, "_N_BEFORE_PRUNING", 1)
    shown: list[dict[str, Any]] = []
    seen: list[set[str]] = []
    fine_tuned = making.fine_tuned

    def watched(ws: Workspace, run: Any, rows: Any, report: Any) -> str:
        seen.append({row.side for row in rows})
        return fine_tuned(ws, run, rows, report)

    monkeypatch.setattr(making, "fine_tuned", watched)
    frozen = snapshot.freeze(ws)
    progress = jobs.Progress(ws, None)
    monkeypatch.setattr(progress, "report", lambda step, *_, **facts: shown.append({"step": step, **facts}))
    args = {"task": "tone", "snapshot_id": frozen.id, "start": ""}
    made = search.make_best_version(ws, progress, n_trials=5, **args)
    assert made["version"] == "tone/1"
    assert {"train", "validation"} in seen
    assert all("test" not in sides for sides in seen[:5])
    found = lines(ws)
    assert [trial.number for trial in found] == list(range(5))
    assert found[0].params["learning_rate"] == 0.01  # what is set comes first
    assert {trial.state for trial in found} == {"done", "pruned"}
    assert all(trial.curve for trial in found)
    best = found[made["best_trial"]]
    assert best.value == max(trial.value for trial in found if trial.state == "done")
    with ws.store.read() as conn:
        (version,) = making.versions.listing(conn, "tone")
        pruned = [making.runs.find(conn, trial.run_id) for trial in found if trial.state == "pruned"]
    assert version.run_id == best.run_id
    assert all(run.state == "stopped" and run.checkpoint is None for run in pruned if run)
    assert {facts.get("trial") for facts in shown} >= {f"{k}/5" for k in range(1, 6)}
    show_version(made)
    assert "Trials; * is the best" in capsys.readouterr().out
    again = search.make_best_version(ws, progress, n_trials=5, **args)
    assert (again["version_id"], again["trials"]) == (made["version_id"], made["trials"])
    longer = search.make_best_version(ws, progress, n_trials=6, **args)
    assert longer["trials"][:5] == made["trials"]
    assert len(longer["trials"]) == 6


@pytest.mark.slow
def test_a_killed_search_goes_on(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = search.start(ws, 3)
    until = time.monotonic() + 60
    while True:  # the second trial is at work
        found = lines(ws)
        if len(found) == 2 and found[1].curve:
            break
        assert time.monotonic() < until, started.log_path
        time.sleep(0.02)
    job = next(iter(jobs.follow(ws, started.id)))
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    while next(iter(jobs.follow(ws, started.id))).state == "running":
        time.sleep(0.05)
    before = lines(ws)
    made = loop.train(ws, n_trials=3)
    after = lines(ws)
    assert len(after) == len(made["trials"]) == 3
    assert after[0] == before[0]
    assert [(t.id, t.params, t.run_id) for t in after[:2]] == [(t.id, t.params, t.run_id) for t in before[:2]]
    assert all(trial.state in ("done", "pruned") for trial in after)
    expected = search.proposal(search.study_of(ws, after[:2], 2).ask(), ws)
    assert after[2].params == expected  # as in a search that nobody killed


def test_a_method_that_trains_nothing_can_be_tried(ws: Workspace) -> None:
    settings = ws.settings.model_copy(
        update={
            "finetune": ws.settings.finetune.model_copy(update={"method": "zero-shot", "learning_rate": None}),
            "search": ws.settings.search.model_copy(update={"learning_rate": None}),
        }
    )
    ws = replace(ws, settings=settings)
    study = search.study_of(ws, [], 0)
    search._begin_with_what_is_set(study, ws, "tone")
    drawn = search.settings_of(search.proposal(study.ask(), ws), ws, "tone")
    assert drawn.learning_rate is None
    assert FinetuneTable.model_validate(drawn.model_dump()) == drawn


def test_methods_that_cannot_be_made_are_refused_before_a_trial(ws: Workspace) -> None:
    """Catches: a search that dies, and dies again for ever, at the first trial of such a method."""
    for name, error, why in (("prompt", BadInput, "quarter of max_tokens"), ("distil", BadConfig, "needs a teacher")):
        with (
            open_workspace(ws.root, overrides={"search.methods": ["full", name]}) as bad,
            pytest.raises(error, match=why),
        ):
            search.start(bad, 2)
    assert jobs.listing(ws) == []


@pytest.mark.parametrize("error", [BadInput, BadConfig, Unusable])
def test_a_trial_that_fails_says_why_and_the_search_goes_on(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def fails(*_: Any) -> str:
        raise error("no such layers", value="x", next_step="Take another method")

    monkeypatch.setattr(making, "fine_tuned", fails)
    frozen = snapshot.freeze(ws)
    with pytest.raises(Unusable, match=r"no trial came to its end.*no such layers"):
        search.make_best_version(ws, jobs.Progress(ws, None), task="tone", snapshot_id=frozen.id, n_trials=2, start="")
    assert [trial.state for trial in lines(ws)] == ["failed", "failed"]
    assert "no such layers" in search._shown(ws, "tone", lines(ws)[0])["reason"]


def test_rates_under_sgd_lie_around_those_of_a_training_under_sgd(ws: Workspace) -> None:
    """Catches: rates of AdamW, at which SGD learns next to nothing, and a first trial that is not as set."""
    ranges = SearchTable(methods=("full", "continue-pretraining"))
    finetune = ws.settings.finetune.model_copy(update={"optimizer": "sgd", "learning_rate": None})
    ws = replace(ws, settings=ws.settings.model_copy(update={"search": ranges, "finetune": finetune}))
    params = {"learning_rate_factor": 1.0, "epochs": 2.0, "batch_tokens": 512}
    for name in ranges.methods:  # full goes on after pretraining
        assert search.settings_of({**params, "method": name}, ws, "tone").learning_rate == 200 * 2e-4


def test_the_best_settings_come_as_lines_to_keep(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"value": 0.5, "state": "done", "epochs": 2.5, "batch_tokens": 512, "reason": None}
    trials = [
        {"number": 0, "method": "prompt", "learning_rate": 0.01, **facts, "state": "failed", "reason": "too long"},
        {"number": 1, "method": "full", "learning_rate": 0.0002, **facts},
    ]
    _show_trials(trials, 1)
    shown = capsys.readouterr().out
    assert "Trial 1 failed: too long" in shown
    kept = tomllib.loads(shown.partition("headrace.toml:")[2])
    assert FinetuneTable.model_validate(kept).learning_rate == 0.0002
    assert kept == {"method": "full", "learning_rate": 0.0002, "epochs": 2.5, "batch_tokens": 512}


@pytest.mark.slow
def test_all_trials_start_from_the_version_that_was_in_charge_when_the_search_began(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = making.run_of(ws, "tone", snapshot.freeze(ws), ws.settings.finetune)
    first = making.made_version(ws, run, jobs.Progress(ws, None).report)
    controls.ensure_control(ws, "tone")
    asked = ws.settings.finetune.model_copy(update={"start": "control"})
    ws = replace(ws, settings=ws.settings.model_copy(update={"finetune": asked}))
    given: dict[str, Any] = {}
    monkeypatch.setattr(making, "submitted", lambda _ws, _target, args: given.update(args))
    search.start(ws, 2)
    assert given["start"] == first.name
    monkeypatch.setattr(controls, "serving", None)  # asking again who is in charge would fail
    done = search.make_best_version(ws, jobs.Progress(ws, None), **given)
    starts = [making.find_run(ws, one["run_id"]).params["material"]["start"] for one in done["trials"]]
    assert starts == [first.checkpoint] * 2
