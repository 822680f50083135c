"""What bench.serving serves and asks: a workspace with one model version of VADER's channels, trained once and kept.

`processes.run` has the training in a process of its own; delete the folder to train again.
"""

import argparse
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import processes

KEPT = processes.WORK / "serving"
SEED = 1
TASK = "tone"
N_ASKED = 2048
_SETTINGS = {"finetune.method": "freeze", "finetune.epochs": 1}
_EVERY = 4  # of the rows to train on, one: a model that is good enough to be asked, in seconds
_DONE = "material.json"


@dataclass(frozen=True)
class Asked:
    """A text of the traffic, which nothing was trained on, and what the fine-tuned checkpoint says to it in fp32."""

    text: str
    channel: str
    label: str


@dataclass(frozen=True)
class Material:
    workspace: Path
    """With version 1 and an empty prediction log."""
    checkpoint: Path
    """The version's, as transformers reads it."""
    artifact: Path
    """The version's: OpenVINO, int8."""
    asked: list[Asked]


def material() -> Material:
    """What was kept, or was made now, which takes a few minutes."""
    if not (KEPT / _DONE).exists():
        print(f"training once; the result stays in {KEPT}", flush=True)
        shutil.rmtree(KEPT, ignore_errors=True)
        found = processes.run("bench.serving_material", {})
        if "error" in found:
            sys.exit(f"the material could not be made: {found['error']}")
    kept = json.loads((KEPT / _DONE).read_text("utf-8"))
    workspace, checkpoint, artifact = (KEPT / kept[name] for name in ("workspace", "checkpoint", "artifact"))
    return Material(workspace, checkpoint, artifact, [Asked(**row) for row in kept["asked"]])


def batches(asked: Sequence[Asked], n_rows: int) -> list[list[Asked]]:
    """The texts in groups of `n_rows` of one channel each, in random order; a channel's rest is left out."""
    by_channel: dict[str, list[Asked]] = {}
    for row in asked:
        by_channel.setdefault(row.channel, []).append(row)
    found = [rows[i : i + n_rows] for rows in by_channel.values() for i in range(0, len(rows) - n_rows + 1, n_rows)]
    random.Random(SEED).shuffle(found)
    return found


def make() -> dict[str, Any]:
    import headrace
    from bench import sentiment
    from headrace.store import versions

    processes.quiet()
    rows, root = KEPT / "rows", KEPT / "workspace"
    prepare = sentiment.example()
    prepare.write(rows)
    headrace.init(root, task=TASK, labels=sentiment.LABELS).close()
    with headrace.open_workspace(root, overrides=_SETTINGS) as ws:
        for channel in prepare.CHANNELS:
            headrace.add_channel(ws, channel)
            lines = (rows / f"{channel}.start.jsonl").read_text("utf-8").splitlines(keepends=True)
            (some := rows / f"{channel}.some.jsonl").write_text("".join(lines[::_EVERY]), "utf-8")
            headrace.import_rows(ws, channel, some)
        headrace.freeze(ws)
        trained = headrace.train(ws)
        with ws.store.read() as conn:
            version = next(one for one in versions.listing(conn, TASK) if one.id == trained["version_id"])
        checkpoint, artifact = (ws.artifacts.get(digest) for digest in (version.checkpoint, version.artifact))
        known = answered(checkpoint, texts(rows, prepare.CHANNELS))
    found = {
        **{name: str(path.relative_to(KEPT)) for name, path in (("workspace", root), ("checkpoint", checkpoint))},
        "artifact": str(artifact.relative_to(KEPT)),
        "asked": [asdict(row) for row in known],
    }
    (KEPT / _DONE).write_text(json.dumps(found), "utf-8")
    return {"main_metric": trained["main_metric"]}


def texts(rows: Path, channels: Sequence[str]) -> list[tuple[str, str]]:
    """Texts with their channels, drawn from the traffic of all."""
    found = []
    for channel in channels:
        with (rows / f"{channel}.traffic.jsonl").open(encoding="utf-8") as file:
            found += [(json.loads(line)["text"], channel) for line in file]
    return random.Random(SEED).sample(found, N_ASKED)


def answered(checkpoint: Path, asked: Sequence[tuple[str, str]]) -> list[Asked]:
    from bench.sentiment import TASK as SETTINGS
    from headrace.export.checkpoint import load

    best = load(checkpoint, SETTINGS).logits([text for text, _ in asked]).argmax(axis=1)
    return [Asked(text, channel, SETTINGS.labels[k]) for (text, channel), k in zip(asked, best, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=json.loads, required=True)
    job = parser.parse_args().job
    processes.give(job, make())


if __name__ == "__main__":
    main()
