"""What surrogates stand for. Catches: a value that can be read without its key, a key that outlives its person, a
backup of before that still opens, a renewal that loses everybody's keys when it is killed half-way, a master key that
is another after a restore and keeps erasures from ending."""

import json
from pathlib import Path

import pytest

from conftest import write_jsonl
from headrace.backups import backup, restore
from headrace.config_sources import FILE_NAME
from headrace.data.importing import import_rows
from headrace.errors import Damaged, NotFound
from headrace.lineage import erasing
from headrace.personal import mapping
from headrace.personal.policies import Door
from headrace.store import subjects
from headrace.workspace import Workspace, open_workspace
from planted import NOON, plant_answer, plant_channel, plant_version

KEPT = [
    mapping.Kept("jane", "e-mail", "jane@shop.org", "kim@personal.example"),
    mapping.Kept("jane", "phone", "+49 171 1", "+9991"),
    mapping.Kept("joe", "e-mail", "joe@shop.org", "lee@personal.example"),
]


@pytest.fixture
def kept(workspace: Workspace) -> Workspace:
    """A workspace that keeps three values of two people of a channel."""
    channel = plant_channel(workspace, "web")
    for _ in range(2):  # the second time changes nothing
        with workspace.store.write() as conn:
            mapping.keep(workspace, conn, channel.id, KEPT)
    return workspace


def channel_id(ws: Workspace) -> str:
    with ws.store.read() as conn:
        (only,) = {row.id for row in conn.exec_driver_sql("SELECT id FROM channels")}
    return str(only)


def test_ones_own_values_can_be_read(kept: Workspace) -> None:
    assert [mapping.reveal(kept, one.surrogate) for one in KEPT] == [
        [mapping.Revealed(one.kind, one.surrogate, one.value)] for one in KEPT
    ]
    with pytest.raises(NotFound):
        mapping.reveal(kept, "nobody@personal.example")
    assert (kept.state_folder / mapping.FILE).stat().st_mode & 0o777 == 0o600
    with kept.store.read() as conn:
        rows = [tuple(row) for row in conn.exec_driver_sql("SELECT * FROM replaced JOIN subject_keys")]
    assert not any(one.value in str(row) or one.subject in str(row) for row in rows for one in KEPT)


def test_without_the_master_key_nothing_can(kept: Workspace) -> None:
    file = kept.state_folder / mapping.FILE
    file.unlink()
    with pytest.raises(Damaged, match="no master key"):
        mapping.reveal(kept, KEPT[0].surrogate)
    assert not file.exists()  # so that the one that was there can be put back
    mapping._write(file, [mapping._new_key().decode()])
    with pytest.raises(Damaged, match="another master key"):
        mapping.reveal(kept, KEPT[0].surrogate)


def test_a_shredded_person_is_gone_also_from_a_copy_of_before(kept: Workspace) -> None:
    with kept.store.read() as conn:
        before = dict(subjects.all_wrapped(conn))
    assert mapping.shred(kept, channel_id(kept), {"jane", "nobody"}) == 1
    for one in KEPT[:2]:
        with pytest.raises(NotFound):
            mapping.reveal(kept, one.surrogate)
    assert mapping.reveal(kept, KEPT[2].surrogate)[0].value == KEPT[2].value
    with kept.store.write() as conn:  # as a restored backup would
        for subject_id, wrapped in before.items():
            conn.exec_driver_sql(
                "INSERT OR REPLACE INTO subject_keys (id, channel_id, wrapped, created_at) VALUES (?, ?, ?, ?)",
                (subject_id, channel_id(kept), wrapped, NOON.isoformat()),
            )
    with pytest.raises(Damaged):
        mapping.reveal(kept, KEPT[2].surrogate)
    assert mapping.shred(kept, channel_id(kept), {"nobody"}) == 0, "whoever keeps nothing here costs no renewal"


def test_an_erasure_ends_where_the_master_key_is_another(kept: Workspace) -> None:
    """Catches one that no retry finishes after a restore, which brings no master key: the next value made another."""
    (kept.state_folder / mapping.FILE).unlink()
    ann = mapping.Kept("ann", "e-mail", "ann@shop.org", "sam@personal.example")
    bob = mapping.Kept("bob", "e-mail", "bob@shop.org", "max@personal.example")
    with kept.store.write() as conn:
        mapping.keep(kept, conn, channel_id(kept), [ann, bob])
    assert mapping.lost(kept) == (2, 4)
    assert mapping.shred(kept, channel_id(kept), {"ann"}) == 1
    assert len(json.loads((kept.state_folder / mapping.FILE).read_text())) == 1
    assert mapping.reveal(kept, bob.surrogate)[0].value == bob.value
    for one in (ann, *KEPT):
        with pytest.raises(NotFound):
            mapping.reveal(kept, one.surrogate)
    assert mapping.lost(kept) == (0, 1)


