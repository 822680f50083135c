"""What settings say against a run before it begins. Without torch, so that whoever starts a job can ask."""

import json
from pathlib import Path
from types import SimpleNamespace

from headrace.checkpoints.encoding import check_length
from headrace.config import FinetuneTable, LossTable, TaskTable
from headrace.errors import BadConfig
from headrace.finetune.methods import Method, chain_of
from headrace.tasks import TaskType

_LOSS_OPTIONS = {
    "single_label_classification": {"class_weights", "focal_gamma", "label_smoothing"},
    "multi_label_classification": {"class_weights", "focal_gamma"},
    "token_classification": {"class_weights", "focal_gamma", "label_smoothing", "crf"},
}
_MIXABLE = ("single_label_classification", "multi_label_classification", "regression")


def check_settings(task: TaskTable, task_type: TaskType, settings: FinetuneTable, base_folder: Path) -> None:
    """Refuse what training would refuse only at work, as far as settings and the base model's configuration tell.

    Raises:
        NotFound: no such method.
        BadInput, BadConfig: the method, or one that goes on after it, cannot do the task or goes without what it needs;
            an option of the loss or of finetune.robust that does not go with them; more tokens than the model can read.
    """
    check_options(task_type, settings, check_methods(task, task_type, settings))
    check_length(*_lengths(base_folder), task)


def check_methods(task: TaskTable, task_type: TaskType, settings: FinetuneTable) -> Method:
    """The method that trains what is saved, after all that run have been asked.

    Raises:
        NotFound, BadInput, BadConfig: as `check_settings`.
    """
    chain = chain_of(settings, task_type)
    for method in chain:
        if method.check is not None:
            method.check(task, settings)
    return chain[-1]


def check_options(task_type: TaskType, settings: FinetuneTable, method: Method) -> None:
    """Check that the options of finetune.loss and finetune.robust go with the task, the method and each other.

    Raises:
        BadConfig: they do not; the message names the setting.
    """
    check_loss(task_type, settings.loss)
    if not method.trains:
        return
    check_robust(task_type.problem, settings)
    if method.objective is not None and settings.robust.mixup_alpha:
        raise BadConfig(
            "the method has a loss of its own, whose labels cannot be mixed",
            value=settings.robust.mixup_alpha,
            next_step="Remove finetune.robust.mixup_alpha",
        )


def check_loss(task_type: TaskType, settings: LossTable) -> None:
    """Check that the problem has a use for every option of the loss that is set.

    Raises:
        BadConfig: it has not, or two options exclude each other.
    """
    asked = {name for name, value in settings if value != LossTable.model_fields[name].default}
    if useless := sorted(asked - _LOSS_OPTIONS.get(task_type.problem, set())):
        raise BadConfig(
            f"a {task_type.name} task has no use for finetune.loss.{useless[0]}",
            value=getattr(settings, useless[0]),
            next_step=f"Remove finetune.loss.{useless[0]}",
        )
    if "crf" in asked and len(asked) > 1:
        other = sorted(asked - {"crf"})[0]
        raise BadConfig(
            f"finetune.loss.{other} changes the loss of single tags, and a CRF has one of whole sentences",
            value=getattr(settings, other),
            next_step=f"Remove finetune.loss.{other} or finetune.loss.crf",
        )


def check_robust(problem: str, settings: FinetuneTable) -> None:
    """Check that the options of finetune.robust fit the problem and the dropout.

    Raises:
        BadConfig: they do not; the message names the setting.
    """
    robust = settings.robust
    if robust.rdrop_weight and not settings.dropout:
        raise BadConfig(
            "finetune.robust.rdrop_weight compares two dropouts, and finetune.dropout is 0",
            value=robust.rdrop_weight,
            next_step="Set finetune.dropout = 0.1, or remove finetune.robust.rdrop_weight",
        )
    if robust.mixup_alpha and problem not in _MIXABLE:
        raise BadConfig(
            "finetune.robust.mixup_alpha mixes whole inputs; it does classification, multi-label and regression",
            value=robust.mixup_alpha,
            next_step="Remove finetune.robust.mixup_alpha",
        )


def _lengths(base_folder: Path) -> tuple[SimpleNamespace, SimpleNamespace]:
    """What a base model's files say of how long an input may be, as `check_length` asks for it."""
    config, tokenizer = (
        json.loads(path.read_text("utf-8")) if path.exists() else {}
        for path in (base_folder / "config.json", base_folder / "tokenizer_config.json")
    )
    positions, longest = config.get("max_position_embeddings"), tokenizer.get("model_max_length")
    return (
        SimpleNamespace(max_position_embeddings=positions),
        SimpleNamespace(model_max_length=longest or 10**9),
    )
