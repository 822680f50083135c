"""A Hugging Face checkpoint to OpenVINO files. Needs torch, transformers and nncf: never on the serving path."""

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from safetensors.numpy import save_file

from headrace.checkpoints import packing
from headrace.checkpoints.encoding import TOKENIZER, Encoder, Window, input_names, standalone_tokenizer
from headrace.checkpoints.heads import drop_silent
from headrace.checkpoints.loading import load
from headrace.checkpoints.network import Network
from headrace.checkpoints.saving import read_decoding
from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends import openvino_bank, openvino_packing
from headrace.export.backends.checkpoint_files import check_calibration, check_checkpoint, quietly
from headrace.export.backends.openvino import MODEL
from headrace.export.backends.openvino_trimming import keep_first_token
from headrace.export.backends.slots import HEAD, OWNERS, PLACES, SLOTS, Slots, widths_in
from headrace.records import Input
from headrace.tasks import TASK_TYPES, TaskType
from headrace.version import VERSION


def convert(
    checkpoint: Path,
    folder: Path,
    *,
    task: TaskTable,
    precision: str,
    calibration: Sequence[Input],
    bank: Mapping[str, Any],
) -> ArtifactFacts:
    """Write model.xml, model.bin and tokenizer.json into `folder`; with a bank, also the shared head.

    Args:
        bank: `targets` and `rank` of the channel adapters that the graph gets room for; empty: none.

    Raises:
        BadInput: the checkpoint does not fit the task, there are too few inputs to calibrate on, or the model cannot
            have channel adapters.
    """
    check_calibration(precision, calibration)
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    with quietly():
        network, tokenizer = load(checkpoint, task_type)
        check_checkpoint(network, tokenizer, task)
        if not bank:  # whose adapters are as wide as the layers of the checkpoint
            drop_silent(network)
        alone: Any = standalone_tokenizer(tokenizer, task)
        encoder = Encoder(alone)
        graph = _traced(network, encoder, input_names(network.encoder, tokenizer), task_type, calibration)
    alone.save(str(folder / TOKENIZER), pretty=False)
    n_parameters = sum(p.numel() for p in network.parameters())
    if bank:
        graph = _with_bank(graph, network, bank, folder)
    del network
    gc.collect()
    keep_first_token(graph.model)
    if precision == "int8":
        graph = _quantised(graph, encoder, calibration)
    _name_plainly(graph.model)
    ov.save_model(graph.model, folder / MODEL, compress_to_fp16=False)
    return ArtifactFacts(
        backend="openvino",
        precision=precision,
        task=task,
        calibration=read_decoding(checkpoint),
        n_parameters=n_parameters,
        first_position=graph.first_position,
        bank=dict(bank),
        code_version=VERSION,
    )


@dataclass(frozen=True)
class _Graph:
    model: Any
    first_position: int | None
    """As in headrace.json."""
    slots: Slots | None = None
    added: tuple[str, ...] = ()
    """Operations of the bank, which quantisation leaves alone."""


def _traced(
    network: Network, encoder: Encoder, names: Sequence[str], task_type: TaskType, calibration: Sequence[Input]
) -> _Graph:
    """The packed form where the model has one, else the padded one."""
    long = "word " * encoder.max_tokens
    whole: Input = long if len(task_type.fields) == 1 else ("word", long)
    packed = openvino_packing.trace(network, encoder, names, [whole, *calibration])
    return _Graph(_padded(network, names), None) if packed is None else _Graph(*packed)


def _with_bank(graph: _Graph, network: Network, bank: Mapping[str, Any], folder: Path) -> _Graph:
    """Room for adapters, and the shared head as a file of its own."""
    if graph.first_position is None:
        raise BadInput(
            "this model family cannot have channel adapters: its inputs cannot be packed",
            value=network.config.model_type,
            next_step="Train without --per-channel, or choose a base model of the BERT family",
        )
    path = next(name for name, module in network.model.named_modules() if module is network.head)
    head = {name: value.detach().numpy() for name, value in network.head.state_dict().items()}
    known = {operation.get_friendly_name() for operation in graph.model.get_ordered_ops()}
    model = openvino_bank.insert(graph.model, bank["targets"], bank["rank"], path)
    added = openvino_bank.mark(model, known)
    save_file(head, folder / HEAD)
    widths = widths_in({port.any_name: port.partial_shape for port in model.inputs})
    return _Graph(model, graph.first_position, Slots(widths, bank["rank"], head), tuple(added))


def _padded(model: Any, names: Sequence[str]) -> Any:
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


def _quantised(graph: _Graph, encoder: Encoder, calibration: Sequence[Input]) -> _Graph:
    """Post-training int8, each input at its own length, so that padding does not widen the ranges.

    Symmetric ranges, and attention left in float: a tenth more rows a second than NNCF's own choice for transformers,
    and as near to fp32. Source: measured, docs/log.md 2026-11-22.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    feeds = [_feed(graph, encoder, window) for window in encoder.encode(calibration)]
    with quietly():
        model = nncf.quantize(
            graph.model,
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(
                names=list(graph.added), types=["ScaledDotProductAttention"], validate=False
            ),
        )
    return replace(graph, model=model)


def _feed(graph: _Graph, encoder: Encoder, window: Window) -> dict[str, Any]:
    """One window alone, without an adapter."""
    names = [port.any_name for port in graph.model.inputs]
    if graph.first_position is None:
        return dict(encoder.feed([window], names))
    (batch,) = packing.pack([len(window)], batch_tokens=len(window))
    feed: dict[str, Any] = dict(
        packing.feed(batch, [window], names, pad_id=encoder.pad_id, first_position=graph.first_position)
    )
    if graph.slots is None:
        return feed
    none = {SLOTS: np.zeros((1, 1), dtype=np.int64), OWNERS: np.zeros(1, dtype=np.int64), **graph.slots.arrays}
    none[PLACES] = (np.arange(batch.n_tokens) < len(window)).astype(np.int64)[None]
    return feed | {name: array for name, array in none.items() if name in names}


def _name_plainly(model: Any) -> None:
    """Number the operations anew: their own numbers count everything the process ever made, so bytes would differ."""
    model.set_friendly_name("model")
    for i, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{i}")
