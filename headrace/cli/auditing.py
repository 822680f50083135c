"""Verbs of the audit log: audit list, audit verify."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Where, emit, opened, table

_audit = typer.Typer(help="The audit log: who changed who answers, what is trusted, what is kept, and who may ask.")


def register(app: typer.Typer) -> None:
    app.add_typer(_audit, name="audit")


@_audit.command("list")
def audit_list(
    action: Annotated[str | None, typer.Option(help="Only this one, such as key.revoke.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only of this one: id of a key, or user:NAME.")] = None,
    since: Annotated[int, typer.Option(help="Only lines after this number.")] = 0,
    n: Annotated[int, typer.Option("-n", min=1, help="The last so many lines.")] = 50,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print who did what, in the order in which it was done."""
    from headrace import auditing

    with opened(where) as ws:
        lines = auditing.listing(ws, action=action, actor=actor, since=since, limit=n)
    rows = [(one.seq, one.at, one.actor, one.action, one.object, _in_words(one.facts)) for one in lines]
    emit(lines, as_json, lambda: table(("", "at", "by", "what", "of", "facts"), rows))


@_audit.command("verify")
def audit_verify(
    anchor: Annotated[
        list[str] | None,
        typer.Option(help="NUMBER:HASH of a line, noted somewhere else; again for more. Each backup has one."),
    ] = None,
    backup: Annotated[
        list[Path] | None, typer.Option(help="Folder of a backup, whose anchor is compared; again for more.")
    ] = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Check that no line was changed, deleted or moved. Exit status 1 if one was."""
    from headrace import auditing, backups

    with opened(where) as ws:
        noted = [backups.anchor_of(folder, key_file=ws.settings.store.key_file) for folder in backup or ()]
        found = auditing.verify(ws, [*(anchor or ()), *filter(None, noted)])
    emit(found, as_json, lambda: _show_soundness(found))
    raise typer.Exit(0 if found["first_broken"] is None else 1)


def _show_soundness(found: dict[str, Any]) -> None:
    if found["first_broken"] is None:
        print(f"{found['n_lines']} lines, as they were written. Anchor: {found['anchor'] or 'none'}")
    else:
        print(f"Line {found['first_broken']} is not as it was written: {found['problem']}.")


def _in_words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, [], {}))
