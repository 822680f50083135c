"""Exports of a workspace. Catches: an artifact that cannot be loaded or is not recorded, a temperature that is not
kept, room left behind by a failure, a destination that is overwritten or half written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import LABELS, sentences
from headrace.artifacts import MANIFEST
from headrace.errors import AlreadyExists, BadConfig, BadInput, Damaged, NotFound, Unusable
from headrace.export import load
from headrace.export.checkpoint import load as load_checkpoint
from headrace.export.writing import export, export_to
from headrace.records import Artifact, SnapshotRow
from headrace.store import runs
from headrace.workspace import Workspace, init, open_workspace
from small_checkpoint import TASK, TEXTS, make_checkpoint

ROWS = [
    SnapshotRow(row["id"], "c", row["id"], row["text"], row["label"], "validation", 1.0, "import")
    for row in sentences(80, seed=5)
]

# Says when the process, a thread or a fork of it, looks up a host or opens a connection, and stops it.
WATCH = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        os.write(2, f"REACHED OUT {event} {args}".encode())
        raise OSError("no network here")
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def made(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace folder with one checkpoint; its digest is in the file `checkpoint`."""
    root = tmp_path_factory.mktemp("export") / "ws"
    with init(root, task="tone", labels=LABELS) as ws:
        (root / "headrace.toml").write_text((root / "headrace.toml").read_text() + "max_tokens = 48\n")
        digest, _ = ws.artifacts.put(make_checkpoint(tiny_base, ws.artifacts.new_folder()))
    (root / "checkpoint").write_text(digest)
    return root


@pytest.fixture
def ws(made: Path, tmp_path: Path) -> Workspace:
    return open_workspace(shutil.copytree(made, tmp_path / "ws"))


def exported(ws: Workspace, *, backend: str = "openvino", precision: str = "fp32") -> Artifact:
    digest = (ws.root / "checkpoint").read_text()
    return export(
        ws, digest, task=ws.task("tone"), backend=backend, precision=precision, calibration=TEXTS, validation=ROWS
    )


def scratch(ws: Workspace) -> list[Path]:
    return list((ws.state_folder / "scratch").iterdir())


@pytest.mark.slow
def test_an_export_is_stored_loads_and_answers_as_its_checkpoint(ws: Workspace) -> None:
    artifact = exported(ws)
    folder = ws.artifacts.get(artifact.digest)
    predictor, facts = load(folder)
    checkpoint = load_checkpoint(ws.artifacts.get((ws.root / "checkpoint").read_text()), TASK)
    assert np.allclose(predictor.logits(TEXTS), checkpoint.logits(TEXTS), atol=1e-3)
    assert (artifact.kind, facts.precision, facts.task) == ("openvino", "fp32", TASK)
    assert artifact.facts["calibration"] == facts.calibration != {}
    assert facts.n_parameters > 1000
    with ws.store.read() as conn:
        assert runs.find_artifact(conn, artifact.digest) == artifact
    assert exported(ws) == artifact, "the same export is the same artifact"
    assert scratch(ws) == []


def test_the_hugging_face_directory_loads_anywhere(ws: Workspace, tmp_path: Path) -> None:
    from transformers import pipeline

    artifact = exported(ws, backend="hf")
    folder = export_to(ws, artifact.digest, tmp_path / "out", {"README.md": "# card"})
    config = json.loads((folder / "config.json").read_text())
    assert list(config["id2label"].values()) == list(LABELS)
    assert config["problem_type"] == "single_label_classification"
    assert (folder / "README.md").read_text() == "# card"
    assert not (folder / MANIFEST).exists()
    answers = pipeline("text-classification", model=str(folder), device="cpu")(TEXTS[:20], truncation=True)
    predictor, facts = load(folder)
    assert facts.task == TASK
    assert [a["label"] for a in answers] == [LABELS[k] for k in predictor.logits(TEXTS[:20]).argmax(axis=1)]


def test_wrong_wishes_are_refused_and_leave_nothing(ws: Workspace, tiny_base: Path) -> None:
    with pytest.raises(BadInput, match=r"does not write this precision: int8.*fp32"):
        exported(ws, backend="hf", precision="int8")
    with pytest.raises(NotFound, match=r"openvinno.*Did you mean 'openvino'"):
        exported(ws, backend="openvinno")
    digest = (ws.root / "checkpoint").read_text()
    few = {"task": ws.task("tone"), "backend": "openvino", "precision": "int8", "validation": ROWS}
    with pytest.raises(BadInput, match="int8 needs 10 or more inputs to calibrate on: 3"):
        export(ws, digest, calibration=TEXTS[:3], **few)
    other, _ = ws.artifacts.put(make_checkpoint(tiny_base, ws.artifacts.new_folder(), n_outputs=5))
    (ws.root / "checkpoint").write_text(other)
    for backend in ("hf", "openvino"):
        with pytest.raises(BadInput, match="5 outputs and the task has 3"):
            exported(ws, backend=backend)
    assert scratch(ws) == []


