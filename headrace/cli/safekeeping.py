"""Verbs that keep a workspace safe: backup, restore, doctor."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.rendering import AsJson, Where, emit, instant, opened, plain

if TYPE_CHECKING:
    from headrace.backups import Followed, Restored
    from headrace.doctor import Examined
    from headrace.workspace import Workspace


def register(app: typer.Typer) -> None:
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("doctor")(doctor)


def backup(
    destination: Annotated[Path, typer.Argument(help="New folder; with --follow also one that followed before.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on copying every change within a second, until stopped.")
    ] = False,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Copy the workspace into a folder, while servers go on."""
    with opened(where) as ws:
        if follow:
            _follow(ws, destination, as_json)
            return
        from headrace.backups import backup as make

        made = make(ws, destination)

    def show() -> None:
        print(f"Backup {made.path}: {made.n_files} files, {made.n_bytes:,} bytes, {made.seconds:.1f} s")
        for digest in made.missing:
            print(f"  not in it, since the workspace does not have it: {digest}")

    emit(made, as_json, show)


def _follow(ws: "Workspace", destination: Path, as_json: bool) -> None:
    """Until SIGTERM or SIGINT."""
    import signal
    import threading

    from headrace.backups import follow as keep_up

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def tell(done: "Followed") -> None:
        if as_json:
            print(json.dumps(plain(done)), flush=True)
        else:
            print(f"Following into {done.path}: complete as of {done.at}", flush=True)

    tell(keep_up(ws, destination, stop=stop, report=tell))


def restore(
    source: Annotated[Path, typer.Argument(help="Folder of a backup.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the workspace.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the workspace that is there aside, and take its place.")
    ] = False,
    erasures: Annotated[
        Path | None, typer.Option(help="erasures.jsonl that is newer than the backup; its key in keys/ beside it.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="As it was at this instant, such as 2026-11-01T12:00Z; of a backup that follows.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a workspace of a backup, every byte checked, without what was erased since."""
    from headrace.backups import restore as bring_back

    made = bring_back(source, destination, replace=replace, erasures=erasures, at=instant("--at", at))
    emit(made, as_json, lambda: _show_restored(made))


def _show_restored(made: "Restored") -> None:
    print(f"Restored {made.path} as of {made.made_at}: {made.n_files} files, {made.seconds:.1f} s")
    if made.erased_again:
        print(f"  erased again: {', '.join(made.erased_again)}")
    if made.revoked_again:
        print(f"  keys revoked again: {', '.join(made.revoked_again)}")
    if made.ended_again:
        print(f"  keys that end again as they did: {', '.join(made.ended_again)}")
    if made.put_aside:
        print(f"  what was there before: {made.put_aside}")
    if made.was_another:
        print("  that is another workspace: its keys, receipts and erasures stay there, none of them is used here")
    for digest in made.missing:
        print(f"  an artifact that the backup does not have: {digest}")
    for setting in made.settings_to_change:
        is_place = setting.startswith(("store.url", "artifacts.url"))
        why = "take it out, or the restored files are not used" if is_place else "no backup holds it; put the file back"
        print(f"  headrace.toml still says {setting}: {why}")


def doctor(where: Where = Path("."), as_json: AsJson = False) -> None:
    """Look for what is wrong with the workspace, and say what to do. Changes nothing; status 1 where something is."""
    from headrace.doctor import examine

    found = examine(where)
    emit({**plain(found), "is_well": found.is_well}, as_json, lambda: _show_examined(found))
    raise typer.Exit(0 if found.is_well else 1)


def _show_examined(found: "Examined") -> None:
    for one in found.findings:
        about = "" if one.value is None else f": {one.value}"
        print(f"{one.severity.upper():7}  {one.part}: {one.problem}{about}")
        print(f"         {one.advice}")
    if not found.findings:
        print("Nothing is wrong.")
    print(f"Looked at: {', '.join(found.looked_at)}")
    if found.left_out:
        print(f"Could not look at: {', '.join(found.left_out)}")
