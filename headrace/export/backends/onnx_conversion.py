"""A Hugging Face checkpoint to an ONNX file. Needs torch, transformers, onnx and nncf: never on the serving path."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from headrace.checkpoints.encoding import TOKENIZER, Encoder, input_names, standalone_tokenizer
from headrace.checkpoints.heads import drop_silent
from headrace.checkpoints.loading import load
from headrace.checkpoints.saving import read_decoding
from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.export.artifact import ArtifactFacts
from headrace.export.backends.checkpoint_files import check_calibration, check_checkpoint, quietly
from headrace.export.backends.onnx_graph import look_up_before_dequantising, name_plainly, use_unsigned_activations
from headrace.export.backends.onnx_runtime import MODEL
from headrace.records import Input
from headrace.tasks import TASK_TYPES, TaskType
from headrace.version import VERSION

_OPSET = 23  # the first with Attention as one operation
_MOST_BYTES = 2**31 - 1  # of a message of protobuf; larger models need a second file, which no server here follows


def convert(
    checkpoint: Path, folder: Path, *, task: TaskTable, precision: str, calibration: Sequence[Input]
) -> ArtifactFacts:
    """Write model.onnx and tokenizer.json into `folder`.

    Raises:
        BadInput: the checkpoint does not fit the task or an ONNX file, or there are too few inputs to calibrate on.
    """
    check_calibration(precision, calibration)
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    with quietly():
        network, tokenizer = load(checkpoint, task_type)
        check_checkpoint(network, tokenizer, task)
        drop_silent(network)
        alone: Any = standalone_tokenizer(tokenizer, task)
        model = _exported(network, input_names(network.encoder, tokenizer))
        if precision == "int8":
            model = _quantised(model, Encoder(alone), calibration)
    alone.save(str(folder / TOKENIZER), pretty=False)
    name_plainly(model)
    if model.ByteSize() > _MOST_BYTES:
        raise BadInput(
            "the model is larger than one ONNX file can be", value=model.ByteSize(), next_step="Export to openvino"
        )
    onnx.save_model(model, str(folder / MODEL))
    return ArtifactFacts(
        backend="onnxruntime",
        precision=precision,
        task=task,
        calibration=read_decoding(checkpoint),
        n_parameters=sum(p.numel() for p in network.parameters()),
        code_version=VERSION,
    )


def _exported(network: Any, names: Sequence[str]) -> Any:
    """The model with inputs (B, T), both of any size."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = {name: torch.zeros(2, 16, dtype=torch.int64) for name in names}
    example["input_ids"] += 1
    example["attention_mask"][0] = 1
    example["attention_mask"][1, :9] = 1  # a mask of ones only would let the exporter leave it out
    any_size = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program: Any = torch.onnx.export(
            network,
            kwargs=example,
            dynamo=True,
            opset_version=_OPSET,
            dynamic_shapes={name: {0: any_size, 1: any_size} for name in names},
            verbose=False,
        )
    model = program.model_proto
    assert [port.name for port in model.graph.input] == list(names)
    return model


def _quantised(model: Any, encoder: Encoder, calibration: Sequence[Input]) -> Any:
    """Post-training int8, each input at its own length, so that padding does not widen the ranges.

    Ranges are fixed here. Ranges taken anew from each batch (`quantize_dynamic`) would make an input's answer depend on
    which others share its batch.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    names = [port.name for port in model.graph.input]
    feeds = [encoder.feed([window], names) for window in encoder.encode(calibration)]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(feeds),
        ignored_scope=nncf.IgnoredScope(types=["Attention"], validate=False),
    )
    use_unsigned_activations(quantised)
    look_up_before_dequantising(quantised)
    return quantised
