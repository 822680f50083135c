"""The rows that benches of models share: the demo's start rows, split by group as headrace splits."""

import hashlib
import importlib.util
import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from headrace.config import TaskTable
from headrace.records import Side, SnapshotRow

LABELS = ("negative", "neutral", "positive")
TASK = TaskTable(labels=LABELS)
_EXAMPLE = Path(__file__).parents[1] / "examples" / "sentiment_channels" / "prepare.py"
_SHARES: tuple[tuple[Side, float], ...] = (("test", 0.2), ("validation", 0.3))  # upper ends


@cache
def rows_by_side() -> dict[str, list[SnapshotRow]]:
    """Train, validation and test rows of the four channels, about 70 : 10 : 20."""
    prepare = example()
    sides: dict[str, list[SnapshotRow]] = {"train": [], "validation": [], "test": []}
    with tempfile.TemporaryDirectory() as folder:
        prepare.write(Path(folder))
        for channel in prepare.CHANNELS:
            with (Path(folder) / f"{channel}.start.jsonl").open() as file:
                for row in map(json.loads, file):
                    side = side_of(row["group"])
                    sides[side].append(
                        SnapshotRow(row["id"], channel, row["id"], row["text"], row["label"], side, 1.0, "import")
                    )
    order = sorted(sides["train"], key=lambda row: share_of(row.key))
    return sides | {"train": order}


def side_of(group: str) -> Side:
    share = share_of(group)
    return next((side for side, end in _SHARES if share < end), "train")


def share_of(text: str) -> float:
    """A number in [0, 1) that hangs on the text alone."""
    return int(hashlib.sha256(f"bench {text}".encode()).hexdigest()[:8], 16) / 2**32


@cache
def example() -> ModuleType:
    """prepare.py of the example, which fetches and reads the archive."""
    spec = importlib.util.spec_from_file_location("prepare", _EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module
    spec.loader.exec_module(module)
    return module
