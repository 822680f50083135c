"""What pools hold: versions with their adapters, loaded in threads of their own, so that nothing waits for a load.

A version that could not be loaded is tried again every ten seconds as long as it is asked for.
"""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from headrace import signing
from headrace.errors import HeadraceError
from headrace.records import ModelVersion
from headrace.serve.pool import Pool
from headrace.serve.process import Key
from headrace.store import adapters
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.lineup")

_RETRY_S = 10.0


@dataclass
class _Load:
    """An attempt that is under way or over. Times are on the monotonic clock."""

    ended_at: float | None = None


class Holdings:
    """Which version is in which pool."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._adapters: dict[str, dict[str, str]] = {}
        """Of each version that was ever brought up: channel to the weights of its adapter."""
        self._loads: dict[tuple[int, str], _Load] = {}
        """By pool and version."""
        self._leaving: dict[tuple[int, str], tuple[Pool, ModelVersion]] = {}

    def adapter(self, version: ModelVersion, channel: str) -> str | None:
        """Weights of the adapter that answers for a channel; None: the version's shared model does."""
        return self._adapters.get(version.id, {}).get(channel)

    def are_in(self, pool: Pool, version: ModelVersion) -> bool:
        """Whether some worker of a pool can answer with a version and its adapters now."""
        return version.id in self._adapters and all(pool.is_loaded(*key) for key in self._keys(version))

    def want(self, pool: Pool, version: ModelVersion) -> bool:
        """Have a pool hold a version, without waiting; whether it does."""
        place = (id(pool), version.id)
        self._leaving.pop(place, None)
        if self.are_in(pool, version):
            return True
        load = self._loads.get(place)
        if load is None or (load.ended_at is not None and time.monotonic() > load.ended_at + _RETRY_S):
            self._loads[place] = fresh = _Load()
            threading.Thread(target=self._try, args=(pool, version, fresh), name="headrace-load", daemon=True).start()
        return False

    def was_tried(self, pool: Pool, version: ModelVersion) -> bool:
        """Whether an attempt to load it is over."""
        load = self._loads.get((id(pool), version.id))
        return load is not None and load.ended_at is not None

    def bring(self, pool: Pool, version: ModelVersion) -> None:
        """Have a pool hold a version, and wait until it does.

        Raises:
            Damaged: it cannot be loaded, or is not signed as it must be.
            Unavailable: no worker could load it now; they try again when they are back.
        """
        with self._ws.store.read() as conn:
            kept = [one for one in adapters.of_version(conn, version.id) if one.is_kept]
        self._adapters[version.id] = {one.channel: one.weights for one in kept if one.weights is not None}
        folders = {one.weights: one.artifact for one in kept} | {None: version.artifact}
        owners = {one.weights: one.channel for one in kept} | {None: None}
        for digest, adapter in self._keys(version):
            folder = folders[adapter]
            if folder is not None and not pool.is_loaded(digest, adapter):
                pool.load(digest, signing.folder_of(self._ws, version, folder, owners[adapter]), adapter=adapter)

    def leave(self, pool: Pool, version: ModelVersion) -> None:
        """Have a pool let go of a version at the next `sweep`: requests may still be on their way to it."""
        self._leaving[id(pool), version.id] = (pool, version)

    def sweep(self, others: Iterable[ModelVersion]) -> None:
        """Carry out what `leave` was asked for, but for what other versions need too."""
        if not self._leaving:
            return
        kept = {key for version in others for key in self._keys(version)}
        for place, (pool, version) in list(self._leaving.items()):
            load = self._loads.get(place)
            if load is not None and load.ended_at is None:
                continue
            for digest, adapter in self._keys(version):
                if (digest, adapter) not in kept:
                    pool.unload(digest, adapter=adapter)
            self.forget(pool, version)

    def forget(self, pool: Pool, version: ModelVersion) -> None:
        """The pool does not hold the version any more, or is gone."""
        self._loads.pop((id(pool), version.id), None)
        self._leaving.pop((id(pool), version.id), None)

    def _keys(self, version: ModelVersion) -> list[Key]:
        """What a worker must hold for a version: its artifact, then its adapters."""
        weights = self._adapters.get(version.id, {}).values()
        return [(version.artifact, None), *((version.artifact, one) for one in weights)]

    def _try(self, pool: Pool, version: ModelVersion, load: _Load) -> None:
        try:
            self.bring(pool, version)
        except HeadraceError as error:
            _log.warning("version %s, artifact %s, is not served: %s", version.name, version.artifact, error)
        except Exception:  # the border of a thread
            _log.warning("version %s could not be loaded", version.name, exc_info=True)
        finally:
            load.ended_at = time.monotonic()
