"""Names of people, places and addresses, which no pattern finds: by a version of a task of the workspace's own."""

import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from headrace import signing
from headrace.errors import BadConfig, NotFound
from headrace.personal.recogniser import Found
from headrace.registry import resolve
from headrace.store import versions
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Names = Callable[[Sequence[str]], list[list[Found]]]
"""Finds them in texts, each text's by itself."""
_KINDS = {
    "per": "person", "person": "person", "name": "person", "loc": "place", "location": "place", "gpe": "place",
    "place": "place", "address": "address", "street": "address",
}  # fmt: skip
"""Label of an entity, in lower case, to the kind it is; what else a model finds stays."""
_STANDS_IN = re.compile(r"<[a-z-]+(?::[a-p]{16})?>|\b[a-z-]+-[a-p]{16}\b")


def finder(ws: Workspace) -> Names | None:
    """What finds names by the version that `privacy.names_model` names; None where none is set. It loads at its first
    text.

    Raises:
        NotFound: no such version.
        BadConfig: it is of another type of task, or tells neither people nor places.
    """
    name = ws.settings.privacy.names_model
    if not name:
        return None
    task, _, number = name.rpartition("/")
    with ws.store.read() as conn:
        version = versions.numbered(conn, task, int(number)) if number.isdecimal() else None
    if version is None:
        raise NotFound(
            "no such version for privacy.names_model",
            value=name,
            next_step="Name one as TASK/NUMBER, such as entities/3",
        )
    types = ws.task(task).labels
    if ws.task(task).type != "token-classification" or not any(one.lower() in _KINDS for one in types):
        raise BadConfig(
            "privacy.names_model is to be a token-classification task with people or places",
            value=f"{ws.task(task).type}: {', '.join(types)}",
            next_step=f"Its labels tell them by one of: {', '.join(_KINDS)}",
        )
    one_at_a_time = threading.Lock()

    @cache
    def model() -> tuple[Any, TaskType, Any]:
        # by name, as plug-ins are: what loads exported models stands above this package
        load = resolve("headrace.export:load", purpose="privacy.names_model")
        predictor, facts = load(signing.folder_of(ws, version, version.artifact))
        return predictor, TASK_TYPES.get(facts.task.type)(facts.task), facts.calibration

    def find(texts: Sequence[str]) -> list[list[Found]]:
        with one_at_a_time:
            predictor, task_type, calibration = model()
            answers = task_type.decode(predictor.logits(list(texts)), calibration)
        return [_kept(text, answer["entities"]) for text, answer in zip(texts, answers, strict=True)]

    return find


def _kept(text: str, entities: Sequence[dict[str, Any]]) -> list[Found]:
    """Those of the entities that are somebody's, and do not stand for somebody already."""
    known = [match.span() for match in _STANDS_IN.finditer(text)]
    return [
        Found(_KINDS[one["label"].lower()], one["start"], one["end"])
        for one in entities
        if one["label"].lower() in _KINDS and all(one["end"] <= start or end <= one["start"] for start, end in known)
    ]
