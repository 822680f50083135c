"""Receipts, tombstones, and the user's files. Catches: a receipt that verifies although it was changed; a key that
others can read; a tombstone that a kill or a foreign key hides; a row of a table that is lost, or kept by its quotes.
"""

import base64
import csv
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import LABELS
from headrace.errors import BadInput, Damaged, HeadraceError, NotFound
from headrace.ids import new_id
from headrace.lineage import receipts, tombstones, workspace_files
from headrace.lineage.searching import search_for
from headrace.lineage.tombstones import Tombstone
from headrace.secret_files import write_secret
from headrace.workspace import Workspace, init

CONTENT = {"id": "era_1", "kind": "labeller", "rows": {"labels": 3}, "versions": ["tone/1"], "channel": "wéb"}
ONCE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_a_receipt_is_as_it_was_signed(workspace: Workspace) -> None:
    path = receipts.write(workspace, receipts.signed(workspace, CONTENT))
    found = receipts.verify(workspace, path)
    assert {name: found[name] for name in CONTENT} == CONTENT
    assert path == workspace.state_folder / "receipts" / "era_1.json"


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@ONCE
def test_a_changed_byte_is_seen(workspace: Workspace, place: float, byte: int) -> None:
    path = receipts.write(workspace, receipts.signed(workspace, CONTENT))
    content, original = bytearray(path.read_bytes()), receipts.verify(workspace, path)
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        found = receipts.verify(workspace, path)
    except (BadInput, Damaged, NotFound):
        return
    assert found == original  # the byte was the same, or space between values


def test_a_receipt_of_another_workspace_or_none_at_all(workspace: Workspace, tmp_path: Path) -> None:
    with init(tmp_path / "other", task="tone", labels=LABELS) as other:
        path = receipts.write(other, receipts.signed(other, CONTENT))
    with pytest.raises(NotFound, match="none of this workspace"):
        receipts.verify(workspace, path)
    with pytest.raises(NotFound, match="no such receipt"):
        receipts.verify(workspace, tmp_path / "nothing.json")
    for text in ("", "[]", "{}", '{"signature": "?", "key": "a"}', '{"signature": 1}', "7"):
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(BadInput):
            receipts.verify(workspace, tmp_path / "odd.json")


def test_a_signature_moved_to_another_receipt_is_seen(workspace: Workspace, tmp_path: Path) -> None:
    one = receipts.signed(workspace, CONTENT)
    other = receipts.signed(workspace, {**CONTENT, "id": "era_2"})
    (tmp_path / "mixed.json").write_text(json.dumps({**one, "signature": other["signature"]}))
    with pytest.raises(Damaged):
        receipts.verify(workspace, tmp_path / "mixed.json")


def test_an_old_receipt_is_checked_with_the_key_of_then(workspace: Workspace) -> None:
    path = receipts.write(workspace, receipts.signed(workspace, CONTENT))
    (workspace.state_folder / "keys" / "receipts.pem").unlink()
    again = receipts.signed(workspace, {**CONTENT, "id": "era_2"})
    assert receipts.verify(workspace, path)["key"] != again["key"]
    assert receipts.verify(workspace, receipts.write(workspace, again))["id"] == "era_2"


