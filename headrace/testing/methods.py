"""What every fine-tuning method must do, on toy rows of a task that a second of training learns something of."""

import os
import re
import signal
import tempfile
from collections.abc import Sequence
from contextlib import chdir, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from headrace.config import AdapterTable, FinetuneTable, TaskTable
from headrace.evaluate.plain_use import library_of, lines_for
from headrace.export import ArtifactFacts, write_facts
from headrace.records import Input, SnapshotRow
from headrace.registry import resolve
from headrace.tasks import TASK_TYPES, Outputs, TaskType
from headrace.tasks.spans import entities

_NEAR = 1e-4
"""Largest difference of logits between our code and plain libraries: kernels and shapes of batches differ."""
_KILLED_AFTER_S = 120
_ADAPTER = AdapterTable(rank=4, width=8, n_virtual_tokens=4)


def settings_for(name: str, **changes: Any) -> FinetuneTable:
    """Settings under which toy rows take a second."""
    known: dict[str, Any] = {"epochs": 4, "min_steps": 0, "evals_per_epoch": 1, "patience": 50, "batch_tokens": 256}
    return FinetuneTable.model_validate(
        known | {"method": name, "seed": 3, "learning_rate": 0.01, "precision": "fp32", "adapter": _ADAPTER} | changes
    )


def check_method(
    name: str,
    base_folder: Path,
    task: TaskTable,
    rows: Sequence[SnapshotRow],
    *,
    frozen: str | None = None,
    unlabelled: Sequence[str] = (),
    teacher: Path | None = None,
) -> None:
    """A method learns, repeats, resumes, leaves alone what is frozen, and ends as what plain libraries load.

    Args:
        rows: of the task, with texts shorter than its `max_tokens`.
        frozen: a pattern of the base model's tensors that must keep their bytes.
        unlabelled: for methods that train on texts alone. teacher: checkpoint folder, for methods that need one.

    Raises:
        AssertionError: naming what the method got wrong.
    """
    settings, given = settings_for(name), {"unlabelled": unlabelled, "teacher": teacher}
    tuned = _tuned(base_folder, task, settings, rows, given)
    if method_of(name).trains:
        _check_curve(name, tuned)
        _check_resume(name, base_folder, task, settings, rows, given, tuned)
    else:
        again = _tuned(base_folder, task, settings, rows, given)
        _assert_equal(f"{name}: same seed, other weights", weights_of(again.network), weights_of(tuned.network))
    if frozen is not None:
        check_frozen(name, base_folder, tuned.network, frozen)
    check_saved(name, tuned, task, [row.input for row in rows[:5]])


def check_saving(name: str, base_folder: Path, task: TaskTable, rows: Sequence[SnapshotRow], **given: Any) -> None:
    """The short form of `check_method`: a few steps of training, and what plain libraries make of the result."""
    tuned = _tuned(base_folder, task, settings_for(name, epochs=1), rows, given)
    check_saved(name, tuned, task, [row.input for row in rows[:5]])


def method_of(name: str) -> Any:
    return resolve("headrace.finetune.methods:METHODS", purpose="fine-tuning").get(name)


def weights_of(network: Any) -> dict[str, Any]:
    """Tensors of a network by name, as arrays."""
    return {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}


def check_frozen(name: str, base_folder: Path, network: Any, pattern: str) -> None:
    """Tensors of the base model whose names match keep their bytes; a tensor that grew, those it had."""
    from safetensors.numpy import load_file

    found = weights_of(network)
    n_checked = 0
    for key, theirs in load_file(base_folder / "model.safetensors").items():
        mine = [value for own, value in found.items() if own == key or own.endswith(f".{key}")]
        if not mine or not re.fullmatch(pattern, key):
            continue
        kept = mine[0][tuple(slice(n) for n in theirs.shape)]
        assert np.array_equal(kept, theirs), f"{name}: {key} is frozen and moved"
        n_checked += 1
    assert n_checked, f"{name}: no tensor of the base model matches {pattern}"


