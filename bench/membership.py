"""Can training rows be told from others by the loss, and does the attack find what a model does know by heart?

Of each way to train and each corpus: the share of 1,000 training rows that are told at 0.1 % false ones (see
headrace/evaluate/membership.py), beside as many held-out rows. "by heart" answers as its nearest training row does,
surer the nearer: what the attack must find.

Run: python -m bench.membership [--ways head full] [--seeds 1 2 3] [--rows 1000]
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import corpora, processes
from bench.corpora import Corpus
from bench.reporting import Measured, write
from headrace import vectors
from headrace.config import FinetuneTable
from headrace.evaluate import membership
from headrace.records import SnapshotRow
from headrace.stats import linear_probe
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import init

_CORPORA = ("banking77", "clinc150", "vader")
_WAYS = ("head", "full", "by heart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ways", nargs="+", default=["head", "by heart"], choices=_WAYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=1000, help="training rows, and held-out rows")
    parser.add_argument("--epochs", type=float, default=5, help="of full")
    parser.add_argument("--corpora", nargs="+", default=list(_CORPORA))
    corpora.add_data_option(parser)
    options = parser.parse_args()
    processes.quiet()
    measured = []
    for name in (name for name in options.corpora if corpora.is_there(name, options.data)):
        corpus = corpora.load(name, options.data)
        for way in options.ways:
            parts = [_part(corpus, way, seed, options) for seed in options.seeds]
            shares = [part["share"] for part in parts]
            what = f"{name}, {way}: told of {parts[0]['n_members']} at {parts[0]['false_share']:.1%} false"
            measured.append(Measured(what, statistics.fmean(shares), "share", low=min(shares), high=max(shares)))
            chances = [part["chance"] for part in parts]
            measured.append(Measured(f"{name}, {way}: least chance of as many by luck", min(chances), "probability"))
    write("membership", measured, seeds=options.seeds)


def _part(corpus: Corpus, way: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(seed)
    members = rng.sample(corpus.side("train"), min(options.rows, len(corpus.side("train"))))
    known = {row.target for row in members}
    others = [row for row in rng.sample(corpus.side("test"), len(corpus.side("test"))) if row.target in known]
    others = others[: options.rows]
    task_type: TaskType = TASK_TYPES.get(corpus.task.type)(corpus.task)
    answer = _tuned if way == "full" else _probed
    outputs = answer(corpus, task_type, members, others, way, seed, options.epochs)
    found = membership.measure(task_type, members, outputs[: len(members)], others, outputs[len(members) :])
    assert found is not None
    return dict(found["overall"])


def _probed(
    corpus: Corpus, task_type: TaskType, members: Sequence[SnapshotRow], others: Sequence[SnapshotRow], way: str,
    _seed: int, _epochs: float,
) -> NDArray[Any]:  # fmt: skip
    """Log-probabilities of a regression on frozen vectors, or of the nearest row."""
    texts = [row.text for row in (*members, *others)]
    with tempfile.TemporaryDirectory() as scratch, init(Path(scratch) / "ws", task="t", labels=("a", "b")) as ws:
        found = vectors.of_inputs(ws, texts, task="t")
    targets = task_type.encode_targets([row.target for row in members])
    if way == "by heart":
        return _by_heart(found, len(members), targets, task_type.n_outputs)
    weights = linear_probe.fit(found[: len(members)], targets, task_type.n_outputs)
    return linear_probe.log_probs(weights, found)


def _by_heart(found: NDArray[Any], n: int, targets: NDArray[Any], n_classes: int) -> NDArray[Any]:
    """A model that answers from its training rows alone: the label of the nearest, surer the nearer."""
    near = found @ found[:n].T
    place = near.argmax(axis=1)
    logits = np.zeros((len(found), n_classes))
    logits[np.arange(len(found)), targets[place]] = 20 * np.take_along_axis(near, place[:, None], axis=1)[:, 0]
    return logits


def _tuned(
    corpus: Corpus, task_type: TaskType, members: Sequence[SnapshotRow], others: Sequence[SnapshotRow], _way: str,
    seed: int, epochs: float,
) -> NDArray[Any]:  # fmt: skip
    from headrace.checkpoints.saving import save
    from headrace.export.checkpoint import load as load_checkpoint
    from headrace.finetune import base_models
    from headrace.finetune.running import tune

    settings = FinetuneTable(epochs=epochs, evals_per_epoch=1, min_steps=0, seed=seed)
    rows = [*members, *corpus.side("validation")[:200]]
    with tempfile.TemporaryDirectory() as scratch:
        run_folder, checkpoint = Path(scratch) / "run", Path(scratch) / "checkpoint"
        run_folder.mkdir()
        checkpoint.mkdir()
        base = base_models.find(corpus.task.base_model).folder
        tuned = tune(run_folder, base, corpus.task, settings, rows, lambda *_a, **_f: None)
        save(tuned.network, tuned.tokenizer, checkpoint)
        outputs: NDArray[Any] = load_checkpoint(checkpoint, corpus.task).logits([r.text for r in (*members, *others)])
    return outputs


if __name__ == "__main__":
    main()
