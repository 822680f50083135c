"""Print docs/benchmarks.md's tables from bench/results/*.json, so that no figure is typed by hand.

python scripts/bench_table.py
"""

import json
import math
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "bench" / "results"
NONE_YET = "No results yet. `make bench` makes them.\n"
SEPARATOR = " · "
"""A row called `TABLE · SUBJECT · FIGURE` is a cell of a table of its own, a line for each subject."""
_ASKED = "asked: "  # bench/behaviour.py and bench/soak.py say so what was asked for


def markdown(folder: Path = RESULTS) -> str:
    """A section per bench: where and when it was measured, and its figures."""
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    return "\n".join(_section(report) for report in reports) or NONE_YET


def promises(folder: Path = RESULTS) -> str:
    """What drills and the soak reached, beside what was asked for."""
    lines = ["| what | reached | asked for |", "| --- | ---: | --- |"]
    for name in ("behaviour", "soak"):
        path = folder / f"{name}.json"
        rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
        for row in rows:
            is_asked = (row["vs"] or "").startswith(_ASKED)
            asked = row["vs"].removeprefix(_ASKED) if is_asked else ""
            what = row["what"] if name == "behaviour" else f"R27 soak: {row['what']}"
            lines.append(f"| {_cell(what)} | {_cell(_value(row))} | {_cell(asked)} |")
    return "\n".join(lines)


def _section(report: dict[str, Any]) -> str:
    machine = report["machine"]
    seeds = ", ".join(str(seed) for seed in report["seeds"])
    where = (
        f"{report['at'][:10]}, {_count(machine['n_cores'], 'core')} of {machine['cpu']}, "
        f"{machine['gpu'] + ', ' if 'gpu' in machine else ''}"
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Python {machine['python']}, "
        f"load {machine['load_1_min']} at the end, commit `{report['commit'][:12]}`"
    )
    cells = [row for row in report["rows"] if row["what"].count(SEPARATOR) == 2]
    plain = [row for row in report["rows"] if row not in cells]
    lines = ["| what | value | from, to | beside |", "| --- | ---: | --- | --- |"] if plain else []
    lines += [f"| {_cell(row['what'])} | {_value(row)} | {_interval(row)} | {_beside(row)} |" for row in plain]
    source = f"`python -m bench.{report['bench']}`, {where}" + (f", seeds {seeds}" if seeds else "")
    return "\n".join([f"### {report['bench']}", "", f"{source}.", "", *lines, *_tables(cells), ""])


def _tables(cells: list[dict[str, Any]]) -> list[str]:
    """A table for each first part of the names; where there are several seeds, the median, least and most."""
    lines: list[str] = []
    for name in dict.fromkeys(cell["what"].split(SEPARATOR)[0] for cell in cells):
        mine = [cell for cell in cells if cell["what"].split(SEPARATOR)[0] == name]
        subjects: dict[str, dict[str, str]] = {}
        for cell in mine:
            _, subject, figure = cell["what"].split(SEPARATOR)
            source = f" ({cell['vs']})" if cell["vs"] and cell["ratio"] is None else ""
            subjects.setdefault(f"{subject}{source}", {})[figure] = _short(cell)
        fullest = max(subjects.values(), key=len)
        figures = dict.fromkeys([*fullest, *(figure for values in subjects.values() for figure in values)])
        lines += ["", f"**{_cell(name)}** (in brackets: from, to)", ""]
        lines += ["| " + " | ".join(["", *figures]) + " |", "| --- |" + " --- |" * len(figures)]
        for subject, values in subjects.items():
            lines.append("| " + " | ".join([_cell(subject), *(values.get(figure, "") for figure in figures)]) + " |")
    return lines[1:]


def _short(row: dict[str, Any]) -> str:
    """A value with its ends in brackets; bytes in megabytes."""
    scale, unit = (1e6, "MB") if row["unit"] == "bytes" else (1, row["unit"])
    low, high = row.get("low"), row.get("high")
    ends = "" if low is None or high is None or low == high else f" ({_number(low / scale)} to {_number(high / scale)})"
    ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} x {row['vs']}"
    return _cell(f"{_number(row['value'] / scale)} {unit}".strip() + ends + ratio)


def _value(row: dict[str, Any]) -> str:
    return f"{_number(row['value'])} {row['unit']}".strip()


def _interval(row: dict[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    return "" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _beside(row: dict[str, Any]) -> str:
    ratio, vs = row.get("ratio"), row.get("vs")
    if ratio is None:
        return _cell(vs or "")
    return f"{ratio:.2f} x {_cell(vs or 'before')}"


def _number(value: float) -> str:
    """Four digits, whole thousands apart, never in powers of ten."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1e-3 or value == 0:
        return f"{value:.4g}"
    return f"{value:.{max(6, 1 - math.floor(math.log10(abs(value))))}f}"  # two digits of what is smaller still


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
