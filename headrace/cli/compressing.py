"""The verb that makes a version smaller, and its table."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, opened, table, watch

MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Points of the main metric it may lose, overall and in every channel; default: compress.max_drop."
    ),
]
Ways = Annotated[
    list[str] | None,
    typer.Option(help="A candidate, such as layers=0.5+vocabulary; may come again; default: compress.ways."),
]


def register(app: typer.Typer) -> None:
    app.command("compress")(compress)


def compress(
    version: Annotated[str, typer.Argument(help="Version: a number, or TASK/NUMBER.")],
    max_drop: MaxDrop = None,
    ways: Ways = None,
    follow: Annotated[bool, typer.Option("--follow/--detach", help="Watch it, or return at once.")] = True,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Make smaller versions of a version, measure them, and register the fastest that loses little enough."""
    from headrace import compression

    with opened(where, settings) as ws:
        job = compression.start(ws, version, task=task, max_drop=max_drop, ways=ways or ())
        if not follow:
            emit(job, as_json, lambda: print(f"Started {job.id}. Watch it: headrace job follow {job.id}"))
            return
        result = watch(ws, job, quiet=as_json, title="compress")
    emit(result, as_json, lambda: show_compression(result))


def show_compression(result: dict[str, Any]) -> None:
    """What each candidate loses and gains, and which is taken."""
    rows = [
        (
            one["name"],
            _points(one["points"].get("validation")),
            _worst(one["verdicts"]),
            _points(one["points"].get("test")),
            f"{one['rows_per_s']:.0f} ({one['speed_times']:.2f} x)",
            f"{one['n_bytes'] / 1e6:.1f} ({one['size_share']:.0%})",
            _verdict(one, result["chosen"]),
        )
        for one in result["candidates"]
    ]
    head = ("candidate", "validation", "worst channel", "test", "rows/s", "MB", "")
    table(head, rows, title=f"Points of {result['main_metric']} over {result['compressed_from']}, with 95 % intervals")
    if any("*" in row[2] for row in rows):
        print("* few rows: judged together with the other channels")
    print(result["reason"][0].upper() + result["reason"][1:] + ".")
    for name, why in result["refused"].items():
        print(f"Not made: {name}. {why}")
    if n_adapters := result["n_adapters_left_out"]:
        print(f"{result['compressed_from']} answers with {n_adapters} channel adapters, which no candidate has.")
    if result["chosen"] is None:
        print(f"{result['version']} stays as it is.")
    else:
        print(f"Registered {result['version']}. Try it: headrace release start {result['version']}")


def _points(sides: dict[str, Any] | None) -> str:
    if sides is None:
        return "-"
    figure = sides["overall"]
    if figure["points"] is None:
        return "not known"
    return f"{figure['points']:+.2f} [{figure['low']:+.1f}, {figure['high']:+.1f}]"


def _worst(verdicts: dict[str, Any]) -> str:
    """The channel that is judged to lose most; a star where it was judged with the others."""
    known = {name: one for name, one in verdicts.items() if name != "overall" and one["judged_points"] is not None}
    if not known:
        return "-"
    name = min(known, key=lambda channel: known[channel]["judged_points"])
    star = "" if known[name]["judged_by"] == "own" else " *"
    return f"{name} {known[name]['judged_points']:+.2f}{star}"


def _verdict(one: dict[str, Any], chosen: str | None) -> str:
    if one["name"] == chosen:
        return "chosen"
    if one["name"] in ("uncompressed", "fp32"):
        return "for comparison" if one["name"] == "fp32" else ""
    beyond = [name for name, verdict in one["verdicts"].items() if not verdict["within"]]
    if not beyond:
        return "within"
    return "beyond" if "overall" in beyond else f"beyond in {len(beyond)} channels"
