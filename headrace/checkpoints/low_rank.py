"""A channel adapter as plain arrays, and the PEFT directory it is kept in. Needs no torch: serving reads with it too.

Dimensions: r rank, D_in and D_out of an updated linear layer, K outputs of the head, D its width.

The directory is what `PeftModel.from_pretrained(shared model, folder)` loads (LoRA as in Hu et al. 2021, arXiv
2106.09685: W x + scale * B A x), with the last linear layer replaced whole.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from headrace.errors import Damaged
from headrace.files import safetensors_file

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # how peft calls the model that it wraps
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LowRank:
    """What a channel adds to a shared model."""

    scale: float
    updates: Mapping[str, tuple[Floats, Floats]]
    """Path of a linear layer in the shared model to its A (r, D_in) and B (D_out, r)."""
    head: tuple[Floats, Floats] | None
    """Weight (K, D) and bias (K,) in place of the shared model's last linear layer; None: the shared one stays."""
    head_path: str = ""
    """Path of that layer in the shared model; not kept where `head` is None."""

    @property
    def rank(self) -> int:
        return max(int(a.shape[0]) for a, _ in self.updates.values())


def write(folder: Path, low_rank: LowRank, *, base: str) -> None:
    """Write the directory that peft loads.

    Args:
        base: what the config names as the model it belongs to.
    """
    tensors: dict[str, Floats] = {}
    for path, (a, b) in low_rank.updates.items():
        tensors |= {f"{_PREFIX}{path}.lora_A.weight": a, f"{_PREFIX}{path}.lora_B.weight": b}
    if low_rank.head is not None:
        weight, bias = low_rank.head
        tensors |= {f"{_PREFIX}{low_rank.head_path}.weight": weight, f"{_PREFIX}{low_rank.head_path}.bias": bias}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": low_rank.rank,
        "lora_alpha": low_rank.scale * low_rank.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(low_rank.updates),
        # peft takes every module whose path ends so; the whole path, since DistilBERT has a pre_classifier too
        "modules_to_save": None if low_rank.head is None else [f"{_PREFIX}{low_rank.head_path}"],
        "task_type": None,  # with one, peft would add every module called "classifier" to those it expects
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=1), "utf-8")
    save_file({name: _plain(array) for name, array in sorted(tensors.items())}, folder / WEIGHTS, {"format": "pt"})


def read(folder: Path) -> LowRank:
    """The adapter that `write` left.

    Raises:
        Damaged: missing, unreadable, or not what `write` writes.
    """
    safetensors_file.check(folder / WEIGHTS)
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
        tensors = {name.removeprefix(_PREFIX): array for name, array in load_file(folder / WEIGHTS).items()}
        head_path = str((config["modules_to_save"] or [""])[0]).removeprefix(_PREFIX)

        def take(name: str) -> Floats:
            return _plain(tensors.pop(name))

        paths = [str(path) for path in config["target_modules"]]
        updates = {path: (take(f"{path}.lora_A.weight"), take(f"{path}.lora_B.weight")) for path in paths}
        head = None
        if head_path:
            head = take(f"{head_path}.weight"), take(f"{head_path}.bias")
        scale = float(config["lora_alpha"]) / int(config["r"])
        if tensors:
            raise ValueError(f"a tensor too many: {sorted(tensors)[0]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, SafetensorError) as error:
        raise Damaged(
            f"the adapter cannot be read: {error or type(error).__name__}",
            value=str(folder),
            next_step="Train the channel again: headrace train --per-channel --channel NAME",
        ) from None
    return LowRank(scale, updates, head, head_path)


def weights_digest(low_rank: LowRank) -> str:
    """SHA-256 of what the adapter adds, however it is kept: names, shapes, and float32 values with B scaled."""
    found = hashlib.sha256()
    for name, array in _effective(low_rank):
        found.update(f"{name} {list(array.shape)}\n".encode())
        found.update(_plain(array).astype("<f4", copy=False).tobytes())
    return f"sha256:{found.hexdigest()}"


def _effective(low_rank: LowRank) -> Iterator[tuple[str, Floats]]:
    for path, (a, b) in sorted(low_rank.updates.items()):
        yield f"{path}.a", a
        yield f"{path}.b", b * np.float32(low_rank.scale)
    if low_rank.head is not None:
        yield "head.weight", low_rank.head[0]
        yield "head.bias", low_rank.head[1]


def _plain(array: Any) -> Floats:
    return np.ascontiguousarray(array, dtype=np.float32)
