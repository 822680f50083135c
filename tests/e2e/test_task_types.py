"""The loop of every task type on a tiny base model: init, import, train, evaluate, export, predict.

Catches: a task type that one stage does not know; an export, in either format, that answers otherwise than its version.
"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FILLER, LABELS, WORDS, sentences, write_jsonl
from headrace import jobs, loop, making
from headrace.config import TaskTable
from headrace.data import channels, importing, snapshot
from headrace.export import load
from headrace.release import releases
from headrace.tasks import TASK_TYPES
from headrace.tasks.inputs import parse_inputs
from headrace.workspace import open_workspace

pytestmark = pytest.mark.slow
N_ROWS = 160  # of which nine or more to calibrate on
SETTINGS = """base_model = {base}
max_tokens = 48
input = "{input}"

[finetune]
epochs = 2
min_steps = 0
learning_rate = 0.005
batch_tokens = 512

[export]
precision = "fp32"
n_calibration = 20
"""
CATALOGUE = [{"label": f"faq-{i}", "text": f"{' '.join(WORDS[name])} {i}"} for i, name in enumerate(LABELS)]
Row = dict[str, Any]


def classified(row: Row, rng: random.Random) -> Row:
    return row


def in_turns(row: Row, rng: random.Random) -> Row:
    turns = [{"role": "agent", "text": rng.choice(FILLER)}, {"role": "customer", "text": row["text"]}]
    return {**row, "text": turns}


def rated(row: Row, rng: random.Random) -> Row:
    return {**row, "label": float(LABELS.index(row["label"])) + rng.random()}


def compared(row: Row, rng: random.Random) -> Row:
    other = rng.choice(LABELS)
    return {**row, "text_pair": f"{rng.choice(WORDS[other])} {rng.choice(FILLER)}", "label": str(other == row["label"])}


def in_several(row: Row, rng: random.Random) -> Row:
    return {**row, "label": rng.choice([[], [row["label"]], [row["label"], rng.choice(LABELS)]])}


def with_entities(row: Row, rng: random.Random) -> Row:
    name = row["label"]
    places = [(row["text"].find(word), word) for word in set(row["text"].split()) & set(WORDS[name])]
    return {**row, "label": [[at, at + len(word), name] for at, word in places]}


def with_question(row: Row, rng: random.Random) -> Row:
    word = next(word for word in row["text"].split() if word in WORDS[row["label"]])
    answers = [] if rng.random() < 0.2 else [{"text": word, "answer_start": row["text"].find(word)}]
    return {"id": row["id"], "question": rng.choice(FILLER), "context": row["text"], "label": {"answers": answers}}


def sought(row: Row, rng: random.Random) -> Row:
    return {**row, "label": f"faq-{LABELS.index(row['label'])}"}


CASES: dict[str, tuple[str, tuple[str, ...], Callable[[Row, random.Random], Row]]] = {
    "text-classification": ("text-classification", LABELS, classified),
    "turns": ("text-classification", LABELS, in_turns),
    "text-regression": ("text-regression", (), rated),
    "text-pair": ("text-pair", ("True", "False"), compared),
    "multi-label": ("multi-label", LABELS, in_several),
    "token-classification": ("token-classification", LABELS, with_entities),
    "extractive-qa": ("extractive-qa", (), with_question),
    "retrieval": ("retrieval", (), sought),
}


def test_every_task_type_is_here() -> None:
    assert {name for name, *_ in CASES.values()} == set(TASK_TYPES.names())


@pytest.mark.parametrize("case", CASES)
def test_the_loop(case: str, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    name, _, change = CASES[case]
    rng = random.Random(case)
    rows = [change(dict(row), rng) for row in sentences(N_ROWS, channel="a")]
    with open_workspace(made_workspace(tmp_path / "ws", case, tiny_base)) as ws:
        channels.add(ws, "a")
        done = importing.import_rows(ws, "a", write_jsonl(tmp_path / "a.jsonl", rows))
        assert (done.n_added, done.n_quarantined) == (N_ROWS, 0), done.reasons
        frozen = snapshot.freeze(ws)
        run = making.run_of(ws, "task", frozen, ws.settings.finetune)
        made = making.make_version(ws, jobs.Progress(ws, None), run_id=run.id)
        assert made["version"] == "task/1"
        assert made["agreement"]["share"] > 0.9
        assert set(made["evaluations"]) == {"version", *baselines_of(name)}
        results = loop.evaluate_version(ws, "1")
        assert results["overall"] == made["evaluations"]["version"]["overall"]
        task_type = making.task_type_of(ws.task())
        asked = [asked_of(row, task_type.fields) for row in rows[:20]]
        own = loop.predict(ws, asked, version="1")
        for backend in ("hf", "openvino"):
            loop.export_version(ws, "1", tmp_path / backend, backend=backend, precision="fp32")
            assert alike(task_type, own, answers_of(tmp_path / backend, asked)) >= 18
            card = (tmp_path / backend / "README.md").read_text()
            assert ("Fitted on validation rows" in card) == (name not in ("token-classification", "retrieval"))


@pytest.mark.parametrize("case", ["multi-label", "extractive-qa", "retrieval"])
def test_a_candidate_is_compared_as_both_versions_answer(
    case: str, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the task got one label more, which the version in charge never answers."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    _, labels, change = CASES[case]
    rng = random.Random(case)
    rows = [change(dict(row), rng) for row in sentences(N_ROWS, channel="a")]
    root = made_workspace(tmp_path / "ws", case, tiny_base)
    with open_workspace(root) as ws:
        channels.add(ws, "a")
        importing.import_rows(ws, "a", write_jsonl(tmp_path / "a.jsonl", rows[:80]))
        loop.train(ws)
        releases.promote(ws, "1", reason="the first")
    if case == "retrieval":
        write_jsonl(root / "faq.jsonl", [{"label": "faq-new", "text": "paper box"}, *CATALOGUE])
        rows[80:] = [{**row, "label": "faq-new"} for row in rows[80:]]
    elif labels:
        settings = (root / "headrace.toml").read_text()
        (root / "headrace.toml").write_text(settings.replace("labels = [", 'labels = ["fresh", '))
        rows[80:] = [{**row, "label": ["fresh"]} for row in rows[80:]]
    with open_workspace(root, overrides={"feedback.min_new_labels": 1}) as ws:
        importing.import_rows(ws, "a", write_jsonl(tmp_path / "b.jsonl", rows[80:]))
        step = loop.improve(ws)
    metric, found = step["comparison"]["main_metric"], step["version"]["evaluations"]
    candidate, control = (found[name]["overall"][metric] for name in ("version", "control"))
    assert step["comparison"]["overall"]["difference"]["estimate"] == pytest.approx(candidate - control)


def made_workspace(root: Path, case: str, base: Path) -> Path:
    """The folder of a workspace for a case, with its catalogue where it has one."""
    name, labels, _ = CASES[case]
    root.mkdir()
    catalogue = write_jsonl(root / "faq.jsonl", CATALOGUE).name if name == "retrieval" else ""
    loop.init(root, task="task", task_type=name, labels=labels, catalogue=catalogue).close()
    with (root / "headrace.toml").open("a") as file:
        shape = "turns" if case == "turns" else "text"
        file.write(SETTINGS.format(base=json.dumps(str(base)), input=shape))
    return root


def baselines_of(name: str) -> set[str]:
    if name in ("token-classification", "extractive-qa"):
        return set()
    return {"majority", "zero-shot" if name == "retrieval" else "centroid"}


def asked_of(row: Row, fields: tuple[str, ...]) -> Any:
    return row["text"] if len(fields) == 1 else {field: row[field] for field in fields}


def answers_of(folder: Path, asked: list[Any]) -> list[dict[str, Any]]:
    """What the exported folder answers, with nothing else known of it."""
    predictor, facts = load(folder)
    settings: TaskTable = facts.task
    task_type = making.task_type_of(settings)
    outputs = predictor.logits(parse_inputs(settings, task_type.fields, asked))
    return task_type.decode(outputs, facts.calibration)


def alike(task_type: Any, own: list[dict[str, Any]], others: list[dict[str, Any]]) -> int:
    def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
        if task_type.problem == "regression":
            return one["value"] == pytest.approx(other["value"], abs=1e-2)
        return task_type.answers_match(one, task_type.answer_of(other))

    return sum(same(one, other) for one, other in zip(own, others, strict=True))
