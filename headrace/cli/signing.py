"""Verbs of signatures: sign key, sign version, sign verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.rendering import AsJson, Where, emit, opened, plain, table

if TYPE_CHECKING:
    from headrace.signing import Checked

_sign = typer.Typer(help="Sign versions, and check whose they are.", no_args_is_help=True)
_Version = Annotated[str, typer.Argument(help="Number, id or TASK/NUMBER.")]
_Task = Annotated[str | None, typer.Option(help="Name of the task; default: the only one.")]


def register(app: typer.Typer) -> None:
    app.add_typer(_sign, name="sign")


@_sign.command("key")
def sign_key(where: Where = Path("."), as_json: AsJson = False) -> None:
    """Make a key pair to sign versions with."""
    from headrace import signing

    with opened(where) as ws:
        private, public = (str(path.relative_to(ws.root.absolute())) for path in signing.make_key(ws))
    found = {"private_key": private, "public_key": public}
    said = f'[sign]\nprivate_key = "{private}"\npolicy = "require"\n'
    emit(found, as_json, lambda: print(f"Where versions are made, headrace.toml needs:\n\n{said}\n{_ELSEWHERE}"))


_ELSEWHERE = "Where they only serve, public_keys with the public key in place of private_key."


@_sign.command("version")
def sign_version(version: _Version, task: _Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Sign a version that is there already, with its adapters."""
    from headrace import signing
    from headrace.release import controls

    with opened(where) as ws:
        found = signing.sign_again(ws, controls.find_version(ws, ws.task_name(task), version))
    _show(found, as_json)


@_sign.command("verify")
def sign_verify(version: _Version, task: _Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Check every byte of a version, and in whose name it is signed. Exit status 1 where it is not."""
    from headrace import signing
    from headrace.release import controls

    with opened(where) as ws:
        found = signing.verify(ws, controls.find_version(ws, ws.task_name(task), version))
    _show(found, as_json)
    raise typer.Exit(0 if all(one.is_signed for one in found) else 1)


def _show(found: "list[Checked]", as_json: bool) -> None:
    rows = [(one["channel"] or "", one["artifact"][:19], one["key"][:16] or "not signed") for one in map(plain, found)]
    emit(found, as_json, lambda: table(("channel", "artifact", "signed by key"), rows))
