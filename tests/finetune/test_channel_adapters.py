"""Adapters of many channels on one shared model. Catches: a channel whose result hangs on who else is there, an adapter
that peft reads otherwise, a small channel thrown far from the shared model, a kill after which training ends elsewhere,
memory and time that explode with a thousand channels."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from conftest import LABELS, sentences
from finetune import toy
from headrace.checkpoints import low_rank
from headrace.checkpoints.loading import fresh
from headrace.checkpoints.low_rank import LowRank
from headrace.checkpoints.network import Network
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable, PerChannelTable, TaskTable
from headrace.errors import BadInput, Cancelled, Unusable
from headrace.export.checkpoint import load as load_checkpoint
from headrace.finetune import channel_adapters
from headrace.finetune.banked import Banked, layout_of
from headrace.finetune.channel_adapters import answers, open_shared, train
from headrace.finetune.running import tune
from headrace.records import SnapshotRow
from headrace.tasks import TASK_TYPES

SETTINGS = FinetuneTable(
    batch_tokens=256, seed=5, precision="fp32", per_channel=PerChannelTable(rank=4, epochs=8, learning_rate=1e-2)
)


def silent(*_args: object, **_facts: object) -> None:
    pass


def rows_of(channel: str, n: int, *, turned: int = 0) -> list[SnapshotRow]:
    """Rows whose labels are `turned` places further than the words say."""
    made = []
    for row in sentences(n, channel=channel):
        target = LABELS[(LABELS.index(row["label"]) + turned) % 3]
        made.append(SnapshotRow(row["id"], channel, row["id"], row["text"], target, "train", 1.0, "import"))
    return made


@pytest.fixture(scope="module")
def checkpoint(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared model that has learnt what the words say."""
    folder = tmp_path_factory.mktemp("shared")
    settings = FinetuneTable(epochs=4, batch_tokens=256, learning_rate=1e-2, precision="fp32", patience=20)
    tuned = tune(folder / "run", tiny_base, toy.TASK, settings, toy.rows(400), silent)
    save(tuned.network, tuned.tokenizer, folder / "checkpoint")
    return folder / "checkpoint"


def trained(
    checkpoint: Path, folder: Path, rows: list[SnapshotRow], settings: FinetuneTable = SETTINGS, **more: Any
) -> dict[str, LowRank]:
    shared = open_shared(checkpoint, toy.TASK, settings)
    channels = more.pop("channels", sorted({row.channel for row in rows}))
    folders = train(shared, settings, rows, channels, folder, more.pop("report", silent))
    return {name: low_rank.read(path) for name, path in folders.items()}


def share_right(outputs: np.ndarray, rows: list[SnapshotRow]) -> float:
    return float(np.mean([LABELS[k] == row.target for k, row in zip(outputs.argmax(axis=1), rows, strict=True)]))


def same(a: LowRank, b: LowRank, atol: float) -> bool:
    pairs = [pair for path in a.updates for pair in zip(a.updates[path], b.updates[path], strict=True)]
    assert a.head is not None
    assert b.head is not None
    return all(np.allclose(x, y, atol=atol) for x, y in [*pairs, *zip(a.head, b.head, strict=True)])


def test_a_family_without_a_list_of_layers_takes_adapters_on_its_attention() -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(toy.FAMILIES["albert"])
    layout = layout_of(Network(model, "single_label_classification", 2), rank=2)
    assert {path.rpartition(".")[2] for path in layout.widths} == {"query", "value"}
    assert layout.head_path == "classifier"


