"""What training needs to go on as if nothing had been: states of optimiser, schedule and random numbers, in one form.

transformers keeps them as pickles, which run code when they are read. Here tensors are safetensors, and how they belong
together is JSON in the same file.
"""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from headrace.files import safetensors_file

_LAYOUT = "layout"


def write(path: Path, state: Any) -> None:
    """Write numbers, texts, tensors, and lists, tuples and dicts of them.

    Raises:
        TypeError: there is something else in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    layout = json.dumps(_laid_out(state, tensors))
    save_file(tensors, path, metadata={_LAYOUT: layout})


def read(path: Path) -> Any:
    """What `write` was given, tensors on the CPU.

    Raises:
        Damaged: it is no file that `write` wrote.
    """
    safetensors_file.check(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
        return _put_together(json.loads(file.metadata()[_LAYOUT]), tensors)


def _laid_out(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON of a value, its tensors put aside under numbers."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().contiguous()
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, list):
        return [_laid_out(one, tensors) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [_laid_out(one, tensors) for one in value]}
    if isinstance(value, Mapping):  # as pairs, since keys may be numbers
        return {"pairs": [[key, _laid_out(one, tensors)] for key, one in value.items()]}
    raise TypeError(f"no form for {type(value).__name__}")


def _put_together(said: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(said, list):
        return [_put_together(one, tensors) for one in said]
    if not isinstance(said, dict):
        return said
    ((kind, inner),) = said.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "tuple":
        return tuple(_put_together(one, tensors) for one in inner)
    return {key: _put_together(one, tensors) for key, one in inner}


def random_numbers() -> dict[str, Any]:
    """The state of every source of random numbers."""
    name, keys, *rest = np.random.get_state()  # transformers seeds this one
    return {
        "python": random.getstate(),
        "numpy": (name, [int(key) for key in keys], *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def go_on_with(numbers: Mapping[str, Any]) -> None:
    """Have every source of random numbers go on from a state that `random_numbers` gave."""
    random.setstate(numbers["python"])
    np.random.set_state(numbers["numpy"])
    torch.set_rng_state(numbers["torch"])
    if torch.cuda.is_available() and len(numbers["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(numbers["cuda"])
