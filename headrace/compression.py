"""`compress`: smaller versions of a version, what each loses and gains, and the fastest that loses little enough.

Every candidate is a run: cut, trained on the version's own answers, exported and compared with the version on the
same rows, artifact with artifact. The validation side chooses; the test side only reports. What is measured is kept
with the run and found again; speeds are measured anew, each candidate in turn with the uncompressed version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace import jobs, making, warm_start
from headrace.config import AugmentTable, FinetuneTable, RobustTable
from headrace.data import snapshot
from headrace.errors import BadConfig, BadInput, Unusable
from headrace.evaluate import budget, comparison, evaluating
from headrace.export import BACKENDS
from headrace.export import load as load_artifact
from headrace.finetune.compressing import Step, candidate_name, parse
from headrace.ids import new_id
from headrace.records import Artifact, Input, Job, ModelVersion, Run, SnapshotRow
from headrace.registry import resolve
from headrace.release import controls
from headrace.store import adapters, runs, versions
from headrace.tasks import Calibration, Outputs, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]
METHOD = "compress"
UNCOMPRESSED = "uncompressed"
EXACT = "fp32"
_KEPT = "compressed"
"""Key in a run's facts: what was measured beside the uncompressed version."""
_SIDES = ("validation", "test")
_N_TIMED_ROWS = 512  # half a second at 1,000 rows/s


@dataclass(frozen=True)
class _Answers:
    """What an artifact says to the rows of a side."""

    outputs: Outputs
    calibration: Calibration


@dataclass(frozen=True)
class _Whole:
    """The version that is compressed, and what it answers."""

    version: ModelVersion
    run: Run
    artifact: Artifact
    rows: Sequence[SnapshotRow]
    task_type: TaskType
    adapters: dict[str, str]
    """Channel to the artifact of its adapter, where it has one. What is smaller has none: they would not fit."""

    def side(self, name: str) -> list[SnapshotRow]:
        return [row for row in self.rows if row.side == name]


def start(
    ws: Workspace,
    version: str,
    *,
    task: str | None = None,
    max_drop: float | None = None,
    ways: Sequence[str] = (),
) -> Job:
    """Start to compress a version, or find the job that does so already.

    Args:
        max_drop: points of the main metric that may be lost; None: compress.max_drop.
        ways: candidates, such as `layers=0.5+vocabulary`; none: compress.ways.

    Raises:
        NotFound: no such version or way.
        BadConfig: no candidates, or a share that is none.
    """
    making.check_ready(ws)
    found = controls.find_version(ws, task, version)
    names = list(dict.fromkeys(candidate_name(parse(one)) for one in ways or ws.settings.compress.ways))
    if not names:
        raise BadConfig("there is nothing to try", value="compress.ways", next_step="Name a way: --ways layers")
    points = ws.settings.compress.max_drop if max_drop is None else max_drop
    if points < 0:
        raise BadInput(
            "the points that may be lost are 0 or more", value=points, next_step="Write such as --max-drop 0.5"
        )
    args = {"version_id": found.id, "task": found.task, "ways": names, "max_drop": points}
    return making.submitted(ws, "headrace.compression:compress_version", args)


def compress(
    ws: Workspace,
    version: str,
    *,
    task: str | None = None,
    max_drop: float | None = None,
    ways: Sequence[str] = (),
    report: Report = lambda *_args, **_facts: None,
) -> dict[str, Any]:
    """Make smaller versions of a version and register the fastest that loses little enough; waits for the job.

    The same version, rows and settings give the same result; a job that was killed goes on where it was.

    Args:
        max_drop, ways: as `start` takes them.

    Returns:
        As `compress_version`.
    """
    started = start(ws, version, task=task, max_drop=max_drop, ways=ways)
    for job in jobs.follow(ws, started.id):
        if job.progress:
            report(**job.progress)
    return jobs.result_of(job)


