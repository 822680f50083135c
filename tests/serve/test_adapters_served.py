"""64 adapters on one base in a real worker, replaced while 100,000 rows are asked of them in random order. Catches: a
row answered by another adapter than the answer names, an adapter that goes while rows wait for it, a slot given away
too early, an update or a head of another's slot, weights that are not those of the digest."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from conftest import sentences
from headrace.checkpoints import low_rank
from headrace.checkpoints.low_rank import LowRank, weights_digest
from headrace.config import ServeTable
from headrace.errors import Damaged
from headrace.export import BACKENDS, write_facts
from headrace.serve.frames import Message
from headrace.serve.pool import Answer, Pool
from headrace.workspace import Workspace
from small_checkpoint import REGRESSION, make_checkpoint

N_ADAPTERS, N_ROWS, ROWS_PER_REQUEST, N_CLIENTS = 64, 100_000, 50, 4
N_SWAPS = 200
TARGET = "bert.encoder.layer.1.output.dense"
TEXTS = [row["text"] for row in sentences(9)]
TOLERANCE = 1e-3  # between a graph in fp32 and torch; adapters differ by ten times as much on some text
WAIT_S = 60


def adapters_of(checkpoint: Path, n: int) -> tuple[list[LowRank], np.ndarray]:
    """Adapters that differ in their update alone, and what torch says with each to `TEXTS`: (n, texts)."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokens = AutoTokenizer.from_pretrained(checkpoint)(TEXTS, padding=True, return_tensors="pt")
    layer = model.get_submodule(TARGET)
    rng, shared = np.random.default_rng(0), layer.weight.detach().clone()
    made: list[LowRank] = []
    answers = np.empty((0, len(TEXTS)))
    with torch.no_grad():
        while len(made) < n:
            a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, layer.in_features), (32, 1)))
            layer.weight.copy_(shared + 2 * torch.from_numpy(b @ a))
            said = model(**tokens).logits.numpy()[:, 0]
            if (np.abs(answers - said).max(axis=1) > 10 * TOLERANCE).all():
                made.append(LowRank(2.0, {TARGET: (a, b)}, None))
                answers = np.vstack([answers, said])
    return made, answers


class Shelf:
    """What each of the channels is answered by now, as a lineup would know it."""

    def __init__(
        self, pool: Pool, artifact: str, root: Path, made: list[LowRank], answers: np.ndarray, batches: list[Message]
    ) -> None:
        self.pool, self.artifact, self.root = pool, artifact, root
        self.made, self.answers, self.batches = made, answers, batches
        self.now: dict[int, str] = {}
        self.number_of = {weights_digest(one): number for number, one in enumerate(made)}

    def put(self, channel: int, number: int) -> None:
        """Load before it is named, and let the old one go after it is not."""
        weights, folder = weights_digest(self.made[number]), self.root / str(number)
        low_rank.write(folder, self.made[number], base="shared")
        self.pool.load(self.artifact, folder, adapter=weights)
        old, self.now[channel] = self.now.get(channel), weights
        if old is not None:
            self.pool.unload(self.artifact, adapter=old)

    def ask(self, channel: int, places: list[int]) -> tuple[str, "Future[Answer]"]:
        """The adapter that is asked, and what it will say to texts."""
        while True:
            weights = self.now[channel]
            if self.pool.is_loaded(self.artifact, weights):  # or it was replaced between the two lines
                break
        texts = [TEXTS[place] for place in places]
        return weights, self.pool.predict(self.artifact, texts, channel=str(channel), adapter=weights)

    def n_wrong(self, weights: str, places: list[int], answer: Answer) -> int:
        assert answer.adapter == weights
        values = np.asarray([row["output"]["value"] for row in answer.rows])
        return int((np.abs(values - self.answers[self.number_of[weights], places]) > TOLERANCE).sum())


@pytest.fixture
def shelf(request: pytest.FixtureRequest, tiny_base: Path, workspace: Workspace, tmp_path: Path) -> Iterator[Shelf]:
    checkpoint = make_checkpoint(tiny_base, tmp_path / "checkpoint", task=REGRESSION)
    made, answers = adapters_of(checkpoint, request.param)
    folder = workspace.artifacts.new_folder()
    backend = BACKENDS.get("openvino")
    bank = {"targets": [TARGET], "rank": 1}
    facts = backend.write(checkpoint, folder, task=REGRESSION, precision="fp32", calibration=["a text"], bank=bank)
    write_facts(folder, facts)
    artifact, _ = workspace.artifacts.put(folder)
    settings = ServeTable(n_workers=1, n_threads=2, max_queue_rows=10**6, timeout_s=WAIT_S)
    batches: list[Message] = []
    with Pool(settings, on_batches=batches.extend) as pool:
        pool.start()
        pool.load(artifact, workspace.artifacts.get(artifact))
        yield Shelf(pool, artifact, tmp_path / "adapters", made, answers, batches)


@pytest.mark.slow
@pytest.mark.parametrize("shelf", [N_ADAPTERS + N_SWAPS], indirect=True)
def test_no_row_is_answered_by_another_adapter(shelf: Shelf) -> None:
    for channel in range(N_ADAPTERS):
        shelf.put(channel, channel)
    done = threading.Event()

    def ask(seed: int) -> int:
        rng, n_wrong = random.Random(seed), 0
        for _ in range(N_ROWS // ROWS_PER_REQUEST // N_CLIENTS // 2):
            several = []
            for _ in range(2):  # that wait at once, so that a batch has rows of both
                places = rng.choices(range(len(TEXTS)), k=ROWS_PER_REQUEST)
                several.append((places, shelf.ask(rng.randrange(N_ADAPTERS), places)))
            n_wrong += sum(shelf.n_wrong(used, places, said.result(WAIT_S)) for places, (used, said) in several)
        return n_wrong

    def swap() -> int:
        rng, n_swaps = random.Random(0), 0
        while n_swaps < N_SWAPS and not done.is_set():
            channel = rng.randrange(N_ADAPTERS)
            shelf.put(channel, N_ADAPTERS + n_swaps)
            n_swaps += 1
        return n_swaps

    with ThreadPoolExecutor(N_CLIENTS + 1) as threads:
        swaps = threads.submit(swap)
        n_wrong = sum(threads.map(ask, range(N_CLIENTS)))
        done.set()
    assert n_wrong == 0
    assert swaps.result() > N_ADAPTERS // 2, "too few adapters were replaced to say anything"
    assert max(batch["n_rows"] for batch in shelf.batches) > ROWS_PER_REQUEST, "no batch had rows of several adapters"


@pytest.mark.parametrize("shelf", [3], indirect=True)
def test_weights_that_are_not_those_of_the_digest_are_refused(shelf: Shelf) -> None:
    shelf.put(0, 0)
    low_rank.write(shelf.root / "other", shelf.made[1], base="shared")
    with pytest.raises(Damaged, match="not those that were trained"):
        shelf.pool.load(shelf.artifact, shelf.root / "other", adapter=weights_digest(shelf.made[2]))
    weights, answer = shelf.ask(0, [0, 8])
    assert shelf.n_wrong(weights, [0, 8], answer.result(WAIT_S)) == 0
    assert shelf.pool.predict(shelf.artifact, ["good"]).result(WAIT_S).adapter is None
