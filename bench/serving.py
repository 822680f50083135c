"""How many requests a second does `headrace serve` answer, how late, in how much memory, beside servers others use?

All serve one fine-tuned checkpoint on all cores, each as its own documentation has it: headrace as int8 with its
prediction log on, FastAPI with a transformers pipeline, LitServe, BentoML and Triton with their batching; see
bench/rivals. Their answers are compared with the checkpoint's first. Servers run in turn, one at a time, in several
rounds; a figure is the median of the rounds with the lowest and the highest, and a ratio that of the rounds' ratios.

Closed loops: N connections, each with one request under way. Open loops: requests arrive at random at a share of what
the server did with 64 connections, and their time runs from when they should have been sent. Loads of more than a
thousand waiting rows run in the first round only, and the times of what was not answered at the end are lower bounds.

Also: the engine alone on the same rows, the machine's own int8 products, and where headrace's time goes.

Targets: 10 times FastAPI's requests, 5 times LitServe's, a quarter of their p99; 75 % of the engine alone; 3 s to
start.

Run: python -m bench.serving --rivals-env DIR [--quick] [--rivals NAME ...] [--connections N ...] [--rounds 3]
     [--minutes 25]
DIR is a virtual environment with bench/rivals/requirements.txt. Without it, headrace runs alone.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil

from bench import processes, serving_figures, serving_limits, serving_loads, serving_profile
from bench.reporting import table, write
from bench.serving_figures import Found
from bench.serving_loads import Cell
from bench.serving_material import SEED, Asked, Material, batches, material
from bench.serving_servers import HEADRACE, Running, Server, running, servers

_OPEN_SHARES = (0.5, 0.8)
_CAPACITY = Cell(1, 64)
_N_CHECKED = 256
_MAX_FAILURES = 2  # of one server: then it is left out
_SOUND_SHARE = 0.95  # of the checkpoint's answers: less, and it is no server of this model
_MANY_ROWS = 256  # waiting at once
_LATE_SHARE = 0.06  # of the minutes: kept for what comes after the rounds


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    cells: Sequence[Cell]
    deep_seconds: float
    engine_seconds: float
    profiled: Sequence[int]
    """Connections of the loads that are looked into."""


def main() -> int:
    options = _options()
    limit = processes.Limit(options.minutes * (1 - _LATE_SHARE))
    plan, given, found = _plan(options), material(), Found()
    python = options.rivals_env / "bin" / "python"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shutil.copytree(given.workspace, scratch / "workspace")
        fresh = replace(given, workspace=scratch / "workspace")
        wanted = [one for one in servers(fresh, python, scratch) if _is_wanted(one, options, python)]
        own = wanted[0]
        _first_start(own, fresh, found)
        for number in range(plan.rounds):
            _engine(plan, found)
            for server in wanted:
                if limit.is_over():
                    print("no time is left for more rounds", flush=True)
                elif len(found.failed.get(server.name, [])) < _MAX_FAILURES:
                    print(f"round {number + 1}: {server.name}", flush=True)
                    _visit(server, fresh.asked, plan, found)
        _look_into(own, fresh.asked, plan, found, _py_spy(options.rivals_env))
        for kind in ("openvino", "torch"):
            n_threads = psutil.cpu_count() or 1
            found.products[kind] = serving_limits.products_tokens_per_s(kind, n_threads, plan.engine_seconds)
        figures = serving_figures.figures(found, serving_figures.mean_tokens(given))
    if options.quick:
        print(table(figures))
    else:
        write("serving", figures, [SEED])
    for server_name, reasons in found.failed.items():
        print(f"failed: {server_name}: {reasons[-1]}", file=sys.stderr)
    return 0 if all(share >= _SOUND_SHARE for share in found.agreeing.values()) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about 30 s a server; writes no file")
    parser.add_argument("--rivals", nargs="*", help="words of the names of the servers beside headrace; default: all")
    parser.add_argument("--rivals-env", type=Path, default=processes.WORK / "rivals")
    parser.add_argument("--connections", nargs="+", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--minutes", type=float, default=25.0, help="nothing is begun that would end after them")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> Plan:
    connections = options.connections or ([16, 64] if options.quick else [1, 16, 64, 256])
    cells = [Cell(1, n) for n in sorted({*connections, _CAPACITY.n_connections})]
    cells += [Cell(1, 256, share) for share in (_OPEN_SHARES[-1:] if options.quick else _OPEN_SHARES)]
    cells += [Cell(32, n) for n in connections if not (options.quick and Cell(32, n).is_deep)]
    rounds = options.rounds or (1 if options.quick else 3)
    if options.quick:
        return Plan(rounds, 3, cells, 5, 2, (16,))
    return Plan(rounds, 4, cells, 12, 3, (16, 64))


def _is_wanted(server: Server, options: argparse.Namespace, python: Path) -> bool:
    if server.name == HEADRACE:
        return True
    is_named = options.rivals is None or any(word.lower() in server.name.lower() for word in options.rivals)
    return is_named and python.exists()


def _py_spy(env: Path) -> Path | None:
    place = shutil.which("py-spy", path=f"{env / 'bin'}") or shutil.which("py-spy")
    return None if place is None else Path(place)


def _first_start(own: Server, given: Material, found: Found) -> None:
    """The start at which the number of workers is measured; all others know it."""
    (given.workspace / ".headrace" / "workers.json").unlink(missing_ok=True)
    with running(own, given.asked[:1]) as server:
        found.first_start_s = server.start_s
        found.size = _size(server)


def _size(server: Running) -> tuple[int, int]:
    """Of the workers, by their command lines."""
    lines = [words for process in server.processes if "headrace.serve.worker" in (words := process.cmdline())]
    return len(lines), int(lines[0][lines[0].index("--threads") + 1])


def _engine(plan: Plan, found: Found) -> None:
    for what, n_rows in serving_figures.ENGINE_CALLS.items():
        rate = serving_limits.engine_rows_per_s(*found.size, plan.engine_seconds, n_rows)
        found.engine.setdefault(what, []).append(rate)


def _visit(server: Server, asked: Sequence[Asked], plan: Plan, found: Found) -> None:
    """One round of one server: started, loaded, stopped; in its first, compared before and filled up after."""
    try:
        with running(server, asked[:1]) as one:
            found.start_s.setdefault(server.name, []).append(one.start_s)
            if server.name not in found.agreeing:
                found.agreeing[server.name] = one.agreeing_share(
                    batches(asked[:_N_CHECKED], 1) + batches(asked, 32)[:8]
                )
            serving_loads.put(Cell(1, 16), one, batches(asked, 1), 2, None)  # what is made at first use is made
            for cell in plan.cells:
                if not cell.is_deep:
                    _measure(cell, one, asked, plan.seconds, found)
                    if cell == _CAPACITY:
                        found.memory[server.name] = one.memory()
        for cell in plan.cells:
            if cell.is_deep and (server.name, cell) not in found.seen:
                with running(server, asked[:1]) as one:  # what the load before left is not waited for
                    _measure(cell, one, asked, plan.deep_seconds, found)
    except RuntimeError as error:
        found.failed.setdefault(server.name, []).append(str(error))


def _measure(cell: Cell, server: Running, asked: Sequence[Asked], seconds: float, found: Found) -> None:
    name = server.server.name
    rate = None
    if cell.share is not None:
        rate = cell.share * found.seen[name, _CAPACITY][-1].loaded.requests_per_s
    if cell.share is None and not cell.is_deep and cell.n_connections * cell.n_rows >= _MANY_ROWS:
        seconds *= 2  # long waits need a longer look
    seen = serving_loads.put(cell, server, batches(asked, cell.n_rows), seconds, rate)
    found.seen.setdefault((name, cell), []).append(seen)
    loaded = seen.loaded
    said = f"{loaded.rows_per_s:8.0f} rows/s, p50 {loaded.p50_ms:7.0f}, p99 {loaded.p99_ms:7.0f} ms"
    print(f"  {cell.what}: {said}, {loaded.n_errors} errors, load {seen.load_share:.2f} cores", flush=True)


def _look_into(own: Server, asked: Sequence[Asked], plan: Plan, found: Found, py_spy: Path | None) -> None:
    seconds = 2 * plan.seconds
    with running(own, asked[:1]) as server:
        serving_loads.put(Cell(1, 16), server, batches(asked, 1), 2, None)
        for n in plan.profiled:
            load = partial(serving_loads.put, Cell(1, n), server, batches(asked, 1), seconds, None)
            found.spent[n] = serving_profile.profiled(server, load, seconds, py_spy)


if __name__ == "__main__":
    sys.exit(main())
