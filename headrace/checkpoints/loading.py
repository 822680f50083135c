"""Make a network: fresh on a base model, or as a checkpoint directory has it."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from headrace.checkpoints.network import Form, Network
from headrace.checkpoints.saving import BASE, read_decoding
from headrace.files import model_folder
from headrace.tasks import TaskType


def fresh(base_folder: Path, task_type: TaskType, *, form: Form = "head", dropout: float = 0.0) -> Network:
    """The base model with a fresh head for the task, in float32 whatever its files hold.

    Attention is computed plainly on a CPU: at the lengths of sentences, the fused kernel's backward pass costs twice
    the time there (one profile: docs/log.md, 2026-11-21).
    """
    config = transformers.AutoConfig.from_pretrained(base_folder)
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("pdrop")) and not isinstance(
            value, bool
        ):  # each family has its own names, and its head's
            setattr(config, key, dropout)
    _name_outputs(config, task_type)
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    kwargs: dict[str, Any] = {"config": config, "use_safetensors": True, "attn_implementation": attention}
    kwargs["dtype"] = torch.float32
    if form == "head":
        loader = getattr(transformers, task_type.auto_class)
        return Network(loader.from_pretrained(base_folder, **kwargs), task_type.problem, task_type.n_outputs)
    model = transformers.AutoModel.from_pretrained(base_folder, **kwargs)
    _drop_pooler(model)
    dense = nn.Linear(config.hidden_size, task_type.n_outputs)
    return Network(model, task_type.problem, task_type.n_outputs, dense=dense)


def warm(folder: Path, task_type: TaskType, *, form: Form = "head", dropout: float = 0.0) -> Network:
    """The network of a plain checkpoint as training goes on from it: as `fresh`, but with its own head.

    A retrieval task has none: its last layer is the catalogue, which may be another by now.

    Raises:
        Damaged: a file of it could run code or lead elsewhere.
    """
    model_folder.check(folder)
    network = fresh(folder, task_type, form=form, dropout=dropout)
    if network.dense is not None and task_type.problem != "retrieval":
        network.dense = _dense(folder)
    network.crf = _crf(folder)
    return network


def load(folder: Path, task_type: TaskType) -> tuple[Network, Any]:
    """The network of a checkpoint in float32, ready to answer, and its tokenizer.

    Raises:
        Damaged: a file of it could run code or lead elsewhere.
    """
    model_folder.check(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if (folder / "modules.json").exists():
        network = _embedding(folder, task_type)
    else:
        loader = getattr(transformers, task_type.auto_class)
        is_peft = (folder / "adapter_config.json").exists()
        model = loader.from_pretrained(folder / BASE if is_peft else folder, dtype=torch.float32)
        if is_peft:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(folder))
        _name_problem(model.config, task_type)
        network = Network(model, task_type.problem, model.config.num_labels)
    network.crf = _crf(folder)
    return network.eval(), tokenizer


def _embedding(folder: Path, task_type: TaskType) -> Network:
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    _drop_pooler(model)
    dense = _dense(folder)
    return Network(model, task_type.problem, dense.out_features, dense=dense)


def _dense(folder: Path) -> nn.Linear:
    """The linear layer of a sentence-transformers directory."""
    from safetensors.torch import load_file

    facts = json.loads((folder / "3_Dense" / "config.json").read_text("utf-8"))
    dense = nn.Linear(facts["in_features"], facts["out_features"], bias=facts["bias"])
    state = load_file(folder / "3_Dense" / "model.safetensors")
    dense.load_state_dict({name.removeprefix("linear."): value for name, value in state.items()})
    return dense


def _crf(folder: Path) -> nn.ParameterDict | None:
    crf = read_decoding(folder).get("crf")
    if not crf:
        return None
    return nn.ParameterDict({name: nn.Parameter(torch.tensor(value)) for name, value in crf.items()})


def _name_outputs(config: Any, task_type: TaskType) -> None:
    config.num_labels = 2 if task_type.problem == "question_answering" else task_type.n_outputs
    config.id2label = dict(enumerate(task_type.output_names))
    config.label2id = {name: i for i, name in enumerate(task_type.output_names)}
    _name_problem(config, task_type)


def _name_problem(config: Any, task_type: TaskType) -> None:
    """What transformers needs for its own loss, and its pipelines for their answers."""
    if task_type.problem in ("single_label_classification", "multi_label_classification", "regression"):
        config.problem_type = task_type.problem


def _drop_pooler(model: Any) -> None:
    """The `embedding` form never reads it."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None


def keep_layers(network: Network, n_layers: int) -> None:
    """Keep this many of the encoder's layers, spread evenly, the lowest and the highest among them."""
    layers = network.layers
    depth = len(layers)
    kept = [round(i * (depth - 1) / max(1, n_layers - 1)) for i in range(n_layers)]
    chosen = [layers[i] for i in sorted(set(kept))]
    del layers[:]
    layers.extend(chosen)
    network.config.num_hidden_layers = len(chosen)
    kinds = getattr(network.config, "layer_types", None)  # such as local and global attention, read when it is loaded
    if kinds is not None and len(kinds) == depth:
        network.config.layer_types = [kinds[i] for i in sorted(set(kept))]