def compress_version(
    ws: Workspace, progress: jobs.Progress, *, version_id: str, task: str, ways: Sequence[str], max_drop: float
) -> dict[str, Any]:
    """The job: make and measure what is missing of the candidates, choose, and register the one chosen.

    Returns:
        `version`: the one to use, which is the uncompressed one where nothing smaller is within the budget;
        `compressed_from`, `chosen` (the ways, or None), `reason`, `main_metric`, `max_drop`, `candidates`, and
        `refused`: candidates that could not be made, with the reason.

    Raises:
        BadInput: none can be made.
    """
    with jobs.only_one(ws, f"compress-{version_id}", progress):
        whole = _whole(ws, task, version_id, progress.report)
        candidates, refused = _measured(ws, whole, [parse(way) for way in ways], max_drop, progress.report)
        best = candidates[budget.chosen(candidates)]
        version = whole.version
        if best["name"] != UNCOMPRESSED:
            version = making.made_version(ws, making.find_run(ws, best["run_id"]), progress.report)
        result = {
            "version": version.name,
            "version_id": version.id,
            "compressed_from": whole.version.name,
            "chosen": None if best["name"] == UNCOMPRESSED else best["name"],
            "reason": _reason(best, candidates, max_drop),
            "n_adapters_left_out": len(whole.adapters),
            "main_metric": whole.task_type.main_metric,
            "max_drop": max_drop,
            "candidates": candidates,
            "refused": refused,
        }
        if version.id != whole.version.id:
            _keep_comparison(ws, whole, version, result)
        return result


def _whole(ws: Workspace, task: str, version_id: str, report: Report) -> _Whole:
    version = controls.find_version(ws, task, version_id)
    run = making.find_run(ws, version.run_id)
    rows = snapshot.rows(ws, snapshot.find(ws, version.snapshot_id))
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, version.artifact)
        known = adapters.of_version(conn, version.id)
    assert artifact is not None
    kept = {one.channel: one.artifact for one in known if one.is_kept and one.artifact is not None}
    if not kept and (artifact.facts["backend"], artifact.facts["precision"]) != _format(ws):
        artifact = making.export_checkpoint(ws, run, version.checkpoint, rows, report)
    return _Whole(version, run, artifact, rows, making.task_type_of(making.task_of(run)), kept)


def _format(ws: Workspace) -> tuple[str, str]:
    return ws.settings.export.backend, ws.settings.export.precision


