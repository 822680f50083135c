"""Where settings come from: the command line, the environment, `headrace.toml`, or the default.

Order of strength: command line > environment (`HEADRACE_SERVE__PORT=9000`) > file > default. An unknown key is an
error that names the nearest known one. The hash of the resolved values is stored on every row.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from headrace.config import Settings, has_names, table_of
from headrace.errors import BadConfig, nearest

FILE_NAME = "headrace.toml"
ENV_PREFIX = "HEADRACE_"
_NO_SETTINGS = {"HEADRACE_WORKSPACE", "HEADRACE_KEY"}  # variables that the command line and clients read
_WHOLE = {"descriptions"}  # tables whose keys are the user's own words, dots and all
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Shown:
    """One resolved value and where it came from: `default`, `file`, `environment` or `command line`."""

    key: str
    value: object
    source: str


def load(
    root: Path, *, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[Shown]]:
    """Resolve the settings of the workspace at `root`.

    Args:
        overrides: dotted key to value, from the command line; None values are passed over.

    Raises:
        BadConfig: unreadable file, unknown key or unusable value.
    """
    sources: dict[str, str] = {}
    merged: dict[str, Any] = {}
    from_file = _from_file(root / FILE_NAME)
    for origin, values in (
        ("file", from_file),
        ("environment", _from_environ(os.environ if environ is None else environ, _tasks_in(from_file))),
        ("command line", {k: v for k, v in (overrides or {}).items() if v is not None}),
    ):
        for key, value in values.items():
            _place(merged, key, value if origin == "file" else _from_json(key, value), origin)
            sources[key] = origin
    _read_catalogues(root, merged, sources)
    settings = _validated(merged, sources)
    shown = [Shown(k, v, sources.get(k, "default")) for k, v in _flat(settings.model_dump(mode="json"))]
    return settings, shown


def value_of(root: Path, key: str) -> object:
    """One setting as the environment or the file gives it, or None: for a folder that is not yet a whole workspace.

    Raises:
        BadConfig: unreadable file or unknown variable.
    """
    from_file = _from_file(root / FILE_NAME)
    return (from_file | _from_environ(os.environ, _tasks_in(from_file))).get(key)


def _from_json(key: str, value: object) -> object:
    """What a list or table written as JSON in a variable or an option stands for; other values as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")) or not _holds_several(key):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{key} is not JSON: {error}", value=value, next_step='Write ["a", "b"]') from None


def _holds_several(key: str) -> bool:
    """Whether a setting is a list or a table."""
    model: type[BaseModel] = Settings
    parts = iter(key.split("."))
    for part in parts:
        field = model.model_fields.get(part)
        if field is None:
            return False
        table = table_of(field)
        if table is None:
            kinds = [field.annotation, *get_args(field.annotation)]  # of `tuple[...] | None` too
            return next(parts, None) is None and any(get_origin(kind) in (tuple, list, dict) for kind in kinds)
        if has_names(field) and next(parts, None) is None:
            return True
        model = table
    return False


def _read_catalogues(root: Path, merged: dict[str, Any], sources: dict[str, str]) -> None:
    """Put labels and descriptions where tasks name the file that has them."""
    tasks = merged.get("tasks")
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        if not isinstance(task, dict) or not isinstance(task.get("catalogue"), str) or not task["catalogue"]:
            continue
        if task.get("labels") or task.get("descriptions"):
            raise BadConfig(
                f"tasks.{name} has labels or descriptions beside its catalogue",
                value=task["catalogue"],
                next_step="Keep one: the catalogue is where they come from",
            )
        entries = read_catalogue(root / task["catalogue"])
        task["labels"], task["descriptions"] = list(entries), entries
        origin = sources[f"tasks.{name}.catalogue"]
        sources |= {f"tasks.{name}.labels": origin, f"tasks.{name}.descriptions": origin}


def read_catalogue(path: Path) -> dict[str, str]:
    """Label to text, in the order of the file; BadConfig where it is no catalogue."""
    entries: dict[str, str] = {}
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"the catalogue cannot be read: {error}", value=str(path), next_step="Correct `catalogue` or the file"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        label, text = (entry.get("label"), entry.get("text")) if isinstance(entry, dict) else (None, None)
        if not isinstance(label, str) or not isinstance(text, str) or not label.strip() or not text.strip():
            raise BadConfig(
                f"line {number} of the catalogue has no label and text",
                value=line[:200],
                next_step='Write {"label": "...", "text": "..."} in each line',
            )
        if label in entries:
            raise BadConfig(
                f"line {number} of the catalogue has a label of an earlier line",
                value=label,
                next_step="Give each entry a label of its own",
            )
        entries[label] = text
    return entries


def check_task_name(name: str) -> None:
    """Check that a task can be called `name`: it stands in keys, in URLs and in names of versions.

    Raises:
        BadConfig: it cannot.
    """
    if not _TASK_NAME.fullmatch(name):
        raise BadConfig(
            "a task's name is 1 to 64 letters, digits, dashes and underscores, a letter or digit first",
            value=name,
            next_step="Choose another name",
        )


def _validated(merged: dict[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        origin = sources.get(key, "file")
        if first["type"] == "extra_forbidden":
            known = _keys_beside(first["loc"])
            raise BadConfig(
                f"unknown key in the {origin}", value=key, next_step=nearest(str(first["loc"][-1]), known)
            ) from None
        raise BadConfig(
            f"unusable value for {key} ({origin}): {first['msg'].lower()}",
            value=first.get("input"),
            next_step=f"Correct {key}; `headrace config show` prints every value",
        ) from None


def _keys_beside(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    parts = iter(loc[:-1])
    for part in parts:
        field = model.model_fields[part]
        model = table_of(field) or model
        if has_names(field):
            next(parts, None)
    return list(model.model_fields)


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadConfig(f"{FILE_NAME} cannot be read: {error}", value=str(path), next_step="Correct the file") from None
    tasks = tree.get("tasks")
    for name in tasks if isinstance(tasks, dict) else ():
        check_task_name(name)
    return dict(_flat(tree))


def _tasks_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Lower-case name to name of the tasks that dotted keys speak of."""
    names = (key.split(".")[1] for key in values if key.startswith("tasks."))
    return {name.lower(): name for name in names}


def _from_environ(environ: Mapping[str, str], tasks: Mapping[str, str]) -> dict[str, Any]:
    """Dotted keys from variables. `tasks` gives the capitals that variables lack."""
    values: dict[str, Any] = {}
    for name, raw in environ.items():
        if not name.startswith(ENV_PREFIX) or name in _NO_SETTINGS:
            continue
        if "__" not in name:
            raise BadConfig("unknown variable in the environment", value=name, next_step=nearest(name, _variables()))
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        if parts[0] == "tasks":
            parts[1] = tasks.get(parts[1], parts[1])
        values[".".join(parts)] = raw
    return values


def _variables() -> list[str]:
    keys = [key for key, _ in _flat(Settings().model_dump(mode="json")) if key != "tasks"]
    return [*_NO_SETTINGS, *(ENV_PREFIX + key.upper().replace(".", "__") for key in keys)]


def _place(tree: dict[str, Any], key: str, value: object, origin: str) -> None:
    *parents, leaf = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise BadConfig(
                f"{part} is a value elsewhere, and a table in the {origin}", value=key, next_step="Make them agree"
            )
    tree[leaf] = value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and key not in _WHOLE:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
