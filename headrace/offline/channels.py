"""Whose rows they are, and which adapters answer them."""

from collections.abc import Mapping

from headrace import signing
from headrace.data import channels
from headrace.errors import BadInput
from headrace.offline.table import Table
from headrace.records import ModelVersion, RawRow
from headrace.serve.worker import Model, hold_adapter
from headrace.store import adapters
from headrace.tasks import Adapter
from headrace.workspace import Workspace


class Channels:
    """The channel of each row: one for all, or that which a column names. None: the shared model answers."""

    def __init__(self, ws: Workspace, version: ModelVersion, table: Table, channel: str | None, column: str | None):
        """Find the adapters that the rows may need.

        Raises:
            NotFound: no such channel.
            BadInput: no such column, or both a channel and a column.
        """
        if channel is not None and column is not None:
            raise BadInput(
                "one channel for all rows, or a column that names it", value=column, next_step="Leave one of them out"
            )
        if column is not None and column not in table.names:
            raise BadInput(f"no column {column!r} for the channel", value=f"columns: {', '.join(table.names)}")
        self._channel, self._column = None if channel is None else channels.find(ws, channel).name, column
        self._known = {one.name for one in channels.listing(ws)}
        with ws.store.read() as conn:
            found = [one for one in adapters.of_version(conn, version.id) if one.is_kept]
        self._kept = {one.channel: one for one in found if column is not None or one.channel == channel}
        self._held: dict[str, Adapter] = {}

    @property
    def facts(self) -> Mapping[str, object]:
        """What the answers hang on."""
        weights = {name: one.weights for name, one in sorted(self._kept.items())}
        return {"channel": self._channel, "channel_column": self._column, "adapters": weights}

    @property
    def have_adapters(self) -> bool:
        return bool(self._kept)

    def load(self, ws: Workspace, version: ModelVersion, model: Model) -> None:
        """Load the adapters of a version on its model."""
        for name, one in self._kept.items():
            assert one.artifact is not None
            assert one.weights is not None
            folder = signing.folder_of(ws, version, one.artifact, name)
            self._held[name] = hold_adapter(model, one.weights, folder)

    def of(self, row: RawRow) -> str | None:
        """The channel of a row, where it is one that is known."""
        name = self._channel if self._column is None else (row.values or {}).get(self._column)
        return name if name in self._known else None

    def adapter_of(self, row: RawRow) -> Adapter | None:
        """What answers a row besides the shared model."""
        name = self.of(row)
        return None if name is None else self._held.get(name)

    def problem_of(self, row: RawRow) -> str | None:
        """Why a row's channel cannot be used, if so."""
        if self._column is None:
            return None
        name = (row.values or {}).get(self._column)
        return None if name in self._known else f"no channel is called {name!r}"
