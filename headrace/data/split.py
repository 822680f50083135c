"""Which side a group of examples is on: train, validation or test; decided once, by hash, and kept for ever.

Groups that hold equal or nearly equal texts go together: new ones take one side by the hash of their first member, or
the side of the groups they resemble. New groups that resemble groups of different sides are excluded, because they
would carry the test side's texts into training.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from filelock import FileLock

from headrace.config import SplitTable
from headrace.data.near_duplicates import Ints, linked, near_duplicate_pairs
from headrace.errors import BadConfig
from headrace.records import Side
from headrace.store import examples
from headrace.store.examples import GroupedText
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

EXCLUDED: Side = "excluded"
_LOCK_S = 600


def side_of(group_key: str, settings: SplitTable) -> Side:
    """The side that a group's own hash gives it."""
    digest = hashlib.sha256(f"{settings.salt}\0{group_key}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < settings.test_share:
        return "test"
    return "validation" if place < settings.test_share + settings.validation_share else "train"


def assign(ws: Workspace) -> dict[str, str]:
    """Give every new group its side; returns the side of each group there is.

    Raises:
        BadConfig: the shares of validation and test leave nothing to train on.
    """
    settings = ws.settings.split
    if settings.test_share + settings.validation_share >= 1:
        raise BadConfig(
            "split.test_share and split.validation_share leave nothing to train on",
            value=settings.test_share + settings.validation_share,
            next_step="Make their sum less than 1",
        )
    with FileLock(ws.state_folder / "split.lock", timeout=_LOCK_S):
        with ws.store.read() as conn:
            known = examples.sides(conn)
            rows = list(examples.grouped_texts(conn))
        if all(row.group_key in known for row in rows):
            return known
        fresh = sides_of_new(rows, known, settings, ws.settings.data.near_duplicate_share)
        with ws.store.write() as conn:
            examples.add_sides(conn, fresh, ws.clock())
    return known | fresh


def sides_of_new(
    rows: Sequence[GroupedText], known: Mapping[str, str], settings: SplitTable, near_duplicate_share: float
) -> dict[str, str]:
    """Group key to side for the groups of `rows` that are not in `known`. Pure; the order of rows does not matter."""
    rows = sorted(rows, key=lambda row: (row.channel, row.key))
    groups = sorted({row.group_key for row in rows})
    number = {group: i for i, group in enumerate(groups)}
    is_new = np.fromiter((group not in known for group in groups), dtype=bool, count=len(groups))
    # An excluded group passes on what it resembles, as a new one does: nothing holds it to one side.
    is_free = is_new | np.fromiter((known.get(group) == EXCLUDED for group in groups), dtype=bool, count=len(groups))
    links = _links(rows, number, near_duplicate_share)
    leader = linked(len(groups), links[is_free[links].all(axis=1)])
    resembled: dict[int, set[str]] = {}
    for a, b in links[is_free[links].sum(axis=1) == 1].tolist():
        free, fixed = (a, b) if is_free[a] else (b, a)
        resembled.setdefault(int(leader[free]), set()).add(known[groups[fixed]])
    return {
        groups[i]: _side(groups[leader[i]], resembled.get(int(leader[i]), set()), settings)
        for i in np.flatnonzero(is_new)
    }


def _side(first_member: str, resembled: set[str], settings: SplitTable) -> str:
    if len(resembled) > 1:
        return EXCLUDED
    return next(iter(resembled)) if resembled else side_of(first_member, settings)


def _links(rows: Sequence[GroupedText], number: Mapping[str, int], near_duplicate_share: float) -> Ints:
    """Pairs (M, 2) of groups that hold equal or nearly equal texts."""
    pairs = near_duplicate_pairs([as_one_text(row.input) for row in rows], near_duplicate_share)
    group = np.fromiter((number[row.group_key] for row in rows), dtype=np.int64, count=len(rows))
    links: Ints = np.unique(np.sort(group[pairs], axis=1), axis=0)
    apart: Ints = links[links[:, 0] != links[:, 1]]
    return apart
