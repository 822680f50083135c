"""The task and the channel of requests in protocols that may name none."""

import asyncio

from headrace.errors import BadInput
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT
from headrace.store import channels


def task_of(plane: ControlPlane) -> str:
    """`serve.default_task`, or the only task.

    Raises:
        BadInput: neither; the message says how to choose.
    """
    known = sorted(plane.ws.settings.tasks)
    return _clear("task", plane.ws.settings.serve.default_task, known, "ask in a protocol that names the task")


async def channel_of(plane: ControlPlane, named: str | None, how: str) -> str:
    """The channel that a request names, else `serve.default_channel`, else the only one that the caller may use.

    Args:
        how: the way in which a request of this protocol names its channel.

    Raises:
        BadInput: neither; the message says how to choose.
    """
    default = plane.ws.settings.serve.default_channel
    if named or (default and CURRENT.get().caller.may_use(default)):
        return named or default
    return _clear("channel", "", await asyncio.to_thread(_channels, plane), how)


def _clear(what: str, declared: str, known: list[str], how: str) -> str:
    if declared:
        return declared
    if len(known) != 1:
        raise BadInput(
            f"which {what} is not clear",
            value=", ".join(known) or f"there is no {what}",
            next_step=f"Set serve.default_{what}, or {how}",
        )
    return known[0]


def _channels(plane: ControlPlane) -> list[str]:
    with plane.ws.store.read() as conn:
        return [one.name for one in channels.listing(conn) if CURRENT.get().caller.may_use(one.name)]
