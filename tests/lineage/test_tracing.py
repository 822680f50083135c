"""Traces. Catches: a link that is not followed, back to who said it or forward to what was made of it; a row of a
snapshot that is passed over; a version that learnt from one that used the row and is not named.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from conftest import LABELS
from furnished import NAME, TEXT, Furnished, answer, furnish
from headrace.data import channels, parquet, snapshot
from headrace.errors import NotFound
from headrace.feedback.intake import give
from headrace.feedback.labels import to_labels
from headrace.lineage import affected
from headrace.lineage.affected import Held
from headrace.lineage.tracing import trace
from headrace.records import SIDES, Artifact, ModelVersion, SnapshotRow
from headrace.release import controls, releases
from headrace.store import adapters, runs, schema
from headrace.store.lineage import like
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace
from planted import plant_version


@pytest.fixture
def made(workspace: Workspace) -> Furnished:
    return furnish(workspace, workspace.root)


def test_an_example_is_traced_to_its_import_and_to_who_labelled_it(workspace: Workspace, made: Furnished) -> None:
    found = trace(workspace, made.example)
    (example,) = found.examples
    assert (found.kind, found.channel, example["source"]) == ("example", "web", str(workspace.root / "web.jsonl"))
    assert example["import_id"].startswith("imp_")
    assert {(one["labeller"], one["origin"], one["value"]) for one in found.labels} == {
        ("import", "import", "positive"),
        (NAME, "feedback", "neutral"),
    }
    (feedback,) = found.feedback
    assert (feedback["labeller"], feedback["correction"]) == (NAME, "neutral")
    assert [one["text"] for one in found.predictions] == [TEXT]
    assert [one["example_id"] for one in found.reviews if one["example_id"]] == [made.example]


def test_an_example_that_came_back_is_traced_to_its_prediction(workspace: Workspace, made: Furnished) -> None:
    said = trace(workspace, made.feedback)
    (example,) = said.examples
    assert (example["import_id"], example["prediction_id"]) == (None, made.prediction)
    for row_id in (example["id"], said.labels[0]["id"], made.prediction):
        found = trace(workspace, row_id)
        assert [one["id"] for one in found.predictions] == [made.prediction]
        assert [one["id"] for one in found.feedback] == [made.feedback]
        assert [one["id"] for one in found.examples] == [example["id"]]
        assert [one["unit"] for one in found.predictions] == [NAME]
        assert found.snapshots == said.snapshots
    assert trace(workspace, made.prediction).row["version"] == "tone/1"


def test_a_prediction_is_found_in_files_and_so_is_one_without_feedback(workspace: Workspace, made: Furnished) -> None:
    found = trace(workspace, made.moved)
    assert (found.row["unit"], found.examples, found.feedback) == (NAME, [], [])


def test_forward_to_every_snapshot_run_version_adapter_and_release(workspace: Workspace, made: Furnished) -> None:
    controls.ensure_control(workspace, "tone", actor="serve")
    second = plant_version(workspace)
    give(workspace, answer(workspace, second, "brand new words", unit="u"), correction="negative")
    to_labels(workspace)
    newer = snapshot.freeze(workspace)
    use(workspace, second, newer.id)
    keep_adapter(workspace, second, "web")
    release = releases.start(workspace, candidate="2")
    with workspace.store.read() as conn:
        channel_id = channels.find(workspace, "web").id
        (fresh,) = like(conn, channel_id, [text_hash("brand new words")])
    old, new = trace(workspace, made.example), trace(workspace, fresh)
    rows = {row.example_id: row for row in snapshot.rows(workspace, newer)}
    for found, row_id, names in ((old, made.example, ["tone/1", "tone/2"]), (new, fresh, ["tone/2"])):
        row = rows[row_id]
        how = {"train": "trained", "validation": "validated", "test": "measured"}[row.side]
        assert [one["name"] for one in found.versions] == names
        assert {one["how"] for one in found.versions} == {how}
        assert {(one["side"], one["target"], one["origin"]) for one in found.snapshots} >= {
            (row.side, row.target, row.origin)
        }
        assert [one["id"] for one in found.releases] == [release.id]
        assert [one["channel"] for one in found.adapters] == (["web"] if how != "measured" else [])
    assert [one["id"] for one in old.snapshots] == [made.version.snapshot_id, newer.id]
    assert old.versions[0]["in_charge"] == ["all"]
    of_version = trace(workspace, second.id)
    assert [one["id"] for one in of_version.snapshots] == [newer.id]
    assert [one["id"] for one in of_version.releases] == [release.id]
    assert [one["name"] for one in trace(workspace, second.run_id).versions] == ["tone/2"]
    assert {one["name"] for one in trace(workspace, newer.id).versions} == {"tone/2"}


def use(ws: Workspace, version: ModelVersion, snapshot_id: str) -> None:
    with ws.store.write() as conn:
        for table, row_id in ((schema.runs, version.run_id), (schema.model_versions, version.id)):
            conn.execute(update(table).where(table.c.id == row_id).values(snapshot_id=snapshot_id))


def keep_adapter(ws: Workspace, version: ModelVersion, channel: str) -> None:
    with ws.store.write() as conn:
        artifact = Artifact("sha256:adapter", "adapter", 1, {"run": version.run_id, "channel": channel})
        runs.add_artifact(conn, artifact, ws.clock())
        of_version = {"version_id": version.id, "channel_id": channels.find(ws, channel).id}
        kept = {"artifact": artifact.digest, "weights": "w", "is_kept": True, "evidence": {}}
        conn.execute(insert(schema.adapters).values(**of_version, **kept))
        assert len(adapters.of_version(conn, version.id)) == 1


@pytest.mark.parametrize("row_id", ["ex_1", "lbl_1", "fb_1", "prd_1", "snap_1", "run_1", "ver_1", "rel_1", "nothing"])
def test_what_is_not_there_is_said(workspace: Workspace, made: Furnished, row_id: str) -> None:
    with pytest.raises(NotFound):
        trace(workspace, row_id)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    asked=st.sets(st.integers(0, 130), max_size=60),
    group_rows=st.integers(1, 50),
)
@settings(max_examples=40, deadline=None)
def test_rows_of_a_snapshot_are_counted_as_a_plain_loop_counts_them(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], asked: set[int], group_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [
        SnapshotRow(f"ex_{7 * n % 131:03d}", f"c{i}", f"{n}", "t", LABELS[n % 3], SIDES[n % 3], 1.0, "import")
        for i, size in enumerate(sizes)
        for n in range(40 * i, 40 * i + size)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_GROUP_ROWS", group_rows)
        parquet.write_rows(folder, rows)
    ids = {f"ex_{n:03d}" for n in asked}
    for channel in (f"c{i}" for i in range(3)):
        mine = [row for row in rows if row.channel == channel]
        for some in (ids, None, {row.example_id for row in mine[:1]} or {"ex_none"}):
            expected: dict[str, int] = {}
            for row in mine:
                if some is None or row.example_id in some:
                    expected[row.side] = expected.get(row.side, 0) + 1
            assert parquet.count_rows(folder, channel, some) == ({channel: expected} if expected else {})
    for row_id in sorted(ids):
        found = parquet.find_row(folder, row_id)
        assert (found or {}).get("example_id") == next((r.example_id for r in rows if r.example_id == row_id), None)


# --- Which runs used a row ----------------------------------------------------------------------------------------


def a_run(run_id: str, snapshot_id: str = "other", *, checkpoint: str | None = None, **params: Any) -> dict[str, Any]:
    return {"id": run_id, "snapshot_id": snapshot_id, "checkpoint": checkpoint, "params": params, "created_at": 5}


def held(snapshot_id: str = "snap", **sides: int) -> Held:
    return Held({"id": snapshot_id, "content_hash": f"hash of {snapshot_id}"}, {"web": sides})


def test_a_run_used_a_row_by_the_strongest_of_its_ways() -> None:
    some = [a_run("a", "snap"), a_run("b")]
    assert affected.ways(some, [], [held(train=1, test=3)], None) == {"a": "trained"}
    assert affected.ways(some, [], [held(validation=1, test=3)], None) == {"a": "validated"}
    assert affected.ways(some, [], [held(test=3)], None) == {"a": "measured"}
    assert affected.ways(some, [], [held(unknown=3)], None) == {"a": "unknown"}


def test_texts_are_read_without_their_labels() -> None:
    read: Any = a_run("u", material={"unlabelled": "sha256:0"})
    assert affected.ways([read], [], [], 5) == {"u": "pretrained"}  # type: ignore[arg-type]
    assert affected.ways([read], [], [], 6) == {}  # type: ignore[arg-type]


def test_what_stands_on_a_run_or_learnt_from_it_inherits() -> None:
    version = {"id": "v", "task": "tone", "number": 4, "run_id": "above"}
    some = [
        a_run("first", "snap", checkpoint="sha256:1"),
        a_run("pupil", material={"teacher": "sha256:1"}),
        a_run("above", per_channel={"shared_run": "pupil", "channel": None}, material={"teacher": "sha256:9"}),
        a_run("again", per_channel={"shared_version": "tone/4", "channel": "web"}),
        a_run("next", material={"start": "sha256:2"}),
        a_run("warm", checkpoint="sha256:2", material={"start": "sha256:1"}),
        a_run("apart", "snap", per_channel={"shared_run": "clean", "channel": None}),
        a_run("clean"),
    ]
    found = affected.ways(some, [version], [held(train=1)], None)
    inherited = dict.fromkeys(["pupil", "above", "again", "next", "warm"], "inherited")
    assert found == {"first": "trained", **inherited}
    measured = affected.ways(some, [version], [held(test=1)], None)
    assert measured == {"first": "measured", "apart": "measured"}


def test_an_adapter_alone_is_named_where_the_shared_model_did_not_use_the_row(
    workspace: Workspace, made: Furnished
) -> None:
    shared, own = plant_version(workspace), plant_version(workspace)
    use(workspace, own, made.version.snapshot_id)
    facts = {"per_channel": {"channel": "web", "shared_version": "tone/2", "shared": shared.id}}
    with workspace.store.write() as conn:
        runs.change(conn, own.run_id, params=facts)
    keep_adapter(workspace, own, "web")
    rows = snapshot.rows(workspace, snapshot.find(workspace, made.version.snapshot_id), "train")
    by_channel = {row.channel: row for row in rows}
    for channel, hows in {
        "web": {"tone/1": "trained", "tone/3": "adapter"},
        "phone": {"tone/1": "trained"},
    }.items():
        found = affected.of_examples(workspace, channel, [by_channel[channel].example_id])
        assert {one["name"]: one["how"] for one in found.versions} == hows
        assert [one["version"] for one in found.adapters] == (["tone/3"] if channel == "web" else [])


def test_the_files_of_an_erased_snapshot_are_gone_and_what_was_made_of_it_may_have_used_a_row(
    workspace: Workspace, made: Furnished
) -> None:
    from headrace.store import snapshots

    with workspace.store.write() as conn:
        snapshots.mark_erased(conn, made.version.snapshot_id, workspace.clock())
    found = trace(workspace, made.example)
    assert [(one["name"], one["how"]) for one in found.versions] == [("tone/1", "unknown")]