@pytest.mark.parametrize(("frozen", "targets", "places"), [
    (None, ("query",), {1}), (0, ("query",), {0, 1}), (1, ("query", "{0}"), {0, 1}), (2, ("{0}",), {0}),
])  # fmt: skip
def test_adapters_leave_the_lowest_layers_unless_a_path_is_named(
    checkpoint: Path, frozen: int | None, targets: tuple[str, ...], places: set[int]
) -> None:
    lowest = "bert.encoder.layer.0.attention.self.query"
    own = PerChannelTable(frozen_layers=frozen, targets=tuple(one.format(lowest) for one in targets))
    widths = open_shared(checkpoint, toy.TASK, FinetuneTable(per_channel=own)).layout.widths
    assert {int(path.split(".layer.")[1][0]) for path in widths} == places
    with pytest.raises(BadInput, match=r"2 layers.*per_channel\.frozen_layers = 3"):
        open_shared(checkpoint, toy.TASK, FinetuneTable(per_channel=PerChannelTable(frozen_layers=3)))


def test_a_channel_that_speaks_otherwise_learns_and_the_others_stay(checkpoint: Path, tmp_path: Path) -> None:
    rows = [*rows_of("plain", 120), *rows_of("odd", 120, turned=1), *rows_of("few", 6)]
    adapters = trained(checkpoint, tmp_path, rows)
    held_out = [*rows_of("plain", 200)[120:], *rows_of("odd", 200, turned=1)[120:]]
    shared = open_shared(checkpoint, toy.TASK, SETTINGS)
    plain, odd = held_out[:80], held_out[80:]
    assert share_right(answers(shared, plain, {}), plain) > 0.9
    assert share_right(answers(shared, odd, {}), odd) < 0.3
    found = answers(shared, held_out, adapters)
    assert share_right(found[:80], plain) > 0.9
    assert share_right(found[80:], odd) > 0.9


