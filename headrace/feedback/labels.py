"""Corrections that came back become examples and labels, so that the next snapshot holds them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.ids import new_id
from headrace.store import channels
from headrace.store import outcomes as rows
from headrace.store.votes import OWNER
from headrace.tasks import inputs
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def count_new(ws: Workspace, task: str | None = None) -> int:
    """Corrections that `to_labels` would turn into labels now."""
    task = ws.task_name(task)
    with ws.store.read() as conn:
        return rows.count_unused(conn, task, with_text=True)


def count_without_text(ws: Workspace, task: str | None = None) -> int:
    """Corrections that cannot become labels, because `serve.log_inputs` kept only the hash of what was asked."""
    task = ws.task_name(task)
    with ws.store.read() as conn:
        return rows.count_unused(conn, task, with_text=False)


def to_labels(ws: Workspace, task: str | None = None) -> int:
    """Turn every unused correction into a label, all in one transaction; returns how many corrections were used.

    A text that the channel knows keeps its example; another one becomes an example with the prediction it came from. A
    labeller has one label per text through a key: the latest correction; that of who runs the workspace is of origin
    `owner`. A text that a running import is just adding waits for the next call, since that import may still be taken
    back.
    """
    task = ws.task_name(task)
    with ws.store.write() as conn:
        by_channel: dict[str, list[Any]] = {}
        for line in rows.unused_corrections(conn, task):
            by_channel.setdefault(line["channel_id"], []).append(line)
        return sum(_of_channel(ws, conn, task, channel_id, lines) for channel_id, lines in by_channel.items())


def _of_channel(
    ws: Workspace, conn: "Connection", task: str, channel_id: str, lines: Sequence[Mapping[str, Any]]
) -> int:
    now = ws.clock()
    examples, waiting = _examples(ws, conn, channel_id, lines)
    usable = [line for line in lines if _hash_of(line) not in waiting]
    labellers = channels.labeller_ids(conn, channel_id, {line["labeller"] for line in usable}, now)
    latest = {(examples[_hash_of(line)], labellers[line["labeller"]], line["key_id"]): line for line in usable}
    known = rows.feedback_labels(conn, task, sorted({example_id for example_id, *_ in latest}))
    fresh = []
    for (example_id, labeller_id, key_id), line in latest.items():
        value, feedback_id = line["correction"], line["id"]
        label_id = known.get((example_id, labeller_id, key_id))
        if label_id is not None:
            rows.replace_label(conn, label_id, value=value, feedback_id=feedback_id, now=now)
            continue
        fresh.append(
            {
                "id": new_id("label"),
                "example_id": example_id,
                "task": task,
                "labeller_id": labeller_id,
                "value": value,
                "score": None,
                "origin": OWNER if line["labeller"] == OWNER else "feedback",
                "import_id": None,
                "feedback_id": feedback_id,
                "created_at": now,
                "key_id": key_id,
            }
        )
    rows.add_labels(conn, fresh)
    rows.mark_used(conn, [line["id"] for line in usable])
    return len(usable)


def _examples(
    ws: Workspace, conn: "Connection", channel_id: str, lines: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, str], set[str]]:
    """Text hash to example id, with new examples added; and the hashes that must wait for a running import."""
    first: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        first.setdefault(_hash_of(line), line)
    found: dict[str, str] = {}
    waiting: set[str] = set()
    for example_id, key, text_hash, visible in rows.examples_like(conn, channel_id, list(first)):
        if visible and text_hash in first:
            found.setdefault(text_hash, example_id)
        elif not visible and key in first:
            waiting.add(key)
    fresh = [
        {
            "id": new_id("example"),
            "channel_id": channel_id,
            "key": text_hash,
            "text": line["text"],
            "text_pair": line["text_pair"],
            "text_hash": text_hash,
            "group_key": text_hash,
            "import_id": None,
            "prediction_id": line["prediction_id"],
            "created_at": ws.clock(),
        }
        for text_hash, line in first.items()
        if text_hash not in found and text_hash not in waiting
    ]
    rows.add_examples(conn, fresh)
    found.update((example["text_hash"], example["id"]) for example in fresh)
    return found, waiting - found.keys()


def _hash_of(line: Mapping[str, Any]) -> str:
    return inputs.text_hash(line["text"] if line["text_pair"] is None else (line["text"], line["text_pair"]))
