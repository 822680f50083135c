"""The model card: README.md of an exported version, with the YAML header that Hugging Face reads. Pure.

Header fields: https://huggingface.co/docs/hub/model-cards. What is not known, such as a language, is left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.records import ModelVersion, Run, Snapshot

_NAMES = {"majority": "majority class or mean", "centroid": "frozen base model, nearest centroid or ridge"}
_HUB_NAMES = {"minilm-l6": "sentence-transformers/all-MiniLM-L6-v2"}


def render(
    version: ModelVersion,
    run: Run,
    snapshot: Snapshot,
    evaluations: Mapping[str, Mapping[str, Any]],
    *,
    licence: str | None = None,
) -> str:
    """Markdown of a version.

    Args:
        evaluations: results of `evaluate` by predictor: "version", and whatever it was measured beside.
        licence: an identifier as Hugging Face lists them, where the owner has chosen one.
    """
    own = evaluations["version"]
    parts = [
        _header(version, run, own, licence),
        f"# {version.name}\n",
        _what(version, run, snapshot, own),
        _results(own),
        _per_class(own["overall"]),
        _beside(evaluations),
        _data(snapshot),
    ]
    return "\n".join(part for part in parts if part)


def _header(version: ModelVersion, run: Run, own: Mapping[str, Any], licence: str | None) -> str:
    overall = own["overall"]
    lines = ["---"]
    if licence:
        lines.append(f"license: {_yaml(licence)}")
    hub_name = _HUB_NAMES.get(run.base_model, run.base_model)
    if _is_hub_name(hub_name):
        lines.append(f"base_model: {_yaml(hub_name)}")
    lines += ["pipeline_tag: text-classification", "library_name: transformers", "tags:", "- headrace"]
    measured = [name for name in _metric_names(own) if overall.get(name) is not None]
    lines += ["metrics:", *(f"- {name}" for name in measured)]
    lines += ["model-index:", f"- name: {_yaml(version.name)}", "  results:", "  - task:"]
    lines += ["      type: text-classification", "    dataset:", f"      name: {_yaml(version.task)}"]
    lines += [f"      type: {_yaml(version.task)}", "      split: test", "    metrics:"]
    for name in measured:
        lines += [f"    - type: {name}", f"      value: {overall[name]:.4f}"]
    return "\n".join([*lines, "---", ""])


def _what(version: ModelVersion, run: Run, snapshot: Snapshot, own: Mapping[str, Any]) -> str:
    facts = {
        "base model": f"{run.base_model} ({run.base_digest[:19]})",
        "method": run.method,
        "training rows": run.facts.get("n_train_rows"),
        "training seconds": run.facts.get("seconds"),
        "snapshot": snapshot.content_hash,
        "artifact": version.artifact,
        "checkpoint": version.checkpoint,
        "made": version.created_at.isoformat(timespec="seconds"),
    }
    agreed = own.get("agreement") or {}
    if agreed.get("share") is not None:
        facts["agreement of the artifact with its checkpoint"] = f"{agreed['share']:.2%} of {agreed['n']} rows"
    return _table(["", ""], [[name, value] for name, value in facts.items() if value is not None])


def _results(own: Mapping[str, Any]) -> str:
    names = _metric_names(own)
    rows = [
        [place, part["n"], *(_figure(part["intervals"][name]) for name in names)]
        for place, part in [("all rows", own["overall"]), *own["channels"].items()]
    ]
    title = "## Held-out rows\n\nNo training saw these rows. In brackets: 95 % interval.\n"
    return f"{title}\n{_table(['channel', 'rows', *names], rows)}"


def _per_class(overall: Mapping[str, Any]) -> str:
    classes = overall.get("per_class")
    if not classes:
        return ""
    figures = ("precision", "recall", "f1")
    rows = [
        [name, found["n"], *(_figure(overall["intervals"][f"{figure}:{name}"]) for figure in figures)]
        for name, found in classes.items()
    ]
    return f"## Per class\n\n{_table(['class', 'rows', *figures], rows)}"


def _beside(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    metric = evaluations["version"]["main_metric"]
    rows = [
        [_NAMES.get(name, name), _figure(found["overall"]["intervals"][metric])]
        for name, found in evaluations.items()
        if name != "version"
    ]
    return f"## Beside others on the same rows\n\n{_table(['predictor', metric], rows)}" if rows else ""


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
