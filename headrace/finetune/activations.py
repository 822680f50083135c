"""What frozen lower layers give for each row, computed once and kept on disk, so that later epochs cost only the rest.

A file of the folder holds the states of both sides: of every token after the highest frozen layer, or one vector a row
where the whole model is frozen under the `embedding` form. Its name is the hash of all that decides them: the frozen
weights, the token ids, how many layers, the precision. Files are whole or absent; the least recently used go first.

Dimensions: B rows of a batch, T tokens of the longest, M tokens (or rows) of both sides, D width of the model.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.artifacts import sync
from headrace.checkpoints.encoding import like_length_batches
from headrace.checkpoints.network import Network
from headrace.finetune.batching import Padding
from headrace.finetune.features import Feature, FeatureSet
from headrace.finetune.methods import Plan
from headrace.finetune.methods.parts import output_of, states_in
from headrace.finetune.objectives import Batch, Objective, feed_of
from headrace.finetune.training import computes_in_bf16

_BATCH_TOKENS = 4096
_ABANDONED_S = 86_400  # a file that is being written changes more often
_N_TRIED = 8  # rows on which a cut network must answer as the whole one does
_NO_CUT = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # of a model built in another way


@dataclass(frozen=True)
class Kept:
    """States at hand for a training, or the reason why there are none."""

    facts: dict[str, Any]
    """For the run: `activations`, if a part of the network is frozen."""
    cut: "Cut | None" = None
    states: Sequence["States"] = ()
    """Of each side."""

    def under(self, objective: Objective, side: int) -> Objective:
        """The objective on states instead of token ids."""
        return objective if self.cut is None else _FromStates(objective, self.cut, self.states[side])

    def restore(self) -> None:
        """Make the network whole again."""
        if self.cut is not None:
            self.cut.restore()


def keep(plan: Plan, network: Network, sides: Sequence[FeatureSet]) -> Kept:
    """Compute or find the states of the frozen part for all rows, and cut the network off below them.

    Where that cannot be, the network stays whole, and the facts say why.
    """
    cut = _cut_of(network)
    if cut is None:
        return Kept({})
    reason = _reason_against(plan, network)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    if reason is None and not _answers_alike(cut, plan, sides[1].features[:_N_TRIED]):
        reason = "the layers of this model family cannot be cut off"
    if reason is None:
        started = time.perf_counter()
        found = _found_or_computed(plan, cut, sides)
        if isinstance(found, tuple):
            array, is_hit = found
            facts = {"cached": True, "n_bytes": array.nbytes, "layer": cut.n_layers, "hit": is_hit}
            cut.apply()
            states = _by_side(array, sides, pooled=cut.pooled)
            return Kept({"activations": {**facts, "seconds": round(time.perf_counter() - started, 2)}}, cut, states)
        reason = found
    return Kept({"activations": {"cached": False, "layer": cut.n_layers, "reason": reason}})


def _reason_against(plan: Plan, network: Network) -> str | None:
    settings = plan.settings
    reasons = {
        "finetune.cache_bytes is 0, or there is no folder": plan.cache is None or not settings.cache_bytes,
        "retrieval embeds its catalogue with the whole network": network.problem == "retrieval",
        "finetune.dropout is above 0": settings.dropout > 0,
        "finetune.robust.adversarial moves the embeddings": settings.robust.adversarial != "none",
        "finetune.gradient_checkpointing is on": settings.gradient_checkpointing,
        "the method adds to the model": hasattr(network.model, "peft_config"),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class Cut:
    """A network that can start from states: its frozen modules pass them on while it is applied.

    No module is taken out, so parameters keep their names and checkpoints their meaning.
    """

    def __init__(self, network: Network, n_layers: int, *, pooled: bool) -> None:
        self.network, self.n_layers, self.pooled = network, n_layers, pooled
        self.states: Tensor | None = None
        """What the next pass starts from: (B, T, D), or (B, D) where pooled."""
        self._beside: tuple[None, ...] | None = None  # what a layer gives beside the states; None: states alone
        plain = [network.model] if pooled else [network.encoder.embeddings, *network.layers[:n_layers]]
        self.modules: list[nn.Module] = plain

    def apply(self) -> None:
        first, *others = self.modules
        first.forward = self._start
        for module in others:
            module.forward = self._pass_on

    def restore(self) -> None:
        for module in self.modules:
            module.__dict__.pop("forward", None)

    def _start(self, *args: Any, **kwargs: Any) -> Any:
        assert self.states is not None
        return SimpleNamespace(last_hidden_state=self.states[:, None]) if self.pooled else self.states

    def _pass_on(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states if self._beside is None else (hidden_states, *self._beside)

    @torch.no_grad()
    def compute(self, batch: Batch) -> Tensor:
        """The states of a batch by the whole network."""
        if self.pooled:
            vectors: Tensor = self.network(**feed_of(batch), embeds=True)
            return vectors
        output = self._output(batch)
        self._beside = (None,) * (len(output) - 1) if isinstance(output, tuple) else None
        return states_in(output)

    def reads_what_trains(self, batch: Batch) -> bool:
        """Whether the states change while the network trains, since a frozen module reads what the others do."""
        return not self.pooled and states_in(self._output(batch)).requires_grad

    def _output(self, batch: Batch) -> Any:
        return output_of(self.modules[-1], lambda: self.network(**feed_of(batch)))


@dataclass(frozen=True)
class _FromStates:
    inner: Objective
    cut: Cut
    states: "States"

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        self.cut.states = self.states.of(batch)
        return self.inner(network, batch)

    def refresh(self, network: Network) -> None:
        self.inner.refresh(network)


@dataclass(frozen=True)
class States:
    """The states of one side."""

    array: NDArray[Any]
    """(M, D) float32, or int16 that holds bfloat16; a file in memory."""
    starts: NDArray[np.int64]
    """(N,) where each row's states begin."""
    pooled: bool

    def of(self, batch: Batch) -> Tensor:
        """(B, T, D) float32, zeros where padded; (B, D) where pooled."""
        mask = batch["attention_mask"]
        starts = self.starts[batch["row"].cpu().numpy()]
        if self.pooled:
            return _tensor(self.array[starts]).to(mask.device)
        n_each = mask.sum(dim=1).cpu().numpy()
        places = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, n_each, strict=True)])
        padded = torch.zeros((*mask.shape, self.array.shape[1]))
        padded[mask.cpu().bool()] = _tensor(self.array[places])
        return padded.to(mask.device)


