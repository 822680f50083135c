"""Channels: where examples, predictions and feedback come from."""

import re

from headrace import auditing
from headrace.errors import AlreadyExists, BadInput
from headrace.ids import new_id
from headrace.records import Channel
from headrace.store import channels as rows
from headrace.workspace import Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def add(ws: Workspace, name: str, *, description: str = "", owner: str = "", licence: str = "") -> Channel:
    """Add a channel.

    Raises:
        BadInput: the name cannot be used.
        AlreadyExists: the name is taken.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            "a channel's name is 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
            value=name,
            next_step="Choose another name",
        )
    channel = Channel(new_id("channel"), name, description, owner, licence, ws.clock())
    with ws.store.write() as conn:
        if rows.find(conn, name) is not None:
            raise AlreadyExists(
                "there is a channel of this name", value=name, next_step="Use it, or choose another name"
            )
        rows.add(conn, channel)
        auditing.note(ws, conn, "channel.add", channel.id, facts={"channel": name})
    return channel


def listing(ws: Workspace) -> list[Channel]:
    """All channels, by name."""
    with ws.store.read() as conn:
        return rows.listing(conn)


def find(ws: Workspace, name: str) -> Channel:
    """The channel of that name.

    Raises:
        NotFound: there is none; the message has the nearest name.
    """
    with ws.store.read() as conn:
        return rows.named(conn, name)
