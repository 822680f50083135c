"""A channel's adapter as a PEFT directory: low-rank updates of linear layers, and a last layer of its own.

Needs NumPy and safetensors only: workers that serve read it too.

Dimensions: r rank, D_in and D_out of a linear layer, K outputs of the head, D its width.
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
from safetensors.numpy import load_file

from headrace.errors import Damaged

Array = NDArray[np.float32]
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, eq=False)
class LowRank:
    """An adapter in memory."""

    scale: float
    updates: Mapping[str, tuple[Array, Array]]
    """Path of a linear layer in the shared model to A (r, D_in) and B (D_out, r); the update is scale * B @ A."""
    head: tuple[Array, Array] | None
    """Weight (K, D) and bias (K,) of the last linear layer; None: the shared model's."""
    head_path: str = ""


def read(folder: Path) -> LowRank:
    """The adapter of a PEFT directory.

    Raises:
        Damaged: a file is missing or unreadable.
    """
    try:
        config: dict[str, Any] = json.loads((folder / _CONFIG).read_text("utf-8"))
        tensors = load_file(folder / _WEIGHTS)
        scale = float(config["lora_alpha"]) / float(config["r"])
        path, *_ = [*(config.get("modules_to_save") or []), ""]
        named = {name.removeprefix(_PREFIX): np.asarray(t, dtype=np.float32) for name, t in tensors.items()}
        paths = sorted(name.removesuffix(".lora_A.weight") for name in named if name.endswith(".lora_A.weight"))
        updates = {p: (named[f"{p}.lora_A.weight"], named[f"{p}.lora_B.weight"]) for p in paths}
        head = (named[f"{path}.weight"], named[f"{path}.bias"]) if path else None
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise Damaged(
            f"the adapter cannot be read: {error}", value=str(folder), next_step="Train the channel again"
        ) from None
    return LowRank(scale, updates, head, path)


def weights_digest(adapter: LowRank) -> str:
    """Hash of what an adapter adds, whatever form it is kept in: names, shapes, and float32 bytes with B scaled."""
    total = hashlib.sha256()
    for name, array in _effective(adapter):
        total.update(f"{name} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return f"sha256:{total.hexdigest()}"


def _effective(adapter: LowRank) -> Iterator[tuple[str, Array]]:
    for name in sorted(adapter.updates):
        a, b = adapter.updates[name]
        yield f"{name}.a", a
        yield f"{name}.b", b * np.float32(adapter.scale)
    if adapter.head is not None:
        yield "head.weight", adapter.head[0]
        yield "head.bias", adapter.head[1]