def test_others_check_a_receipt_with_the_public_key_alone(workspace: Workspace) -> None:
    """By what docs/lineage.md says is signed, and no code of ours."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    receipt = receipts.signed(workspace, CONTENT)
    key: Any = load_pem_public_key((workspace.state_folder / "keys" / f"{receipt['key']}.pub").read_bytes())
    content = {name: value for name, value in receipt.items() if name != "signature"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    key.verify(base64.b64decode(receipt["signature"]), text)


def test_nobody_else_may_read_the_keys(workspace: Workspace) -> None:
    receipts.make_key(workspace)
    tombstones.key_of(workspace.state_folder)
    folder = workspace.state_folder / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir() if path.suffix != ".pub"} == {"receipts.pem", "erasures.key"}


def test_a_key_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    first = tombstones.key_of(tmp_path)
    write_secret(tmp_path / "keys" / "erasures.key", b"another")
    assert tombstones.key_of(tmp_path) == first
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["erasures.key"]


# --- Tombstones ---------------------------------------------------------------------------------------------------


def a_tombstone(number: int, state: str = "begun", *, kind: str = "example", key: str = "k") -> Tombstone:
    return Tombstone(f"era_{number}", kind, "ch_1", f"subject {number}", ("a", "b"), "2026-01-01", key, False, state)


@given(n=st.integers(1, 5), cut=st.integers(0, 400))
@ONCE
def test_a_line_that_was_cut_hides_no_other(workspace: Workspace, n: int, cut: int) -> None:
    path = workspace.state_folder / tombstones.FILE
    path.unlink(missing_ok=True)
    for number in range(n):
        tombstones.append(workspace, a_tombstone(number))
    whole = path.read_bytes()
    left = whole[: max(0, len(whole) - cut)]
    path.write_bytes(left)
    complete = left.count(b"\n") + (left[-1:] == b"}")
    assert [one.id for one in tombstones.read(path)] == [f"era_{number}" for number in range(complete)]
    tombstones.append(workspace, a_tombstone(9))
    tombstones.append(workspace, a_tombstone(0, "done"))
    found = {one.id: one.state for one in tombstones.read(path)}
    assert found == {f"era_{number}": "begun" for number in range(complete)} | {"era_9": "begun", "era_0": "done"}


@pytest.mark.parametrize("line", [b"[]", b'{"id": "era_1"}', b"what?", b'{"id": 1, "unknown": 2}'])
def test_a_line_that_is_no_tombstone_is_not_passed_over(workspace: Workspace, line: bytes) -> None:
    tombstones.append(workspace, a_tombstone(1))
    path = workspace.state_folder / tombstones.FILE
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(Damaged, match="as it was written"):
        tombstones.read(path)


def test_the_key_of_a_tombstone_must_be_there(tmp_path: Path) -> None:
    key = tombstones.key_of(tmp_path)
    mine = a_tombstone(1, key=tombstones.key_name(key))
    assert tombstones.key_for([mine], [tmp_path / "none", tmp_path]) == {mine.key: key}
    assert tombstones.key_for([a_tombstone(1, kind="channel")], []) == {}
    with pytest.raises(NotFound, match="key of these erasures"):
        tombstones.key_for([mine, a_tombstone(2)], [tmp_path])


@given(st.lists(st.text(max_size=6), min_size=1, max_size=3), st.lists(st.text(max_size=6), min_size=1, max_size=3))
def test_different_names_have_different_digests(one: list[str], other: list[str]) -> None:
    plain = [part.replace("\0", "") for part in one], [part.replace("\0", "") for part in other]
    same = tombstones.digest(b"k", *plain[0]) == tombstones.digest(b"k", *plain[1])
    assert same == (plain[0] == plain[1])
    assert tombstones.digest(b"k", *plain[0]) != tombstones.digest(b"l", *plain[0])


# --- The user's files ---------------------------------------------------------------------------------------------

CELLS = st.text(st.sampled_from('ab,"\n\r\t\u2028é '), max_size=8)
WANTED = 'a "quoted"\r\nand, broken line'


@given(st.lists(st.tuples(CELLS, st.booleans(), CELLS), max_size=8))
@ONCE
def test_rows_go_from_a_table_and_all_others_stay_byte_by_byte(
    tmp_path: Path, lines: list[tuple[str, bool, str]]
) -> None:
    path = tmp_path / "table.csv"

    def written(rows: list[tuple[str, bool, str]]) -> str:
        out = io.StringIO()
        csv.writer(out).writerows([("name", "text"), *((a, WANTED if hit else b) for a, hit, b in rows)])
        return out.getvalue()

    path.write_bytes(written(lines).encode())
    search = search_for([WANTED])
    if any(hit for _, hit, _ in lines):
        assert workspace_files._holds(path, search)
        workspace_files.clean(path, search)
    else:
        assert not workspace_files._holds(path, search)
    assert path.read_bytes() == written([line for line in lines if not line[1]]).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"rows": [{"deep": {"text": WANTED}}]}),
        ("b.txt", f"somebody wrote {WANTED} here"),
        ("c.html", "<p>a &quot;quoted&quot;\r\nand, broken line</p>"),
        ("d.log", f"failed on {WANTED!r}"),
        ("e.jsonl", 'not json: a \\"quoted\\"\\r\\nand, broken line'),
        ("f.bin", b"\x00\xff" + WANTED.encode() + b"\xfe"),
    ],
)
def test_it_is_found_however_a_file_writes_it(workspace: Workspace, name: str, content: Any) -> None:
    path = workspace.root / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8", newline="")
    search = search_for([WANTED])
    assert workspace_files.holding(workspace, search) == [path]
    workspace_files.clean(path, search)
    assert not path.exists()


def test_settings_and_what_is_hidden_are_not_touched(workspace: Workspace, tmp_path: Path) -> None:
    for name in (".git/config", ".venv/a.txt"):
        (workspace.root / name).parent.mkdir()
        (workspace.root / name).write_text(WANTED)
    outside = tmp_path / "outside.txt"
    outside.write_text(WANTED)
    (workspace.root / "link.txt").symlink_to(outside)
    (workspace.root / "headrace.toml").write_text(f"# {WANTED.splitlines()[0]}")
    assert workspace_files.holding(workspace, search_for([WANTED, WANTED.splitlines()[0]])) == []


def test_every_error_of_these_says_what_to_do(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(HeadraceError) as raised:
        receipts.verify(workspace, tmp_path / new_id("erasure"))
    assert raised.value.next_step
