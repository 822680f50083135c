"""The demo's last screen: both versions per channel, the decision, and where to look."""

import sys
from pathlib import Path

import headrace
from headrace.cli.rendering import interval, table
from headrace.loop import describe
from headrace.release.controls import find_version


def main() -> None:
    with headrace.open_workspace(sys.argv[1]) as ws:
        second = describe(ws, find_version(ws, None, "2"))["evaluations"]
        lines = headrace.history(ws)
    old, new = second["control"], second["version"]
    main_metric = new["main_metric"]
    rows = []
    for channel in ("overall", *new["channels"]):
        parts = [r["overall"] if channel == "overall" else r["channels"][channel] for r in (old, new)]
        change = old["comparison"]["overall"] if channel == "overall" else old["comparison"]["channels"][channel]
        figures = [interval(part["intervals"][main_metric]) for part in parts]
        rows.append((channel, parts[0]["n"], *figures, interval(change["difference"])))
    title = f"{main_metric} of both versions on the same held-out rows, with 95 % intervals"
    table(("channel", "rows", "version 1", "version 2", "difference"), rows, title=title)
    decided = next(line for line in reversed(lines) if line.kind in ("promote", "hold", "reject"))
    print(f"Decision: {decided.kind}. {decided.reason}")
    print(f"Report:   {Path(sys.argv[1]).absolute() / 'report.html'}")


if __name__ == "__main__":
    main()
