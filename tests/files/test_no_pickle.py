"""No file that runs code when it is read is ever read (S5). Catches: a call that unpickles, a place where files come in
that passes one on to a library which does, transformers' own way to go on with a training."""

import ast
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.data import channels, importing
from headrace.errors import HeadraceError
from headrace.export import checkpoint
from headrace.files import model_folder
from headrace.finetune import base_models
from headrace.workspace import Workspace
from small_checkpoint import TASK, make_checkpoint

ROOT = Path(__file__).parents[2] / "headrace"
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"torch.load", "torch.save", "pd.read_pickle", "yaml.load"}
OWN = {"store/staging.py": ["marshal"], "testing/methods.py": ["exec"]}
"""What an import notes in a file of its own that is gone with it; marshal makes numbers, texts and lists of them. And
the conformance tests run the lines that evaluate/plain_use.py has for model cards, as a user would."""
OBJECTS = ("broadcast_object_list", "all_gather_object", "scatter_object_list", "gather_object", "send_object_list")
WORDS = re.compile(
    r"pickle|dill|joblib|shelve|marshal|yaml|eval\(|exec\(|compile\(|__import__|\.load\(|_object|remote_code"
)


def uses(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            said = {one.arg: ast.unparse(one.value) for one in node.keywords}
            asks = [said.get(key, "False") for key in ("allow_pickle", "trust_remote_code")]
            if name in CALLS | METHODS or name.endswith(OBJECTS) or asks != ["False", "False"]:
                found.append(name)
    return found


def test_nothing_here_runs_what_it_reads() -> None:
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 200
    sources = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    suspects = {path: source for path, source in sources.items() if WORDS.search(source)}
    found = {path: uses(ast.parse(source)) for path, source in suspects.items()}
    assert {path: calls for path, calls in found.items() if calls} == OWN


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import torch; torch.load('x')", "eval('1')", "exec('1')",
        "np.load('x', allow_pickle=True)", "np.load('x', allow_pickle=flag)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=flag)", "from yaml import load",
        "torch.distributed.broadcast_object_list(x)",
    ],
)  # fmt: skip
def test_the_lint_finds_each_kind(source: str) -> None:
    assert len(uses(ast.parse(source))) == 1


class Canary:
    """An object whose pickle touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def _plain(canary: Path) -> bytes:
    return pickle.dumps(Canary(canary))


def _torch(canary: Path) -> bytes:
    """As torch.save writes: an archive with a pickle inside."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("archive/data.pkl", _plain(canary))
        archive.writestr("archive/version", "3\n")
    return held.getvalue()


def _array(canary: Path) -> bytes:
    held = io.BytesIO()
    np.save(held, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    return held.getvalue()


def _arrays(canary: Path) -> bytes:
    held = io.BytesIO()
    np.savez(held, x=np.array([Canary(canary)], dtype=object))
    return held.getvalue()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pytorch_model.bin": _torch, "model.pt": _torch, "model.pkl": _plain, "model.joblib": _plain, "x.npy": _array,
    "x.npz": _arrays, "model.safetensors": _plain, "more.safetensors": _torch, "training_args.bin": _plain,
    "model.ckpt": _torch, "rng_state.pth": _torch, "optimizer.pt": _torch,
}  # fmt: skip


@pytest.mark.parametrize(("name", "form"), HOSTILE.items(), ids=HOSTILE)
def test_a_canary_is_one(name: str, form: Callable[[Path], bytes], canary: Path) -> None:
    """Or the tests below would show nothing."""
    said = form(canary)
    if form is _torch:
        said = zipfile.ZipFile(io.BytesIO(said)).read("archive/data.pkl")
    if form in (_array, _arrays):
        found = np.load(io.BytesIO(said), allow_pickle=True)
        assert form is _array or found["x"] is not None
    else:
        pickle.loads(said)  # noqa: S301  # that is the point
    assert canary.exists()


@pytest.mark.parametrize(("name", "form"), HOSTILE.items(), ids=HOSTILE)
def test_a_model_directory_with_one_is_refused(
    name: str, form: Callable[[Path], bytes], canary: Path, tiny_base: Path, tmp_path: Path
) -> None:
    folder = make_checkpoint(tiny_base, tmp_path / "model")
    model_folder.check(folder)
    (folder / name).write_bytes(form(canary))
    with pytest.raises(HeadraceError, match=r"kind that is never read|not a safetensors file"):
        base_models.find(str(folder))
    with pytest.raises(HeadraceError, match=r"kind that is never read|not a safetensors file"):
        checkpoint.load(folder, TASK)
    assert not canary.exists()


def test_an_import_of_one_is_refused(canary: Path, workspace: Workspace, tmp_path: Path) -> None:
    channels.add(workspace, "web")
    for suffix in (".csv", ".jsonl", ".json", ".parquet", ".conll", ".tsv"):
        for form in (_plain, _torch, _array):
            path = tmp_path / f"{form.__name__}{suffix}"
            path.write_bytes(form(canary))
            with suppress(HeadraceError):  # or all of it is set aside as bad rows
                assert importing.import_rows(workspace, "web", path).n_added == 0
            assert not canary.exists()


@pytest.mark.slow
def test_a_training_goes_on_past_them(canary: Path, tiny_base: Path, tmp_path: Path) -> None:
    """CVE-2026-1839: what transformers' Trainer reads when it goes on from a checkpoint."""
    from finetune import toy
    from headrace.config import FinetuneTable
    from headrace.errors import Cancelled
    from headrace.finetune.running import tune

    settings = FinetuneTable(epochs=2, batch_tokens=256, evals_per_epoch=2, patience=20, seed=5)
    folder = tmp_path / "run"

    def stop(_step: str, done: float, _total: float, **_: object) -> None:
        if done > 6 and list(folder.glob("checkpoint-*/whole")):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        tune(folder, tiny_base, toy.TASK, settings, toy.rows(80), stop)
    kept = [path for path in folder.glob("checkpoint-*") if (path / "whole").exists()]
    assert kept
    assert {path.suffix for path in kept[0].iterdir()} == {".safetensors", ".json", ""}
    for name in ("rng_state.pth", "rng_state_0.pth", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt"):
        (kept[0] / name).write_bytes(_torch(canary))
    for name in ("training_args.bin", "pytorch_model.bin"):
        (kept[0] / name).write_bytes(_plain(canary))
    done = tune(folder, tiny_base, toy.TASK, settings, toy.rows(80), lambda *_a, **_f: None)
    assert done.facts["resumed"]
    assert not canary.exists()
