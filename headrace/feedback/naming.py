"""Numbers and instants that somebody gives, checked before anything is looked for."""

from datetime import datetime

from headrace.errors import BadInput


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
