"""What does each way of compressing lose, and what does it gain?

A version is fine-tuned on the demo's start rows of four channels with the default settings; then `headrace compress`
makes every candidate of `compress.ways` and measures the exported artifacts (OpenVINO int8) as docs/compress.md says:
points on the rows of the validation and the test side with 95 % intervals, rows/s in rounds that alternate with the
uncompressed artifact's, bytes. The test side takes no part in the choice.

The workspace is kept, so that a bench that was stopped goes on where it was; delete its folder to begin anew.

Run: python -m bench.compress [--max-drop 0.5] [--ways layers=0.5 vocabulary] [--epochs 2]
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import processes
from bench.reporting import Measured, write
from headrace.compression import UNCOMPRESSED

if TYPE_CHECKING:
    from headrace.workspace import Workspace

SEED = 1
TASK = "tone"


def workspace(root: Path, epochs: float) -> "Workspace":
    """With version 1; what a run before has made of it is there."""
    import headrace
    from bench import sentiment
    from headrace.store import versions

    is_new = not (root / "headrace.toml").exists()
    if is_new:
        headrace.init(root, task=TASK, labels=sentiment.LABELS).close()
    ws = headrace.open_workspace(root, overrides={"finetune.epochs": epochs, "finetune.seed": SEED})
    prepare = sentiment.example()
    if is_new:
        prepare.write(root / "rows")
        for channel in prepare.CHANNELS:
            headrace.add_channel(ws, channel)
    for channel in prepare.CHANNELS:  # rows that are there are left as they are
        headrace.import_rows(ws, channel, root / "rows" / f"{channel}.start.jsonl")
    with ws.store.read() as conn:
        is_trained = bool(versions.listing(conn, TASK))
    if not is_trained:
        headrace.freeze(ws)
        headrace.train(ws)
    return ws


def measured(found: Mapping[str, Any]) -> Iterator[Measured]:
    for one in found["candidates"]:
        name = one["name"]
        yield Measured(f"{name} · speed", one["speed_times"], "x", "uncompressed")
        yield Measured(f"{name} · rows/s", one["rows_per_s"], "rows/s")
        yield Measured(f"{name} · size", one["size_share"], "of the uncompressed")
        yield Measured(f"{name} · parameters", one["n_parameters"], "")
        for side, points in one["points"].items():
            lost = points["overall"]
            yield Measured(f"{name} · {side}", lost["points"], "points", low=lost["low"], high=lost["high"])
        yield Measured(f"{name} · within the budget", float(one["within"]), "")
        yield Measured(f"{name} · chosen", float(name == (found["chosen"] or UNCOMPRESSED)), "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-drop", type=float, default=0.5, help="points that may be lost")
    parser.add_argument("--ways", nargs="+", default=[], help="candidates; default: compress.ways")
    parser.add_argument("--epochs", type=float, default=2, help="of the version that is compressed")
    parser.add_argument("--folder", type=Path, default=processes.WORK / "compress", help="of the workspace")
    given = parser.parse_args(arguments)

    import headrace

    with workspace(given.folder, given.epochs) as ws:
        found = headrace.compress(ws, "1", max_drop=given.max_drop, ways=given.ways)
    print(found["reason"])
    write("compress", list(measured(found)), [SEED])


if __name__ == "__main__":
    main()
