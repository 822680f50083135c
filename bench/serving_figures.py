"""What bench.serving says of what it measured: a table for each load, then ratios, limits and shares."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.reporting import Measured
from bench.serving_loads import WRK, Cell, Seen
from bench.serving_material import Material
from bench.serving_profile import Spent, in_order
from bench.serving_servers import HEADRACE, Memory

ENGINE_CALLS = {"80 rows a call, as they come": 80, "512 rows a call": 512}
"""How the engine alone is asked, by rows of a call."""
_TARGET_SHARE, _TARGET_START_S = 0.75, 3.0
_TARGET_TIMES = {"FastAPI + pipeline": 10.0, "LitServe": 5.0}
_SHARED = (Cell(1, 16), Cell(1, 64), Cell(1, 256), Cell(32, 16))


@dataclass
class Found:
    """All that was measured."""

    seen: dict[tuple[str, Cell], list[Seen]] = field(default_factory=dict)
    """By server and load: of each round."""
    start_s: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    agreeing: dict[str, float] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    """Servers that did not start or died, with why."""
    size: tuple[int, int] = (1, 1)
    """Worker processes of headrace, and threads of each."""
    first_start_s: float = 0.0
    engine: dict[str, list[float]] = field(default_factory=dict)
    """Rows/s without a server, of each round."""
    products: dict[str, float] = field(default_factory=dict)
    """Tokens/s of the products alone."""
    spent: dict[int, Spent] = field(default_factory=dict)
    """By connections."""


def figures(found: Found, mean_tokens: float) -> list[Measured]:
    """All figures."""
    cells = list(dict.fromkeys(cell for _, cell in found.seen))
    measured = [one for cell in cells for one in _of_cell(found, cell)]
    measured += [one for cell in cells if cell.share is None for one in _beside_others(found, cell)]
    return [*_of_servers(found), *measured, *_limits(found, mean_tokens), *_times(found)]


def mean_tokens(given: Material) -> float:
    """Tokens of a text, on average."""
    from headrace.checkpoints.encoding import TOKENIZER, Encoder

    windows = Encoder.read(given.artifact / TOKENIZER).encode([row.text for row in given.asked])
    return statistics.mean(len(window) for window in windows)


def _of_servers(found: Found) -> list[Measured]:
    rows = [Measured("headrace: start to first answer, number of workers measured", found.first_start_s, "s")]
    for name, memory in found.memory.items():
        seconds, share = found.start_s[name], found.agreeing[name]
        rows += [
            _median(f"servers · {name} · start to first answer", seconds, "s"),
            Measured(f"servers · {name} · memory (PSS)", memory.pss_bytes, "bytes"),
            Measured(f"servers · {name} · memory (sum of RSS)", memory.rss_bytes, "bytes"),
            Measured(f"servers · {name} · processes", memory.n_processes, ""),
            Measured(f"servers · {name} · rows with the checkpoint's label", 100 * share, "%"),
        ]
    return rows


def _of_cell(found: Found, cell: Cell) -> list[Measured]:
    rows = []
    for name in found.start_s:
        seen = found.seen.get((name, cell), [])
        if not seen:
            continue
        where, is_bound = f"{cell.what} · {name}", any(one.loaded.n_given_up for one in seen)
        at_least = ", at least" if is_bound else ""
        rows.append(_of(f"{where} · requests/s", seen, lambda one: one.loaded.requests_per_s, ""))
        if cell.n_rows > 1:
            rows.append(_of(f"{where} · rows/s", seen, lambda one: one.loaded.rows_per_s, ""))
        rows.append(_of(f"{where} · p50", seen, lambda one: one.loaded.p50_ms, f"ms{at_least}"))
        rows.append(_of(f"{where} · p99", seen, lambda one: one.loaded.p99_ms, f"ms{at_least}"))
        rows.append(_of(f"{where} · refused or lost", seen, _failed_percent, "%"))
    return rows


def _failed_percent(seen: Seen) -> float:
    loaded = seen.loaded
    return 100 * loaded.n_errors / max(1, loaded.n_requests)


def _beside_others(found: Found, cell: Cell) -> list[Measured]:
    """headrace over each other server, round by round."""
    mine, rows = found.seen.get((HEADRACE, cell), []), []
    for name in found.start_s:
        both = zip(mine, found.seen.get((name, cell), []), strict=False)
        pairs = [(a.loaded, b.loaded) for a, b in both if b.loaded.requests_per_s]
        if name == HEADRACE or not pairs:
            continue
        where = f"headrace over {name} · {cell.what}"
        rows.append(_median(f"{where} · requests/s", [a.requests_per_s / b.requests_per_s for a, b in pairs], "x"))
        rows.append(_median(f"{where} · p99", [a.p99_ms / b.p99_ms for a, b in pairs], "x"))
    for name, times in _TARGET_TIMES.items():
        rows += _against_target(found, cell, name, times) if cell == Cell(1, 16) else []
    return rows


def _against_target(found: Found, cell: Cell, name: str, times: float) -> list[Measured]:
    pairs = list(zip(found.seen.get((HEADRACE, cell), []), found.seen.get((name, cell), []), strict=False))
    if not pairs:
        return []
    value = statistics.median(a.loaded.requests_per_s / b.loaded.requests_per_s for a, b in pairs)
    return [Measured(f"headrace over {name}, {cell.what}", value, "x", f"target {times:g}", value / times)]


def _limits(found: Found, mean_tokens: float) -> list[Measured]:
    """The engine alone, what headrace keeps of it, and the machine's products."""
    rows = [_median(f"engine alone, {what}", rates, "rows/s") for what, rates in found.engine.items()]
    best = max(found.engine, key=lambda what: statistics.median(found.engine[what]))
    for cell in _SHARED:
        seen = found.seen.get((HEADRACE, cell), [])
        shares = [a.loaded.rows_per_s / b for a, b in zip(seen, found.engine[best], strict=False)]
        if shares:
            what = f"headrace, log on, over the engine alone, {cell.what}"
            value, low, high = (f(shares) for f in (statistics.median, min, max))
            target = f"target {_TARGET_SHARE:.0%}"
            rows.append(Measured(what, 100 * value, "%", target, value / _TARGET_SHARE, 100 * low, 100 * high))
    for kind, tokens_per_s in found.products.items():
        rows.append(Measured(f"int8 products alone, {kind}", tokens_per_s, "tokens/s"))
    limit = max(found.products.values()) / mean_tokens
    engine = statistics.median(found.engine[best])
    rows.append(Measured(f"the machine's limit, at {mean_tokens:.1f} tokens a row", limit, "rows/s"))
    rows.append(Measured("the engine alone over the machine's limit", 100 * engine / limit, "%"))
    start_s = statistics.median(found.start_s[HEADRACE])
    what = f"target {_TARGET_START_S:g} s"
    rows.append(Measured("headrace: start to first answer", start_s, "s", what, start_s / _TARGET_START_S))
    others = [one.load_share for (_, cell), seen in found.seen.items() for one in seen if cell.n_rows == 1]
    rows.append(
        Measured(f"most of a core that a load took ({'wrk' if WRK else 'bench/load.py'})", max(others), "cores")
    )
    return rows


def _times(found: Found) -> list[Measured]:
    """Where headrace's time goes."""
    rows = []
    for n, spent in found.spent.items():
        loads = f"{n} connections"
        for part in in_order(spent.cores):
            rows.append(Measured(f"busy cores, one row a request · {part} · {loads}", spent.cores[part], ""))
        for stage, ms in spent.stage_ms.items():
            per = {"request": "of a request in all", "queue": "of a request in the queue"}
            what = per.get(stage, f"of a batch, {stage}")
            rows.append(Measured(f"headrace's own metrics, one row a request · {what} · {loads}", ms, "ms"))
        what = "rows of a batch"
        rows.append(Measured(f"headrace's own metrics, one row a request · {what} · {loads}", spent.batch_rows, ""))
    return rows


def _of(what: str, seen: Sequence[Seen], value: Callable[[Seen], float], unit: str) -> Measured:
    return _median(what, [value(one) for one in seen], unit)


def _median(what: str, values: Sequence[float], unit: str) -> Measured:
    return Measured(what, statistics.median(values), unit, low=min(values), high=max(values))
