"""Every fine-tuning method of the registry on every type of task it can do.

Catches: a method that does not learn, is not repeatable, ends elsewhere after a stop, moves frozen weights, or leaves
what plain libraries cannot load or answer otherwise.
"""

from pathlib import Path

import pytest

from finetune.toy_tasks import TASKS, make_lively, rows_of
from headrace.checkpoints.saving import save
from headrace.finetune.methods import METHODS
from headrace.finetune.running import tune
from headrace.tasks import TASK_TYPES
from headrace.testing.methods import check_method, check_saving, settings_for

BUT_POOLER = r"(?!pooler).*"
UPDATES = r"embeddings\..*|encoder\..*(bias|LayerNorm\.weight)"
FROZEN = {  # tensors of the tiny base, which has two layers
    "adalora": UPDATES,
    "adapter": BUT_POOLER,
    "bitfit": r"(?!pooler).*weight",
    "dora": UPDATES,
    "freeze": r"embeddings\..*|encoder\.layer\.0\..*",
    "head": BUT_POOLER,
    "ia3": r"embeddings\..*|.*(LayerNorm|query|intermediate\.dense|attention\.output\.dense)\..*",
    "lora": UPDATES,
    "prefix": BUT_POOLER,
    "prompt": BUT_POOLER,
}
CAN = [
    (name, kind)
    for name in METHODS.names()
    for kind in TASKS
    if TASK_TYPES.get(kind).problem in METHODS.get(name).problems
]


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lively(tiny_base, tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def teachers(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint for each type of task."""
    made = {}
    for kind, task in TASKS.items():
        folder = tmp_path_factory.mktemp("teacher")
        settings = settings_for("full", epochs=1)
        tuned = tune(tmp_path_factory.mktemp("run"), base, task, settings, rows_of(kind), lambda *_a, **_f: None)
        save(tuned.network, tuned.tokenizer, folder)
        made[kind] = folder
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS.names())
def test_method(name: str, base: Path, teachers: dict[str, Path]) -> None:
    """In full, on the first type of task that the method can do."""
    kind = next(kind for one, kind in CAN if one == name)
    rows = rows_of(kind)
    texts = [row.text for row in rows]
    check_method(name, base, TASKS[kind], rows, frozen=FROZEN.get(name), unlabelled=texts, teacher=teachers[kind])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CAN)
def test_what_is_saved_is_plain(name: str, kind: str, base: Path, teachers: dict[str, Path]) -> None:
    rows = rows_of(kind, 60)
    texts = [row.text for row in rows]
    check_saving(name, base, TASKS[kind], rows, unlabelled=texts, teacher=teachers[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "text-classification"])
def test_full_learns_every_type_of_task(kind: str, base: Path) -> None:
    check_method("full", base, TASKS[kind], rows_of(kind))
