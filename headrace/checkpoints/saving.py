"""Write a network as a directory that plain libraries load."""

import json
from pathlib import Path
from typing import Any

from headrace.checkpoints.network import Network
from headrace.files import safetensors_file

BASE = "base"
"""Folder of the base model inside a checkpoint of peft's that cannot be merged."""
DECODING = "decoding.json"
"""What decoding needs besides logits, such as a CRF's transitions."""


def save(network: Network, tokenizer: Any, folder: Path) -> None:
    """Write weights, config and tokenizer into `folder`.

    The `head` form is what AutoModel... loads, or a peft directory with its base model in `base/`; the `embedding` form
    is what SentenceTransformer loads.

    Raises:
        Unusable: the disk is full or fails.
    """
    with safetensors_file.written(folder):
        if network.dense is not None:
            _save_embedding(network, tokenizer, folder)
        else:
            _save_head(network, folder)
            tokenizer.save_pretrained(folder)
        if network.crf is not None:
            crf = {name: value.detach().cpu().tolist() for name, value in network.crf.items()}
            (folder / DECODING).write_text(json.dumps({"crf": crf}), "utf-8")


def read_decoding(folder: Path) -> dict[str, Any]:
    """What `save` left for decoding; empty for most."""
    path = folder / DECODING
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def _save_head(network: Network, folder: Path) -> None:
    model = network.model
    if hasattr(model, "peft_config"):
        config = model.peft_config["default"]
        config.base_model_name_or_path = BASE
        config.inference_mode = True
        base = model.get_base_model()
        base.base_model.save_pretrained(folder / BASE)
        base.config.save_pretrained(folder / BASE)  # with the task's labels, which the base model alone has not
        model.save_pretrained(folder, save_embedding_layers=False)  # they are in the base model's folder
    else:
        model.save_pretrained(folder)


def _save_embedding(network: Network, tokenizer: Any, folder: Path) -> None:
    """A sentence-transformers directory, written in its own format: the library takes seconds to import."""
    assert network.dense is not None
    network.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    from safetensors.torch import save_file

    in_features, out_features = network.dense.in_features, network.dense.out_features
    part = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    configs: dict[str, dict[str, Any]] = {
        "1_Pooling": {"embedding_dimension": in_features, "pooling_mode": "mean", "include_prompt": True},
        "2_Normalize": part,
        "3_Dense": {
            "in_features": in_features,
            "out_features": out_features,
            "bias": network.dense.bias is not None,
            "activation_function": "torch.nn.modules.linear.Identity",
            **part,
        },
    }
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    state = {f"linear.{name}": value.detach().cpu().contiguous() for name, value in network.dense.state_dict().items()}
    save_file(state, folder / "3_Dense" / "model.safetensors", metadata={"format": "pt"})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(
            [
                ("", "base.modules.transformer.Transformer"),
                ("1_Pooling", "sentence_transformer.modules.pooling.Pooling"),
                ("2_Normalize", "base.modules.normalize.Normalize"),
                ("3_Dense", "base.modules.dense.Dense"),
            ]
        )
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=1), "utf-8")
    about = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    method = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    whole = json.dumps({**about, "modality_config": method}, indent=1)
    (folder / "sentence_bert_config.json").write_text(whole, "utf-8")
