"""Rows of a toy task for fine-tuning tests."""

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AlbertConfig, AutoModel, AutoTokenizer, DebertaV2Config, ElectraConfig, GPT2Config, MPNetConfig

from conftest import FILLER, LABELS, sentences
from headrace.config import TaskTable
from headrace.records import SnapshotRow

TASK = TaskTable(labels=LABELS, max_tokens=32)
REGRESSION = TaskTable(type="text-regression", max_tokens=32)


def rows(n: int = 160, *, regression: bool = False) -> list[SnapshotRow]:
    made = []
    for i, row in enumerate(sentences(n)):
        side = "validation" if i % 4 == 0 else "train"
        target = float(LABELS.index(row["label"])) - 1 if regression else row["label"]
        made.append(SnapshotRow(row["id"], "c", row["id"], row["text"], target, side, 1.0, "import"))
    return made


NER = TaskTable(type="token-classification", labels=("PER", "LOC"), max_tokens=32)
_NAMES = {"PER": ["awful", "broken slow", "hate"], "LOC": ["great lovely", "good", "fast kind"]}


def ner_rows(n: int = 120) -> list[SnapshotRow]:
    """Fillers around one name of the toy vocabulary, whose words tell its type."""
    rng = random.Random(0)
    made = []
    for i in range(n):
        kind = rng.choice(list(_NAMES))
        before, name, after = rng.choices(FILLER, k=rng.randrange(1, 6)), rng.choice(_NAMES[kind]), rng.choices(FILLER)
        start = len(" ".join(before)) + 1
        target = [[start, start + len(name), kind]]
        side = "validation" if i % 4 == 0 else "train"
        text = " ".join([*before, name, *after])
        made.append(SnapshotRow(f"n{i}", "c", f"n{i}", text, target, side, 1.0, "import"))
    return made


_SIZES = {"vocab_size": 130, "max_position_embeddings": 80, "hidden_size": 32, "num_hidden_layers": 2}
FAMILIES: dict[str, Any] = {
    "albert": AlbertConfig(**_SIZES, num_attention_heads=2, intermediate_size=64),  # one layer, used twice: no list
    "electra": ElectraConfig(**_SIZES, num_attention_heads=2, intermediate_size=64, embedding_size=16),
    "mpnet": MPNetConfig(**_SIZES, num_attention_heads=2, intermediate_size=64),  # layers share relative positions
    "deberta-v2": DebertaV2Config(
        **_SIZES,
        num_attention_heads=2,
        intermediate_size=64,
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
    ),
    "gpt2": GPT2Config(vocab_size=130, n_embd=16, n_layer=1, n_head=2, n_positions=64, pad_token_id=0),
}


def base_of_family(name: str, tiny_base: Path, folder: Path) -> Path:
    """A base model built in another way than BERT, which reads the tiny one's tokens."""
    torch.manual_seed(0)
    AutoModel.from_config(FAMILIES[name]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder
