"""Every way of the registry, and all together, on every type of task.

Catches: a way that cuts nothing, forgets the answers, is not repeatable, ends elsewhere after a stop, or leaves what
plain libraries cannot load or answer otherwise.
"""

from pathlib import Path

import pytest

from finetune.toy_tasks import TASKS, make_lively, rows_of
from headrace.checkpoints.saving import save
from headrace.finetune.compressing import WAYS
from headrace.finetune.running import tune
from headrace.testing.methods import settings_for
from headrace.testing.ways import check_way

ALL = "+".join(f"{name}=0.5" for name in WAYS.targets())


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lively(tiny_base, tmp_path_factory.mktemp("lively"))


def version_of(kind: str, base: Path, folder: Path) -> Path:
    """A checkpoint that has learnt a little of a task."""
    tuned = tune(
        folder / "run", base, TASKS[kind], settings_for("full", epochs=3), rows_of(kind), lambda *_a, **_f: None
    )
    (folder / "teacher").mkdir()
    save(tuned.network, tuned.tokenizer, folder / "teacher")
    return folder / "teacher"


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS.targets())
def test_way(name: str, base: Path, tmp_path: Path) -> None:
    kind = "text-classification"
    check_way(f"{name}=0.5", version_of(kind, base, tmp_path), TASKS[kind], rows_of(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_all_ways_together(kind: str, base: Path, tmp_path: Path) -> None:
    check_way(ALL, version_of(kind, base, tmp_path), TASKS[kind], rows_of(kind), in_full=False)
