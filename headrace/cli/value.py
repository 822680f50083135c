"""The verb for value: what each channel's rows and feedback add."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, opened, progress_bar, table

_REPROACHES = {
    "harms": "test rows are answered better without it",
    "contradicts": "its labels are what the others would say less often than by chance",
}


def register(app: typer.Typer) -> None:
    app.command("value")(value)


def value(
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also leave each out in real fine-tunes; goes on where it was killed.")
    ] = False,
    start: Annotated[
        str, typer.Option(help="Of those fine-tunes: version (the one in charge; short) or base (as long as training).")
    ] = "version",
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say what each channel's examples and feedback add, for itself and for the others, and what more would bring."""
    from headrace import valuing

    with opened(where, settings) as ws, progress_bar("value", quiet=as_json) as bar:
        found = valuing.value(ws, task=task, retrain=retrain, start=start, report=bar)
    emit(found, as_json, lambda: _show(found))


def _show(found: dict[str, Any]) -> None:
    if found["inconclusive"]:
        print(f"Values from vectors are not to be had: {found['inconclusive']}.")
        if found["retrained"] is None:
            print("Fine-tunes can tell: headrace value --retrain")
    else:
        _show_sources(found)
        _show_curves(found["curves"])
    if found["retrained"] is not None:
        _show_retrained(found["retrained"])


def _show_sources(found: dict[str, Any]) -> None:
    rows = [
        (
            one["rank"],
            one["source"],
            one["n_rows"],
            one["n_counted"],
            _points(one["for"].get("itself")),
            _points(one["for"].get("others")),
            _figure(one["agreement"]),
            _figure(one["neighbours"]),
            _verdict(one),
        )
        for one in found["sources"]
    ]
    title = f"Points that each source adds on {found['n_test_rows']:,} test rows, by frozen vectors (95 %)"
    head = ("", "source", "rows", "counted", "for itself", "for others", "agree", "near", "verdict")
    table(head, rows, title=title)
    for one in found["sources"]:
        if one["verdict"] in _REPROACHES:
            print(f"{one['source']} {one['verdict']}: {_REPROACHES[one['verdict']]}. Look at its labels.")


def _show_curves(curves: list[dict[str, Any]]) -> None:
    rows: list[tuple[object, ...]] = []
    for one in curves:
        name = one["channel"] or "(all)"
        if "reason" in one:
            rows.append((name, one["n_rows"], "-", "-", "-", one["reason"]))
            continue
        shares = [_share(part["error"]) for part in one["forecast"]]
        rows.append((name, one["n_rows"], *shares, _ends(one["gain_points"])))
    head = ("channel", "rows", "wrong now", "with twice the rows", "with four times", "points by 100 more labels")
    table(head, rows, title="What more labels would bring: wrong answers, by learning curves on frozen vectors (90 %)")


def _show_retrained(found: dict[str, Any]) -> None:
    rows = [
        (
            one["source"],
            one["n_rows"],
            _points(one.get("for", {}).get("itself")),
            _points(one.get("for", {}).get("others")),
            one.get("reason") or _verdict(one),
        )
        for one in found["sources"]
    ]
    start = "the version in charge" if found["start"] == "version" else "the base model"
    title = f"Points of {found['main_metric']} that each source adds, by fine-tunes from {start} (95 %)"
    table(("source", "rows", "for itself", "for others", "verdict"), rows, title=title)


def _verdict(one: dict[str, Any]) -> str:
    if one["verdict"] == "not known":
        return "not known"
    return f"{one['verdict']} {one['whom']}"


def _points(part: dict[str, Any] | None) -> str:
    return "-" if part is None else _ends(part["points"])


def _ends(points: dict[str, Any]) -> str:
    if points["estimate"] is None:
        return "not known"
    return f"{points['estimate']:+.1f} [{points['low']:+.1f}, {points['high']:+.1f}]"


def _share(error: dict[str, Any]) -> str:
    return f"{100 * error['estimate']:.1f} % [{100 * error['low']:.1f}, {100 * error['high']:.1f}]"


def _figure(found: dict[str, Any]) -> str:
    return "-" if found["estimate"] is None else f"{found['estimate']:.3f}"
