"""The doctor. Catches: a fault that it does not see, one that it sees where there is none, and advice that names a
command which is not there."""

import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer.testing

from certificates import make_certificate
from conftest import LABELS, write_jsonl
from headrace import backups, doctor, signing
from headrace.access import keys
from headrace.backups import sealed
from headrace.cli.main import app
from headrace.data import channels, importing
from headrace.doctor import environment, stored
from headrace.doctor.finding import Finding
from headrace.errors import NotFound
from headrace.personal import mapping
from headrace.release import controls
from headrace.secret_files import write_secret
from headrace.workspace import init, open_workspace
from stub_model import plant_stub

VERBS = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
GROUPS = {group.name for group in app.registered_groups}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with rows and a backup, closed, as the doctor finds it."""
    folder = tmp_path_factory.mktemp("doctor")
    with init(folder / "ws", task="tone", labels=LABELS) as made:
        channels.add(made, "web")
        importing.import_rows(made, "web", write_jsonl(folder / "rows.jsonl", [{"text": "so", "label": LABELS[0]}]))
        backups.backup(made, folder / "b")
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ws" / ".headrace" / "backup.json").write_text(json.dumps({"path": str(tmp_path / "b")}))
    return tmp_path / "ws"


def found(root: Path) -> list[Finding]:
    return [one for one in doctor.examine(root).findings if one.severity != "note"]


def run_sql(root: Path, *statements: str) -> None:
    conn = sqlite3.connect(root / ".headrace" / "headrace.db")
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()


def damage_page(root: Path) -> None:
    """In the middle of a table, where opening does not look."""
    path = root / ".headrace" / "headrace.db"
    run_sql(root, "PRAGMA wal_checkpoint(TRUNCATE)")
    conn = sqlite3.connect(path)
    (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'labels'").fetchone()
    conn.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x0d" + b"\xff" * 200)


def forget_a_line(root: Path) -> None:
    run_sql(root, "DROP TRIGGER audit_log_no_DELETE", "DELETE FROM audit_log WHERE seq = 1")


def add_version(root: Path) -> Path:
    with open_workspace(root) as ws:
        version = plant_stub(ws)
        return ws.artifacts.get(version.artifact)


def lose_artifact(root: Path) -> None:
    folder = add_version(root)
    folder.rename(root / "elsewhere")


def damage_artifact(root: Path) -> None:
    (add_version(root) / "stub.json").write_text("{}")


def make_key(root: Path, **facts: object) -> None:
    with open_workspace(root) as ws:
        keys.create(ws, "shop", scopes=["predict"], **facts)  # type: ignore[arg-type]


def serve_everybody(root: Path) -> None:
    (root / ".headrace" / "server.json").write_text(json.dumps({"pid": 1, "host": "0.0.0.0", "port": 1}))


def show_secret(root: Path) -> None:
    make_key(root)
    (root / ".headrace" / "pepper").chmod(0o644)


def add_settings(root: Path, *lines: str) -> None:
    with (root / "headrace.toml").open("a") as file:
        file.write("\n".join(("", *lines, "")))


def lose_pepper(root: Path) -> None:
    make_key(root)
    (root / ".headrace" / "pepper").unlink()


def forge_key(root: Path) -> None:
    make_key(root)
    run_sql(root, "UPDATE api_keys SET secret_hash = 'sha256:AAAA'")


def keep_mapping_without(root: Path, *names: str) -> None:
    run_sql(
        root,
        "INSERT INTO subject_keys (id, channel_id, wrapped, created_at) "
        "SELECT 's', id, 'x', '2026-03-01 12:00:00.000000' FROM channels",
    )
    for name in {"personal.key", "surrogates.key"} - {*names}:
        write_secret(root / ".headrace" / "keys" / name, b"x")


def show_private_key(root: Path) -> None:
    add_settings(root, "[access]", 'certificate = "tls.pem"', 'private_key = "tls-key.pem"')
    (root / "tls-key.pem").write_text("")
    (root / "tls-key.pem").chmod(0o644)


def serve_by_certificate(root: Path, days: float) -> None:
    make_certificate(root, days=days)
    add_settings(root, "[access]", 'certificate = "server.pem"', 'private_key = "server-key.pem"')


def cut_audit_log(root: Path) -> None:
    """And put back what keeps others from it."""
    kept = "SELECT sql FROM sqlite_master WHERE name = 'audit_log_no_DELETE'"
    with closing(sqlite3.connect(root / ".headrace" / "headrace.db")) as conn:
        (trigger,) = conn.execute(kept).fetchone()
    run_sql(
        root,
        "DROP TRIGGER audit_log_no_DELETE",
        "DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)",
        trigger,
    )


def require_signatures(root: Path) -> None:
    add_version(root)
    add_settings(root, "[sign]", 'policy = "require"')


def serve_unsigned(root: Path) -> None:
    require_signatures(root)
    with open_workspace(root) as ws:
        controls.ensure_control(ws, "tone", actor="serve")
        signing.make_key(ws)
        add_settings(root, f'private_key = ".headrace/{signing.PRIVATE_KEY}"')
    with open_workspace(root) as ws:
        plant_stub(ws, seed=2)  # a newer one, in charge of nothing
        signing.sign_again(ws, controls.find_version(ws, "tone", "2"))


def show_texts(root: Path) -> None:
    root.chmod(0o755)
    (root / ".headrace").chmod(0o755)


def write_tomorrow(root: Path) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d %H:%M:%S.000000")
    run_sql(root, f"UPDATE feedback SET at = '{later}'", f"""
        INSERT INTO ledger (seq, id, task, kind, reason, evidence, actor, at, config_hash, code_version, prev_hash,
        hash) VALUES (1, 'led_1', 'tone', 'hold', '', '{{}}', 'x', '{later}', '', '', '', '')""")  # fmt: skip


def leave_import(root: Path) -> None:
    run_sql(root, "UPDATE imports SET state = 'running'")


def lose_job(root: Path) -> None:
    run_sql(
        root,
        "INSERT INTO jobs (id, target, args, state, n_attempts, pid, progress, log_path, created_at, config_hash, "
        "code_version) VALUES ('job_1', 'a:b', '{}', 'running', 1, 999999, '{}', '', '2026-03-01 12:00:00.000000', '', "
        "'')",
    )


def begin_erasure(root: Path) -> None:
    facts = json.dumps({"state": "begun", "channel": "web", "versions": [], "rows": {}, "snapshots": []})
    run_sql(
        root,
        "INSERT INTO erasures (id, kind, subject, facts, retrain_by, at, receipt) VALUES ('era_1', 'channel', 'c', "
        f"'{facts}', '2026-04-01 12:00:00.000000', '2026-03-01 12:00:00.000000', '{{}}')",
    )


def keep_old_backup(root: Path) -> None:
    path = root.parent / "b" / backups.MANIFEST
    facts = sealed.read(path)
    sealed.write(path, {**facts, "made_at": "2026-03-01T12:00:00+00:00"})


PLANTED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # what is planted: how, severity, what is said of it
    "damaged database": (damage_page, "error", "damaged"),
    "no database": (lambda root: (root / ".headrace" / "headrace.db").write_bytes(b"x" * 5000), "error", "damaged"),
    "newer database": (
        lambda root: run_sql(root, "UPDATE alembic_version SET version_num = '9999'"), "error", "newer headrace",
    ),
    "older database": (
        lambda root: run_sql(root, "UPDATE alembic_version SET version_num = '0000'"), "warning", "older headrace",
    ),
    "broken audit log": (forget_a_line, "error", "audit log"),
    "missing artifact": (lose_artifact, "error", "tone/1 is missing"),
    "damaged artifact": (damage_artifact, "error", "tone/1 is damaged"),
    "key that soon expires": (
        lambda root: make_key(root, expires_at=datetime.now(UTC) + timedelta(days=2)), "warning", "soon expires",
    ),
    "server for all without a key": (serve_everybody, "error", "no key"),
    "secret that others may read": (show_secret, "error", "secret"),
    "pepper that is gone": (lose_pepper, "error", "without which no key counts"),
    "key that something else wrote": (forge_key, "error", "something else"),
    "mapping without its key": (lambda root: keep_mapping_without(root, "personal.key"), "error", "surrogates stand"),
    "mapping without surrogates": (
        lambda root: keep_mapping_without(root, "surrogates.key"), "error", "same surrogate",
    ),
    "certificate that is gone": (
        lambda root: add_settings(root, "[access]", 'certificate = "a"', 'private_key = "b"'), "error", "start",
    ),
    "certificate that has ended": (lambda root: serve_by_certificate(root, -1), "error", "certificate has ended"),
    "certificate that ends soon": (lambda root: serve_by_certificate(root, 13), "warning", "ends soon"),
    "private key that others may read": (show_private_key, "error", "secret"),
    "key to sign with that is gone": (
        lambda root: add_settings(root, "[sign]", 'private_key = "a.pem"'), "warning", "signs is gone",
    ),
    "unsigned version in charge": (serve_unsigned, "error", "not loaded: the version is not signed"),
    "unsigned version that would be in charge": (require_signatures, "error", "not loaded: the version is not signed"),
    "audit log that was cut": (cut_audit_log, "error", "line of the audit log"),
    "chain that can be changed": (
        lambda root: run_sql(root, "DROP TRIGGER ledger_no_UPDATE"), "error", "keeps the ledger",
    ),
    "texts for all": (show_texts, "error", "read every text"),
    "folder for all": (lambda root: (root / ".headrace").chmod(0o777), "error", "anybody"),
    "no folder": (lambda root: (root / ".headrace").rename(root / "gone"), "error", "state folder is missing"),
    "clock that went back": (write_tomorrow, "error", "future"),
    "unfinished import": (leave_import, "warning", "import was not finished"),
    "lost job": (lose_job, "warning", "process of a job"),
    "unfinished erasure": (begin_erasure, "error", "erasure was begun"),
    "no backup": (lambda root: (root / ".headrace" / "backup.json").unlink(), "warning", "no backup"),
    "lost backup": (lambda root: (root.parent / "b").rename(root.parent / "c"), "warning", "not there any more"),
    "old backup": (keep_old_backup, "warning", "backup is old"),
    "settings that say nothing": (
        lambda root: (root / "headrace.toml").write_text("[nonsense]\nx = 1\n"), "error", "nonsense|unknown",
    ),
    "unknown time zone": (lambda root: os.environ.update(TZ="Mars/Olympus"), "warning", "time zone"),
}  # fmt: skip


def test_nothing_is_found_where_nothing_is_wrong(root: Path) -> None:
    assert found(root) == []
    assert doctor.examine(root).left_out == []


@pytest.mark.parametrize("planted", sorted(PLANTED))
def test_a_planted_fault_is_found_and_its_advice_can_be_followed(
    root: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    plant, severity, said = PLANTED[planted]
    plant(root)
    some = [one for one in found(root) if one.severity == severity and re.search(said, one.problem)]
    assert some, found(root)
    for verb, word in re.findall(r"headrace ([a-z]+)(?: ([a-z]+))?", some[0].advice):
        assert verb in VERBS | GROUPS, some[0].advice
        if verb in GROUPS and word:
            group = next(group for group in app.registered_groups if group.name == verb)
            assert group.typer_instance is not None
            names = {one.name or one.callback.__name__ for one in group.typer_instance.registered_commands}  # type: ignore[union-attr]
            assert word in names, some[0].advice


def test_a_key_of_the_database_that_others_may_read(root: Path) -> None:
    key_file = root.parent / "at-rest.key"
    key_file.write_text("x")
    key_file.chmod(0o644)
    with open_workspace(root) as ws:
        store = ws.settings.store.model_copy(update={"key_file": str(key_file)})
        set_so = replace(ws, settings=ws.settings.model_copy(update={"store": store}))
        assert [one.value for one in stored.secrets(set_so)] == [f"{key_file}, 644"]
        key_file.chmod(0o640)  # a group that was chosen
        assert list(stored.secrets(set_so)) == []


def test_a_master_key_that_fits_only_some_people(root: Path) -> None:
    """Catches a lost key that is not told of any more, since what came in later made another."""
    with open_workspace(root) as ws, ws.store.write() as conn:
        (channel_id,) = conn.exec_driver_sql("SELECT id FROM channels").scalars()
        mapping.keep(ws, conn, channel_id, [mapping.Kept("jane", "e-mail", "jane@shop.org", "kim@personal.example")])
    assert found(root) == []
    with open_workspace(root) as ws, ws.store.write() as conn:
        (ws.state_folder / mapping.FILE).unlink()
        mapping.keep(ws, conn, channel_id, [mapping.Kept("joe", "e-mail", "joe@shop.org", "lee@personal.example")])
    (lost,) = found(root)
    assert lost.problem.endswith("what surrogates stand for")
    assert str(lost.value).endswith("of 1 of 2 people")


@pytest.mark.parametrize(
    ("made_with", "set_to", "said"),
    [
        ("", "a.key", "is not encrypted.*headrace init"),
        ("a.key", "b.key", r"cannot be read with this key.*b\.key.*headrace restore"),
        ("a.key", "gone.key", r"cannot be read.*gone\.key.*Put the key back"),
        ("a.key", "", r"damaged.*store\.key_file"),
    ],
)
def test_a_key_that_is_not_the_databases_is_a_finding(tmp_path: Path, made_with: str, set_to: str, said: str) -> None:
    """Catches: a doctor that ends with it, or that calls a sound database damaged and has it replaced."""
    pytest.importorskip("sqlcipher3", reason="needs headrace[encrypted]")
    for name in ("a.key", "b.key"):
        (tmp_path / name).write_text(secrets.token_hex(48))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_STORE__KEY_FILE", made_with and str(tmp_path / made_with))
        init(tmp_path / "ws", task="tone", labels=LABELS).close()
    add_settings(tmp_path / "ws", "[store]", f'key_file = "{set_to and tmp_path / set_to}"')
    (one,) = [one for one in found(tmp_path / "ws") if one.part == "database"]
    assert one.severity == "error"
    assert re.search(said, f"{one.problem}: {one.value}. {one.advice}")


def test_the_doctor_leaves_rights_as_they_are(root: Path) -> None:
    show_texts(root)
    assert found(root) == found(root) != []
    with open_workspace(root):
        pass
    assert found(root) == []


def test_little_room_and_old_or_missing_libraries_are_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_LITTLE_BYTES", 1 << 60)
    wanted = ["typer>=999", "headrace-needs-this>=1", 'torch>=999; extra == "train"', 'peculiar>=1; extra == "x"']
    monkeypatch.setattr(environment.metadata, "requires", lambda _: wanted)
    said = [(one.severity, one.problem) for one in found(root)]
    assert ("warning", "the disk is nearly full") in said
    assert sum("older than" in problem for _, problem in said) == 2
    assert ("error", "a library is missing") in said
    monkeypatch.setattr(environment, "_TOO_LITTLE_BYTES", 1 << 60)
    assert ("error", "the disk is full") in [(one.severity, one.problem) for one in found(root)]


def test_the_command_says_so_and_its_status_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = typer.testing.CliRunner()
    well = runner.invoke(app, ["doctor", "--workspace", str(root), "--json"])
    assert (well.exit_code, json.loads(well.output)["is_well"]) == (0, True)
    (root / ".headrace").chmod(0o777)
    ill = runner.invoke(app, ["doctor", "--workspace", str(root)])
    assert ill.exit_code == 1
    assert "chmod o-w" in ill.output
    with pytest.raises(NotFound):
        doctor.examine(root.parent)
