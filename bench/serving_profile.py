"""Where the time of a busy headrace goes: by its own metrics, by what its threads ran, and by samples of what they did.

Time of the worker's native threads is the engine's. Python threads are sampled by py-spy, a hundred times a second; a
sample counts for the innermost part of headrace, or library, that it was in.
"""

import json
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.serving_loads import Seen
from bench.serving_servers import Running

_RATE = 100
_EDGE_S = 1.5  # at either end of a load: not looked at
ENGINE, LOAD, IDLE = "engine", "load and profiler", "idle, or other work"
_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("prediction log", ("server/prediction_log.py", "/store/", "sqlalchemy/", "headrace/ids.py")),
    ("metrics", ("prometheus_client/", "server/metrics.py")),
    ("queues and batches", ("serve/batcher.py", "serve/pool.py", "serve/admission.py")),
    ("messages between server and worker", ("serve/frames.py", "serve/process.py")),
    ("tokens", ("checkpoints/encoding.py", "checkpoints/windows.py")),
    ("packing, calls of the engine", ("headrace/checkpoints/", "headrace/export/", "openvino/")),
    ("decoding", ("headrace/tasks/text_classification.py", "headrace/tasks/decoding")),
    ("worker's own", ("serve/worker.py",)),
    ("answer written and sent", ("starlette/responses.py", "httptools_impl.py:send", "fastapi/encoders.py")),
    ("body read and checked", ("server/strictness.py", "server/bodies.py", "pydantic/", "tasks/inputs.py")),
    ("request received and routed", ("uvicorn/", "server/http.py", "starlette/", "fastapi/", "server/border.py")),
    ("request answered", ("headrace/server/",)),
    ("event loop", ("asyncio/", "selectors.py")),
)
"""Parts by what stands in `file:function` of a frame. The innermost frame that any part knows decides."""


@dataclass(frozen=True)
class Spent:
    """Under one load."""

    cores: dict[str, float]
    """Busy cores, by part; all parts, the load and idle cores add up to the machine."""
    stage_ms: dict[str, float]
    """Milliseconds of a batch in each stage, of a row in the queue, and of a request in all, by headrace's metrics."""
    batch_rows: float


def profiled(server: Running, load: Callable[[], Seen], seconds: float, py_spy: Path | None) -> Spent:
    """What the time went into, in the middle of a load of so many seconds.

    Args:
        py_spy: the program; None: the Python threads of a process are one part.
    """
    with ThreadPoolExecutor(1) as pool:
        under_way: Future[Seen] = pool.submit(load)
        time.sleep(_EDGE_S)
        metrics, cpu, began_at = _metrics(server), _cpu(server), time.perf_counter()
        sampled = _sampled(server, py_spy, seconds - 2 * _EDGE_S) if py_spy is not None else {}
        time.sleep(max(0.0, seconds - 2 * _EDGE_S - (time.perf_counter() - began_at)))
        span_s, later_cpu, later_metrics = time.perf_counter() - began_at, _cpu(server), _metrics(server)
        python = _python_threads(server, py_spy) if py_spy is not None else {}
        seen = under_way.result()
    cores = {LOAD: seen.load_share}
    for process, threads in later_cpu.items():
        spent = {thread: (s - cpu.get(process, {}).get(thread, 0.0)) / span_s for thread, s in threads.items()}
        own = python.get(process, set(threads))
        cores[ENGINE] = cores.get(ENGINE, 0.0) + sum(c for thread, c in spent.items() if thread not in own)
        own_cores, parts = sum(c for thread, c in spent.items() if thread in own), sampled.get(process) or {"other": 1}
        for part, n in parts.items():
            cores[part] = cores.get(part, 0.0) + own_cores * n / sum(parts.values())
    cores[IDLE] = (psutil.cpu_count() or 1) - sum(cores.values())
    gained = {name: value - metrics.get(name, 0.0) for name, value in later_metrics.items()}
    stages = {name.partition("_sum:")[2] or "request": name for name in gained if "_seconds_sum" in name}
    stage_ms = {
        stage: 1e3 * gained[name] / n for stage, name in stages.items() if (n := gained[name.replace("_sum", "_count")])
    }
    rows = gained["headrace_batch_rows_sum"] / max(1.0, gained["headrace_batch_rows_count"])
    return Spent(cores, stage_ms, rows)


def _metrics(server: Running) -> dict[str, float]:
    """Sums and counts of the histograms that count here; those of stages as NAME:STAGE, those of all requests added."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        lines = answer.read().decode("utf-8").splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        name, _, labels = line.partition("{")
        if name.startswith("headrace_stage_seconds_") and name.endswith(("_sum", "_count")):
            stage = labels.partition('stage="')[2].partition('"')[0]
            found[f"{name}:{stage}"] += float(line.rpartition(" ")[2])
        elif 'route="/v1/predict"' in labels and name.endswith(("_seconds_sum", "_seconds_count")):
            found[name] += float(line.rpartition(" ")[2])
        elif line.startswith("headrace_batch_rows_") and not labels:
            found[line.partition(" ")[0]] += float(line.rpartition(" ")[2])
    return dict(found)


def _cpu(server: Running) -> dict[int, dict[int, float]]:
    """Seconds of each thread of each process."""
    return {p.pid: {t.id: t.user_time + t.system_time for t in p.threads()} for p in server.processes}


def _sampled(server: Running, py_spy: Path, seconds: float) -> dict[int, Counter[str]]:
    """Samples of the threads that ran, by process and part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["record", "--rate", str(_RATE), "--duration", str(round(seconds)), "--format", "raw", "--nonblocking"]
        recording = {
            p.pid: subprocess.Popen(
                [str(py_spy), *words, "--pid", str(p.pid), "--output", str(folder / str(p.pid))],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for p in server.processes
        }
        for one in recording.values():
            one.wait()
        return {pid: _by_part(folder / str(pid)) for pid in recording if (folder / str(pid)).exists()}


def _by_part(path: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in path.read_text("utf-8").splitlines():
        stack, _, n = line.rpartition(" ")
        found[part_of(stack.split(";"))] += int(n)
    return found


def part_of(frames: list[str]) -> str:
    """The part of a stack, outermost frame first, each `function (file:line)`."""
    for frame in reversed(frames):
        function, _, place = frame.partition(" (")
        named = f"{place.partition(':')[0]}:{function}"
        part = next((part for part, words in _PARTS if any(word in named for word in words)), None)
        if part is not None:
            return part
    return "other"


def _python_threads(server: Running, py_spy: Path) -> dict[int, set[int]]:
    """Of each process, the ids of the threads that run Python."""
    found = {}
    for process in server.processes:
        command = [str(py_spy), "dump", "--json", "--nonblocking", "--pid", str(process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[process.pid] = {thread["os_thread_id"] for thread in json.loads(done.stdout)}
    return found


def in_order(cores: Mapping[str, float]) -> list[str]:
    """The parts that took time: Python's, then the rest."""
    order = [*(part for part, _ in _PARTS), "other", ENGINE, LOAD, IDLE]
    return [part for part in order if cores.get(part, 0.0) > 0]