def check_saved(name: str, tuned: Any, task: TaskTable, inputs: Sequence[Input]) -> None:
    """A saved result is a plain model, and the lines of its model card give what the network gives."""
    kind = type(tuned.network.model)
    assert kind.__module__.partition(".")[0] in ("transformers", "peft"), f"{name}: finish() left a {kind}"
    for module in tuned.network.model.modules():
        assert not type(module).__module__.startswith("headrace"), f"{name}: finish() left a {type(module)}"
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    save = resolve("headrace.checkpoints.saving:save", purpose="fine-tuning")
    load = resolve("headrace.checkpoints.loading:load", purpose="fine-tuning")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save(tuned.network, tuned.tokenizer, folder)
        expected, outputs = _own_logits(tuned.network, tuned.tokenizer, task, inputs)
        network, tokenizer = load(folder, task_type)
        loaded, _ = _own_logits(network, tokenizer, task, inputs)
        plain, answers = _by_card(folder, task, inputs)
    for what, logits in (("load()", loaded), ("plain library code", plain)):
        for mine, theirs in zip(expected, logits, strict=bool(logits)):
            assert mine.shape == theirs.shape, f"{name}: {what} gives logits {theirs.shape}, not {mine.shape}"
            assert np.allclose(mine, theirs, atol=_NEAR), f"{name}: {what} gives other logits"
    for own, theirs in zip(task_type.decode(outputs, _calibration(task)), answers, strict=True):
        problem = _difference(task_type.problem, own, theirs)
        assert not problem, f"{name}: the lines of the model card answer otherwise: {problem}"


def _calibration(task: TaskTable) -> dict[str, Any]:
    """As if it had been fitted: what would be seen where it is left out."""
    return {"temperature": 1.7, "thresholds": [0.4] * len(task.labels), "null_threshold": -0.3}


def _by_card(folder: Path, task: TaskTable, inputs: Sequence[Input]) -> tuple[list[Any], list[Any]]:
    """Logits (none for questions) and answers of the inputs by the lines of the folder's model card."""
    facts = ArtifactFacts(backend="hf", precision="fp32", task=task, calibration=_calibration(task))
    write_facts(folder, facts)
    lines = lines_for(library_of("hf", os.listdir(folder)), task)
    assert "headrace." not in lines.replace("headrace.json", ""), "a model card needs headrace"
    known: dict[str, Any] = {}
    with chdir(folder), redirect_stdout(StringIO()):
        exec(lines, known)
        parts = [(given,) if isinstance(given, str) else given for given in inputs]
        logits = [known["logits"](*given).cpu().numpy() for given in parts] if "logits" in known else []
        return logits, [known["answer"](*given) for given in parts]


def _difference(problem: str, own: dict[str, Any], card: Any) -> str:
    """What is not the same in an answer as served and one by a model card's lines; empty where all is."""
    if problem == "token_classification":
        words, tags = [word for word, _ in card], [tag for _, tag in card]
        card = [(" ".join(words[first:after]), kind) for first, after, kind in entities(tags)]
        expected: Any = [(one["text"], one["label"]) for one in own["entities"]]
    elif problem == "question_answering":
        expected = own["answer"]
    elif problem == "regression":
        return "" if abs(own["value"] - card) < _NEAR else f"{card}, not {own['value']}"
    else:
        scores = own["scores"] if "scores" in own else {hit["label"]: hit["score"] for hit in own["hits"]}
        expected = set(own.get("labels", scores))
        if any(abs(scores[label] - card[label]) > _NEAR for label in card if label in scores):
            return f"{card}, not {scores}"
        card = set(card)
    return "" if card == expected else f"{card}, not {expected}"


