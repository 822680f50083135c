"""What do channel adapters gain on channels that differ, and what do a thousand cost that do not?

Quality: VADER's four channels in a workspace. A shared model (`freeze`), one trained longer by as many passes as the
adapters take, and the shared one with the adapters that were kept, those of the upper half of the layers and those of
all; all exported, asked for the traffic rows, which nothing was trained or chosen on. Won and lost rows are those of
the version with adapters, beside the other.

Many: 1,000 channels of ten rows each, drawn from the same rows at random, so that no adapter can help. How long their
adapters take, how many are kept (each a mistake), and how much faster some of them train in one pass than each alone.

Run: python -m bench.adapters [--seeds 1 2 3] [--every 2] [--channels 1000]
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import processes
from bench.reporting import Measured, write

EPOCHS = 2
_N_TOGETHER = 40  # channels that are also trained each alone
_ROWS_EACH = 10  # of the many channels: half to learn from, half to decide by
_WAYS = ("shared", "as long", "adapters in all layers", "adapters")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--every", type=int, default=2, help="of the rows to import, one")
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        processes.quiet()
        processes.give(options.job, {"quality": quality, "many": many}[options.job["part"]](options.job))
        return 0
    found = []
    for seed in options.seeds:
        found.append(_done({"part": "quality", "seed": seed, "every": options.every}))
        print(f"seed {seed}: {json.dumps(found[-1])}", flush=True)
    of_many = _done({"part": "many", "n_channels": options.channels, "seed": options.seeds[0]})
    write("adapters", [*_of_quality(found), *_of_many(of_many, options.channels)], options.seeds)
    return 0


def _done(job: Mapping[str, Any]) -> dict[str, Any]:
    found = processes.run("bench.adapters", job)
    if "error" in found:
        sys.exit(f"{job}: {found['error']}")
    return found


# --- Channels that differ -------------------------------------------------------------------------------------------


def quality(job: Mapping[str, Any]) -> dict[str, Any]:
    """Of each way and channel the right answers (0 or 1 a row) and the macro-F1, and who kept an adapter."""
    import headrace
    from bench import sentiment
    from headrace import per_channel
    from headrace.store import adapters, versions
    from headrace.tasks import TASK_TYPES

    prepare = sentiment.example()
    with TemporaryDirectory() as scratch:
        rows, root = Path(scratch) / "rows", Path(scratch) / "ws"
        prepare.write(rows)
        _fill(root, {name: _lines(rows / f"{name}.start.jsonl")[:: job["every"]] for name in prepare.CHANNELS})
        asked = [(row, name) for name in prepare.CHANNELS for row in map(json.loads, _lines(_traffic(rows, name)))]
        of_channel = np.array([name for _, name in asked])
        targets = np.array([prepare.label_of(row["mean"]) for row, _ in asked])
        found: dict[str, Any] = {"seconds": {}, "right": {}, "macro_f1": {}}
        trained = ("adapters", "adapters in all layers", "as long")
        for way in trained:
            with headrace.open_workspace(root, overrides=_settings(job["seed"], way)) as ws:
                started = time.perf_counter()
                headrace.train(ws, per_channel=way != "as long")
                found["seconds"][way] = time.perf_counter() - started
        with headrace.open_workspace(root) as ws:
            with ws.store.read() as conn:
                made = sorted(versions.listing(conn, "tone"), key=lambda one: one.number)
                kept = [one.channel for one in adapters.of_version(conn, made[1].id) if one.is_kept]
            task_type = TASK_TYPES.get("text-classification")(ws.task("tone"))
            for way, version in zip(("shared", *trained), made, strict=True):
                outputs, facts = per_channel.answers_of(ws, version, [r["text"] for r, _ in asked], list(of_channel))
                right = np.array(ws.task("tone").labels)[outputs.argmax(axis=1)] == targets
                for name in ("all", *prepare.CHANNELS):
                    mine = np.full(len(asked), True) if name == "all" else of_channel == name
                    figures = task_type.metrics(list(targets[mine]), outputs[mine], facts.calibration)
                    found["macro_f1"].setdefault(name, {})[way] = figures["macro_f1"]
                    found["right"].setdefault(name, {})[way] = right[mine].astype(int).tolist()
    return {**found, "kept": kept, "peak_bytes": processes.peak_bytes()}


def _settings(seed: int, way: str) -> dict[str, Any]:
    from headrace.config import FinetuneTable

    epochs = EPOCHS + (FinetuneTable().per_channel.epochs if way == "as long" else 0)
    own = {"method": "freeze", "epochs": epochs, "seed": seed, "evals_per_epoch": 1, "patience": int(epochs)}
    if way == "adapters in all layers":
        own["per_channel.frozen_layers"] = 0
    return {f"finetune.{name}": value for name, value in own.items()}


def _traffic(rows: Path, name: str) -> Path:
    return rows / f"{name}.traffic.jsonl"


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def _fill(root: Path, lines: Mapping[str, Sequence[str]]) -> None:
    """A workspace with these rows by channel, each under its share of the sides."""
    import headrace
    from bench.sentiment import LABELS

    headrace.init(root, task="tone", labels=LABELS).close()
    with headrace.open_workspace(root) as ws:
        for name, own in lines.items():
            headrace.add_channel(ws, name)
            (file := root.with_name("import.jsonl")).write_text("\n".join(own) + "\n", "utf-8")
            headrace.import_rows(ws, name, file)
        headrace.freeze(ws)


# --- Channels that do not ------------------------------------------------------------------------------------------


def many(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train adapters for many equal channels on a shared model, decide, and train some of them each alone."""
    from bench import sentiment
    from headrace.checkpoints import low_rank
    from headrace.checkpoints.saving import save
    from headrace.config import FinetuneTable
    from headrace.evaluate import adapters as evidence_for
    from headrace.finetune import base_models, channel_adapters
    from headrace.finetune.running import tune

    def quietly(*_: object, **__: object) -> None: ...

    rows = [row for side in sentiment.rows_by_side().values() for row in side]
    random.Random(job["seed"]).shuffle(rows)
    settings = FinetuneTable(method="freeze", epochs=1, seed=job["seed"])
    base = base_models.find(sentiment.TASK.base_model).folder
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("run", "checkpoint", "together", "alone"):
            (folder / name).mkdir()
        n = job["n_channels"] * _ROWS_EACH
        mine = _dealt(rows[:n])
        tuned = tune(folder / "run", base, sentiment.TASK, settings, [*mine["train"], *mine["validation"]], quietly)
        save(tuned.network, tuned.tokenizer, folder / "checkpoint")
        shared = channel_adapters.open_shared(folder / "checkpoint", sentiment.TASK, settings)
        channels = sorted({row.channel for row in mine["train"]})
        started, before = time.perf_counter(), processes.resident_bytes()
        folders = channel_adapters.train(shared, settings, mine["train"], channels, folder / "together", quietly)
        seconds, own = time.perf_counter() - started, {name: low_rank.read(path) for name, path in folders.items()}
        held_out = mine["validation"]
        plain = channel_adapters.answers(shared, held_out, {})
        decided = evidence_for.decide(
            shared.task_type, held_out, plain, channel_adapters.answers(shared, held_out, own),
            alpha=settings.per_channel.alpha,
        )  # fmt: skip
        some = channels[:_N_TOGETHER]
        of_some = [row for row in mine["train"] if row.channel in set(some)]
        started = time.perf_counter()
        channel_adapters.train(shared, settings, of_some, some, folder / "alone" / "all", quietly)
        at_once = time.perf_counter() - started
        started = time.perf_counter()
        for name in some:
            channel_adapters.train(shared, settings, of_some, [name], folder / "alone" / name, quietly)
        one_by_one = time.perf_counter() - started
    visited = len(mine["train"]) * settings.per_channel.epochs
    return {
        "n": len(channels), "n_kept": sum(one["kept"] for one in decided.values()), "seconds": seconds,
        "rows_per_s": visited / seconds, "more_bytes": processes.peak_bytes() - before,
        "at_once": at_once, "one_by_one": one_by_one,
    }  # fmt: skip


