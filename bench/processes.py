"""Measurements that each need a process of their own, so that the peak of memory is theirs alone."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WORK = Path(tempfile.gettempdir()) / "headrace-bench"
"""What benches keep between runs, outside the repository."""
_ROOT = Path(__file__).parents[1]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")  # torch's, NumPy's, tokenizers'


def run(module: str, job: Mapping[str, Any], *, n_threads: int | None = None) -> dict[str, Any]:
    """What `python -m MODULE --job JSON` writes with `give`; where it failed, {"error": its last words}.

    Args:
        n_threads: that its arithmetic may use; None leaves it to the libraries, which take every core.
    """
    counts = {} if n_threads is None else dict.fromkeys(_THREADS, str(n_threads))
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "given.json"
        command = [sys.executable, "-m", module, "--job", json.dumps({**job, "give_to": str(given)})]
        environ = {**os.environ, **counts}
        done = subprocess.run(command, cwd=_ROOT, env=environ, capture_output=True, text=True, check=False)
        if done.returncode == 0 and given.exists():
            found: dict[str, Any] = json.loads(given.read_text("utf-8"))
            return found
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        return {"error": f"exit status {done.returncode}: {last}"}


def give(job: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """In the process of `run`: hand over what was measured."""
    Path(job["give_to"]).write_text(json.dumps(found), "utf-8")


def peak_bytes() -> int:
    """The most memory that this process had resident so far.

    getrusage would count what the parent held before the program began (Linux carries it over an exec).
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    """The memory that this process has resident now."""
    import psutil

    return _status("VmRSS") or int(psutil.Process().memory_info().rss)


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def device() -> str:
    """What models train on here: `cpu`, or the accelerator's name."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def device_peak_bytes() -> int:
    """The most memory of the accelerator that this process used so far; 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def quiet() -> None:
    """In the process of `run`: nothing of transformers' own on the screen, nothing from the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class Parts:
    """Lines of JSON that are appended as measurements are done; the newest line of a key counts."""

    def __init__(self, path: Path, keys: Iterable[str]) -> None:
        self.path, self._keys = path, tuple(keys)

    def read(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """What was measured, by key; a line that a kill cut short is passed over."""
        found = {}
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else []:
            try:
                part = json.loads(line)
            except ValueError:
                continue
            found[self.key(part)] = part
        return found

    def key(self, part: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(part[name] for name in self._keys)

    def add(self, part: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(part) + "\n")
            file.flush()
            os.fsync(file.fileno())


class Limit:
    """Time that a bench may take; nothing is started after it."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end
