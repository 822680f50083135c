"""How many worker processes serve, with how many threads each: measured once per artifact and machine, and remembered.

One process with all cores and several with a few each differ by up to a third, either way, with the model and the
machine, so it is tried: as many processes as fit run batches at once, for each number of threads. Few processes are
kept unless more are clearly faster, since each holds the model once more.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from headrace.config import ServeTable
from headrace.export.artifact import load
from headrace.records import Input
from headrace.serve.pool import Size
from headrace.serve.worker import n_at_once
from headrace.tasks import TASK_TYPES, Predictor, TaskType

FILE_NAME = "workers.json"
"""In the state folder: what was measured, by artifact and machine."""

_NODES = Path("/sys/devices/system/node")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_MEASURE_S = 0.5
_TIMEOUT_S = 60.0
_MAX_WORKERS = 8
_WORTH_SHARE = 1.1  # of what fewer processes do: what more must do to be kept
_MEMORY_SHARE = 0.5  # of what is free: what all processes together may take
_WORDS = ("the", "a", "service", "was", "late", "and", "my", "parcel", "never", "came", "but", "they", "paid", "back")
_BUSY_SHARE = 0.5  # of the cores: who measures beside so much measures that too
_N_WORDS = 24  # of a text that is measured with: about 30 tokens


def choose(settings: ServeTable, folder: Path, digest: str, state_folder: Path, stop: threading.Event) -> Size:
    """The fastest size for an artifact on this machine; settings other than 0 are kept to.

    Args:
        stop: set when nobody wants to know any more; whatever is at hand is returned then.
    """
    nodes = usable_cores()
    sizes = candidates(settings, nodes)
    if len(sizes) == 1:
        return sizes[0]
    path, key, load_share = state_folder / FILE_NAME, _key(settings, digest, nodes), _load_share()
    known = _read(path)
    if _is_worth_measuring(known.get(key), load_share):
        rates = measure(sizes, folder, settings.batch_tokens, stop)
        if stop.is_set() or not rates:
            return sizes[0]
        found = [[size.n_workers, size.n_threads, rate] for size, rate in rates]
        known[key] = {"load_share": round(load_share, 2), "rates": found}
        path.write_text(json.dumps(known, indent=1), "utf-8")
    n_workers, n_threads = best([(int(row[0]), int(row[1]), row[2]) for row in known[key]["rates"]])
    return next((size for size in sizes if (size.n_workers, size.n_threads) == (n_workers, n_threads)), sizes[0])


def _load_share() -> float:
    """Processes that ran on this machine in the last minute, of its cores."""
    return float(psutil.getloadavg()[0]) / (os.cpu_count() or 1)


def _is_worth_measuring(known: Mapping[str, Any] | None, load_share: float) -> bool:
    """Nothing is known, or what is known comes from a busy moment and this one is calmer."""
    return known is None or (known["load_share"] > _BUSY_SHARE and load_share < known["load_share"])


def usable_cores() -> list[list[int]]:
    """Cores that this process may run on, by node of memory; no more than its control group may use at once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    n_cores = min(len(allowed), _quota_cores())
    if n_cores < len(allowed):  # any of them, by turns
        return [sorted(allowed)[:n_cores]]
    nodes = [_core_numbers(path.read_text("ascii")) for path in sorted(_NODES.glob("node[0-9]*/cpulist"))]
    return [node for cores in nodes if (node := [core for core in cores if core in allowed])] or [sorted(allowed)]


