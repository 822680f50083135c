"""Workspaces whose versions are real graphs with room for channel adapters, made in a second: random weights on a tiny
base model, adapters that answer one label whatever they are asked."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.checkpoints.low_rank import LowRank
    from headrace.records import ModelVersion
    from headrace.workspace import Workspace

TARGETS = [f"bert.encoder.layer.{i}.attention.self.{part}" for i in range(2) for part in ("query", "value")]
RANK = 2
LABELS = ("negative", "neutral", "positive")
_SAMPLE = ["a service was good", "it was awful and slow today"]


@dataclass(frozen=True)
class MadeBank:
    """One artifact with room for adapters, in the store of a workspace."""

    root: Path
    artifact: str
    width: int
    checkpoint: Path
    environment: dict[str, str] = field(default_factory=lambda: {**os.environ, "OMP_NUM_THREADS": "1"})

    def workspace(self) -> "Workspace":
        from headrace.workspace import open_workspace

        return open_workspace(self.root)

    def version(self, ws: "Workspace", seeds: Mapping[str, int]) -> "ModelVersion":
        """The next version: the same artifact, and an adapter for each channel that has a seed."""
        from sqlalchemy import update

        from headrace.records import Adapter
        from headrace.store import adapters, schema
        from planted import plant_version

        made = {channel: self.adapter(ws, seed) for channel, seed in seeds.items()}
        version = plant_version(ws)
        versions = schema.model_versions
        with ws.store.write() as conn:
            conn.execute(update(versions).where(versions.c.id == version.id).values(artifact=self.artifact))
            kept = [Adapter(channel, artifact, weights, True, {}) for channel, (artifact, weights) in made.items()]
            adapters.add(conn, version.id, kept)
        return replace(version, artifact=self.artifact)

    def adapter(self, ws: "Workspace", seed: int) -> tuple[str, str]:
        """An adapter in the artifact store: digest of its files, and of its weights."""
        from headrace.checkpoints import low_rank
        from headrace.records import Artifact
        from headrace.store import runs
        from planted import NOON

        made, folder = random_adapter(seed, self.width), ws.artifacts.new_folder()
        low_rank.write(folder, made, base=str(self.checkpoint))
        digest, n_bytes = ws.artifacts.put(folder)
        with ws.store.write() as conn:
            runs.add_artifact(conn, Artifact(digest, "adapter", n_bytes, {}), NOON)
        return digest, low_rank.weights_digest(made)


def random_adapter(seed: int, width: int) -> "LowRank":
    """Random updates, and a head of its own."""
    import numpy as np

    from headrace.checkpoints.low_rank import LowRank

    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    updates = {name: (draw(RANK, width), draw(width, RANK) / 20) for name in TARGETS}
    return LowRank(2.0, updates, (draw(len(LABELS), width), draw(len(LABELS))), "classifier")


def make(folder: Path, channels: Sequence[str], base: Path | None = None) -> MadeBank:
    """A workspace with those channels, and an artifact in its store; no version yet."""
    from conftest import make_tiny_base
    from headrace.export import BACKENDS, write_facts
    from headrace.records import Artifact
    from headrace.store import runs
    from headrace.workspace import init
    from planted import NOON, plant_channel
    from small_checkpoint import TASK, make_checkpoint

    checkpoint = make_checkpoint(base or make_tiny_base(folder / "base"), folder / "checkpoint")
    with init(folder / "ws", task="tone", labels=LABELS) as ws:
        for name in channels:
            plant_channel(ws, name)
        place = ws.artifacts.new_folder()
        bank = {"targets": TARGETS, "rank": RANK}
        backend = BACKENDS.get("openvino")
        write_facts(
            place, backend.write(checkpoint, place, task=TASK, precision="fp32", calibration=_SAMPLE, bank=bank)
        )
        digest, n_bytes = ws.artifacts.put(place)
        with ws.store.write() as conn:
            runs.add_artifact(conn, Artifact(digest, "openvino", n_bytes, {"bank": bank}), NOON)
    from transformers import AutoConfig

    return MadeBank(folder / "ws", digest, int(AutoConfig.from_pretrained(checkpoint).hidden_size), checkpoint)
