"""The model card. Catches: a header that is no YAML, a table broken by a name, a figure without its interval."""

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from evaluate.rows import CLASSES, LABELS, noisy, rows_of
from headrace.evaluate.evaluating import evaluate
from headrace.evaluate.model_card import render
from headrace.records import ModelVersion, Run, Snapshot

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TRUTH = [LABELS[i % 3] for i in range(90)]


def card(*, base_model: str = "minilm-l6", channel: str = "web", licence: str | None = None) -> tuple[Any, str]:
    rows = rows_of(TRUTH, [channel] * 90)
    own = evaluate(CLASSES, rows, noisy(TRUTH, share_right=0.8, seed=0))
    other = evaluate(CLASSES, rows, noisy(TRUTH, share_right=0.1, seed=1))
    own["agreement"] = {"n": 90, "share": 0.99}
    version = ModelVersion("v", "tone", 3, "r", "s", "sha256:c", "sha256:a", NOW)
    facts = {"n_train_rows": 500, "seconds": 12.5}
    run = Run("r", "tone", "s", base_model, "sha256:53aa", "full", {}, "f", 1, "done", None, None, [], facts, NOW)
    snapshot = Snapshot("s", "tone", "sha256:5", "sha256:6", 590, {"train": 500, "test": 90}, {channel: 590}, 7, NOW)
    text = render(version, run, snapshot, {"version": own, "majority": other}, licence=licence)
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_header_is_what_hugging_face_reads() -> None:
    header, _ = card(licence="apache-2.0")
    assert header["license"] == "apache-2.0"
    assert header["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert header["pipeline_tag"] == "text-classification"
    assert header["metrics"] == ["macro_f1", "accuracy", "micro_f1"]
    result = header["model-index"][0]["results"][0]
    assert result["metrics"][0]["type"] == "macro_f1"
    assert 0.5 < result["metrics"][0]["value"] < 1


@pytest.mark.parametrize("base_model", ["./local", "/models/mine", "~/mine", "mine"])
def test_what_is_not_known_is_left_out(base_model: str) -> None:
    header, _ = card(base_model=base_model)
    assert not {"license", "language", "base_model"} & set(header)


def test_the_body_has_figures_with_intervals_beside_baselines() -> None:
    _, body = card()
    for words in (
        "# tone/3",
        "majority class or mean",
        "99.00% of 90 rows",
        "7 of them from feedback",
        "| maybe | 30 |",
    ):
        assert words in body
    assert body.count("[0.") > 10


def test_names_do_not_break_tables() -> None:
    _, body = card(channel="a|b\nc <b>")
    assert "| a\\|b c &lt;b> | 90 |" in body
