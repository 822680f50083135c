"""Verbs for who may ask a server: key."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Where, emit, instant, opened, plain, table
from headrace.errors import BadInput

if TYPE_CHECKING:
    from headrace.access.keys import Made
    from headrace.records import ApiKey

_key = typer.Typer(help="Say who may ask a server, and for what.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(help="Id of the key: all before its secret.")]
_Expires = Annotated[str | None, typer.Option("--expires", help="Day or instant, such as 2027-01-01.")]


def register(app: typer.Typer) -> None:
    app.add_typer(_key, name="key")


@_key.command("create")
def key_create(
    name: Annotated[str, typer.Argument(help="Who uses it.")],
    scope: Annotated[list[str], typer.Option("--scope", help="What it allows; give several, one by one.")],
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="The only channels it may speak of; default: all.")
    ] = None,
    expires: _Expires = None,
    requests_per_s: Annotated[float | None, typer.Option(help="Requests in a second, over time.")] = None,
    rows_per_day: Annotated[int | None, typer.Option(help="Rows in a day (UTC).")] = None,
    test: Annotated[bool, typer.Option("--test", help="Its requests take no part in releases and audits.")] = False,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once. From the first one on, a server answers nobody without one."""
    from headrace.access import keys

    with opened(where) as ws:
        made = keys.create(
            ws,
            name,
            scopes=scope,
            channels=channel or None,
            expires_at=instant("--expires", expires),
            requests_per_s=requests_per_s,
            rows_per_day=rows_per_day,
            is_test=test,
        )
    _show_made(made, as_json)


def _show_made(made: "Made", as_json: bool) -> None:
    found: dict[str, Any] = {"key": made.key, **plain(made.record)}
    emit(found, as_json, lambda: print(f"{made.key}\nNobody can show it again. Clients find it in HEADRACE_KEY."))


@_key.command("list")
def key_list(where: Where = Path("."), as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    from headrace.access import keys

    with opened(where) as ws:
        found, now = keys.listing(ws), ws.clock()
    rows = [
        (
            one.id,
            one.name,
            keys.standing(one, now),
            " ".join(one.scopes),
            "all" if one.channels is None else " ".join(one.channels),
            one.expires_at,
            one.last_used_at,
        )
        for one in found
    ]
    headings = ("key", "name", "is", "may", "of channels", "expires", "last used")
    emit([_flat(one, keys.standing(one, now)) for one in found], as_json, lambda: table(headings, rows))


def _flat(one: "ApiKey", standing: str) -> dict[str, Any]:
    return {**plain(one), "standing": standing}


@_key.command("rotate")
def key_rotate(
    key_id: _Id,
    overlap_hours: Annotated[float, typer.Option(help="How long the other key counts beside it.")] = 24,
    expires: _Expires = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Make a key that takes the place of another one, and print it, this once. Both count for a while."""
    from headrace.access import keys

    with opened(where) as ws:
        made = keys.rotate(ws, key_id, overlap=_hours(overlap_hours), expires_at=instant("--expires", expires))
    _show_made(made, as_json)


def _hours(n_hours: float) -> timedelta:
    try:
        return timedelta(hours=n_hours)
    except (ValueError, OverflowError):
        next_step = "Leave --overlap-hours out for a day"
        raise BadInput("an overlap is a number of hours", value=n_hours, next_step=next_step) from None


@_key.command("revoke")
def key_revoke(key_id: _Id, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Have a key count no more, for ever. Servers know within a second."""
    from headrace.access import keys

    with opened(where) as ws:
        revoked = keys.revoke(ws, key_id)
    emit(revoked, as_json, lambda: print(f"Revoked {revoked.id}"))
