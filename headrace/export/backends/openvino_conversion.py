"""A Hugging Face checkpoint to OpenVINO files. Needs torch, transformers and nncf: never on the serving path."""

import gc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from headrace.checkpoints.encoding import TOKENIZER, Encoder, input_names, standalone_tokenizer
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import read_decoding
from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.checkpoint_files import check_checkpoint, quietly
from headrace.export.backends.one_token import keep_first_token
from headrace.export.backends.openvino import MODEL
from headrace.records import Input
from headrace.tasks import TASK_TYPES, TaskType
from headrace.version import VERSION

_MIN_CALIBRATION = 10  # as settings.export.n_calibration; below it, ranges of activations are mostly chance


def convert(
    checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[Input]
) -> ArtifactFacts:
    """Write model.xml, model.bin and tokenizer.json into `folder`.

    Raises:
        BadInput: the checkpoint does not fit the task, or there are too few inputs to calibrate on.
    """
    if precision == "int8" and len(calibration) < _MIN_CALIBRATION:
        raise BadInput(
            f"int8 needs {_MIN_CALIBRATION} or more inputs to calibrate on",
            value=len(calibration),
            next_step="Export with --precision fp32, or import more rows",
        )
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    with quietly():
        model, tokenizer = load(checkpoint, task_type)
        check_checkpoint(model, tokenizer, task)
        converted = _traced(model, input_names(model.encoder, tokenizer))
    alone: Any = standalone_tokenizer(tokenizer, task)
    alone.save(str(folder / TOKENIZER), pretty=False)
    n_parameters = sum(p.numel() for p in model.parameters())
    del model
    gc.collect()
    keep_first_token(converted)
    if precision == "int8":
        converted = _quantised(converted, Encoder(alone), calibration)
    _name_plainly(converted)
    ov.save_model(converted, folder / MODEL, compress_to_fp16=False)
    return ArtifactFacts(
        backend="openvino",
        precision=precision,
        task=task,
        calibration=read_decoding(checkpoint),
        n_parameters=n_parameters,
        code_version=VERSION,
    )


def _traced(model: Any, names: Sequence[str]) -> Any:
    """The model with inputs (B, T), both of any size."""
    if hasattr(model.model, "peft_config"):
        _fix_prefix(model.model)
    example = {name: torch.zeros(2, 16, dtype=torch.int64) for name in names}
    example["input_ids"] += 1
    example["attention_mask"][0] = 1
    example["attention_mask"][1, :9] = 1  # a mask of ones only would let the tracer leave it out
    with torch.no_grad():
        converted = ov.convert_model(model, example_input=example)
    for port, name in zip(converted.inputs, example, strict=True):
        port.get_node().set_partial_shape(ov.PartialShape([-1, -1]))
        port.get_tensor().set_names({name})
    converted.validate_nodes_and_infer_types()
    return converted


def _fix_prefix(peft_model: Any) -> None:
    """Have prefix tuning give its keys and values as constants.

    What peft gives begins as tensors without a shape, which the tracer cannot convert.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    with torch.no_grad():
        known = [(layer.keys, layer.values) for layer in peft_model.get_prompt(1).layers]

    def prompt(batch_size: Any, *_args: Any, **_kwargs: Any) -> Any:
        cache = DynamicCache()
        for keys, values in known:
            layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys.expand(batch_size, -1, -1, -1), values.expand(batch_size, -1, -1, -1)
            cache.layers.append(layer)
        return cache

    peft_model.get_prompt = prompt


def _quantised(model: Any, encoder: Encoder, calibration: Sequence[Input]) -> Any:
    """Post-training int8, each input at its own length, so that padding does not widen the ranges.

    Symmetric ranges, and attention left in float: a tenth more rows a second than NNCF's own choice for transformers,
    and as near to fp32. Source: measured, docs/log.md 2026-11-22.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    names = [port.any_name for port in model.inputs]
    feeds = [encoder.feed([window], names) for window in encoder.encode(calibration)]
    with quietly():
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention"], validate=False),
        )


def _name_plainly(model: Any) -> None:
    """Number the operations anew: their own numbers count everything the process ever made, so bytes would differ."""
    model.set_friendly_name("model")
    for i, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{i}")
