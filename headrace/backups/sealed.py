"""JSON files that hold their own hash, so that no byte of them can change unseen; written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.artifacts import sync
from headrace.errors import Damaged, NotFound

_SEAL = "seal"
AGAIN = "Use another backup; nothing was changed"


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts over what was there; on disk when this returns."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(_text_of({**facts, _SEAL: _seal_of(facts)}), "utf-8")
    sync(draft)
    os.replace(draft, path)
    sync(path.parent)


def read(path: Path) -> dict[str, Any]:
    """The facts as they were written.

    Raises:
        NotFound: there is no such file.
        Damaged: a byte of it changed.
    """
    try:
        text = path.read_text("utf-8")
        found = json.loads(text)
        seal = found.pop(_SEAL)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("no backup there", value=str(path), next_step="Give the folder that a backup made") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(f"the backup's manifest cannot be read: {error}", path) from None
    if seal != _seal_of(found) or text != _text_of({**found, _SEAL: seal}):
        raise damaged("the backup's manifest is not as it was written", path)
    return dict(found)


def damaged(problem: str, path: Path) -> Damaged:
    return Damaged(problem, value=str(path), next_step=AGAIN)


def _seal_of(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text_of(facts).encode()).hexdigest()


def _text_of(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, sort_keys=True) + "\n"
