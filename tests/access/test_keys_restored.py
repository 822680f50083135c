"""Keys and backups. Catches: a restore after which every client is locked out, or any that was revoked is let in."""

from pathlib import Path

import pytest

from headrace import backups
from headrace.access import keys
from headrace.access.keyring import Keyring
from headrace.errors import Unauthorized
from headrace.workspace import Workspace, open_workspace


def test_keys_count_after_a_restore_as_they_did(workspace: Workspace, tmp_path: Path) -> None:
    one, gone = (keys.create(workspace, "app", scopes=["predict"]) for _ in range(2))
    keys.revoke(workspace, gone.record.id)
    backups.backup(workspace, tmp_path / "copy")
    backups.restore(tmp_path / "copy", tmp_path / "again")
    with open_workspace(tmp_path / "again") as restored:
        ring = Keyring(restored)
        assert ring.caller(one.key).key_id == one.record.id
        with pytest.raises(Unauthorized):
            ring.caller(gone.key)
    assert (tmp_path / "again" / ".headrace" / keys.PEPPER).stat().st_mode & 0o077 == 0