def _check_curve(name: str, tuned: Any) -> None:
    losses = [entry["loss"] for entry in tuned.history if "loss" in entry]
    assert len(losses) >= 6, f"{name}: no learning curve"
    third = len(losses) // 3
    assert np.mean(losses[-third:]) < 0.98 * np.mean(losses[:third]), f"{name}: the loss did not fall: {losses}"
    assert 0 < tuned.facts["n_trained_parameters"] <= tuned.facts["n_parameters"], f"{name}: nothing trains"


def _check_resume(
    name: str,
    base_folder: Path,
    task: TaskTable,
    settings: FinetuneTable,
    rows: Sequence[SnapshotRow],
    given: dict[str, Any],
    whole: Any,
) -> None:
    """Killed after its second checkpoint, which is not its last, training ends as if it had not been.

    So the same seed gives the same weights, too: the steps until the kill are another process's.
    """
    context = get_context("forkserver")  # torch is not loaded anew for each, as with spawn
    context.set_forkserver_preload(["headrace.finetune.running"])
    with tempfile.TemporaryDirectory() as place:
        what: tuple[Any, ...] = (Path(place), base_folder, task, settings, rows)
        process = context.Process(target=_train_until_killed, args=(_n_threads(), what, given))
        process.start()
        process.join(_KILLED_AFTER_S)
        assert process.exitcode == -signal.SIGKILL, f"{name}: ended with {process.exitcode} before two checkpoints"
        resumed = _tune(Path(place), base_folder, task, settings, rows, _silent, given)
    assert resumed.facts["resumed"], f"{name}: began anew after a kill"
    _assert_equal(
        f"{name}: same seed, other weights after a kill", weights_of(resumed.network), weights_of(whole.network)
    )


def _train_until_killed(n_threads: int, what: tuple[Any, ...], given: dict[str, Any]) -> None:
    """In a process of its own, which nothing can clean up after."""
    resolve("torch:set_num_threads")(n_threads)
    folder, base, task, settings, rows = what

    def report(stage: str, *_args: Any, **_facts: Any) -> None:
        if stage == "fine-tune" and len(list(folder.glob("checkpoint-*/whole"))) >= 2:
            os.kill(os.getpid(), signal.SIGKILL)

    _tune(folder, base, task, settings, rows, report, given)


def _n_threads() -> int:
    found: int = resolve("torch:get_num_threads")()
    return found


def _own_logits(network: Any, tokenizer: Any, task: TaskTable, inputs: Sequence[Input]) -> tuple[list[Any], Outputs]:
    """Logits of each input as our code encodes it, alone: (K,), or (T, K); and the outputs that they are."""
    import torch

    encoding = "headrace.checkpoints.encoding:"
    alone = resolve(f"{encoding}standalone_tokenizer")(tokenizer, task)
    encoder, names = resolve(f"{encoding}Encoder")(alone), resolve(f"{encoding}input_names")(network.encoder, tokenizer)
    network.eval()
    windows, found = encoder.encode(inputs), []
    with torch.inference_mode():
        for window in windows:
            feed = encoder.feed([window], names)
            found.append(network(**{key: torch.from_numpy(value) for key, value in feed.items()})[0].numpy())
    outputs_of = resolve("headrace.checkpoints.windows:outputs_of")
    return found, outputs_of(network.problem, network.n_outputs, inputs, windows, found)


def _assert_equal(problem: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys(), f"{problem}: other names"
    for key, value in expected.items():
        assert np.array_equal(found[key], value), f"{problem}: {key}"


def _tuned(
    base_folder: Path, task: TaskTable, settings: FinetuneTable, rows: Sequence[SnapshotRow], given: dict[str, Any]
) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return _tune(Path(folder), base_folder, task, settings, rows, _silent, given)


def _tune(folder: Path, base: Path, task: TaskTable, settings: Any, rows: Any, report: Any, given: Any) -> Any:
    return resolve("headrace.finetune.running:tune", purpose="fine-tuning")(
        folder, base, task, settings, rows, report, **given
    )


def _silent(*_args: Any, **_facts: Any) -> None:
    pass
