"""The model card: README.md of an exported version, with the YAML header that Hugging Face reads. Pure.

Header fields: https://huggingface.co/docs/hub/model-cards. What is not known, such as a language, is left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.config import FinetuneTable, TaskTable
from headrace.evaluate.plain_use import Library, lines_for
from headrace.records import Adapter, ModelVersion, Run, Snapshot
from headrace.tasks import TASK_TYPES, UNCALIBRATED, Calibration

_NAMES = {
    "shared": "the shared model alone, without adapters",
    "majority": "majority class or mean",
    "centroid": "frozen base model, nearest centroid or ridge",
    "zero-shot": "frozen base model, nearest text of a label",
}
_PIPELINE_TAGS = {
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "retrieval": "sentence-similarity",
}  # https://huggingface.co/docs/hub/models-tasks; all else is text-classification there
_WARN_TOLD, _WARN_CHANCE = 0.01, 0.001  # share of training rows that are told; chance of as many by luck
_NO_LIMIT = 1e8  # no model's logits differ by so much
_USE_NOTES: dict[Library, str] = {
    "transformers": "A pipeline of transformers loads the folder too, without what was fitted on validation rows.",
    "peft": "The base model is in `base/`, and here what was trained beside it.",
    "sentence-transformers": (
        "The outputs are linear in the mean of all tokens at unit length. No class of transformers computes that, so "
        "its pipelines cannot answer; sentence-transformers can."
    ),
    "headrace": "The folder is for headrace and the engine it is named after; `--backend hf` writes one for others.",
}
_HUB_NAMES = {"minilm-l6": "sentence-transformers/all-MiniLM-L6-v2"}


def render(
    version: ModelVersion,
    run: Run,
    snapshot: Snapshot,
    evaluations: Mapping[str, Mapping[str, Any]],
    *,
    library: Library,
    calibration: Calibration = UNCALIBRATED,
    licence: str | None = None,
    adapters: Sequence[Adapter] = (),
) -> str:
    """Markdown of a version.

    Args:
        evaluations: results of `evaluate` by predictor: "version", and whatever it was measured beside.
        library: what loads the folder that the card is for.
        calibration: what was fitted on the validation side, as stored with the artifact.
        licence: an identifier as Hugging Face lists them, where the owner has chosen one.
        adapters: what was decided about each channel, where the version has adapters.
    """
    own = evaluations["version"]
    parts = [
        _header(version, run, own, licence, library),
        f"# {version.name}\n",
        _what(version, run, snapshot, own),
        _use(run, library),
        _method(run),
        _results(own),
        _adapted(version, adapters),
        _per_class(own["overall"]),
        _calibrated(calibration, own["overall"]),
        _beside(evaluations),
        _remembered(own.get("membership")),
        _data(snapshot),
    ]
    return "\n".join(part for part in parts if part)


def _header(version: ModelVersion, run: Run, own: Mapping[str, Any], licence: str | None, library: Library) -> str:
    overall = own["overall"]
    lines = ["---"]
    if licence:
        lines.append(f"license: {_yaml(licence)}")
    hub_name = _HUB_NAMES.get(run.base_model, run.base_model)
    if _is_hub_name(hub_name):
        lines.append(f"base_model: {_yaml(hub_name)}")
    problem = TASK_TYPES.get(_task(run).type).problem
    tag = _PIPELINE_TAGS.get(problem, "text-classification")
    lines.append(f"pipeline_tag: {tag}")
    if library != "headrace":  # no name that Hugging Face knows
        lines.append(f"library_name: {library}")
    lines += ["tags:", "- headrace"]
    measured = [name for name in _metric_names(own) if overall.get(name) is not None]
    lines += ["metrics:", *(f"- {name}" for name in measured)]
    lines += ["model-index:", f"- name: {_yaml(version.name)}", "  results:", "  - task:"]
    lines += [f"      type: {tag}", "    dataset:", f"      name: {_yaml(version.task)}"]
    lines += [f"      type: {_yaml(version.task)}", "      split: test", "    metrics:"]
    for name in measured:
        lines += [f"    - type: {name}", f"      value: {overall[name]:.4f}"]
    return "\n".join([*lines, "---", ""])


def _what(version: ModelVersion, run: Run, snapshot: Snapshot, own: Mapping[str, Any]) -> str:
    facts = {
        "base model": f"{run.base_model} ({run.base_digest[:19]})",
        "task type": _task(run).type,
        "snapshot": snapshot.content_hash,
        "artifact": version.artifact,
        "checkpoint": version.checkpoint,
        "made": version.created_at.isoformat(timespec="seconds"),
    }
    agreed = own.get("agreement") or {}
    if agreed.get("share") is not None:
        facts["agreement of the artifact with its checkpoint"] = f"{agreed['share']:.2%} of {agreed['n']} rows"
    return _table(["", ""], [[name, value] for name, value in facts.items() if value is not None])


def _use(run: Run, library: Library) -> str:
    """How the folder is loaded, as lines that run."""
    note = _USE_NOTES[library]
    return f"## Use\n\n{note}\n\n```python\n{lines_for(library, _task(run))}\n```\n"


def _method(run: Run) -> str:
    """How it was trained: what the run measured, and the settings that are not the default."""
    trained, whole = (run.facts.get(name) for name in ("n_trained_parameters", "n_parameters"))
    facts: dict[str, Any] = {
        "method": run.method,
        "training rows": run.facts.get("n_train_rows"),
        "changed copies of them": run.facts.get("n_copies") or None,
        "training seconds": run.facts.get("seconds"),
        "epochs": run.facts.get("epochs"),
        "learning rate": run.facts.get("learning_rate"),
        "trained parameters": f"{trained:,} of {whole:,}" if trained is not None and whole is not None else None,
    }
    chosen = run.params.get("finetune", {})
    usual = FinetuneTable().model_dump(mode="json")
    facts |= {
        f"finetune.{key}": json.dumps(value)
        for key, value in _flat(chosen)
        if key not in ("method", "learning_rate") and value != dict(_flat(usual)).get(key)
    }
    return f"## Method\n\n{_table(['', ''], [[k, v] for k, v in facts.items() if v is not None])}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _task(run: Run) -> TaskTable:
    return TaskTable.model_validate(run.params.get("task", {}))


def _results(own: Mapping[str, Any]) -> str:
    names = _metric_names(own)
    rows = [
        [place, part["n"], *(_figure(part["intervals"][name]) for name in names)]
        for place, part in [("all rows", own["overall"]), *own["channels"].items()]
    ]
    title = "## Held-out rows\n\nNo training saw these rows. In brackets: 95 % interval.\n"
    return f"{title}\n{_table(['channel', 'rows', *names], rows)}"


def _adapted(version: ModelVersion, adapters: Sequence[Adapter]) -> str:
    if not adapters:
        return ""
    rows = [
        [one.channel, "its own" if one.is_kept else "shared", one.weights or "", one.evidence["reason"]]
        for one in adapters
    ]
    text = (
        "The figures above are of each channel's own answers. The weights in this folder are the shared model's; "
        f"`headrace export {version.name} FOLDER --adapter CHANNEL` writes what a channel adds to them, for peft.\n"
    )
    return f"## Adapters of channels\n\n{text}\n{_table(['channel', 'answers by', 'weights', 'why'], rows)}"


def _per_class(overall: Mapping[str, Any]) -> str:
    classes = overall.get("per_class")
    if not classes:
        return ""
    figures = ("precision", "recall", "f1")
    rows = [
        [name, found["n"], *(_figure(overall["intervals"][f"{figure}:{name}"]) for figure in figures)]
        for name, found in classes.items()
    ]
    levels = [
        [f"level {one['level']}", one["n_classes"], _plain(one["accuracy"])] for one in overall.get("by_level", [])
    ]
    paths = f"\n{_table(['first parts of the names', 'classes', 'accuracy'], levels)}" if levels else ""
    what = "rows" if "n_right" in next(iter(classes.values())) else "entities"
    return f"## Per class\n\n{_table(['class', what, *figures], rows)}{paths}"


def _calibrated(calibration: Calibration, overall: Mapping[str, Any]) -> str:
    """What was fitted on the validation rows, and how it did on the held-out ones."""
    parts = []
    if "temperature" in calibration:
        parts.append(f"Logits are divided by a temperature of {calibration['temperature']:.3f} before softmax.\n")
    if "half_width" in calibration:
        held = (
            f"; it held {overall['coverage']:.1%} of the held-out rows" if overall.get("coverage") is not None else ""
        )
        parts.append(
            f"An answer plus or minus {calibration['half_width']:.4g} holds the truth in at least "
            f"{calibration['level']:.0%} of new rows like these (split conformal){held}.\n"
        )
    if "thresholds" in calibration:
        pairs = zip(overall["labels"], calibration["thresholds"], strict=True)
        rows = [[label, _plain(threshold)] for label, threshold in pairs]
        parts.append(_table(["label", "answered from a probability of"], rows))
    if "null_threshold" in calibration:
        parts.append(_no_answer(calibration["null_threshold"]))
    return f"## Fitted on validation rows\n\n{chr(10).join(parts)}" if parts else ""


def _no_answer(threshold: float) -> str:
    if threshold >= _NO_LIMIT:
        return "An answer is always given: every validation row had one.\n"
    return f"No answer is given where that scores more than {threshold:.4g} above the best answer.\n"


def _beside(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    metric = evaluations["version"]["main_metric"]
    rows = [
        [_NAMES.get(name, name), _figure(found["overall"]["intervals"][metric])]
        for name, found in evaluations.items()
        if name != "version"
    ]
    return f"## Beside others on the same rows\n\n{_table(['predictor', metric], rows)}" if rows else ""


def _remembered(found: Mapping[str, Any] | None) -> str:
    """Whether training rows can be told from held-out ones, and a warning where they can."""
    if found is None or found["overall"]["share"] is None or found["overall"]["false_share"] is None:
        return ""
    rows = [
        [name, part["n_members"], part["n_others"], f"{part['share']:.2%} [{part['low']:.2%}, {part['high']:.2%}]"]
        for name, part in [("all rows", found["overall"]), *found["channels"].items()]
        if part["share"] is not None and part["n_others"]
    ]
    overall = found["overall"]
    is_told = overall["share"] > _WARN_TOLD and overall["chance"] < _WARN_CHANCE
    text = (
        "Training rows that an attack by the size of the loss tells to be such, where it takes "
        f"{overall['false_share']:.2%} of held-out rows for such.\n"
    )
    warning = "\n**More than 1 %: who may see this version's scores may learn which rows are in its data.**\n"
    table = _table(["channel", "training rows", "held-out rows", "told"], rows)
    return f"## Remembered rows\n\n{text}{warning if is_told else ''}\n{table}"


def _data(snapshot: Snapshot) -> str:
    rows = [[name, n] for name, n in snapshot.n_by_channel.items()]
    sides = ", ".join(f"{n} {side}" for side, n in snapshot.n_by_side.items())
    text = f"{snapshot.n_rows} rows ({sides}), {snapshot.n_from_feedback} of them from feedback.\n"
    return f"## Data\n\n{text}\n{_table(['channel', 'rows'], rows)}"


def _metric_names(own: Mapping[str, Any]) -> list[str]:
    """The main metric first, then the others that have intervals; those of single classes have a table of their own."""
    main = own["main_metric"]
    return [main, *(name for name in own["overall"]["intervals"] if ":" not in name and name != main)]


def _figure(interval: Mapping[str, Any]) -> str:
    if interval["estimate"] is None:
        return f"not known ({interval['reason']})"
    return f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _plain(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [[_cell(value) for value in row] for row in [head, ["---"] * len(head), *rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    text = " ".join(str(value).split())  # a line break would end the table
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string


def _is_hub_name(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    return bool(owner and slash and rest) and "/" not in rest and owner[0] not in ".~"