def _measured(
    ws: Workspace, whole: _Whole, ways: Sequence[tuple[Step, ...]], max_drop: float, report: Report
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All candidates with points, speed and size, the uncompressed version first; and why others cannot be made.

    Raises:
        BadInput: none can.
    """
    answers: dict[str, _Answers] = {}
    refused: dict[str, str] = {}
    found: list[dict[str, Any]] = [
        {"name": UNCOMPRESSED, "artifact": whole.artifact.digest, "run_id": whole.run.id, "is_candidate": True}
    ]
    if _has_exact(ws, whole):
        measured = _found_or_compared(ws, whole, whole.run, partial(_exact, ws, whole, report), answers)
        found.append({"name": EXACT, "is_candidate": False, "run_id": whole.run.id, **measured})
    for number, steps in enumerate(ways, start=1):
        watched = _within(report, f"{number}/{len(ways)} {candidate_name(steps)}")
        run = _run_of(ws, whole, steps)
        try:
            measured = _found_or_compared(ws, whole, run, partial(_made, ws, whole, run, watched), answers)
        except (BadInput, Unusable) as error:  # of a family that cannot be cut so, or diverged: others may do
            refused[candidate_name(steps)] = str(error)
            continue
        found.append({"name": candidate_name(steps), "is_candidate": True, "run_id": run.id, **measured})
    if len(refused) == len(ways):
        raise BadInput("no candidate can be made", value=refused, next_step="Name other ways: --ways layers")
    speeds = _speeds(ws, [one["artifact"] for one in found], [row.input for row in whole.rows], report)
    size = whole.artifact.n_bytes
    shown = [_described(ws, one, speed, max_drop, size) for one, speed in zip(found, speeds, strict=True)]
    return shown, refused


def _within(report: Report, candidate: str) -> Report:
    return lambda step, done, total, **facts: report(step, done, total, candidate=candidate, **facts)


def _has_exact(ws: Workspace, whole: _Whole) -> bool:
    """Whether the uncompressed version can be shown in fp32 too, so that one sees what int8 gains."""
    backend, precision = _format(ws)
    return precision != EXACT and not whole.adapters and EXACT in BACKENDS.get(backend).precisions


def _exact(ws: Workspace, whole: _Whole, report: Report) -> str:
    """Digest of the uncompressed version in fp32."""
    made = making.export_checkpoint(ws, whole.run, whole.version.checkpoint, whole.rows, report, precision=EXACT)
    return made.digest


def _run_of(ws: Workspace, whole: _Whole, steps: tuple[Step, ...]) -> Run:
    """The run that a version, the ways and the settings decide, found or made."""
    settings, version, name = ws.settings.compress, whole.version, candidate_name(steps)
    own = FinetuneTable.model_validate(whole.run.params["finetune"])
    finetune = warm_start.from_base(own).model_copy(
        update={
            "method": "distil",
            "teacher": version.name,
            "epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "augment": AugmentTable(),  # the version's answers to its rows are what is learnt
            "robust": RobustTable(),
        }
    )
    material = {"teacher": version.checkpoint}
    if any(step.way == "vocabulary" for step in steps):
        material["unlabelled"] = making.hash_of(making.unlabelled_texts(ws, until=ws.clock()))
    params = {
        **{"task": whole.run.params["task"], "finetune": finetune.model_dump(mode="json", exclude={"tracker"})},
        **{"material": material, "compress": {"version": version.name, "ways": name}},
    }
    deciding = [version.task, version.snapshot_id, whole.run.base_digest, params]
    return making.run_with(
        ws,
        Run(
            id=new_id("run"),
            task=version.task,
            snapshot_id=version.snapshot_id,
            base_model=whole.run.base_model,
            base_digest=whole.run.base_digest,
            method=METHOD,
            params=params,
            fingerprint=making.hash_of(deciding),
            seed=finetune.seed,
            state="running",
            job_id=None,
            checkpoint=None,
            history=[],
            facts={},
            created_at=ws.clock(),
        ),
    )


def _found_or_compared(
    ws: Workspace, whole: _Whole, run: Run, export: Callable[[], str], answers: dict[str, _Answers]
) -> dict[str, Any]:
    """Artifact of a candidate and its comparison with the version, by side: as kept with the run, or measured."""
    place = [*_format(ws), whole.artifact.digest]
    kept: dict[str, Any] = run.facts.get(_KEPT, {})
    if kept.get("beside") == place:
        return {key: kept[key] for key in ("artifact", "sides")}
    artifact = export()
    measured = {"artifact": artifact, "sides": _compared(ws, whole, artifact, answers)}
    facts = {**making.find_run(ws, run.id).facts, _KEPT: {"beside": place, **measured}}
    with ws.store.write() as conn:
        runs.change(conn, run.id, facts=facts)
    return measured


def _made(ws: Workspace, whole: _Whole, run: Run, report: Report) -> str:
    """Digest of a candidate's artifact."""
    checkpoint = run.checkpoint or _cut_and_trained(ws, whole, run, report)
    return making.export_checkpoint(ws, run, checkpoint, whole.rows, report).digest


def _cut_and_trained(ws: Workspace, whole: _Whole, run: Run, report: Report) -> str:
    compress_run = resolve("headrace.finetune.compressing.candidates:compress", purpose="compressing")
    wanted = run.params["material"]
    checkpoint: str = compress_run(
        ws,
        run,
        whole.rows,
        report,
        teacher=ws.artifacts.get(wanted["teacher"]),
        steps=parse(run.params["compress"]["ways"]),
        unlabelled=making.unlabelled_texts(ws, until=run.created_at) if "unlabelled" in wanted else [],
    )
    return checkpoint


def _compared(ws: Workspace, whole: _Whole, artifact: str, answers: dict[str, _Answers]) -> dict[str, dict[str, Any]]:
    """By side: what is gained by the artifact over the uncompressed version.

    Args:
        answers: of the uncompressed version by side, which are added where they are missing.
    """
    predictor, facts = load_artifact(ws.artifacts.get(artifact))
    found = {}
    for name in _SIDES:
        rows = whole.side(name)
        inputs = [row.input for row in rows]
        if name not in answers:
            answers[name] = _answers_of(ws, whole, rows)
        found[name] = comparison.compare(
            whole.task_type,
            rows,
            answers[name].outputs,
            predictor.logits(inputs),
            calibration_a=answers[name].calibration,
            calibration_b=facts.calibration,
        )
    return found


def _answers_of(ws: Workspace, whole: _Whole, rows: Sequence[SnapshotRow]) -> _Answers:
    """What the uncompressed version says, each channel by its adapter where it has one."""
    predictor, facts = load_artifact(ws.artifacts.get(whole.artifact.digest))
    inputs = [row.input for row in rows]
    if not whole.adapters:
        return _Answers(predictor.logits(inputs), facts.calibration)
    bank: Any = predictor
    own = whole.adapters.items()
    keys = {channel: bank.adapter(bank.add_adapter(ws.artifacts.get(digest))) for channel, digest in own}
    return _Answers(bank.logits(inputs, [keys.get(row.channel) for row in rows]), facts.calibration)


def _speeds(
    ws: Workspace, artifacts: Sequence[str], inputs: Sequence[Input], report: Report
) -> list[tuple[float, float]]:
    """Rows per second of each artifact, and how many times as fast as the first it is, from rounds in turn with it."""
    shown = inputs[:: max(1, len(inputs) // _N_TIMED_ROWS)][:_N_TIMED_ROWS]
    first, _ = load_artifact(ws.artifacts.get(artifacts[0]))
    first.logits(shown)  # shapes that are new are compiled
    found = []
    for number, digest in enumerate(artifacts):
        report("speed", number, len(artifacts))
        other, _ = load_artifact(ws.artifacts.get(digest))
        other.logits(shown)
        fastest, own = making.fastest_in_turn(partial(first.logits, shown), partial(other.logits, shown))
        found.append((len(shown) / own, fastest / own))
    report("speed", len(artifacts), len(artifacts))
    return [(found[0][0], 1.0), *found[1:]]


def _described(
    ws: Workspace, measured: dict[str, Any], speed: tuple[float, float], max_drop: float, whole_bytes: int
) -> dict[str, Any]:
    """A candidate as the answer has it: speed and size of its artifact, points by side, and the verdict."""
    with ws.store.read() as conn:
        artifact = runs.find_artifact(conn, measured["artifact"])
    assert artifact is not None
    sides = measured.get("sides")
    verdicts = budget.judged(sides["validation"], max_drop=max_drop) if sides else {}
    return {
        "name": measured["name"],
        "run_id": measured["run_id"],
        "artifact": artifact.digest,
        "n_parameters": artifact.facts["n_parameters"],
        "n_bytes": artifact.n_bytes,
        "size_share": round(artifact.n_bytes / whole_bytes, 4),
        "rows_per_s": round(speed[0], 1),
        "speed_times": round(speed[1], 3),
        "points": {name: budget.points(compared) for name, compared in sides.items()} if sides else {},
        "verdicts": verdicts,
        "within": measured["is_candidate"] and all(one["within"] for one in verdicts.values()),
    }


def _reason(best: dict[str, Any], candidates: Sequence[dict[str, Any]], max_drop: float) -> str:
    n_tried = sum(one["name"] not in (UNCOMPRESSED, EXACT) for one in candidates)
    if best["name"] == UNCOMPRESSED:
        n_within = sum(one["within"] for one in candidates) - 1
        why = "none is faster or smaller" if n_within else "every one loses more, overall or in a channel"
        return f"of {n_tried} candidates within a budget of {max_drop:g} points none is taken: {why}"
    test = best["points"]["test"]["overall"]
    told = f"{best['name']}: {best['speed_times']:.2f} times as fast, {best['size_share']:.0%} of the size"
    if test["points"] is None:
        return f"{told}; the test side cannot tell what it loses"
    ends = f"{test['low']:+.2f} to {test['high']:+.2f}"
    beyond = ", which is more than the budget" if test["points"] < -max_drop else ""
    return f"{told}; {test['points']:+.2f} points ({ends}) on {test['n']} test rows{beyond}"


def _keep_comparison(ws: Workspace, whole: _Whole, version: ModelVersion, result: dict[str, Any]) -> None:
    """Beside the new version's own evaluation: the uncompressed one's on the same rows, and the candidates."""
    with ws.store.read() as conn:
        known = versions.evaluations(conn, version.task, version_id=version.id)
    if any(one.predictor == UNCOMPRESSED and one.results["compression"] == result for one in known):
        return
    rows = whole.side("test")
    own = _answers_of(ws, whole, rows)
    results = evaluating.evaluate(whole.task_type, rows, own.outputs, calibration=own.calibration)
    results |= {"compression": result, UNCOMPRESSED: whole.version.name}
    making.keep(ws, [making.evaluation_of(ws, version.task, version.id, UNCOMPRESSED, version.snapshot_id, results)])
