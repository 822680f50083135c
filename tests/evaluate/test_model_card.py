"""The model card. Catches: a header that is no YAML, a table broken by a name, a figure without its interval, a
type of task or a library that is announced as another, a setting that was changed and is not told."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import yaml

from evaluate.rows import CLASSES, ENTRIES, LABELS, NUMBERS, SETS, TAGS, noisy, rows_of, tagged
from headrace.config import TaskTable
from headrace.evaluate.evaluating import evaluate
from headrace.evaluate.model_card import render
from headrace.evaluate.plain_use import Library, library_of
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
    text = render(version, run, snapshot, {"version": own, "majority": other}, library="transformers", licence=licence)
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


def card_of(
    task_type: Any,
    targets: list[Any],
    outputs: Any,
    calibration: dict[str, Any],
    *,
    library: Library = "transformers",
    **finetune: Any,
) -> tuple[Any, str]:
    own = evaluate(task_type, rows_of(targets), outputs, calibration=calibration)
    version = ModelVersion("v", "tone", 3, "r", "s", "sha256:c", "sha256:a", NOW)
    settings = TaskTable(type=task_type.name).model_dump(mode="json")
    params = {"task": settings, "finetune": {"method": "lora", "epochs": 7.0, "seed": 1, **finetune}}
    facts = {"n_train_rows": 5, "n_trained_parameters": 1234, "n_parameters": 56789, "learning_rate": 0.001}
    run = Run("r", "tone", "s", "bert", "sha256:53aa", "lora", params, "f", 1, "done", None, None, [], facts, NOW)
    snapshot = Snapshot("s", "tone", "sha256:5", "sha256:6", 9, {"train": 5, "test": 4}, {"web": 9}, 0, NOW)
    text = render(version, run, snapshot, {"version": own}, library=library, calibration=calibration)
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_pipeline_is_that_of_the_task_type() -> None:
    logits = np.eye(3)[[0, 2]] * 4
    header, body = card_of(ENTRIES, ["no", "yes"], logits, {}, library="sentence-transformers")
    assert (header["pipeline_tag"], header["library_name"]) == ("sentence-similarity", "sentence-transformers")
    assert header["metrics"][0] == "mrr"
    assert "recall_at_5" in body
    header, body = card_of(TAGS, [[[0, 3, "PER"]], []], tagged([[[0, 3, "PER"]], []]), {})
    assert (header["pipeline_tag"], header["library_name"]) == ("token-classification", "transformers")
    assert header["model-index"][0]["results"][0]["task"]["type"] == "token-classification"
    assert "| class | entities |" in body
    assert "| PER | 1 |" in body


def test_the_library_is_the_one_that_loads_the_files() -> None:
    logits = np.eye(3)[[0, 2]] * 4
    assert library_of("hf", ["model.safetensors", "config.json"]) == "transformers"
    assert library_of("hf", ["model.safetensors", "modules.json"]) == "sentence-transformers"
    assert library_of("hf", ["adapter_config.json", "base"]) == "peft"
    header, body = card_of(CLASSES, ["no", "yes"], logits, {}, library="sentence-transformers")
    assert (header["pipeline_tag"], header["library_name"]) == ("text-classification", "sentence-transformers")
    assert "SentenceTransformer(str(folder)" in body
    header, body = card_of(CLASSES, ["no", "yes"], logits, {}, library=library_of("openvino", ["model.xml"]))
    assert "library_name" not in header
    assert "from headrace.export import load" in body


def test_what_was_fitted_is_told() -> None:
    truth = [float(i) for i in range(10)]
    _, body = card_of(NUMBERS, truth, np.array(truth)[:, None] + 0.5, {"half_width": 1.25, "level": 0.9})
    assert "plus or minus 1.25 holds the truth in at least 90% of new rows" in body
    assert "held 100.0% of the held-out rows" in body
    header, body = card_of(SETS, [["no"], ["yes"]], np.eye(3)[[0, 2]] * 8 - 4, {"thresholds": [0.5, 0.25, 0.75]})
    assert header["pipeline_tag"] == "text-classification"
    assert "| maybe | 0.250 |" in body
    _, body = card_of(CLASSES, ["no", "yes"], np.eye(3)[[0, 2]], {"temperature": 1.5})
    assert "temperature of 1.500" in body
    assert "Fitted on validation rows" not in card_of(CLASSES, ["no", "yes"], np.eye(3)[[0, 2]], {})[1]


def test_the_method_is_told_with_what_is_not_the_default() -> None:
    _, body = card_of(CLASSES, ["no", "yes"], np.eye(3)[[0, 2]], {}, loss={"focal_gamma": 2.0, "crf": False})
    for line in (
        "| method | lora |",
        "| trained parameters | 1,234 of 56,789 |",
        "| finetune.epochs | 7.0 |",
        "| finetune.loss.focal_gamma | 2.0 |",
    ):
        assert line in body
    assert "finetune.seed" not in body
    assert "finetune.loss.crf" not in body


@pytest.mark.parametrize(("threshold", "words"), [(2.5, "scores more than 2.5 above"), (1e9, "always given")])
def test_when_no_answer_is_given(threshold: float, words: str) -> None:
    _, body = card_of(CLASSES, ["no", "yes"], np.eye(3)[[0, 2]], {"null_threshold": threshold})
    assert words in body


def test_levels_of_names_have_a_table() -> None:
    task_type = type(CLASSES)(TaskTable(labels=("card/lost", "card/found", "loan")))
    _, body = card_of(task_type, ["card/lost", "loan"], np.eye(3)[[1, 2]], {})
    assert "| level 1 | 2 | 1.000 |" in body
    assert "| level 2 | 3 | 0.500 |" in body
