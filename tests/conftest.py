"""Fixtures shared by all tests: a workspace in a fresh folder, and a base model small enough to train in a second."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach a hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"

LABELS = ("negative", "neutral", "positive")
WORDS = {
    "negative": ["awful", "broken", "bad", "slow", "hate", "rude"],
    "neutral": ["table", "monday", "box", "paper", "seven", "street"],
    "positive": ["great", "lovely", "good", "fast", "enjoy", "kind"],
}
FILLER = ["the", "a", "service", "was", "it", "and", "phone", "film", "today", "really"]
TINY_TRAINING = """base_model = {base}
max_tokens = 32

[finetune]
batch_tokens = 256
"""
"""Begins the settings of a task that trains `make_tiny_base` in seconds; ends within its table `finetune`."""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator["object"]:
    """A fresh workspace with one classification task called `tone`."""
    from headrace.workspace import init

    ws = init(tmp_path / "ws", task="tone", labels=LABELS)
    yield ws
    ws.close()


def sentences(n: int, *, seed: int = 0, channel: str = "c") -> list[dict[str, str]]:
    """`n` separable rows: a few fillers and two words of the label's own list."""
    import random

    rng = random.Random(f"{seed}-{channel}")
    rows = []
    for i in range(n):
        label = LABELS[rng.randrange(3)]
        words = [rng.choice(FILLER) for _ in range(rng.randrange(2, 9))] + rng.choices(WORDS[label], k=2)
        rng.shuffle(words)
        rows.append({"id": f"{channel}-{i}", "text": f"{' '.join(words)} {channel}{i}", "label": label})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def make_tiny_base(folder: Path) -> Path:
    """Write a Hugging Face directory with a 2-layer BERT of random weights and a word tokenizer; no download."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocab += sorted({w for words in WORDS.values() for w in words} | set(FILLER) - set(letters))
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=160,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny-base"))


class Said(NamedTuple):
    status: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """Run a command line in this process, in the workspace `tmp_path/ws`; its status and what it printed."""
    from headrace.cli.main import main

    monkeypatch.setenv("HEADRACE_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["headrace", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Said(int(ended.value.code or 0), shown.out, shown.err)

    return run
