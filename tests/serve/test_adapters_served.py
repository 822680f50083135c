"""64 adapters on one base in a real worker, replaced while 100,000 rows are asked of them in random order. Catches: a
row answered by another adapter than the answer names, an adapter that goes while rows wait for it, a slot given away
too early, weights that are not those of the digest."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace.checkpoints import low_rank
from headrace.checkpoints.low_rank import LowRank, weights_digest
from headrace.config import ServeTable
from headrace.errors import Damaged
from headrace.export import BACKENDS, write_facts
from headrace.serve.pool import Pool
from headrace.workspace import Workspace
from small_checkpoint import REGRESSION, make_checkpoint

N_ADAPTERS, N_ROWS, ROWS_PER_REQUEST, N_CLIENTS = 64, 100_000, 50, 4
N_SWAPS = 200
TARGET = "bert.encoder.layer.0.attention.self.query"
WAIT_S = 60


def answering(value: float, width: int) -> LowRank:
    """An adapter that answers `value` to everything."""
    nothing = np.zeros((1, width), np.float32), np.zeros((width, 1), np.float32)
    head = np.zeros((1, width), np.float32), np.asarray([value], np.float32)
    return LowRank(1.0, {TARGET: nothing}, head, "classifier")


class Shelf:
    """What each of the channels is answered by now, as a lineup would know it."""

    def __init__(self, pool: Pool, artifact: str, root: Path, width: int) -> None:
        self.pool, self.artifact, self.root, self.width = pool, artifact, root, width
        self.now: dict[int, str] = {}
        self.value_of: dict[str, float] = {}

    def put(self, channel: int, value: float) -> None:
        """Load before it is named, and let the old one go after it is not."""
        adapter = answering(value, self.width)
        weights, folder = weights_digest(adapter), self.root / str(value)
        low_rank.write(folder, adapter, base="shared")
        self.pool.load(self.artifact, folder, adapter=weights)
        self.value_of[weights] = value
        old, self.now[channel] = self.now.get(channel), weights
        if old is not None:
            self.pool.unload(self.artifact, adapter=old)


@pytest.fixture
def shelf(tiny_base: Path, workspace: Workspace, tmp_path: Path) -> Iterator[Shelf]:
    from transformers import AutoConfig

    checkpoint = make_checkpoint(tiny_base, tmp_path / "checkpoint", task=REGRESSION)
    width = int(AutoConfig.from_pretrained(checkpoint).hidden_size)
    folder = workspace.artifacts.new_folder()
    backend = BACKENDS.get("openvino")
    bank = {"targets": [TARGET], "rank": 1}
    facts = backend.write(checkpoint, folder, task=REGRESSION, precision="fp32", calibration=["a text"], bank=bank)
    write_facts(folder, facts)
    artifact, _ = workspace.artifacts.put(folder)
    with Pool(ServeTable(n_workers=1, n_threads=1, max_queue_rows=10**6, timeout_s=WAIT_S)) as pool:
        pool.start()
        pool.load(artifact, workspace.artifacts.get(artifact))
        yield Shelf(pool, artifact, tmp_path / "adapters", width)


@pytest.mark.slow
def test_no_row_is_answered_by_another_adapter(shelf: Shelf) -> None:
    for channel in range(N_ADAPTERS):
        shelf.put(channel, float(channel))
    done = threading.Event()

    def ask(seed: int) -> int:
        rng, n_wrong = random.Random(seed), 0
        for _ in range(N_ROWS // ROWS_PER_REQUEST // N_CLIENTS):
            channel = rng.randrange(N_ADAPTERS)
            while True:
                weights = shelf.now[channel]
                if shelf.pool.is_loaded(shelf.artifact, weights):  # or it was replaced between the two lines
                    break
            texts = ["good " * rng.randint(1, 9) for _ in range(ROWS_PER_REQUEST)]
            answer = shelf.pool.predict(shelf.artifact, texts, channel=str(channel), adapter=weights).result(WAIT_S)
            assert answer.adapter == weights
            values = [row["output"]["value"] for row in answer.rows]
            n_wrong += sum(value != shelf.value_of[weights] for value in values)
        return n_wrong

    def swap() -> int:
        rng, n_swaps = random.Random(0), 0
        while n_swaps < N_SWAPS and not done.is_set():
            channel = rng.randrange(N_ADAPTERS)
            n_swaps += 1
            shelf.put(channel, float(channel + N_ADAPTERS * n_swaps))
        return n_swaps

    with ThreadPoolExecutor(N_CLIENTS + 1) as threads:
        swaps = threads.submit(swap)
        n_wrong = sum(threads.map(ask, range(N_CLIENTS)))
        done.set()
    assert n_wrong == 0
    assert swaps.result() > N_ADAPTERS // 2, "too few adapters were replaced to say anything"


def test_weights_that_are_not_those_of_the_digest_are_refused(shelf: Shelf) -> None:
    shelf.put(0, 1.0)
    low_rank.write(shelf.root / "other", answering(2.0, shelf.width), base="shared")
    with pytest.raises(Damaged, match="not those that were trained"):
        shelf.pool.load(shelf.artifact, shelf.root / "other", adapter=weights_digest(answering(3.0, shelf.width)))
    answer = shelf.pool.predict(shelf.artifact, ["good"], adapter=shelf.now[0]).result(WAIT_S)
    assert answer.rows[0]["output"]["value"] == 1.0
    assert shelf.pool.predict(shelf.artifact, ["good"]).result(WAIT_S).adapter is None
