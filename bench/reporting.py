"""How a bench reports: a table on the screen, and bench/results/NAME.json with the newest report.

Results are added, never edited: the report that was the newest moves to the end of bench/results/earlier/NAME.jsonl.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measured:
    """One figure.

    `ratio` is the value over that of `vs`, what it is compared with; `low` and `high` are the ends of an interval.
    """

    what: str
    value: float
    unit: str
    vs: str | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


def write(
    name: str, rows: Sequence[Measured | Mapping[str, Any]], seeds: Sequence[int] = (), *, folder: Path = RESULTS
) -> Path:
    """Print the figures and write them as the newest report of a bench."""
    measured = [row if isinstance(row, Measured) else Measured(**row) for row in rows]
    report = {
        "bench": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "seeds": list(seeds),
        "rows": [asdict(row) for row in measured],
    }
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    _keep(path, folder / "earlier" / f"{name}.jsonl")
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    unfinished.replace(path)
    print(table(measured))
    print(f"-> {path}")
    return path


def _keep(path: Path, earlier: Path) -> None:
    if not path.exists():
        return
    line = json.dumps(json.loads(path.read_text("utf-8"))) + "\n"
    earlier.parent.mkdir(exist_ok=True)
    if earlier.exists() and earlier.read_text("utf-8").endswith(line):
        return  # moved before, by a bench that was killed just then
    with earlier.open("a", encoding="utf-8") as file:
        file.write(line)


def table(rows: Sequence[Measured]) -> str:
    """The figures as aligned lines of text."""
    lines = []
    for row in rows:
        interval = f"  [{row.low:,.4g}, {row.high:,.4g}]" if row.low is not None and row.high is not None else ""
        ratio = f"  {row.ratio:.2f}x {row.vs}" if row.ratio is not None else ""
        lines.append(f"{row.what:<60} {row.value:>14,.4g} {row.unit}{interval}{ratio}")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import psutil

    return {
        **_gpu(),
        "cpu": _cpu(),
        "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def _gpu() -> dict[str, str]:
    """`gpu`, the accelerator's name; nothing without one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"gpu": names[0].strip()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """Hash of the checked-out commit; with `+` when files differ from it."""
    try:
        here = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "check": True}
        head = subprocess.run(["git", "rev-parse", "HEAD"], **here).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **here).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+" if changed else head
