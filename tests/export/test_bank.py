"""Channel adapters mixed in one batch. Catches: a row answered by another row's adapter, a slot written while it is
read, a slot freed too early or never, a digest that is not of the weights in use, int8 of what should stay in float,
an adapter of another model taken."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.checkpoints import low_rank
from headrace.checkpoints.low_rank import LowRank, weights_digest
from headrace.errors import Damaged, NotFound
from headrace.export import BACKENDS, load, write_facts
from headrace.export.backends.slots import HEAD, Slots, a_name, b_name, read_head
from headrace.tasks import Bank
from small_checkpoint import TASK, TEXTS, make_checkpoint

TARGETS = [f"bert.encoder.layer.{i}.attention.self.{part}" for i in range(2) for part in ("query", "value")]
RANK = 4


def make_adapter(seed: int, width: int, *, rank: int = RANK, n_outputs: int = 3, scale: float = 2.0) -> LowRank:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    updates = {name: (draw(rank, width), draw(width, rank) / 40) for name in TARGETS}
    return LowRank(scale, updates, (draw(n_outputs, width), draw(n_outputs)), "classifier")


@pytest.fixture(scope="module")
def checkpoint(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tiny_base, tmp_path_factory.mktemp("bank") / "checkpoint")


@pytest.fixture(scope="module")
def width(checkpoint: Path) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(checkpoint).hidden_size)


@pytest.fixture(scope="module")
def folders(checkpoint: Path, width: int, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven adapters as PEFT directories."""
    root = tmp_path_factory.mktemp("adapters")
    for seed in range(7):
        low_rank.write(root / str(seed), make_adapter(seed, width), base=str(checkpoint))
    return [root / str(seed) for seed in range(7)]


@pytest.fixture(scope="module", params=["fp32", "int8"])
def bank(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp(request.param)
    facts = BACKENDS.get("openvino").write(
        checkpoint, folder, task=TASK, precision=request.param, calibration=TEXTS, bank={"targets": TARGETS, "rank": 8}
    )
    write_facts(folder, facts)
    predictor, _ = load(folder, n_threads=1)
    assert isinstance(predictor, Bank)
    predictor.precision = request.param  # type: ignore[attr-defined]
    return predictor


def by_peft(checkpoint: Path, folder: Path | None, texts: Sequence[str]) -> Any:
    """The oracle: peft's own reading of the directory, one text at a time."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    if folder is not None:
        model = PeftModel.from_pretrained(model, str(folder))
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    with torch.inference_mode():
        rows = [
            model.eval()(**tokenizer(text, truncation=True, max_length=TASK.max_tokens, return_tensors="pt")).logits[0]
            for text in texts
        ]
    return torch.stack(rows).numpy()


def test_each_row_is_answered_by_its_own_adapter(bank: Bank, checkpoint: Path, folders: list[Path]) -> None:
    digests = [bank.add_adapter(folder) for folder in folders]
    rng = np.random.default_rng(3)
    chosen = rng.integers(-1, len(folders), size=len(TEXTS))
    adapters = [None if i < 0 else bank.adapter(digests[i]) for i in chosen]
    found = bank.logits(TEXTS, adapters)
    expected = np.empty_like(found)
    for i in range(-1, len(folders)):
        mine = np.flatnonzero(chosen == i)
        expected[mine] = by_peft(checkpoint, None if i < 0 else folders[i], [TEXTS[j] for j in mine])
    spread = expected.std()
    if bank.precision == "fp32":  # type: ignore[attr-defined]
        assert np.abs(found - expected).max() < 1e-3 * spread
    assert np.abs(found - expected).mean() < 0.1 * spread
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    assert np.allclose(bank.logits(TEXTS), bank.logits(TEXTS, [None] * len(TEXTS)))


def test_the_digest_is_of_the_weights_in_use(bank: Bank, folders: list[Path], width: int) -> None:
    for seed, folder in enumerate(folders):
        assert bank.add_adapter(folder) == weights_digest(make_adapter(seed, width))


def test_what_does_not_fit_is_refused(bank: Bank, checkpoint: Path, width: int, tmp_path: Path) -> None:
    good = make_adapter(1, width)
    name, (a, b) = next(iter(good.updates.items()))
    bad = {
        "rank": make_adapter(1, width, rank=9),
        "outputs": make_adapter(1, width, n_outputs=4),
        "target": replace(good, updates={**good.updates, "bert.pooler.dense": (a, b)}),
        "width": replace(good, updates={**good.updates, name: (a[:, 1:], b)}),
    }
    before = list(bank.adapters)
    for what, adapter in bad.items():
        low_rank.write(tmp_path / what, adapter, base=str(checkpoint))
        with pytest.raises(Damaged, match="does not fit"):
            bank.add_adapter(tmp_path / what)
    assert bank.adapters == before
    with pytest.raises(NotFound):
        bank.adapter("sha256:none")


@pytest.fixture
def slots(width: int) -> Slots:
    head = {"weight": np.ones((3, width), np.float32), "bias": np.zeros(3, np.float32)}
    names = [a_name(TARGETS[:2]), a_name(TARGETS[2:]), *map(b_name, TARGETS)]
    return Slots(dict.fromkeys(names, width), RANK, head)


def test_a_slot_is_nobody_elses_while_somebody_holds_it(slots: Slots, folders: list[Path]) -> None:
    first = slots.find(slots.add(folders[0]))
    slots.remove(first.digest)
    with pytest.raises(NotFound):
        slots.find(first.digest)
    second = slots.find(slots.add(folders[1]))
    assert second.slot != first.slot
    freed = first.slot
    del first
    gc.collect()
    assert slots.find(slots.add(folders[2])).slot == freed


def test_arrays_grow_by_doubling_and_old_ones_stay(slots: Slots, folders: list[Path]) -> None:
    held = [slots.find(slots.add(folder)) for folder in folders[:3]]
    old = slots.arrays
    copies = {name: array.copy() for name, array in old.items()}
    held += [slots.find(slots.add(folder)) for folder in folders[3:]]
    assert len({slot.slot for slot in held}) == len(folders)
    assert {len(array) for array in slots.arrays.values()} == {8}
    assert all(np.array_equal(old[name], copies[name]) for name in old)
    assert slots.digests == [slot.digest for slot in held]


def test_the_same_adapter_twice_is_one(slots: Slots, folders: list[Path]) -> None:
    assert slots.add(folders[0]) == slots.add(folders[0])
    assert len(slots.digests) == 1


@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04 is a zip file"], ids=["missing", "empty", "another format"]
)
def test_a_head_that_is_none_is_told(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / HEAD).write_bytes(content)
    with pytest.raises(Damaged) as caught:
        read_head(tmp_path)
    assert caught.value.value == str(tmp_path / HEAD)
