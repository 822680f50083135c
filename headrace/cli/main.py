"""`headrace`: the table of verbs, and the one border where errors become messages and exit codes."""

import json
import sys
from typing import Annotated, NoReturn

import typer

from headrace.cli import (
    advising,
    auditing,
    compressing,
    data,
    feedback,
    keys,
    lineage,
    loop,
    models,
    monitoring,
    operating,
    predictions,
    releasing,
    reviewing,
    safekeeping,
    signing,
    trusting,
    usage,
    value,
)
from headrace.errors import BadInput, HeadraceError, Unusable, UserError
from headrace.version import VERSION

app = typer.Typer(
    name="headrace",
    help="Own your task models: channels in, a served model out that keeps improving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"headrace {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


for group in (
    data,
    models,
    compressing,
    operating,
    monitoring,
    lineage,
    auditing,
    feedback,
    loop,
    releasing,
    predictions,
    advising,
    value,
    reviewing,
    safekeeping,
    trusting,
    keys,
    signing,
    usage,
):
    group.register(app)


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 something the user can mend."""
    try:
        sys.exit(app(standalone_mode=False))
    except HeadraceError as error:
        _fail(error)
    except typer.TyperException as error:  # a word of the command line that no verb knows
        if "--json" not in sys.argv:
            error.show()  # type: ignore[attr-defined]  # usage, or the help of a group of verbs
            sys.exit(error.exit_code)
        step = "Run the command with --help"
        _fail(BadInput(error.format_message().rstrip("."), value=" ".join(sys.argv[1:]), next_step=step))
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:  # a full disk, a path that is too long: whatever no stage could foresee
        problem, step = f"the system refused: {error.strerror or error}", "Check the path, its rights and the disk"
        _fail(Unusable(problem, value=error.filename, next_step=step))


def _fail(error: HeadraceError) -> NoReturn:
    """Say what went wrong, in the form that was asked for, and end."""
    if "--json" in sys.argv:
        print(json.dumps(error.envelope(), ensure_ascii=False))
    else:
        print(f"Error: {error}", file=sys.stderr)
    sys.exit(2 if isinstance(error, UserError) else 1)
