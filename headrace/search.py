"""`train --search N`: try settings within declared ranges, keep the best, stop early what does worse than most.

Every trial is a run and a line in the table of trials, so a search that was killed goes on: Optuna's study is built
anew from those lines, and the sampler of each trial is seeded by the trial's number, so that the proposals are those
of a search that nobody killed. Trials are chosen by the validation side; the test side only measures the winner.

Source: tree-structured Parzen estimator, Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization",
section 4; median stopping, Golovin et al. 2017, "Google Vizier", section 3.2.2.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace import jobs, making, trusting
from headrace.config import FinetuneTable
from headrace.data import snapshot
from headrace.errors import BadConfig, BadInput, Unusable
from headrace.evaluate import evaluating
from headrace.finetune.methods import chain_of, rate_of
from headrace.ids import new_id
from headrace.records import Job, Run, Snapshot, SnapshotRow, Trial
from headrace.registry import require, resolve
from headrace.store import runs, trials
from headrace.tasks import TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    import optuna

Report = Callable[..., None]
Params = dict[str, Any]
_FACTOR = (0.2, 5.0)  # of the method's own learning rate, where no range is set
_N_BEFORE_PRUNING = 3  # trials done before one is compared with their median
_N_SEEDS = 100_003  # a prime; keeps the seeds of neighbouring searches apart


class Pruned(Exception):  # a signal through the trainer, no error
    """The trial does worse than most did at this point."""


def start(ws: Workspace, n_trials: int, *, task: str | None = None) -> Job:
    """Start a search of `n_trials` trials in all on the newest labelled rows, or find the job that does so already.

    Raises:
        BadInput, BadConfig: a range that is empty or has no use, or a method that cannot be made by the settings.
        NotFound: a method that is not known.
        MissingExtra: Optuna is not installed.
    """
    if n_trials < 1:
        raise BadInput("a search needs a trial", value=n_trials, next_step="Give --search a number from 1 on")
    require("optuna", purpose="a search")
    making.check_ready(ws)  # the methods that are tried, below
    name = ws.task_name(task)
    _check_ranges(ws, name)
    frozen = trusting.freeze(ws, task=name)
    as_set = making.planned_run(ws, name, frozen, ws.settings.finetune)
    start = as_set.params["finetune"]["start"]  # by name, since another version may be in charge before the end
    args = {"task": name, "snapshot_id": frozen.id, "n_trials": n_trials, "start": start}
    return making.submitted(ws, "headrace.search:make_best_version", args)


def make_best_version(
    ws: Workspace, progress: jobs.Progress, *, task: str, snapshot_id: str, n_trials: int, start: str
) -> dict[str, Any]:
    """The job: do what is missing of the trials, then make a version of the best one's run.

    Args:
        start: name of the version that all trials go on from; empty: the base model.

    Returns:
        What is known of the version, and `trials`, one object for each.
    """
    chosen = ws.settings.finetune.model_copy(update={"start": start})
    ws = replace(ws, settings=ws.settings.model_copy(update={"finetune": chosen}))
    frozen = snapshot.find(ws, snapshot_id)
    search = search_of(ws, task, frozen)
    with jobs.only_one(ws, search.removeprefix("sha256:")[:32], progress):
        rows = snapshot.rows(ws, frozen)
        seen = [row for row in rows if row.side != "test"]
        while (trial := _next_trial(ws, task, frozen, search, n_trials)) is not None:
            _try(ws, trial, seen, progress.report, n_trials)
        done = _listing(ws, search)[:n_trials]
        shown = [_shown(ws, task, trial) for trial in done]
        best = best_of(done, why=next((one["reason"] for one in shown if one["reason"]), None))
        version = making.made_version(ws, making.find_run(ws, best.run_id), progress.report)
        described = making.describe(ws, version)
        return {**described, "best_trial": best.number, "trials": shown}


def search_of(ws: Workspace, task: str, frozen: Snapshot) -> str:
    """Hash of all that decides what a search tries; how many trials it has does not, so that one can be prolonged."""
    ranges = ws.settings.search.model_dump(mode="json")
    as_set = making.planned_run(ws, task, frozen, ws.settings.finetune)
    return making.hash_of([as_set.fingerprint, ranges])


def best_of(done: Sequence[Trial], *, why: str | None = None) -> Trial:
    """The trial that did best on the validation side; the earliest of equals.

    Args:
        why: what one of them failed by.

    Raises:
        Unusable: none came to its end.
    """
    finished = [trial for trial in done if trial.state == "done" and trial.value is not None]
    if not finished:
        raise Unusable(
            "no trial came to its end",
            value=f"{len(done)} trials" if why is None else why,
            next_step="Lower the ends of search.learning_rate and search.batch_tokens"
            if why is None
            else "Mend that and search again with another search.seed",
        )
    return max(finished, key=lambda trial: (trial.value, -trial.number))


def proposal(trial: "optuna.trial.Trial", ws: Workspace) -> Params:
    """Draw the settings of a trial from the ranges."""
    ranges, chosen = ws.settings.search, ws.settings.finetune
    drawn: Params = {"method": trial.suggest_categorical("method", ranges.methods or (chosen.method,))}
    if ranges.learning_rate is None:
        drawn["learning_rate_factor"] = trial.suggest_float("learning_rate_factor", *_FACTOR, log=True)
    else:
        drawn["learning_rate"] = trial.suggest_float("learning_rate", *ranges.learning_rate, log=True)
    drawn["epochs"] = trial.suggest_float("epochs", *ranges.epochs)
    drawn["batch_tokens"] = trial.suggest_categorical("batch_tokens", ranges.batch_tokens)
    return drawn


def settings_of(params: Params, ws: Workspace, task: str) -> FinetuneTable:
    """The settings of a trial: those chosen, but for what was drawn."""
    rate = params.get("learning_rate")
    if rate is None:
        rate = params["learning_rate_factor"] * _own_rate(ws, task, params["method"])
    learning_rate = float(f"{rate:.4g}") or None  # a method that trains nothing has none
    drawn = {"method": params["method"], "learning_rate": learning_rate, "epochs": round(params["epochs"], 2)}
    return ws.settings.finetune.model_copy(update={**drawn, "batch_tokens": params["batch_tokens"]})


def _own_rate(ws: Workspace, task: str, name: str) -> float:
    """The learning rate that a method, or the one that goes on after its first stage, has unless one is set."""
    settings = ws.settings.finetune.model_copy(update={"method": name, "learning_rate": None})
    task_type = making.task_type_of(ws.task(task))
    return rate_of(settings, chain_of(settings, task_type)[-1], task_type.problem)


def study_of(ws: Workspace, known: Sequence[Trial], number: int) -> "optuna.study.Study":
    """An Optuna study that knows the trials before `number`, and draws as trial `number` of every such search does."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = (ws.settings.search.seed * _N_SEEDS + number) % 2**32
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_N_BEFORE_PRUNING, n_warmup_steps=1),
    )
    states = {
        "done": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    for trial in known:
        if trial.number < number:
            study.add_trial(
                optuna.trial.create_trial(
                    state=states[trial.state],
                    params=trial.params,
                    distributions=_distributions(ws),
                    value=trial.value if trial.state == "done" else None,
                    intermediate_values=dict(enumerate(trial.curve)),
                )
            )
    return study


def _distributions(ws: Workspace) -> dict[str, Any]:
    """The ranges as Optuna has them."""
    import optuna

    blank = optuna.create_study()
    trial = blank.ask()
    proposal(trial, ws)
    return trial.distributions


def _next_trial(ws: Workspace, task: str, frozen: Snapshot, search: str, n_trials: int) -> Trial | None:
    """The trial that a kill interrupted, or a new one; None when there are enough."""
    known = _listing(ws, search)
    open_trials = [trial for trial in known[:n_trials] if trial.state == "running"]
    if open_trials or len(known) >= n_trials:
        return open_trials[0] if open_trials else None
    number = len(known)
    study = study_of(ws, known, number)
    if number == 0:
        _begin_with_what_is_set(study, ws, task)
    params = proposal(study.ask(), ws)
    run = making.run_of(ws, task, frozen, settings_of(params, ws, task))
    trial = Trial(
        id=new_id("trial"),
        search=search,
        number=number,
        params=params,
        state="running",
        value=None,
        curve=[],
        run_id=run.id,
        created_at=ws.clock(),
    )
    with ws.store.write() as conn:
        trials.add(conn, trial, config_hash=ws.config_hash)
    return trial


def _begin_with_what_is_set(study: "optuna.study.Study", ws: Workspace, task: str) -> None:
    """The first trial has the settings as they are, where the ranges have them; the rest must beat it."""
    ranges, chosen = ws.settings.search, ws.settings.finetune
    own = _own_rate(ws, task, chosen.method)
    rate = chosen.learning_rate or own
    name, (low, high) = "learning_rate", ranges.learning_rate or (0.0, 0.0)
    if ranges.learning_rate is None:
        name, rate, (low, high) = "learning_rate_factor", rate / own if own else 1.0, _FACTOR
    within = (
        low <= rate <= high
        and ranges.epochs[0] <= chosen.epochs <= ranges.epochs[1]
        and chosen.batch_tokens in ranges.batch_tokens
        and chosen.method in (ranges.methods or (chosen.method,))
    )
    if within:
        fixed = {"method": chosen.method, "epochs": chosen.epochs, "batch_tokens": chosen.batch_tokens, name: rate}
        study.enqueue_trial(fixed)


def _try(ws: Workspace, trial: Trial, rows: Sequence[SnapshotRow], report: Report, n_trials: int) -> None:
    """Do a trial's run, and write down how it ended."""
    known = _listing(ws, trial.search)
    run = making.find_run(ws, trial.run_id)
    curve = list(trial.curve)
    where = f"{trial.number + 1}/{n_trials}"

    def watched(step: str, done: float, total: float, **facts: Any) -> None:
        if "metric" in facts:
            curve[facts["evaluation"] - 1 :] = [facts["metric"]]  # a kill may have come after it was written
            _keep(ws, trial, curve=curve)
            if is_behind(ws, known, trial, curve):
                raise Pruned
        report(step, done, total, trial=where, **facts)

    try:
        checkpoint = making.fine_tuned(ws, run, rows, watched)
    except Pruned:
        _drop(ws, run)
        _keep(ws, trial, state="pruned", value=max(curve), finished_at=ws.clock())
    except (Unusable, BadInput, BadConfig) as error:  # other settings, or another method, may do
        _drop(ws, run, reason=str(error))
        _keep(ws, trial, state="failed", finished_at=ws.clock())
    else:
        run = making.find_run(ws, run.id)
        curve = [entry["eval_metric_main"] for entry in run.history if "eval_metric_main" in entry]
        value = _value_of(ws, run, checkpoint, rows)
        _keep(ws, trial, state="done", value=value, curve=curve, finished_at=ws.clock())


def is_behind(ws: Workspace, known: Sequence[Trial], trial: Trial, curve: Sequence[float]) -> bool:
    """Whether a trial's best so far is below the median of the finished trials at the same evaluation."""
    study = study_of(ws, known, trial.number)
    study.enqueue_trial(trial.params)
    asked = study.ask(_distributions(ws))
    for step, value in enumerate(curve):
        asked.report(value, step)
    return bool(asked.should_prune())


def _value_of(ws: Workspace, run: Run, checkpoint: str, rows: Sequence[SnapshotRow]) -> float | None:
    """Main metric on the validation side: what training measured, or, without training, measured now."""
    found: float | None = run.facts.get("best_main_metric")
    if found is not None:
        return found
    validation = [row for row in rows if row.side == "validation"]
    task = making.task_of(run)
    task_type: TaskType = making.task_type_of(task)
    load = resolve("headrace.export.checkpoint:load", purpose="the checkpoint")
    outputs = load(ws.artifacts.get(checkpoint), task).logits([row.input for row in validation])
    figures = evaluating.evaluate(task_type, validation, outputs)["overall"]
    value: float | None = figures[task_type.main_metric]
    return value


def _drop(ws: Workspace, run: Run, *, reason: str | None = None) -> None:
    """A run that will not be finished: nothing of it stays but what the store says, and why it failed if it did."""
    shutil.rmtree(ws.state_folder / "runs" / run.id, ignore_errors=True)
    with ws.store.write() as conn:
        runs.change(
            conn, run.id, state="stopped", facts={} if reason is None else {"reason": reason}, finished_at=ws.clock()
        )


def _keep(ws: Workspace, trial: Trial, **values: Any) -> None:
    with ws.store.write() as conn:
        trials.change(conn, trial.id, **values)


def _listing(ws: Workspace, search: str) -> list[Trial]:
    with ws.store.read() as conn:
        return trials.listing(conn, search)


def _shown(ws: Workspace, task: str, trial: Trial) -> dict[str, Any]:
    """A trial as the answer has it."""
    drawn = settings_of(trial.params, ws, task)
    return {
        "number": trial.number,
        "state": trial.state,
        "value": trial.value,
        "method": drawn.method,
        "learning_rate": drawn.learning_rate,
        "epochs": drawn.epochs,
        "batch_tokens": drawn.batch_tokens,
        "run_id": trial.run_id,
        "reason": making.find_run(ws, trial.run_id).facts.get("reason") if trial.state == "failed" else None,
    }


def _check_ranges(ws: Workspace, task: str) -> None:
    ranges = ws.settings.search
    for key in ("learning_rate", "epochs"):
        ends = getattr(ranges, key)
        if ends is not None and not 0 < ends[0] <= ends[1]:
            raise BadConfig(
                f"search.{key} is a lowest and a highest value above 0",
                value=list(ends),
                next_step=f"Correct it, such as search.{key} = [1, 6]",
            )
    if not ranges.batch_tokens or min(ranges.batch_tokens) < 16:
        raise BadConfig(
            "search.batch_tokens is a list of sizes from 16 on",
            value=list(ranges.batch_tokens),
            next_step="Correct it, such as search.batch_tokens = [512, 1024]",
        )
    chosen = ws.settings.finetune
    for name in ranges.methods or (chosen.method,):
        making.check_finetune(ws, task, chosen.model_copy(update={"method": name}))
