"""Which runs a run's weights stand on: what it started from, learnt from, or has adapters on. Pure.

Runs and versions are lines as `headrace.store.lineage` reads them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]
_HANDED_ON = ("teacher", "start")
"""Keys of a run's material that hold the digest of another run's checkpoint."""


def parents(run: Line, runs: Sequence[Line], versions: Sequence[Line]) -> Iterator[str]:
    """Ids of the runs whose model a run's model stands on or learnt from."""
    beneath = run["params"].get("per_channel", {})
    if "shared_run" in beneath:
        yield beneath["shared_run"]
    if "shared_version" in beneath:
        yield from (one["run_id"] for one in versions if name_of(one) == beneath["shared_version"])
    if not beneath:  # the model under adapters was made by another run
        material = run["params"].get("material", {})
        digests = {material[key] for key in _HANDED_ON if key in material}
        yield from (one["id"] for one in runs if one["checkpoint"] in digests)


def with_ancestors(run_ids: Collection[str], runs: Sequence[Line], versions: Sequence[Line]) -> set[str]:
    """Ids of some runs and of all that their models stand on or learnt from, however far back."""
    by_id = {one["id"]: one for one in runs}
    found: set[str] = set()
    left = list(run_ids)
    while left:
        run_id = left.pop()
        if run_id in by_id and run_id not in found:
            found.add(run_id)
            left += parents(by_id[run_id], runs, versions)
    return found


def name_of(version: Line) -> str:
    return f"{version['task']}/{version['number']}"
