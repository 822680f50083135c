"""`headrace`: the table of verbs, and the one border where errors become messages and exit codes."""

import json
import sys
from typing import Annotated

import typer

from headrace.cli import data, models, operating
from headrace.errors import HeadraceError, UserError
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


for group in (data, models, operating):
    group.register(app)


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 something the user can mend."""
    try:
        app()
    except HeadraceError as error:
        if "--json" in sys.argv:
            print(json.dumps(error.envelope(), ensure_ascii=False))
        else:
            print(f"Error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away; nothing more can be said to it
        sys.exit(141)