@pytest.mark.parametrize("form", ["alone", "with others", "in cohorts of one"])
def test_a_channel_comes_out_alike_whoever_else_is_there(
    checkpoint: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = rows_of("odd", 70, turned=1)
    others = [*rows_of("big", 150, turned=2), *rows_of("a", 3), *rows_of("z", 20)]
    settings = SETTINGS.model_copy(update={"per_channel": PerChannelTable(rank=4, epochs=3, learning_rate=1e-3)})
    expected = trained(checkpoint, tmp_path / "all", [*others, *mine], settings)["odd"]
    if form == "in cohorts of one":
        monkeypatch.setattr(channel_adapters, "_COHORT_BYTES", 1)
    rows = mine if form == "alone" else [*mine, *others]
    found = trained(checkpoint, tmp_path / "again", rows, settings)["odd"]
    # Adam's first steps are signs, so rounding can turn the few coordinates whose gradient is nearly 0
    assert same(found, expected, atol=2e-4)


def test_the_same_seed_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    rows = [*rows_of("a", 30), *rows_of("b", 12, turned=1)]
    digests = [
        {name: low_rank.weights_digest(one) for name, one in trained(checkpoint, tmp_path / str(i), rows, s).items()}
        for i, s in enumerate([SETTINGS, SETTINGS, SETTINGS.model_copy(update={"seed": 6})])
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_small_channels_stay_near_the_shared_model(checkpoint: Path, tmp_path: Path) -> None:
    """With the settings' own defaults, even where every label contradicts it."""
    settings = FinetuneTable(precision="fp32")
    rows = [*rows_of("small", 10, turned=1), *rows_of("large", 600, turned=1)]
    adapters = trained(checkpoint, tmp_path, rows, settings)
    shared = open_shared(checkpoint, toy.TASK, settings)
    moves = {}
    for name in adapters:
        held_out = [row for row in rows if row.channel == name][:10]
        moves[name] = np.abs(answers(shared, held_out, adapters) - answers(shared, held_out, {})).mean()
    assert moves["small"] < 0.15
    assert moves["large"] > 4 * moves["small"]


def test_a_stronger_pull_keeps_a_channel_nearer(checkpoint: Path, tmp_path: Path) -> None:
    rows = rows_of("odd", 100, turned=1)
    moves = []
    for pull in (0.0, 1000.0, 100000.0):
        own = SETTINGS.per_channel.model_copy(update={"pull": pull})
        settings = SETTINGS.model_copy(update={"per_channel": own})
        adapters = trained(checkpoint, tmp_path / f"{pull}", rows, settings)
        shared = open_shared(checkpoint, toy.TASK, settings)
        moves.append(np.abs(answers(shared, rows, adapters) - answers(shared, rows, {})).mean())
    assert moves[0] > moves[1] > moves[2]
    assert moves[2] < 0.1


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "modernbert", "deberta-v2"])
def test_peft_answers_as_our_torch_path_does(family: str, tiny_base: Path, tmp_path: Path) -> None:
    """And the linear layers of attention are found by their names, in every family."""
    from peft import PeftModel

    small = {"vocab_size": 200, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
    more: dict[str, Any] = {"intermediate_size": 48, "max_position_embeddings": 80, "num_labels": 3}
    if family == "distilbert":
        small, more = {"vocab_size": 200, "n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 48}, {"num_labels": 3}
    if family == "modernbert":
        more |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    if family == "electra":
        more |= {"embedding_size": 32}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **small, **more)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    folder = tmp_path / "shared"
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    shared = open_shared(folder, toy.TASK, SETTINGS)
    assert len(shared.layout.widths) == (1 if family == "modernbert" else 2)  # of the upper of two layers
    rows = [*rows_of("a", 12), *rows_of("b", 12, turned=1)]
    folders = train(shared, SETTINGS, rows, ["a", "b"], tmp_path / "own", silent)
    adapters = {name: low_rank.read(path) for name, path in folders.items()}
    found = answers(shared, rows, adapters)
    for name, places in (("a", range(12)), ("b", range(12, 24))):
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        wrapped = PeftModel.from_pretrained(plain, str(folders[name])).eval()
        windows = shared.encoder.encode([rows[i].input for i in places])
        feed = shared.encoder.feed(windows, shared.input_names)
        with torch.no_grad():
            expected = wrapped(**{key: torch.from_numpy(array) for key, array in feed.items()}).logits.numpy()
        assert np.abs(found[list(places)] - expected).max() < 1e-5
    assert np.abs(found - answers(shared, rows, {})).max() > 1e-3


@pytest.mark.parametrize("kind", ["text-regression", "token-classification", "multi-label"])
def test_other_kinds_of_tasks_learn_too(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    if kind == "text-regression":
        task, rows = toy.REGRESSION, toy.rows(120, regression=True)
        rows = [SnapshotRow(**{**vars(row), "target": 50 + 20 * row.target}) for row in rows]  # in a unit of its own
    elif kind == "token-classification":
        task, rows = toy.NER, toy.ner_rows(120)
    else:
        task = TaskTable(type="multi-label", labels=LABELS, max_tokens=32)
        rows = [SnapshotRow(**{**vars(row), "target": [row.target]}) for row in toy.rows(120)]
    task_type = TASK_TYPES.get(task.type)(task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    transformers.AutoModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "base")
    network = fresh(tmp_path / "base", task_type)
    if kind == "text-regression":
        torch.nn.init.constant_(network.head.bias, 50)
    save(network, tokenizer, tmp_path / "shared")
    own = PerChannelTable(rank=8, epochs=40 if kind == "token-classification" else 10, learning_rate=2e-2, pull=0)
    settings = SETTINGS.model_copy(update={"per_channel": own})
    shared = open_shared(tmp_path / "shared", task, settings)
    train_rows, held_out = ([r for r in rows if r.side == side] for side in ("train", "validation"))
    folders = train(shared, settings, train_rows, ["c"], tmp_path / "own", silent)
    adapters = {name: low_rank.read(path) for name, path in folders.items()}
    targets = [row.target for row in held_out]
    figures = task_type.metrics(targets, answers(shared, held_out, adapters))
    assert figures[task_type.main_metric] > 0.8
    if kind == "text-regression":
        assert figures["mae"] < 8
    plain = load_checkpoint(tmp_path / "shared", task).logits([row.input for row in held_out])
    without = answers(shared, held_out, {})
    if kind != "token-classification":
        assert np.abs(without - plain).max() < 1e-4


def test_a_training_that_was_stopped_goes_on_after_the_last_cohort(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_adapters, "_COHORT_BYTES", 1)
    rows = [*rows_of("a", 30), *rows_of("b", 25), *rows_of("c", 20)]
    expected = trained(checkpoint, tmp_path / "whole", rows)
    seen: list[int] = []

    def stop(_step: str, done: int, total: int, **_facts: object) -> None:
        seen.append(done)
        if done > total * 0.6:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        trained(checkpoint, tmp_path / "cut", rows, report=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.safetensors")}
    assert len(kept) == 1
    (next(iter(kept)).parent.with_suffix(".unfinished")).mkdir()  # what a kill while writing leaves
    seen.clear()
    found = trained(checkpoint, tmp_path / "cut", rows, report=lambda _s, done, _t, **_f: seen.append(done))
    assert seen[0] > 1
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    for name, one in found.items():
        assert low_rank.weights_digest(one) == low_rank.weights_digest(expected[name])


@pytest.mark.slow
def test_a_thousand_channels_train_in_bounded_time(checkpoint: Path, tmp_path: Path) -> None:
    rows = [row for i in range(1000) for row in rows_of(f"c{i}", 6, turned=i % 3)]
    own = PerChannelTable(rank=4, epochs=2)
    started = time.process_time()
    adapters = trained(checkpoint, tmp_path, rows, SETTINGS.model_copy(update={"per_channel": own}))
    assert len({low_rank.weights_digest(one) for one in adapters.values()}) == 1000
    shared = open_shared(checkpoint, toy.TASK, SETTINGS)
    assert len(answers(shared, rows, adapters)) == 6000
    assert time.process_time() - started < 40  # 9 s of one core, in one look


def test_what_cannot_carry_adapters_is_refused_with_the_reason(
    checkpoint: Path, tiny_base: Path, tmp_path: Path
) -> None:
    for name, said in (("modules.json", "linear layer on the mean"), ("adapter_config.json", "cannot be merged")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{}", "utf-8")
        with pytest.raises(BadInput, match=said):
            open_shared(folder, toy.TASK, SETTINGS)
    own = PerChannelTable(targets=("query", "nonsense"), frozen_layers=0)
    found = open_shared(checkpoint, toy.TASK, FinetuneTable(per_channel=own)).layout.widths
    assert [path.rpartition(".")[2] for path in found] == ["query", "query"]
    with pytest.raises(BadInput, match=r"nonsense.*dense, key, query, value"):
        open_shared(checkpoint, toy.TASK, FinetuneTable(per_channel=PerChannelTable(targets=("nonsense",))))


def test_a_loss_that_is_no_number_says_what_to_change(checkpoint: Path, tmp_path: Path) -> None:
    own = PerChannelTable(learning_rate=1e30, epochs=5)
    with pytest.raises(Unusable, match=r"Set finetune\.per_channel\.learning_rate to 2e\+29"):
        trained(checkpoint, tmp_path, rows_of("a", 60), SETTINGS.model_copy(update={"per_channel": own}))


def test_a_layer_that_is_passed_by_is_named(checkpoint: Path) -> None:
    shared = open_shared(checkpoint, toy.TASK, SETTINGS)
    banked = Banked(shared.network, layout_of(shared.network, rank=2))
    ids = torch.ones(2, 3, dtype=torch.int64)
    vectors = torch.zeros(1, banked.layout.n_numbers)
    with pytest.raises(BadInput, match="computes past this linear layer"):  # as nothing listens
        banked.logits({"input_ids": ids, "attention_mask": ids}, vectors, torch.zeros(2, dtype=torch.int64))
