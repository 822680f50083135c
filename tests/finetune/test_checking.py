"""What settings say against a run before it begins. Catches: an error that needs no work and comes after minutes of it,
in the job or after a pretraining; a check that asks for torch, which a server would then hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.config import FinetuneTable, TaskTable
from headrace.errors import HeadraceError
from headrace.finetune.checking import check_settings
from headrace.tasks import TASK_TYPES

PAIR = TaskTable(labels=("a", "b"), max_tokens=32)
NER = TaskTable(type="token-classification", labels=("PER",), max_tokens=32)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 48}))
    return tmp_path


def _check(task: TaskTable, base: Path, **settings: Any) -> None:
    check_settings(task, TASK_TYPES.get(task.type)(task), FinetuneTable.model_validate(settings), base)


@pytest.mark.parametrize(
    ("task", "settings", "why"),
    [
        (PAIR, {"loss": {"crf": True}}, "finetune.loss.crf"),
        (NER, {"robust": {"mixup_alpha": 0.3}}, "mixup_alpha"),
        (PAIR, {"robust": {"rdrop_weight": 1.0}}, "finetune.dropout is 0"),
        (PAIR, {"method": "distil"}, "needs a teacher"),
        (PAIR, {"method": "continue-pretraining", "pretrain_then": "distil"}, "needs a teacher"),
        (PAIR, {"method": "distil", "teacher": "1", "robust": {"mixup_alpha": 0.3}}, "cannot be mixed"),
        (NER, {"method": "continue-pretraining", "pretrain_then": "zero-shot"}, "pretrain_then"),
        (PAIR, {"method": "prompt"}, "quarter of max_tokens"),
        (PAIR, {"method": "prefix", "gradient_checkpointing": True}, "gradient_checkpointing"),
        (PAIR.model_copy(update={"max_tokens": 49}), {}, "which is 48"),
        (NER, {"method": "zero-shot"}, "cannot do"),
    ],
)
def test_it_is_refused(base: Path, task: TaskTable, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(HeadraceError, match=why):
        _check(task, base, **settings)


def test_what_can_be_made_passes(base: Path) -> None:
    _check(PAIR, base)
    _check(NER, base, loss={"crf": True})
    _check(PAIR, base, method="zero-shot", robust={"rdrop_weight": 1.0})  # nothing trains that it could be used in
    _check(PAIR, base, method="continue-pretraining", pretrain_then="distil", teacher="1")
    (base / "config.json").write_text("{}")
    (base / "tokenizer_config.json").unlink()
    _check(PAIR.model_copy(update={"max_tokens": 4000}), base)  # no limit is known


def test_it_does_without_torch() -> None:
    code = "import sys, headrace.finetune.checking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