def _quota_cores() -> int:
    try:
        quota, period = _QUOTA.read_text("ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no control groups, or none that limits processors
        return sys.maxsize


def _core_numbers(text: str) -> list[int]:
    """Of a list such as `0-3,8`."""
    ranges = [part.partition("-") for part in text.strip().split(",") if part]
    return [core for low, _, high in ranges for core in range(int(low), int(high or low) + 1)]


def candidates(settings: ServeTable, nodes: Sequence[Sequence[int]]) -> list[Size]:
    """Sizes to try, those with the fewest processes first: all cores in equal blocks.

    Processes are bound to their cores only where memory is nearer to some of them: elsewhere the kernel knows better.
    """
    cores = [core for node in nodes for core in node]
    n_cores, sizes = len(cores), []
    counts = [settings.n_workers] if settings.n_workers else [n for n in range(1, _MAX_WORKERS + 1) if n_cores % n == 0]
    for n_workers in counts:
        n_threads = settings.n_threads or max(1, n_cores // n_workers)
        blocks = tuple(tuple(cores[i * n_threads : (i + 1) * n_threads]) for i in range(n_workers))
        is_bound = len(nodes) > 1 and n_workers > 1 and n_workers * n_threads <= n_cores
        sizes.append(Size(n_workers, n_threads, blocks if is_bound else ()))
    return [size for size in sizes if size.n_workers * size.n_threads <= n_cores] or sizes[:1]


def best(rates: Sequence[tuple[int, int, float]]) -> tuple[int, int]:
    """Of (processes, threads of each, rows/s): the first two of the fastest, or of fewer processes about as fast."""
    top, *others = sorted(rates)
    for row in others:
        if row[2] > top[2] * _WORTH_SHARE:
            top = row
    return top[0], top[1]


def measure(sizes: Sequence[Size], folder: Path, batch_tokens: int, stop: threading.Event) -> list[tuple[Size, float]]:
    """Rows/s of each size that can be measured and fits into memory."""
    rates: list[tuple[Size, float]] = []
    n_bytes = 0.0
    for size in sizes:
        if n_bytes * size.n_workers > psutil.virtual_memory().available * _MEMORY_SHARE:
            break
        trials = _Trials(size, folder, batch_tokens)
        said = trials.run(stop)
        if said is None:
            break
        rates.append((size, sum(one["rows_per_s"] for one in said)))
        n_bytes = max(one["n_bytes"] for one in said)
    return rates


@dataclass
class _Trials:
    """The processes of one size, which begin to work at the same moment."""

    size: Size
    folder: Path
    batch_tokens: int

    def run(self, stop: threading.Event) -> list[dict[str, float]] | None:
        """What each process says; None when one failed, took too long, or nobody wants to know any more."""
        processes = [self._start(place) for place in range(self.size.n_workers)]
        said: list[dict[str, float]] = []
        together = threading.Barrier(len(processes))
        threads = [threading.Thread(target=_follow, args=(p, together, said), daemon=True) for p in processes]
        for thread in threads:
            thread.start()
        until = time.monotonic() + _TIMEOUT_S
        while any(thread.is_alive() for thread in threads) and not stop.wait(0.05) and time.monotonic() < until:
            pass
        together.abort()
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        return said if len(said) == len(processes) else None

    def _start(self, place: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "headrace.serve.threads", str(self.folder), str(self.size.n_threads)]
        command += [str(self.batch_tokens), *map(str, self.size.cores[place] if self.size.cores else ())]
        pipe, environment = subprocess.PIPE, {**os.environ, **self.size.environment}
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)


def _follow(process: "subprocess.Popen[str]", together: threading.Barrier, said: list[dict[str, float]]) -> None:
    """Have a process begin when all are ready, and note what it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    failed = (threading.BrokenBarrierError, BrokenPipeError)  # another process, or this one, which its pipe's end tells
    with suppress(*failed), process.stdin as orders, process.stdout as lines:
        if not lines.readline():
            together.abort()
            return
        together.wait()
        orders.write("go\n")
        orders.flush()
        if line := lines.readline():
            said.append(json.loads(line))


def texts(n_rows: int, n_parts: int) -> list[Input]:
    """Inputs to measure with, the same every time."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(_WORDS, k=_N_WORDS))

    return [text() if n_parts == 1 else (text(), text()) for _ in range(n_rows)]


def _key(settings: ServeTable, digest: str, nodes: Sequence[Sequence[int]]) -> str:
    """All that decides what is measured."""
    asked = f"{settings.n_workers} workers, {settings.n_threads} threads, {settings.batch_tokens} tokens"
    return f"{digest}, {_cpu()}, {'+'.join(str(len(node)) for node in nodes)} cores, {asked}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # none yet, or cut off: measured again
        return {}
    return {key: said for key, said in found.items() if isinstance(said, dict)}  # earlier versions wrote lists


def main(argv: list[str] | None = None, orders: IO[str] = sys.stdin) -> None:
    """One process of a trial: load, say so, wait for the word, run batches for a while, say how many rows a second."""
    parser = argparse.ArgumentParser(prog="headrace.serve.threads")
    parser.add_argument("folder", type=Path)
    parser.add_argument("n_threads", type=int)
    parser.add_argument("batch_tokens", type=int)
    parser.add_argument("cores", type=int, nargs="*")
    args = parser.parse_args(argv)
    if args.cores:
        os.sched_setaffinity(0, args.cores)
    predictor, facts = load(args.folder, n_threads=args.n_threads)
    task_type: TaskType = TASK_TYPES.get(facts.task.type)(facts.task)
    batch = texts(max(1, args.batch_tokens // 32), len(task_type.fields))
    with ThreadPoolExecutor(n_at_once(predictor)) as loops:
        _work(predictor, batch, loops, 0.0)  # what is first takes longer
        print("ready", flush=True)
        orders.readline()
        rows_per_s = _work(predictor, batch, loops, _MEASURE_S)
    n_bytes = psutil.Process().memory_info().rss
    print(json.dumps({"rows_per_s": rows_per_s, "n_bytes": n_bytes}), flush=True)


def _work(predictor: Predictor, batch: Sequence[Input], loops: ThreadPoolExecutor, seconds: float) -> float:
    """Have as many threads answer batches as a worker has; rows/s."""
    n_loops, began_at = n_at_once(predictor), time.perf_counter()
    together = threading.Barrier(n_loops)  # else one thread could take the turns of several

    def answer(_: int) -> int:
        together.wait()
        n_batches = 0
        while not n_batches or time.perf_counter() - began_at < seconds:
            predictor.logits(batch)
            n_batches += 1
        return n_batches

    n_batches = sum(loops.map(answer, range(n_loops)))
    return n_batches * len(batch) / (time.perf_counter() - began_at)


if __name__ == "__main__":
    main()
