"""Verbs for what is made: train, evaluate, export, predict, job."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.compressing import MaxDrop, Ways, show_compression
from headrace.cli.rendering import (
    AsJson,
    Set,
    Task,
    Where,
    answer_in_words,
    emit,
    interval,
    opened,
    progress_bar,
    table,
    watch,
)
from headrace.errors import BadInput

if TYPE_CHECKING:
    from headrace.workspace import Workspace

_N_SHOWN = 40  # channels in a table
_job = typer.Typer(help="Look at background work, follow it, cancel it.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("export")(export)
    app.command("predict")(predict)
    app.add_typer(_job, name="job")


def train(
    method: Annotated[str | None, typer.Option(help="What trains, in place of finetune.method.")] = None,
    search: Annotated[int | None, typer.Option(help="Try this many settings within [search]; keep the best.")] = None,
    tracker: Annotated[str | None, typer.Option(help="Where curves go too, in place of finetune.tracker.")] = None,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="Give each channel an adapter, where held-out rows say it helps.")
    ] = False,
    channel: Annotated[
        str | None, typer.Option(help="With --per-channel: this one's only, on the version in charge.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--detach", help="Watch it, or return at once.")] = True,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune, export, evaluate and register a new model version, as a job that survives the terminal."""
    from headrace import loop

    chosen = {"finetune.method": method, "finetune.tracker": tracker}
    with opened(where, settings, **{key: value for key, value in chosen.items() if value is not None}) as ws:
        if "WORLD_SIZE" in os.environ:  # one of the processes of torchrun
            _train_together(ws, task, search, per_channel, as_json)
            return
        job = loop.start_training(ws, task=task, n_trials=search, per_channel=per_channel, channel=channel)
        if not follow:
            emit(job, as_json, lambda: print(f"Started {job.id}. Watch it: headrace job follow {job.id}"))
            return
        result = watch(ws, job, quiet=as_json)
        emit(result, as_json, lambda: show_version(result))


def _train_together(ws: "Workspace", task: str | None, search: int | None, per_channel: bool, as_json: bool) -> None:
    """One process's share of a training; the first of them shows it."""
    from headrace.distributed import is_first, train_together

    if per_channel:
        raise BadInput("adapters do not train under torchrun", value="--per-channel", next_step="Run it as one process")
    if search is not None:
        raise BadInput(
            "a search does not run under torchrun", value=f"--search {search}", next_step="Run it as one process"
        )
    with progress_bar("train", quiet=as_json or not is_first()) as bar:
        result = train_together(ws, task=task, report=bar)
    if result is not None:
        emit(result, as_json, lambda: show_version(result))


def show_version(result: dict[str, Any]) -> None:
    """One screen about a version: how it was found, and where it stands beside its baselines, per channel."""
    if "trials" in result:
        _show_trials(result["trials"], result["best_trial"])
    main = result["main_metric"]
    print(f"Version {result['version']} ({result['method']}, {result['n_train_rows']} rows, {result['seconds']:.0f} s)")
    names = list(result["evaluations"])
    channels = ["overall", *sorted(result["evaluations"][names[0]]["channels"])]
    rows = []
    for channel in channels:
        cells: list[object] = [channel]
        for name in names:
            results = result["evaluations"][name]
            part = results["overall"] if channel == "overall" else results["channels"].get(channel, {})
            cells.append(interval(part.get("intervals", {}).get(main)))
        rows.append(cells)
    table(("channel", *names), rows, title=f"{main} on held-out rows, with 95 % intervals")
    agreement, speed = result["agreement"], result["rows_per_s"]
    print(
        f"The exported model agrees with its checkpoint on {100 * agreement['share']:.1f} % of held-out rows "
        f"and answers {speed['exported']:.0f} rows/s (the checkpoint in torch: {speed['checkpoint']:.0f})."
    )
    if (advice := better_untrained(result)) is not None:
        print(advice)
    if result["adapters"]:
        _show_adapters(result["adapters"])


def better_untrained(result: dict[str, Any]) -> str | None:
    """What to try where a baseline, which needs no training, does better than the version; None where none does."""
    main, evaluations = result["main_metric"], result["evaluations"]
    intervals = {name: one["overall"].get("intervals", {}).get(main) or {} for name, one in evaluations.items()}
    own, *others = sorted(intervals, key=lambda name: name != "version")
    known = [name for name in others if intervals[name].get("estimate") is not None]
    best = max(known, key=lambda name: float(intervals[name]["estimate"]), default=None)
    if best is None or intervals[best]["estimate"] <= (intervals[own].get("estimate") or 0.0):
        return None
    untrained = "zero-shot" if "zero-shot" in others else "head"
    option = f"--method {untrained}" if result["method"] != untrained else "--search 10"
    return (
        f"Without fine-tuning, {best} does better on held-out rows than this version ({interval(intervals[best])}). "
        f"Try: headrace train --task {result['version'].rpartition('/')[0]} {option}"
    )


