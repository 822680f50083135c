"""Whether the disk of a workspace can be written, for who asks whether the server is ready."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

_LOOK_EVERY_S = 1.0
_N_BYTES = 64 * 2**10  # a few may still fit on a disk that is full


class Disk:
    """Looks when it is asked, once a second at most."""

    def __init__(self, folder: Path) -> None:
        self._probe = folder / "disk-probe"
        self._lock = asyncio.Lock()
        self._takes_writes = True
        self._look_at = 0.0

    async def takes_writes(self) -> bool:
        async with self._lock:
            if time.monotonic() >= self._look_at:
                self._takes_writes = await asyncio.to_thread(self._look)
                self._look_at = time.monotonic() + _LOOK_EVERY_S
            return self._takes_writes

    def _look(self) -> bool:
        try:
            with self._probe.open("wb") as file:
                file.write(bytes(_N_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                self._probe.unlink()
        return True