def _tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16).float() if tensor.dtype == torch.int16 else tensor


def _by_side(array: NDArray[Any], sides: Sequence[FeatureSet], *, pooled: bool) -> list[States]:
    found, start = [], 0
    for side in sides:
        lengths = np.asarray([1] * len(side.lengths) if pooled else side.lengths, dtype=np.int64)
        ends = start + np.cumsum(lengths)
        found.append(States(array, ends - lengths, pooled))
        start = int(ends[-1])
    return found


def _cut_of(network: Network) -> Cut | None:
    """Where the network can be cut: above the highest layer below which nothing trains; None where all train."""
    if network.form == "embedding" and not any(p.requires_grad for p in network.model.parameters()):
        return Cut(network, network.config.num_hidden_layers, pooled=True)
    embeddings = getattr(network.encoder, "embeddings", None)
    try:
        parts: list[nn.Module] = [embeddings, *network.layers] if isinstance(embeddings, nn.Module) else []
    except LookupError:
        return None
    trains = [any(p.requires_grad for p in part.parameters()) for part in parts]
    n_frozen = trains.index(True) if True in trains else len(trains)
    return Cut(network, n_frozen - 1, pooled=False) if n_frozen > 1 else None


def _answers_alike(cut: Cut, plan: Plan, features: Sequence[Feature]) -> bool:
    """Whether the network gives the same logits from states; families differ in what their layers hand on and share."""
    batch = _batch(plan, cut.network, features)
    network = cut.network.eval()
    try:
        if cut.reads_what_trains(batch):
            return False
        with torch.no_grad():
            expected = network(**feed_of(batch))
            cut.states = cut.compute(batch)
            if not cut.pooled:
                cut.states = cut.states * batch["attention_mask"][..., None]
            cut.apply()
            found = network(**feed_of(batch))
    except _NO_CUT:
        return False
    finally:
        cut.restore()
        network.train()
    if network.problem in ("token_classification", "question_answering"):
        mask = batch["attention_mask"].bool()
        expected, found = expected[mask], found[mask]
    return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-4))


