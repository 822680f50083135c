"""How well can a model be copied by asking it?

A version answers texts; a student learns from the answers alone. Measured is how often the student says what the
version says, on texts that neither saw: after 1,000 and 10,000 answers, of a label with its confidence in two digits
(what a key without the scope `scores` gets) or of all scores. The student reads the same vectors as the version, or
words alone. Beside them a student that was told the truth of as many texts.

Run: python -m bench.extraction [--answers 1000 10000] [--seeds 1 2 3]
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import corpora
from bench.reporting import Measured, write
from headrace import vectors
from headrace.stats import linear_probe
from headrace.workspace import init

Floats = NDArray[np.float64]
_N_TAUGHT = 4000
_N_WORDS = 1024
_STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--answers", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    corpora.add_data_option(parser)
    options = parser.parse_args()
    corpus = corpora.load("clinc150", options.data)
    rows = [*corpus.side("train"), *corpus.side("validation"), *corpus.side("test")]
    n_asked = len(rows) - len(corpus.side("test"))
    labels = sorted({row.target for row in rows})
    targets = np.array([labels.index(row.target) for row in rows])
    with tempfile.TemporaryDirectory() as scratch, init(Path(scratch) / "ws", task="t", labels=("a", "b")) as ws:
        dense = vectors.of_inputs(ws, [row.text for row in rows], task="t").astype(np.float64)
    features = {"the same vectors": dense, "words alone": _words([row.text for row in rows])}
    found: dict[str, list[float]] = {}
    for seed in options.seeds:
        order = random.Random(seed).sample(range(n_asked), n_asked)
        taught, left = order[:_N_TAUGHT], order[_N_TAUGHT:]
        held_out = np.arange(n_asked, len(rows))
        weights = linear_probe.fit(dense[taught], targets[taught], len(labels))
        probs = np.exp(linear_probe.log_probs(weights, dense))
        said = probs.argmax(axis=1)
        found.setdefault("the version: right", []).append(float((said[held_out] == targets[held_out]).mean()))
        for n in options.answers:
            asked = left[:n]
            for name, lessons in _lessons(probs[asked], targets[asked], len(labels)).items():
                for kind, given in features.items():
                    student = _student(given[asked], lessons, seed)
                    answers = (given[held_out] @ student[:-1] + student[-1]).argmax(axis=1)
                    case = f"{len(asked):,} answers, {name}, {kind}"
                    found.setdefault(f"{case}: says the same", []).append(float((answers == said[held_out]).mean()))
    write("extraction", [_measured(what, values) for what, values in found.items()], seeds=options.seeds)


def _measured(what: str, values: Sequence[float]) -> Measured:
    return Measured(what, statistics.fmean(values), "share", low=min(values), high=max(values))


def _lessons(probs: Floats, truth: NDArray[Any], n_classes: int) -> Mapping[str, Floats]:
    """What a student learns from (N, K), by what it was told."""
    label = probs.argmax(axis=1)
    sure = np.round(probs.max(axis=1), 2)
    coarse = np.tile(((1 - sure) / (n_classes - 1))[:, None], (1, n_classes))
    coarse[np.arange(len(label)), label] = sure
    return {"label and confidence": coarse, "all scores": probs, "the truth instead": np.eye(n_classes)[truth]}


def _student(given: Floats, lessons: Floats, seed: int) -> Floats:
    """Weights (D + 1, K) of a softmax regression on soft targets."""
    torch.manual_seed(seed)
    x, y = torch.tensor(given, dtype=torch.float32), torch.tensor(lessons, dtype=torch.float32)
    layer = torch.nn.Linear(x.shape[1], y.shape[1])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(x), y)
        loss.backward()
        optimizer.step()
    weights = torch.cat([layer.weight.T, layer.bias[None]]).detach().numpy()
    return np.asarray(weights, dtype=np.float64)


def _words(texts: Sequence[str]) -> Floats:
    """Unit vectors of hashed words, weighted by how rare they are."""
    from zlib import crc32

    counts = np.zeros((len(texts), _N_WORDS))
    for i, text in enumerate(texts):
        for word in text.lower().split():
            counts[i, crc32(word.encode()) % _N_WORDS] += 1
    weighted = counts * np.log(len(texts) / (1 + (counts > 0).sum(axis=0)))
    lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
    return np.asarray(weighted / np.maximum(lengths, 1e-9))


if __name__ == "__main__":
    main()
