"""Every export format of the registry. Catches: answers that differ from the checkpoint's, or that depend on which
other texts share the batch; a format that is not repeatable or fails on empty, odd or very long texts; damage that is
served; threads that were not allowed; a library that calls home."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.toy_tasks import TASKS, make_lively, rows_of
from headrace.checkpoints.saving import save
from headrace.export import BACKENDS, load, write_facts
from headrace.finetune.running import tune
from headrace.records import Input
from headrace.testing import backends
from headrace.testing.backends import NEAR, check_backend, check_damage
from headrace.testing.methods import settings_for
from small_checkpoint import REGRESSION, TASK, TEXTS, make_checkpoint

# Loads an artifact with one thread and answers for a second; says how many processors that kept busy, how many
# connections and files came of it, and which libraries for training were imported.
BUSY = """
import os, sys, time
from pathlib import Path
import psutil
from headrace.export import load
predictor, _ = load(Path(sys.argv[1]), n_threads=1)
texts = ["good bad " * 20] * 64
predictor.logits(texts)
wall, busy = time.perf_counter(), time.process_time()
while time.perf_counter() - wall < 1:
    predictor.logits(texts)
print((time.process_time() - busy) / (time.perf_counter() - wall))
me = psutil.Process()
print(len(me.net_connections()) + len(os.listdir(os.environ["HOME"])))
print(*({"torch", "transformers", "onnx", "nncf"} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_backend(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_backend(name, make_checkpoint(tiny_base, tmp_path), TASK, TEXTS)


@pytest.fixture(
    scope="module", params=[(n, p) for n in BACKENDS.names() for p in BACKENDS.get(n).precisions], ids="-".join
)
def written(request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of each format in each precision."""
    name, precision = request.param
    checkpoint, folder = (tmp_path_factory.mktemp(part) for part in ("checkpoint", "artifact"))
    make_checkpoint(tiny_base, checkpoint)
    write_facts(folder, BACKENDS.get(name).write(checkpoint, folder, task=TASK, precision=precision, calibration=TEXTS))
    return folder


@pytest.mark.slow
def test_an_answer_is_the_same_in_any_company(written: Path) -> None:
    predictor, facts = load(written, n_threads=1)
    alone = np.concatenate([predictor.logits([text]) for text in TEXTS])
    spread = float(alone.std())

    @given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=33))
    @settings(max_examples=60, deadline=None)
    def check(rows: list[int]) -> None:
        found = predictor.logits([TEXTS[i] for i in rows])
        assert float(np.abs(found - alone[rows]).max()) / spread < NEAR[facts.precision]

    check()


@pytest.mark.slow
def test_serving_takes_one_thread_and_reports_nothing_home(written: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HOME": str(tmp_path)}
    environment.pop("CI", None)  # one library reports elsewhere only
    done = subprocess.run(
        [sys.executable, "-c", BUSY, str(written)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    n_busy, n_traces, *libraries = done.stdout.split()
    assert float(n_busy) < 1.3
    assert int(n_traces) == 0
    assert not libraries or load(written)[1].backend == "hf"


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_damage_is_refused(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_damage(name, make_checkpoint(tiny_base, tmp_path), TASK, TEXTS)


def test_a_format_that_says_of_damage_something_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object, **__: object) -> None:
        raise RuntimeError("a library's own word")

    monkeypatch.setattr(backends, "load_model", other)
    with pytest.raises(AssertionError, match=r"model\.bin cut: RuntimeError instead of Damaged: a library's own word"):
        backends._check_refused("model.bin cut", tmp_path, "sha256:0")


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
def test_regression(name: str, tiny_base: Path, tmp_path: Path) -> None:
    check_backend(
        name, make_checkpoint(tiny_base, tmp_path, task=REGRESSION), REGRESSION, TEXTS, is_written_twice=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS.names())
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("token-classification", "prompt"),
        ("extractive-qa", "prefix"),
        ("text-pair", "adapter"),
        ("retrieval", "prompt"),
        ("multi-label", "prefix"),
    ],
)
def test_every_form_of_a_network(name: str, kind: str, method: str, tiny_base: Path, tmp_path: Path) -> None:
    """Tasks on tokens, pairs, vectors; and methods that leave more than a plain model behind."""
    folders = [tmp_path / part for part in ("base", "run", "checkpoint")]
    base, task, rows = make_lively(tiny_base, folders[0]), TASKS[kind], rows_of(kind, 80)
    tuned = tune(folders[1], base, task, settings_for(method, epochs=1), rows, lambda *_a, **_f: None)
    folders[2].mkdir()
    save(tuned.network, tuned.tokenizer, folders[2])
    inputs = [row.input for row in rows]
    inputs += [_longer(given, n) for given, n in zip(inputs, range(2, 10), strict=False)]
    check_backend(name, folders[2], task, inputs, min_agreement_share=0.9, is_written_twice=False)


def _longer(given: Input, n: int) -> Input:
    """With its text, or its context, several times over: beyond max_tokens, so that it is cut or read in windows."""
    return " ".join([given] * n) if isinstance(given, str) else (given[0], " ".join([given[1]] * n))