def _batch(plan: Plan, network: Network, features: Sequence[Feature]) -> Batch:
    device = next(network.parameters()).device
    batch = Padding(plan.tokenizer.pad_token_id or 0, network.problem)(features)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _found_or_computed(plan: Plan, cut: Cut, sides: Sequence[FeatureSet]) -> tuple[NDArray[Any], bool] | str:
    """The states (M, D) and whether they were there already; or why they cannot be kept."""
    assert plan.cache is not None
    bf16 = computes_in_bf16(plan.settings)
    folder = plan.cache
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(cut, sides, bf16=bf16)}.npy"
    try:
        array = np.load(path, mmap_mode="r")
        os.utime(path)
        return array, True
    except (OSError, ValueError):
        pass
    dtype = np.dtype(np.int16 if bf16 and not cut.pooled else np.float32)
    shape = (sum(len(s.lengths) if cut.pooled else sum(s.lengths) for s in sides), cut.network.config.hidden_size)
    n_bytes = shape[0] * shape[1] * dtype.itemsize
    if n_bytes > plan.settings.cache_bytes:
        return f"{n_bytes} bytes are more than finetune.cache_bytes"
    _make_room(folder, plan.settings.cache_bytes - n_bytes)
    if n_bytes > shutil.disk_usage(folder).free:
        return f"{n_bytes} bytes are more than the disk has free"

    def write(array: NDArray[Any]) -> None:
        with torch.autocast(next(cut.network.parameters()).device.type, torch.bfloat16, enabled=bf16):
            _compute(plan, cut, sides, array)

    _write_whole(path, shape, dtype, write)
    return np.load(path, mmap_mode="r"), False


def _compute(plan: Plan, cut: Cut, sides: Sequence[FeatureSet], array: NDArray[Any]) -> None:
    """Fill `array` (M, D)."""
    cut.network.eval()
    n_done, n_all = 0, sum(len(side.features) for side in sides)
    for side, states in zip(sides, _by_side(array, sides, pooled=cut.pooled), strict=True):
        for rows in like_length_batches(side.lengths, batch_tokens=_BATCH_TOKENS):
            batch = _batch(plan, cut.network, [side.features[i] for i in rows])
            found = cut.compute(batch)
            for row, own in zip(rows, found, strict=True):
                n, start = (1, states.starts[row]) if cut.pooled else (side.lengths[row], states.starts[row])
                kept = own[None] if cut.pooled else own[:n]
                array[start : start + n] = _numbers(kept, array.dtype)
            n_done += len(rows)
            plan.report("activations", n_done, n_all)
    cut.network.train()


def _numbers(states: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    states = states.bfloat16().view(torch.int16) if dtype == np.int16 else states.float()
    numbers: NDArray[Any] = states.cpu().numpy()
    return numbers


def _key(cut: Cut, sides: Sequence[FeatureSet], *, bf16: bool) -> str:
    """Hash of all that decides the states."""
    about = (transformers.__version__, cut.network.config.model_type, cut.n_layers, cut.pooled, bf16)
    total = hashlib.sha256(repr(about).encode())
    for module in cut.modules:
        for name, tensor in module.state_dict().items():
            total.update(name.encode())
            total.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for side in sides:
        for feature in side.features:
            total.update(repr((feature["input_ids"], feature.get("token_type_ids"))).encode())
        total.update(b"side")
    return total.hexdigest()


def _make_room(folder: Path, n_bytes: int) -> None:
    """Remove the least recently used files until the folder has `n_bytes` at most, and what kills left unfinished.

    Another process may write or remove files of the folder meanwhile, or have a folder of its own in it.
    """
    files = []
    for path in [*folder.glob("*.npy"), *folder.glob("*.part")]:
        with suppress(FileNotFoundError):
            about = path.stat()
            if path.suffix == ".npy":
                files.append((about.st_mtime, about.st_size, path))
            elif about.st_mtime < time.time() - _ABANDONED_S:
                path.unlink()
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= n_bytes:
            return
        total -= size
        path.unlink(missing_ok=True)


def _write_whole(
    path: Path, shape: tuple[int, int], dtype: np.dtype[Any], write: Callable[[NDArray[Any]], None]
) -> None:
    """A file that is there whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        write(array)
        array.flush()
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)
