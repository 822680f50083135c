"""The labelled texts that benches of methods train and measure on: a task and its rows, by the published splits.

`vader` and `vader-mean` (the raters' mean as a number) come with a package: see examples/sentiment_channels. The others
lie in a folder of data sets, `--data`: clinc150 (Larson et al. 2019; without out-of-scope rows, its channels are the
ten domains), banking77 (Casanueva et al. 2020), wnut17 (Derczynski et al. 2017) and btc, the Broad Twitter Corpus
(Derczynski et al. 2016; its channels are the segments). A name with `-10` is the few-shot form: 10 training rows of
each class, drawn by the seed, and 2 more to stop training by.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.sentiment import LABELS, example, rows_by_side, share_of, side_of
from headrace.config import TaskTable
from headrace.data.sources import Options
from headrace.data.sources.conll import Conll
from headrace.finetune import base_models
from headrace.records import SIDES, Side, SnapshotRow
from headrace.tasks import TaskType

DATA = Path(__file__).parents[2] / "shared" / "data"
CORPORA = ("vader", "banking77-10", "clinc150-10", "wnut17", "banking77", "btc", "clinc150")
N_SHOTS: dict[Side, int] = {"train": 10, "validation": 2}
# VADER's 9,915 rows take a quarter of an hour a method and seed on two cores; the other corpora are whole, since their
# published figures are.
MAX_ROWS: dict[tuple[str, Side], int] = {("vader", "train"): 4096}
MAX_VALIDATION = 1000  # measured after every epoch
MAX_TEST = 3000  # an accuracy of .9 is known to a point either way
_WHOLE = {"vader-mean"}  # correlations of single channels need every row
# Few rows need many passes; a pass over all seven takes a method six minutes on two cores. The same for every method,
# so that a slow learner shows as one.
EPOCHS = {
    "vader": 2,
    "vader-mean": 3,
    "clinc150": 3,
    "clinc150-10": 12,
    "banking77": 3,
    "banking77-10": 15,
    "wnut17": 4,
    "btc": 2,
}
_MEANINGS = {
    "negative": "I do not like this, it is bad",
    "neutral": "a fact without an opinion",
    "positive": "I like this, it is good",
}
_WNUT_TYPES = ("person", "location", "corporation", "group", "product", "creative-work")
_BTC_TYPES = ("PER", "LOC", "ORG")
# As the authors' own data card has it (huggingface.co/datasets/GateNLP/broad_twitter_corpus).
_BTC_SIDES: dict[str, Side] = {"a": "train", "b": "train", "e": "train", "g": "train", "h": "validation", "f": "test"}
_Loaded = tuple[TaskTable, list[SnapshotRow]]


class NoData(Exception):
    """A corpus is not there; the message says which file, and what to do."""


@dataclass(frozen=True)
class Corpus:
    """A task and its rows of all sides."""

    name: str
    task: TaskTable
    rows: Sequence[SnapshotRow]

    def side(self, side: Side) -> list[SnapshotRow]:
        return [row for row in self.rows if row.side == side]


def load(name: str, data: Path = DATA, *, seed: int = 1, max_rows: int | None = None) -> Corpus:
    """A corpus at the sizes that this file's constants say.

    Args:
        seed: draws the rows of the few-shot forms.
        max_rows: fewer rows of each side than that, to try things out.

    Raises:
        NoData: a file of it is not there.
    """
    base = name.removesuffix("-10")
    try:
        task, rows = _LOADERS[base](data)
    except FileNotFoundError as error:
        message = f"{error.filename} is not there: --data names the folder that has {base}/ (see bench/corpora.py)"
        raise NoData(message) from None
    limits: dict[Side, int] = {} if name in _WHOLE else {"validation": MAX_VALIDATION, "test": MAX_TEST}
    kept: list[SnapshotRow] = []
    for side in SIDES:
        mine = sorted((row for row in rows if row.side == side), key=lambda row: share_of(row.key))
        if base != name and side in N_SHOTS:
            mine = _shots(mine, N_SHOTS[side], seed)
        limit = min(MAX_ROWS.get((name, side), len(rows)), limits.get(side, len(rows)), max_rows or len(rows))
        kept += mine[:limit]
    return Corpus(name, task, kept)


def facts(corpus: Corpus, task_type: TaskType) -> dict[str, Any]:
    """What advice compares rows by: their number, that of classes, and tokens of the base model."""
    train = corpus.side("train")
    count = base_models.token_counter(corpus.task.base_model)
    lengths = [min(n, corpus.task.max_tokens) for n in count([row.text for row in train[:1000]])]
    n_classes = len({row.target for row in train}) if task_type.problem.startswith("single") else task_type.n_outputs
    return {
        "problem": task_type.problem,
        "n_train": len(train),
        "n_classes": n_classes,
        "mean_tokens": sum(lengths) / len(lengths),
    }


def is_there(name: str, data: Path = DATA) -> bool:
    return name.startswith("vader") or (data / name.removesuffix("-10")).is_dir()


def add_data_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=DATA, help="folder of data sets; beside the repository by default")


def _shots(rows: Sequence[SnapshotRow], n: int, seed: int) -> list[SnapshotRow]:
    """The first n rows of each class in an order that the seed draws, classes mixed."""
    by_class: dict[Any, list[SnapshotRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: share_of(f"{seed} {row.key}")):
        by_class[row.target].append(row)
    chosen = [row for mine in by_class.values() for row in mine[:n]]
    return sorted(chosen, key=lambda row: share_of(f"{seed} {row.key}"))


def _row(key: str, channel: str, text: str, target: Any, side: Side) -> SnapshotRow:
    return SnapshotRow(key, channel, key, text, target, side, 1.0, "import")


def _vader(data: Path) -> _Loaded:
    rows = [row for side in rows_by_side().values() for row in side]
    return TaskTable(labels=LABELS, descriptions=_MEANINGS), rows


def _vader_mean(data: Path) -> _Loaded:
    """Every sentence, those that the example keeps back among them: nothing else here ever sees them."""
    prepare = example()
    rows = [
        _row(row["id"], channel, row["text"], row["mean"], side_of(row["group"]))
        for channel in prepare.CHANNELS
        for row in prepare.rows(channel)
    ]
    return TaskTable(type="text-regression"), rows


def _clinc150(data: Path) -> _Loaded:
    folder = data / "clinc150"
    sides = json.loads((folder / "data_full.json").read_text("utf-8"))
    domains = json.loads((folder / "domains.json").read_text("utf-8"))
    channel_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    names: dict[str, Side] = {"train": "train", "val": "validation", "test": "test"}
    rows = [
        _row(f"{name}-{i}", channel_of[intent], text, intent, side)
        for name, side in names.items()
        for i, (text, intent) in enumerate(sides[name])
    ]
    return _intents(sorted(channel_of)), rows


def _banking77(data: Path) -> _Loaded:
    """The authors give no validation side: a tenth of the training side, by hash, is one."""
    rows = []
    for name in ("train", "test"):
        with (data / "banking77" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            for i, line in enumerate(csv.DictReader(file)):
                key = f"{name}-{i}"
                side: Side = "test" if name == "test" else "validation" if share_of(key) < 0.1 else "train"
                rows.append(_row(key, "banking", line["text"], line["category"], side))
    return _intents(sorted({row.target for row in rows})), rows


def _intents(names: Sequence[str]) -> TaskTable:
    return TaskTable(
        labels=tuple(names), descriptions={name: name.replace("_", " ").rstrip("?") for name in names}, max_tokens=64
    )


def _wnut17(data: Path) -> _Loaded:
    files: dict[str, Side] = {"train": "train", "dev": "validation", "test": "test"}
    rows = [
        row for name, side in files.items() for row in _sentences(data / "wnut17" / f"{name}.conll", "web", name, side)
    ]
    return TaskTable(type="token-classification", labels=_WNUT_TYPES), rows


def _btc(data: Path) -> _Loaded:
    rows = [
        row
        for segment, side in _BTC_SIDES.items()
        for row in _sentences(data / "btc" / f"{segment}.conll", segment, segment, side)
    ]
    return TaskTable(type="token-classification", labels=_BTC_TYPES), rows


def _sentences(path: Path, channel: str, name: str, side: Side) -> Iterator[SnapshotRow]:
    """The sentences of a CoNLL file, as `headrace import` reads them."""
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    for raw in Conll.read(str(path), Options(label="label")):
        if raw.error is None and isinstance(raw.text, str) and raw.text.strip():
            yield _row(f"{name}-{raw.line}", channel, raw.text, raw.label, side)


_LOADERS: dict[str, Callable[[Path], _Loaded]] = {
    "vader": _vader,
    "vader-mean": _vader_mean,
    "clinc150": _clinc150,
    "banking77": _banking77,
    "wnut17": _wnut17,
    "btc": _btc,
}


def capped(rows: Sequence[SnapshotRow], side: Side, n: int) -> list[SnapshotRow]:
    """The first n rows, put on a side."""
    return [replace(row, side=side) for row in rows[:n]]