def _show_adapters(adapters: list[dict[str, Any]]) -> None:
    """Which channels answer by an adapter of their own, which by the shared model, and why."""
    rows = []
    for one in adapters:
        said = one["evidence"]
        test = said.get("test", {})
        gain = interval(test.get("difference")) if test else None
        rows.append((one["channel"], "yes" if one["is_kept"] else "no", gain, said["reason"]))
    kept = sum(one["is_kept"] for one in adapters)
    title = f"{kept} of {len(adapters)} channels answer by an adapter of their own"
    shown = rows if len(rows) <= _N_SHOWN else [row for row in rows if row[1] == "yes"][:_N_SHOWN]
    table(("channel", "kept", "gain on test rows", "on validation rows"), shown, title=title)
    if len(shown) < len(rows):
        print(f"{len(rows) - len(shown)} more channels: --json has all of them.")


def _show_trials(trials: list[dict[str, Any]], best: int) -> None:
    shown = ("value", "state", "method", "learning_rate", "epochs", "batch_tokens")
    rows = [
        (f"{trial['number'] + 1}{' *' * (trial['number'] == best)}", *(trial[k] for k in shown)) for trial in trials
    ]
    table(("trial", "validation", *shown[1:]), rows, title="Trials; * is the best on the validation side")
    for trial in trials:
        if trial.get("reason"):
            print(f"Trial {trial['number'] + 1} failed: {trial['reason']}")
    print("To keep the best, in `headrace improve` too, put under [finetune] in headrace.toml:")
    for name in ("method", "learning_rate", "epochs", "batch_tokens"):
        if (value := trials[best][name]) is not None:
            print(f"{name} = {json.dumps(value)}")


