"""Opening a store that is not as it should be. Catches: a traceback for a sentence, a damaged file overwritten."""

import os
import sys
from pathlib import Path

import pytest

from headrace.errors import BadConfig, Damaged, HeadraceError, MissingExtra, Unusable
from headrace.store import open_store


def test_a_file_that_is_no_database_is_told_and_left_alone(sqlite_path: Path) -> None:
    sqlite_path.write_bytes(b"these are not the bytes of a database" * 100)
    with pytest.raises(Damaged, match="backup"):
        open_store(f"sqlite:///{sqlite_path}", lock_path=sqlite_path.with_suffix(".lock"))
    assert sqlite_path.read_bytes().startswith(b"these are not")


def test_a_database_cut_short_is_told(sqlite_path: Path) -> None:
    url, lock_path = f"sqlite:///{sqlite_path}", sqlite_path.with_suffix(".lock")
    open_store(url, lock_path=lock_path).close()
    whole = sqlite_path.read_bytes()
    sqlite_path.write_bytes(whole[:5000])
    with pytest.raises((Damaged, Unusable)):
        open_store(url, lock_path=lock_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match="file"):
        open_store(f"sqlite:///{tmp_path}/file/x.db", lock_path=tmp_path / "file" / "store.lock")


def test_a_path_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}", lock_path=tmp_path / "store.lock")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Unusable):
            open_store(f"sqlite:///{tmp_path}/x.db", lock_path=tmp_path / "store.lock")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("url", "kind"),
    [("not a url", BadConfig), ("oracel://x", BadConfig), ("postgresql+psycopg://localhost:1/x", None)],
)
def test_a_url_that_cannot_be_used_is_told(tmp_path: Path, url: str, kind: type[HeadraceError] | None) -> None:
    with pytest.raises(kind or (MissingExtra, Unusable)) as caught:
        open_store(url, lock_path=tmp_path / "store.lock")
    assert caught.value.next_step


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="psycopg"):
        open_store("postgresql+psycopg://localhost:1/x", lock_path=tmp_path / "store.lock")
    with pytest.raises(BadConfig, match="unknown database"):
        open_store("mysql+none://localhost:1/x", lock_path=tmp_path / "store.lock")