def test_labels_in_another_order_are_refused(ws: Workspace, tiny_base: Path, tmp_path: Path) -> None:
    # Catches answers that are silently renamed.
    turned = TASK.model_copy(update={"labels": LABELS[::-1]})
    with pytest.raises(BadInput, match="labels are not the task's"):
        load_checkpoint(make_checkpoint(tiny_base, tmp_path / "turned"), turned)


def test_more_tokens_than_the_model_reads_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    longer = TASK.model_copy(update={"max_tokens": 512})
    with pytest.raises(BadConfig, match=r"max_tokens.*160: 512"):
        load_checkpoint(make_checkpoint(tiny_base, tmp_path), longer)


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "tokenizer.json", "headrace.json"])
def test_missing_files_are_named(tmp_path: Path, name: str, openvino_folder: Path) -> None:
    folder = shutil.copytree(openvino_folder, tmp_path / "artifact")
    (folder / name).unlink()
    with pytest.raises(Damaged):
        load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["headrace.export.writing.write_facts", "os.rename"])
def test_a_kill_leaves_scratch_only_and_the_same_export_works_again(ws: Workspace, target: str) -> None:
    # Killed before headrace.json is written, and with the finished folder about to move into the store.
    program = f"""
import os, signal, sys
import headrace.export.writing as writing
from headrace.workspace import open_workspace
with open_workspace(sys.argv[1]) as ws:
    {"writing.write_facts" if "facts" in target else target} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    tone = ws.task("tone")
    writing.export(ws, sys.argv[2], task=tone, backend="openvino", precision="fp32", calibration=[], validation=[])
"""
    digest = (ws.root / "checkpoint").read_text()
    artifacts = ws.state_folder / "artifacts"
    before = sorted(artifacts.rglob("*"))
    command = [sys.executable, "-c", program, str(ws.root), digest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p for p in artifacts.rglob("*") if p.is_file() and p not in before] == []
    assert len(scratch(ws)) == 1
    artifact = exported(ws)
    assert load(ws.artifacts.get(artifact.digest))[1].backend == "openvino"


@pytest.fixture(scope="module")
def openvino_folder(made: Path) -> Path:
    with open_workspace(made) as ws:
        return ws.artifacts.get(exported(ws).digest)


def no_ci(*, home: Path) -> dict[str, str]:
    """An environment in which the libraries would report: not a CI job, with a home they can note it in."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    return {**kept, "HOME": str(home)}


def test_serving_an_artifact_loads_no_torch_and_reaches_for_no_network(openvino_folder: Path, tmp_path: Path) -> None:
    program = (
        WATCH
        + """
from pathlib import Path
from headrace.export import load
predictor, facts = load(Path(sys.argv[1]), n_threads=1)
assert predictor.logits(["good", "bad phone"]).shape == (2, 3)
heavy = {"torch", "transformers", "nncf", "peft", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
"""
    )
    command = [sys.executable, "-c", program, str(openvino_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=no_ci(home=tmp_path))
    assert done.returncode == 0, done.stderr
    assert "REACHED OUT" not in done.stderr


@pytest.mark.slow
def test_writing_int8_reaches_for_no_network_and_prints_nothing(made: Path, tmp_path: Path) -> None:
    # nncf draws bars on standard output, where they would spoil --json; both libraries report their use by default.
    program = (
        WATCH
        + """
from pathlib import Path
from headrace.config import TaskTable
from headrace.export import BACKENDS
task = TaskTable(labels=("negative", "neutral", "positive"), max_tokens=48)
texts = [f"good phone {i}" for i in range(12)]
BACKENDS.get("openvino").write(Path(sys.argv[1]), Path(sys.argv[2]), task=task, precision="int8", calibration=texts)
"""
    )
    with open_workspace(made) as ws:
        checkpoint = ws.artifacts.get((made / "checkpoint").read_text())
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", program, str(checkpoint), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=no_ci(home=tmp_path))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "REACHED OUT" not in done.stderr


def test_a_destination_in_use_or_out_of_reach_is_refused(ws: Workspace, openvino_folder: Path, tmp_path: Path) -> None:
    digest, _ = ws.artifacts.put(shutil.copytree(openvino_folder, ws.artifacts.new_folder() / "copy"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    with pytest.raises(AlreadyExists, match="not an empty directory"):
        export_to(ws, digest, full)
    with pytest.raises(AlreadyExists):
        export_to(ws, digest, full / "mine.txt")
    with pytest.raises(Unusable, match="cannot be written"):
        export_to(ws, digest, full / "mine.txt" / "below")
    with pytest.raises(NotFound):
        export_to(ws, "sha256:00", tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "ws"]
    assert (full / "mine.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert load(export_to(ws, digest, tmp_path / "empty"))[1].backend == "openvino"


def test_a_failure_half_way_leaves_no_destination(
    ws: Workspace, openvino_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, _ = ws.artifacts.put(shutil.copytree(openvino_folder, ws.artifacts.new_folder() / "copy"))
    with pytest.raises(Unusable):
        export_to(ws, digest, tmp_path / "out", {"no/such/folder.md": "x"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ws"]