def evaluate(
    version: Annotated[str, typer.Argument(help="Version: a number, or TASK/NUMBER.")],
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Measure an exported version on the held-out rows of the newest snapshot, per class and per channel."""
    from headrace import loop

    with opened(where) as ws, progress_bar("evaluate", quiet=as_json) as bar:
        results = loop.evaluate_version(ws, version, task=task, report=bar)

    def show() -> None:
        parts = {"overall": results["overall"], **results["channels"]}
        names = list(results["overall"]["intervals"])
        rows = [(name, part["n"], *(interval(part["intervals"].get(n)) for n in names)) for name, part in parts.items()]
        whole = [n for n in names if "." not in n and ":" not in n]
        keep = [0, 1, *(2 + names.index(n) for n in whole)]
        table(("channel", "rows", *whole), [[row[i] for i in keep] for row in rows])
        _show_classes(results["overall"])

    emit(results, as_json, show)


def _show_classes(overall: dict[str, Any]) -> None:
    figures, classes = ("precision", "recall", "f1"), overall.get("per_class", {})
    rows = [
        (name, one["n"], *(interval(overall["intervals"][f"{figure}:{name}"]) for figure in figures))
        for name, one in classes.items()
    ]
    if rows:
        table(("class", "n", *figures), rows, title="All channels, by class")


def export(
    version: Annotated[str, typer.Argument(help="Version: a number, or TASK/NUMBER.")],
    destination: Annotated[Path, typer.Argument(help="Empty or new folder.")],
    backend: Annotated[str, typer.Option(help="Format; hf is what transformers and peft load.")] = "hf",
    precision: Annotated[
        str | None, typer.Option(help="Of the weights; default: fp32 for hf, else export.precision.")
    ] = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress it first, as the verb compress does, and write the one chosen.")
    ] = False,
    max_drop: MaxDrop = None,
    ways: Ways = None,
    adapter: Annotated[
        str | None, typer.Option(help="Write this channel's adapter alone, as peft loads it onto the shared model.")
    ] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Write a version to a folder in a format others load."""
    from headrace import loop

    if adapter is not None:
        if compress or backend != "hf" or precision is not None:
            raise BadInput("an adapter is written for peft, in fp32", value=adapter, next_step="Leave the others out")
        with opened(where, settings) as ws:
            result = loop.export_adapter(ws, version, adapter, destination, task=task)
        emit(result, as_json, lambda: _show_export(result))
        return
    if not compress and (ways or max_drop is not None):
        raise BadInput("--ways and --max-drop are for --compress", value=ways or max_drop, next_step="Add --compress")
    how: dict[str, Any] = {"backend": backend, "precision": precision, "task": task}
    with opened(where, settings) as ws, progress_bar("compress", quiet=as_json or not compress) as bar:
        if compress:
            how |= {"max_drop": max_drop, "ways": ways or (), "report": bar}
        write = loop.export_compressed if compress else loop.export_version
        result = write(ws, version, destination, **how)
    emit(result, as_json, lambda: _show_export(result))


def _show_export(result: dict[str, Any]) -> None:
    if "compression" in result:
        show_compression(result["compression"])
    print(f"Wrote {result['backend']} ({result['n_bytes'] / 1e6:.1f} MB) to {result['destination']}")


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or one file of rows; none: a text a line from standard input.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of answers to a file of rows; default: NAME.answers.SUFFIX beside it.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column with the text, of a file.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column with the second part of inputs with two, of a file.")] = None,
    channel: Annotated[str | None, typer.Option(help="Channel whose inputs they are: its adapter answers.")] = None,
    channel_column: Annotated[str | None, typer.Option(help="Column that names the channel of each row.")] = None,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Standard input has a JSON value a line: two parts, or turns.")
    ] = False,
    version: Annotated[str | None, typer.Option(help="Version; default: the one in charge.")] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Answer inputs here, without a server and without a log: texts, or a CSV, JSON lines or Parquet file of rows."""
    from headrace import loop

    if out is not None or (texts and len(texts) == 1 and _is_file(texts[0])):
        if json_lines or not texts or len(texts) != 1:
            raise BadInput("--out is for one file of rows", value=str(out), next_step="headrace predict FILE --out OUT")
        chosen = {"task": task, "version": version, "channel": channel, "channel_column": channel_column}
        chosen |= {"text_column": text, "pair_column": pair}
        with opened(where, settings) as ws:
            _predict_file(ws, texts[0], out, as_json, **chosen)
        return
    if channel_column or text or pair:
        raise BadInput("--channel-column, --text and --pair are for a file of rows", next_step="headrace predict FILE")
    given = _from_lines(texts) if json_lines else texts or [line.rstrip("\n") for line in sys.stdin]
    with opened(where, settings) as ws:
        answers = loop.predict(ws, given, version=version, task=task, channel=channel)
    rows = [(answer_in_words(a), a.get("confidence"), _shown(t)) for a, t in zip(answers, given, strict=True)]
    emit(answers, as_json, lambda: table(("answer", "confidence", "input"), rows))


def _is_file(text: str) -> bool:
    """Whether a text is the name of a file of rows."""
    from headrace.offline.naming import FORMATS

    return Path(text).suffix.lower() in FORMATS and Path(text).is_file()


def _predict_file(ws: "Workspace", source: str, out: Path | None, as_json: bool, **chosen: str | None) -> None:
    from headrace.offline import predict_file

    try:
        with progress_bar("predict", quiet=as_json) as bar:
            done = predict_file(ws, source, out, report=bar, **chosen)
    except KeyboardInterrupt:
        print("\nWhat is done is kept. The same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130) from None

    def show() -> None:
        print(f"{done.version}: {done.n_answered} rows answered in {done.output} ({done.seconds:.1f} s)")
        if done.n_bad:
            reasons = ", ".join(f"{n} {reason}" for reason, n in done.reasons.items())
            print(f"  Not answered: {reasons}. See them: {done.bad_rows}")

    emit(done, as_json, show)


def _from_lines(texts: list[str] | None) -> list[object]:
    """The JSON values of standard input, one a line."""
    if texts:
        raise BadInput("--json-lines reads standard input", value=texts[0], next_step="Leave the texts out")
    given = []
    for number, line in enumerate(sys.stdin, start=1):
        try:
            given += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise BadInput(
                f"line {number} is not JSON: {error}", value=line.strip(), next_step="Write one JSON value a line"
            ) from None
    return given


def _shown(given: object) -> str:
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


@_job.command("list")
def job_list(where: Where = Path("."), as_json: AsJson = False) -> None:
    """List background work, newest first."""
    from headrace import jobs

    with opened(where) as ws:
        found = jobs.listing(ws)
        rows = [(j.id, j.target.rpartition(":")[2], j.state, j.created_at, j.log_path) for j in found]
        emit(found, as_json, lambda: table(("job", "work", "state", "created", "log"), rows))


@_job.command("follow")
def job_follow(job_id: str, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Watch a job until it is over."""
    from headrace import jobs

    with opened(where) as ws:
        job = next(iter(jobs.follow(ws, job_id)))
        result = watch(ws, job, quiet=as_json)
        emit(result, as_json, lambda: print(f"{job_id} is done"))


@_job.command("cancel")
def job_cancel(job_id: str, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Stop a job; starting the same work again goes on from its last checkpoint."""
    from headrace import jobs

    with opened(where) as ws:
        job = jobs.cancel(ws, job_id)
        emit(job, as_json, lambda: print(f"{job_id} is {job.state}"))
