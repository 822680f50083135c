"""What does each method of fine-tuning give, and what does it cost?

Every method of the registry that can do a corpus' problem, and plain baselines, on the same rows: the quality on the
published test side, seconds, peak memory, trained parameters, size of what is saved. Each (corpus, method, seed) runs
in its own process, so that the peak of memory is its own, and leaves one line in --parts when it is done: a bench that
was stopped goes on where it was. The first seed of everything comes first, and the cheap before the dear. Epochs and
rows are the same for all methods of a corpus (EPOCHS and MAX_* of bench/corpora.py), learning rates are the methods'
own defaults. Each job computes on one thread and as many run at once as there are cores (--at-once), which does half as
much again as one job at a time on all of them; its time is in seconds of the processor, so that what else runs here
hardly shows. They are those of the whole fine-tuning: loading, first stages, measuring the validation side after every
epoch. distil learns from the full model of the same seed, whose seconds are not counted; continue-pretraining
reads the training texts.

Run: python -m bench.methods [--data DIR] [--corpora ...] [--methods ...] [--seeds 1 2 3] [--minutes M]
Then: python -m bench.methods --report
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import advice, baselines, corpora, processes
from bench.corpora import Corpus
from bench.reporting import RESULTS, Measured, commit, write
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import HeadraceError
from headrace.finetune.methods import METHODS
from headrace.tasks import TASK_TYPES, TaskType

# Kept beside the results, since all of them take most of a day: a bench goes on from what others measured.
PARTS = RESULTS / "parts" / "methods.jsonl"
SEPARATOR = " · "  # scripts/bench_table.py makes a table of each corpus from it
KEYS = ("corpus", "method", "seed", "fingerprint")
# The size of an artifact hangs on the method and hardly on the corpus, and int8 takes half a minute to make.
INT8_CORPORA = ("vader", "wnut17")
N_THREADS = 1  # of a job
N_PROMPT_TOKENS = 16  # a quarter of the 64 tokens of the corpora of intents, the most that a prompt may take
N_CALIBRATION = 300  # as export.n_calibration
# For the order and the first estimate only: rows a second of `full` on two cores, and what others cost beside it.
_ROWS_PER_S = {"clinc150": 400, "clinc150-10": 400, "banking77": 300, "banking77-10": 300, "wnut17": 130, "btc": 130}
_COST = {"zero-shot": 0.02, "head": 0.2, "freeze": 0.5, "contrastive": 3.0, "continue-pretraining": 2.5, "distil": 1.2}
_OVERHEAD_S = 40  # imports, loading, measuring the test side
_FIGURES = (
    ("accuracy", "accuracy", ""),
    ("macro_f1", "macro-F1", ""),
    ("f1", "entity F1", ""),
    ("cpu_seconds", "CPU seconds", "s"),
    ("seconds", "seconds", "s"),  # of an accelerator
    ("peak_bytes", "peak memory", "bytes"),
    ("device_peak_bytes", "peak memory of the accelerator", "bytes"),
    ("n_trained_parameters", "trained parameters", ""),
    ("checkpoint_bytes", "checkpoint", "bytes"),
    ("int8_bytes", "OpenVINO int8", "bytes"),
)
_OTHERS = {True: "seconds", False: "cpu_seconds"}  # what says little of a processor, of an accelerator


@dataclass(frozen=True)
class Job:
    """One measurement; all that decides its result besides the code."""

    corpus: str
    method: str
    """A method of the registry, or a baseline's name."""
    seed: int
    max_rows: int | None = None
    rate_factor: float = 1.0
    """Times the method's own learning rate."""

    @property
    def settings(self) -> FinetuneTable | None:
        if self.method not in METHODS.names():
            return None
        epochs = corpora.EPOCHS[self.corpus]
        room = {"adapter": {"n_virtual_tokens": N_PROMPT_TOKENS}} if self.method == "prompt" else {}
        given = {"epochs": epochs, "evals_per_epoch": 1, "patience": epochs, "min_steps": 0, "seed": self.seed, **room}
        return FinetuneTable.model_validate({"method": self.method, **given})

    @property
    def fingerprint(self) -> str:
        # without defaults, so that a setting that comes later makes nothing stale
        settings = None if self.settings is None else self.settings.model_dump(mode="json", exclude_defaults=True)
        caps = [str(corpora.MAX_ROWS), corpora.MAX_VALIDATION, corpora.MAX_TEST, str(corpora.N_SHOTS)]
        facts = [settings, caps, self.max_rows, self.rate_factor, N_THREADS]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.corpus, self.method, self.seed, self.fingerprint)

    def teacher(self, work: Path) -> Path:
        """Where the full model that distil learns from is kept."""
        return work / "teachers" / f"{self.corpus}-{self.seed}-{self.max_rows}"


