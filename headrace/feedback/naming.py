"""Names and numbers that somebody gives, checked before they are looked for."""

from datetime import datetime
from typing import TYPE_CHECKING

from headrace.errors import BadInput, NotFound, nearest
from headrace.store import channels

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def check_channel(conn: "Connection", channel: str | None) -> None:
    """
    Raises:
        NotFound: no such channel; None is all of them.
    """
    if channel is not None and channels.find(conn, channel) is None:
        known = [one.name for one in channels.listing(conn)]
        raise NotFound("no such channel", value=channel, next_step=nearest(channel, known))


def check_number(name: str, n: int | None) -> None:
    """
    Raises:
        BadInput: less than one; None is as many as there are.
    """
    if n is not None and n < 1:
        raise BadInput(f"{name} must be 1 or more", value=n, next_step="Give a number from 1 on")


def check_instant(name: str, at: datetime | None) -> None:
    """
    Raises:
        BadInput: it has no time zone.
    """
    if at is not None and at.tzinfo is None:
        raise BadInput(f"{name} has no time zone", value=at.isoformat(), next_step="Give it one, such as datetime.UTC")
