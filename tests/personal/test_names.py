"""Names of people by a model. Catches: a model whose finds are not replaced, what is found twice or of another kind, a
version that cannot find names taken for one that can, a text that changes again when it comes again."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from headrace.config_sources import FILE_NAME
from headrace.errors import BadConfig, NotFound
from headrace.export.artifact import ArtifactFacts, write_facts
from headrace.export.backends import BACKENDS
from headrace.personal.policies import Door, door_of
from headrace.records import Artifact
from headrace.store import runs, schema
from headrace.tasks import TokenLogits
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_version


class Capitals:
    """A backend that takes Capitalised words for people and CAPITALS for organisations."""

    @staticmethod
    def load(_folder: Path, facts: ArtifactFacts, *, n_threads: int = 0) -> "Capitals":
        made = Capitals()
        made.tags = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]  # type: ignore[attr-defined]
        assert facts.task.labels == ("PER", "ORG")
        return made

    def logits(self, texts: list[str]) -> Any:
        outputs = np.empty(len(texts), dtype=object)
        for i, text in enumerate(texts):
            words = list(re.finditer(r"\w+", text))
            spans = np.array([word.span() for word in words], dtype=np.int32).reshape(-1, 2)
            logits = np.zeros((len(words), 5), dtype=np.float32)
            for row, word in enumerate(words):
                said = word.group()
                logits[row, 3 if said.isupper() and len(said) > 1 else 1 if said.istitle() else 0] = 9
            outputs[i] = TokenLogits(text, spans, logits, np.zeros(len(words), dtype=np.int32))
        return outputs


@pytest.fixture
def root(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a version, people/1, that finds names."""
    module = ModuleType("capitals_backend")
    module.Capitals = Capitals  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "capitals_backend", module)
    monkeypatch.setitem(BACKENDS._builtin, "capitals", "capitals_backend:Capitals")
    path = workspace.root / FILE_NAME
    path.write_text(path.read_text() + '[tasks.people]\ntype = "token-classification"\nlabels = ["PER", "ORG"]\n')
    with open_workspace(workspace.root) as ws:
        version = plant_version(ws, task="people")
        folder = ws.artifacts.new_folder()
        write_facts(folder, ArtifactFacts(backend="capitals", precision="fp32", task=ws.task("people")))
        digest = ws.artifacts.put(folder)[0]
        with ws.store.write() as conn:
            runs.add_artifact(conn, Artifact(digest, "capitals", 1, {}), NOON)
            table = schema.model_versions
            conn.execute(update(table).where(table.c.id == version.id).values(artifact=digest))
        assert replace(version, artifact=digest).name == "people/1"
    return workspace.root


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("mask", "ask <person> of ACME, <e-mail>"),
        ("replace", r"ask person-[a-p]{16} of ACME, [a-z]+\.[a-z]+\.[0-9a-f]{10}@personal\.example"),
        ("hash", "ask <person:[a-p]{16}> of ACME, <e-mail:[a-p]{16}>"),
    ],
)
def test_people_are_replaced_beside_what_patterns_find(root: Path, policy: str, expected: str) -> None:
    settings = {"privacy.personal": policy, "privacy.names_model": "people/1"}
    with open_workspace(root, overrides=settings) as ws:
        door = door_of(ws)
        assert door.takes_long(["a"])
        assert door is door_of(ws), "the model is loaded once"
        said = door.clean("c", "ask Jane of ACME, Jane@shop.org").text
        assert re.fullmatch(expected, said)
        assert door.clean("c", said).text == said


def test_what_finds_no_names_is_refused(root: Path) -> None:
    for name, error in (("people/7", NotFound), ("people", NotFound), ("nothing/1", NotFound)):
        with (
            open_workspace(root, overrides={"privacy.personal": "mask", "privacy.names_model": name}) as ws,
            pytest.raises(error),
        ):
            Door(ws)
    with open_workspace(root) as ws:
        plant_version(ws, task="tone")
    with (
        open_workspace(root, overrides={"privacy.personal": "mask", "privacy.names_model": "tone/1"}) as ws,
        pytest.raises(BadConfig, match="token-classification"),
    ):
        Door(ws)


def test_a_policy_of_off_loads_none(root: Path) -> None:
    with open_workspace(root, overrides={"privacy.names_model": "people/7"}) as ws:
        assert not Door(ws).takes_long(["a"])