def methods_for(task_type: TaskType) -> list[str]:
    """The methods of the registry that can do the task; what cannot be imported is said and left out."""
    able = []
    for name in METHODS.names():
        try:
            if task_type.problem in METHODS.get(name).problems:
                able.append(name)
        except (ImportError, HeadraceError) as error:
            print(f"{name} is left out: {error}")
    return able


def measure(given: Mapping[str, Any]) -> dict[str, Any]:
    """One job in its own process, as a line of parts."""
    processes.quiet()
    job = Job(given["corpus"], given["method"], given["seed"], given["max_rows"], given["rate_factor"])
    corpus = corpora.load(job.corpus, Path(given["data"]), seed=job.seed, max_rows=job.max_rows)
    task_type: TaskType = TASK_TYPES.get(corpus.task.type)(corpus.task)
    if job.settings is None:
        started = time.process_time()
        outputs, n_trained = baselines.answers(job.method, corpus, task_type, seed=job.seed)
        cost = {"cpu_seconds": time.process_time() - started, "n_trained_parameters": n_trained, "device": "cpu"}
        found = {**cost, "peak_bytes": processes.peak_bytes()}
    else:
        outputs, found = _tuned(job, corpus, Path(given["work"]), wants_int8=given["wants_int8"])
    figures = task_type.metrics([row.target for row in corpus.side("test")], outputs)
    quality = {name: figures[name] for name in ("accuracy", "macro_f1", "f1") if name in figures}
    sizes = {**corpora.facts(corpus, task_type), "n_test": len(corpus.side("test"))}
    return {**_named(job), **quality, **found, **sizes, "commit": commit()}


def _named(job: Job) -> dict[str, Any]:
    return dict(zip(KEYS, job.key, strict=True))


def _tuned(job: Job, corpus: Corpus, work: Path, *, wants_int8: bool) -> tuple[Any, dict[str, Any]]:
    """Outputs of the fine-tuned checkpoint on the test side, and what it cost."""
    from headrace.checkpoints.saving import save
    from headrace.export.checkpoint import load as load_checkpoint
    from headrace.finetune import base_models
    from headrace.finetune.running import tune

    settings = job.settings
    assert settings is not None
    rate = METHODS.get(job.method).rate_for(TASK_TYPES.get(corpus.task.type).problem) * job.rate_factor
    if job.rate_factor != 1:
        settings = settings.model_copy(update={"learning_rate": rate})
    texts = [row.text for row in corpus.side("train")]
    base = base_models.find(corpus.task.base_model).folder
    with tempfile.TemporaryDirectory() as scratch:
        run_folder, checkpoint = Path(scratch) / "run", Path(scratch) / "checkpoint"
        run_folder.mkdir()
        checkpoint.mkdir()
        started = time.process_time()
        tuned = tune(
            run_folder, base, corpus.task, settings, corpus.rows, lambda *_a, **_f: None,
            unlabelled=texts, teacher=job.teacher(work) if job.method == "distil" else None,
            cache=Path(scratch) / "cache",
        )  # fmt: skip
        found = {
            "cpu_seconds": time.process_time() - started,
            "peak_bytes": processes.peak_bytes(),
            "device_peak_bytes": processes.device_peak_bytes() or None,
            "device": processes.device(),
            "learning_rate": rate,
            "n_trained_parameters": tuned.facts.get("n_trained_parameters", 0),
        }
        save(tuned.network, tuned.tokenizer, checkpoint)
        found["checkpoint_bytes"] = _n_bytes(checkpoint)
        outputs = load_checkpoint(checkpoint, corpus.task).logits([row.input for row in corpus.side("test")])
        if job.method == "full" and job.rate_factor == 1:
            shutil.copytree(checkpoint, job.teacher(work), dirs_exist_ok=True)
        if wants_int8:
            found["int8_bytes"] = _int8_bytes(checkpoint, corpus.task, texts)
    return outputs, found


