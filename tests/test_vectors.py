"""Vectors that are kept. Catches: a text that is embedded twice, a vector of another text or base model, a damaged file
that stops everything, files without end."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import LABELS
from headrace import vectors
from headrace.finetune import base_models
from headrace.finetune.base_models import BaseModel
from headrace.workspace import Workspace, open_workspace
from vectored import vector_of


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that were computed."""
    seen: list[str] = []

    def embed(base_model: str, texts: Sequence[str], *_: Any, **__: Any) -> Any:
        seen.extend(texts)
        return np.stack([vector_of(f"{base_model} {text}") for text in texts])

    monkeypatch.setattr(vectors, "resolve", lambda *_args, **_facts: embed)
    monkeypatch.setattr(base_models, "find", lambda name: BaseModel(name, Path(), f"sha256:{name}"))
    return seen


def test_each_text_is_computed_once(workspace: Workspace, asked: list[str]) -> None:
    inputs = ["one", "two", ("a", "pair"), "one"]
    first = vectors.of_inputs(workspace, inputs)
    assert asked == ["one", "two", "a\npair"]
    again = vectors.of_inputs(workspace, ["three", *reversed(inputs)])
    assert asked == ["one", "two", "a\npair", "three"]
    assert np.array_equal(again[1:], first[::-1])
    assert np.array_equal(first[0], vector_of("minilm-l6 one"))
    assert vectors.of_inputs(workspace, []).shape[0] == 0


def test_another_base_model_or_length_has_its_own(workspace: Workspace, asked: list[str]) -> None:
    vectors.of_inputs(workspace, ["one"])
    file = workspace.root / "headrace.toml"
    for setting in ('base_model = "other"', 'base_model = "other"\nmax_tokens = 9', 'input = "turns"'):
        file.write_text(f'[tasks.tone]\nlabels = ["{LABELS[0]}", "b"]\n{setting}\n', "utf-8")
        with open_workspace(workspace.root) as other:
            vectors.of_inputs(other, ["one"])
    assert asked == ["one"] * 4


def test_many_calls_leave_few_files_and_a_damaged_one_is_passed_over(workspace: Workspace, asked: list[str]) -> None:
    texts = [f"text {i}" for i in range(40)]
    for text in texts:
        vectors.of_inputs(workspace, [text])
    files = list((workspace.state_folder / "cache" / "vectors").rglob("*"))
    assert len([file for file in files if file.is_file()]) <= 17
    assert asked == texts
    vectors.of_inputs(workspace, texts)
    assert asked == texts
    for file in files:
        if file.is_file():
            file.write_bytes(file.read_bytes()[:50])
    assert np.array_equal(vectors.of_inputs(workspace, texts[:1])[0], vector_of("minilm-l6 text 0"))


def test_the_newest_stay_where_there_is_no_room_for_all(workspace: Workspace, asked: list[str]) -> None:
    row_bytes = 24 * 4 + 32
    with open_workspace(workspace.root, overrides={"finetune.cache_bytes": 10 * row_bytes}) as small:
        vectors.of_inputs(small, [f"old {i}" for i in range(8)])
        vectors.of_inputs(small, [f"new {i}" for i in range(8)])
        del asked[:]
        vectors.of_inputs(small, [f"new {i}" for i in range(8)])
        assert asked == []
        vectors.of_inputs(small, [f"many {i}" for i in range(11)])  # more than there is room for
        vectors.of_inputs(small, ["old 0"])
        assert len(asked) == 12