def _dealt(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows as those of channels of `_ROWS_EACH`, half of each to learn from and half to decide by."""
    from dataclasses import replace

    found: dict[str, list[Any]] = {"train": [], "validation": []}
    for place, row in enumerate(rows):
        side = "train" if place % 2 else "validation"
        found[side].append(replace(row, channel=f"channel {place // _ROWS_EACH}", side=side))
    return found


# --- Figures -------------------------------------------------------------------------------------------------------


def _of_quality(found: Sequence[Mapping[str, Any]]) -> list[Measured]:
    measured = []
    for name in found[0]["macro_f1"]:
        for way in _WAYS:
            values = [one["macro_f1"][name][way] for one in found]
            measured.append(_spread(f"{name}: macro-F1, {way}", values, ""))
        for other in _WAYS[:-1]:
            pairs = [(np.array(one["right"][name]["adapters"]), np.array(one["right"][name][other])) for one in found]
            points = [100 * float((own - plain).mean()) for own, plain in pairs]
            won = round(statistics.fmean(int((own > plain).sum()) for own, plain in pairs))
            lost = round(statistics.fmean(int((own < plain).sum()) for own, plain in pairs))
            what = f"{name}: points of accuracy that adapters gain, beside {other}"
            measured.append(_spread(what, points, "points", vs=f"{won} rows won, {lost} lost of {len(pairs[0][0])}"))
        if name != "all":
            kept = sum(name in one["kept"] for one in found)
            measured.append(Measured(f"{name}: kept an adapter", kept, "seeds", vs=f"of {len(found)} seeds"))
    told = {"adapters": "shared model and adapters", "adapters in all layers": "adapters in all layers, after those"}
    for way, what in {**told, "as long": "the shared model, as long"}.items():
        measured.append(_spread(f"seconds, {what}", [one["seconds"][way] for one in found], "s"))
    return measured


def _spread(what: str, values: Sequence[float], unit: str, vs: str | None = None) -> Measured:
    return Measured(what, statistics.median(values), unit, vs=vs, low=min(values), high=max(values))


def _of_many(found: Mapping[str, Any], n_asked: int) -> list[Measured]:
    what = f"{found['n']:,} channels of {_ROWS_EACH} rows"
    return [
        Measured(f"{what}: seconds for their adapters", found["seconds"], "s"),
        Measured(f"{what}: rows a second", found["rows_per_s"], "rows/s"),
        Measured(f"{what}: memory above that of the shared model", found["more_bytes"], "bytes"),
        Measured(f"{what}: kept, though none can help", found["n_kept"], "", vs=f"of {n_asked:,}"),
        Measured(
            f"{_N_TOGETHER} of them in one pass", found["at_once"], "s", vs="each alone",
            ratio=found["one_by_one"] / found["at_once"],
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