def _int8_bytes(checkpoint: Path, task: TaskTable, texts: Sequence[str]) -> int | None:
    """Size of the artifact that is served; None where the method's checkpoint has no such form."""
    from headrace.export.backends import BACKENDS

    with tempfile.TemporaryDirectory() as folder:
        try:
            calibration = texts[:N_CALIBRATION]
            BACKENDS.get("openvino").write(
                checkpoint, Path(folder), task=task, precision="int8", calibration=calibration
            )
        except HeadraceError as error:
            print(f"no int8: {error}")
            return None
        return _n_bytes(Path(folder))


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def plan(names: Sequence[str], methods: Sequence[str] | None, given: argparse.Namespace) -> list[Job]:
    """All jobs, seeds outermost, cheap ones first."""
    jobs = []
    for name in names:
        corpus = corpora.load(name, given.data, max_rows=given.max_rows)
        problem: TaskType = TASK_TYPES.get(corpus.task.type)(corpus.task)
        able = [*baselines.names_for(problem.problem), *methods_for(problem)]
        chosen = [method for method in able if methods is None or method in methods]
        jobs += [Job(name, method, seed, given.max_rows) for method in chosen for seed in given.seeds]
    return sorted(jobs, key=lambda job: (job.seed, _guess_s(job)))


def _guess_s(job: Job) -> float:
    n_rows = {"vader": 4096, "clinc150": 15000, "clinc150-10": 1500, "banking77": 9000, "banking77-10": 770}
    n = min(n_rows.get(job.corpus, 5300 if job.corpus == "btc" else 3394), job.max_rows or 10**9)
    if job.settings is None:
        return 1.0 + n * 0.01
    return _OVERHEAD_S + n * job.settings.epochs / _ROWS_PER_S.get(job.corpus, 200) * _COST.get(job.method, 1.0)


def work_off(jobs: Sequence[Job], parts: processes.Parts, given: argparse.Namespace) -> None:
    """Measure what is not measured yet, until the time is over."""
    done = parts.read()
    limit = processes.Limit(given.minutes)
    waiting = [job for job in jobs if "error" in done.get(job.key, {"error": ""})]
    spent = {(part["corpus"], part["method"]): part["job_s"] for part in done.values() if "job_s" in part}
    left_s = sum(spent.get((job.corpus, job.method), _guess_s(job)) for job in waiting) / given.at_once
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} are there; the others take about {left_s / 60:.0f} minutes")
    left = 0

    def start(job: Job) -> None:
        nonlocal left
        if limit.is_over():
            left += 1
        else:
            _one(job, parts, given)

    for seed in sorted({job.seed for job in waiting}):
        mine = [job for job in waiting if job.seed == seed]
        for is_pupil in (False, True):  # distil learns from what the others made
            with ThreadPoolExecutor(given.at_once) as pool:
                list(pool.map(start, [job for job in mine if (job.method == "distil") == is_pupil]))
    if left:
        print(f"time is over, {left} are left: start again to go on")


def _one(job: Job, parts: processes.Parts, given: argparse.Namespace) -> None:
    work = processes.WORK
    if job.method == "distil" and not job.teacher(work).exists():
        _one(Job(job.corpus, "full", job.seed, job.max_rows), parts, given)
    wants_int8 = given.wants_int8 and job.corpus in INT8_CORPORA and job.seed == min(given.seeds)
    asked = {
        **_named(job), "max_rows": job.max_rows, "rate_factor": job.rate_factor, "data": str(given.data.absolute()),
        "work": str(work.absolute()), "wants_int8": wants_int8,
    }  # fmt: skip
    started = time.perf_counter()
    found = processes.run("bench.methods", asked, n_threads=N_THREADS)
    part = {**_named(job), **found, "job_s": round(time.perf_counter() - started, 1)}
    parts.add(part)
    main = part.get("macro_f1") if "accuracy" in part else part.get("f1")
    shown = (
        part.get("error") or f"{main or 0:.3f} in {part['cpu_seconds']:.0f} CPU s, {part['peak_bytes'] / 1e6:.0f} MB"
    )
    times = "" if job.rate_factor == 1 else f", {job.rate_factor:.3g} x its rate"
    print(f"{job.corpus}, {job.method}, seed {job.seed}{times}: {shown}", flush=True)