def test_who_comes_again_after_the_master_key_was_lost_is_kept_anew(kept: Workspace) -> None:
    """Catches values that are refused, or taken for kept, since the person's old key is still there."""
    (kept.state_folder / mapping.FILE).unlink()
    with kept.store.write() as conn:
        mapping.keep(kept, conn, channel_id(kept), KEPT[:2])
    assert [mapping.reveal(kept, one.surrogate)[0].value for one in KEPT[:2]] == [one.value for one in KEPT[:2]]
    with pytest.raises(Damaged):
        mapping.reveal(kept, KEPT[2].surrogate)


@pytest.mark.parametrize("step", ["rewrap", "_write"])
def test_a_renewal_that_is_killed_is_finished_by_the_next(
    kept: Workspace, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    calls = []
    write = mapping._write

    def killed_at_last(path: Path, lines: list[str]) -> None:
        calls.append(lines)
        (write if len(calls) == 1 else killed)(path, lines)

    with monkeypatch.context() as patch:
        patch.setattr(*((subjects, step, killed) if step == "rewrap" else (mapping, step, killed_at_last)))
        with pytest.raises(KilledError):
            mapping.shred(kept, channel_id(kept), {"jane"})
    assert len(json.loads((kept.state_folder / mapping.FILE).read_text())) == 2
    assert mapping.reveal(kept, KEPT[2].surrogate)[0].value == KEPT[2].value
    assert mapping.shred(kept, channel_id(kept), {"jane"}) == 0
    assert len(json.loads((kept.state_folder / mapping.FILE).read_text())) == 1
    assert mapping.reveal(kept, KEPT[2].surrogate)[0].value == KEPT[2].value


def test_an_erasure_shreds_and_a_restored_backup_opens_nothing(workspace: Workspace, tmp_path: Path) -> None:
    path = workspace.root / FILE_NAME
    path.write_text(path.read_text() + '[privacy]\npersonal = "replace"\nkeep_mapping = true\n')
    with open_workspace(workspace.root) as ws:
        channel, version = plant_channel(ws, "web"), plant_version(ws)
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"text": "good, ask jane@shop.org", "label": "positive"}\n')
        import_rows(ws, "web", rows)
        door = Door(ws)
        unit = door.name("web", "jane@shop.org")
        cleaned = door.clean("web", "call +49 171 2345678")
        with ws.store.write() as conn:
            mapping.keep(ws, conn, channel.id, mapping.kept_of(unit, [cleaned]))
        plant_answer(ws, channel, version, "positive", text=cleaned.text)
        with ws.store.write() as conn:
            conn.exec_driver_sql("UPDATE predictions SET unit = ?", (unit,))
        surrogate, phone = door.clean("web", "jane@shop.org").text, cleaned.pieces[0].instead
        assert [mapping.reveal(ws, one)[0].value for one in (surrogate, phone)] == ["jane@shop.org", "+49 171 2345678"]
        backup(ws, tmp_path / "backup")
        erasing.erase(ws, labeller="jane@shop.org", channel="web")
        assert mapping.reveal(ws, surrogate), "of a row that nobody asked to erase"
        with pytest.raises(NotFound):
            mapping.reveal(ws, phone)
    assert not list((tmp_path / "backup").rglob("personal.key"))
    restore(tmp_path / "backup", tmp_path / "again", erasures=workspace.state_folder / "erasures.jsonl")
    with open_workspace(tmp_path / "again") as again:
        assert Door(again).clean("web", "jane@shop.org").text == surrogate, "texts of before and after agree"
        with pytest.raises(NotFound):
            mapping.reveal(again, phone)
        with pytest.raises(Damaged):
            mapping.reveal(again, surrogate)


def test_a_backup_of_before_an_erasure_takes_the_place_of_what_was_erased_in(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Catches a restore that fails since the master key that stayed is a newer one than the backup's rows know."""
    path = workspace.root / FILE_NAME
    path.write_text(path.read_text() + '[privacy]\npersonal = "replace"\nkeep_mapping = true\n')
    rows = [{"text": f"good, ask {name}@shop.org", "label": "positive"} for name in ("jane", "joe", "ann")]
    with open_workspace(workspace.root) as ws:
        plant_channel(ws, "web")
        import_rows(ws, "web", write_jsonl(tmp_path / "rows.jsonl", rows))
        backup(ws, tmp_path / "backup")
        with ws.store.read() as conn:
            (example, *_) = conn.exec_driver_sql("SELECT id FROM examples").scalars()
        erased = erasing.erase(ws, example=example)
    assert restore(tmp_path / "backup", workspace.root, replace=True).erased_again == [erased.id]
    with open_workspace(workspace.root) as ws:
        assert mapping.lost(ws) == (0, 0), "the backup gives nobody's values back"
        with ws.store.read() as conn:
            assert conn.exec_driver_sql("SELECT count(*) FROM examples").scalar() == 2