def folded(parts: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """Median, least and most over the seeds of each corpus, method and device; published figures beside."""
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for part in parts:
        cells[part["corpus"], part["method"], part["device"]].append(part)
    order = {name: i for i, name in enumerate(corpora.CORPORA)}
    measured = []
    for corpus in sorted({key[0] for key in cells}, key=lambda name: order.get(name, -1)):
        for figure in baselines.PUBLISHED:
            if figure.corpus == corpus:
                what = SEPARATOR.join((corpus, figure.model, figure.figure))
                measured.append(Measured(what, figure.value, "", vs=figure.source))
        for name, method, device in sorted(cells):
            if name == corpus:
                subject = method if device == "cpu" else f"{method}, {device}"
                measured += _figures(f"{corpus}{SEPARATOR}{subject}", cells[name, method, device])
    return measured


def _figures(what: str, parts: Sequence[Mapping[str, Any]]) -> Iterator[Measured]:
    for key, figure, unit in _FIGURES:
        values = [part[key] for part in parts if part.get(key) is not None and key != _OTHERS[part["device"] == "cpu"]]
        if values:
            ends = {"low": min(values), "high": max(values)} if len(values) > 1 else {}
            yield Measured(f"{what}{SEPARATOR}{figure}", statistics.median(values), unit, **ends)


def report(jobs: Sequence[Job], parts: processes.Parts) -> None:
    """Write bench/results/methods.json from the parts of these jobs; say what is missing and what is below plain."""
    done = parts.read()
    there = [done[job.key] for job in jobs if "error" not in done.get(job.key, {"error": ""})]
    for job in jobs:
        if "error" in (part := done.get(job.key, {"error": "not measured yet"})):
            print(f"without {job.corpus}, {job.method}, seed {job.seed}: {part['error']}")
    if len(commits := {part["commit"] for part in there}) > 1:
        print(f"measured at {len(commits)} commits: {', '.join(sorted(commits))}")
    _say_what_is_below(there)
    advice.write(there)
    write("methods", folded(there), sorted({part["seed"] for part in there}))


def _say_what_is_below(parts: Sequence[Mapping[str, Any]]) -> None:
    """Each method that does worse than the plain baseline of its corpus asks for a line in docs/log.md."""
    main: dict[tuple[str, str], list[float]] = defaultdict(list)
    for part in parts:
        main[part["corpus"], part["method"]].append(part["macro_f1" if "accuracy" in part else "f1"] or 0.0)
    for (corpus, method), values in sorted(main.items()):
        for plain in (baselines.TF_IDF, baselines.WORD_SHAPE):
            if statistics.median(values) < statistics.median(main.get((corpus, plain), [0.0])):
                print(f"{corpus}: {method} is below {plain}")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    corpora.add_data_option(parser)
    parser.add_argument("--corpora", nargs="+", choices=corpora.CORPORA, help="default: all that are there")
    parser.add_argument("--methods", nargs="+", help="methods and baselines; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, help="start nothing after so many minutes")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="jobs (default: one a core)")
    parser.add_argument("--max-rows", type=int, help="rows of each side, to try things out")
    parser.add_argument("--parts", type=Path, default=PARTS, help="file of what was measured")
    parser.add_argument("--report", action="store_true", help="write bench/results/methods.json from the parts")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.set_defaults(wants_int8=True)
    return parser


def chosen_corpora(names: Sequence[str] | None, data: Path) -> list[str]:
    """The corpora asked for, or all that are there; says which are not."""
    found = [name for name in names or corpora.CORPORA if names or corpora.is_there(name, data)]
    if missing := [name for name in corpora.CORPORA if names is None and name not in found]:
        print(f"left out, since the folder of --data has no such data: {', '.join(missing)}")
    return found


def main() -> None:
    given = options().parse_args()
    if given.job:
        job = json.loads(given.job)
        processes.give(job, measure(job))
        return
    parts = processes.Parts(given.parts, KEYS)
    try:
        jobs = plan(chosen_corpora(given.corpora, given.data), given.methods, given)
    except corpora.NoData as error:
        raise SystemExit(str(error)) from None
    if not given.report:
        work_off(jobs, parts, given)
    elif any("error" not in part for part in parts.read().values()):
        report(jobs, parts)
    else:
        raise SystemExit(f"{given.parts} has nothing to report; run without --report first")


if __name__ == "__main__":
    main()
