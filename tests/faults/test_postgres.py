"""A workspace on PostgreSQL, and one whose PostgreSQL dies. Catches: SQL that only SQLite takes; two that write at once
on what neither saw; predictions that wait for a database; feedback that is acknowledged and gone, or there twice.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import postgres
from conftest import LABELS
from furnished import NAME, OTHERS, furnish
from headrace import auditing, backups, doctor
from headrace.errors import AlreadyExists, Unavailable, WrongState
from headrace.feedback import intake
from headrace.lineage import erasing, tracing
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import migrations
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_channel, plant_version
from postgres import Cluster
from stub_model import install_plugin, plant_stub, running

WAIT_S = 20
psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install 'headrace[postgres]'")


def on_postgres(root: Path, url: str) -> Path:
    toml = root / "headrace.toml"
    toml.write_text(toml.read_text() + f'\n[store]\nurl = "{url}"\n')
    return root


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    init(tmp_path / "ws", task="tone", labels=LABELS).close()
    with open_workspace(on_postgres(tmp_path / "ws", postgres.shared().fresh_url())) as opened:
        yield opened


def test_a_workspace_lives_on_it(ws: Workspace, tmp_path: Path) -> None:
    """Imports, feedback, labels, a snapshot, releases, both chains, an erasure; and what says that it is well."""
    made = furnish(ws, tmp_path)
    controls.ensure_control(ws, "tone")
    plant_version(ws)
    releases.promote(ws, "tone/2", task="tone")
    rollbacks.rollback(ws, task="tone")
    assert controls.serving(ws, "tone").control.name == "tone/1"
    assert tracing.trace(ws, made.example).snapshots
    erasing.erase(ws, labeller=NAME, channel="web")
    dump = subprocess.run(
        [*_program("pg_dump"), "--dbname", ws.settings.store.url.replace("+psycopg", "")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert OTHERS in dump
    assert NAME not in dump
    assert (ledger.verify(ws)["first_broken"], auditing.verify(ws)["first_broken"]) == (None, None)
    for table in ("ledger", "audit_log"):
        with pytest.raises(Exception, match="append-only"), ws.store.write() as conn:
            conn.exec_driver_sql(f"UPDATE {table} SET actor = 'nobody'")
    with pytest.raises(WrongState, match="pg_dump"):
        backups.backup(ws, tmp_path / "b")
    with pytest.raises(WrongState, match="means of its own"):
        backups.follow(ws, tmp_path / "f")
    missing = [one for one in doctor.examine(ws.root).findings if one.severity == "error"]
    assert {one.part for one in missing} == {"artifacts"}  # the planted versions have none


def _program(name: str) -> list[str]:
    return [str(postgres.shared().programs / name)]


def test_the_same_feedback_at_once_is_taken_once(ws: Workspace, tmp_path: Path) -> None:
    made = furnish(ws, tmp_path)
    ids: list[str] = []
    refused: list[Exception] = []

    def give(comment: str) -> None:
        try:
            ids.append(intake.give(ws, made.prediction, comment=comment, idempotency_key="once").id)
        except AlreadyExists as error:
            refused.append(error)

    threads = [threading.Thread(target=give, args=(f"said {n % 2}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert (len(set(ids)), len(ids) + len(refused)) == (1, 8)
    assert len(refused) == 4


@pytest.mark.slow
def test_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    """One of them makes the tables, the others wait."""
    init(tmp_path / "ws", task="tone", labels=LABELS).close()
    root = on_postgres(tmp_path / "ws", postgres.shared().fresh_url())
    code = "import sys; from headrace.workspace import open_workspace as o; o(sys.argv[1]).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(root)]) for _ in range(2)]
    assert [process.wait(WAIT_S) for process in processes] == [0, 0]
    with open_workspace(root) as ws, ws.store.read() as conn:
        assert conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == [migrations.NEWEST]


def test_who_waits_too_long_for_its_turn_is_told(ws: Workspace) -> None:
    with open_workspace(ws.root, overrides={"store.busy_timeout_s": 0.2}) as hasty:
        with ws.store.write(), pytest.raises(Unavailable, match="too long"), hasty.store.write():
            pass
        with hasty.store.write() as conn:
            conn.exec_driver_sql("SELECT 1")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = postgres.new_cluster(is_durable=True)
    yield made
    made.remove()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "sessions ended"])
def test_predictions_go_on_without_the_database(cluster: Cluster, tmp_path: Path, how: str) -> None:
    (tmp_path / "site").mkdir()
    url = cluster.fresh_url()
    init(tmp_path / "ws", task="tone", labels=LABELS).close()
    root = on_postgres(tmp_path / "ws", url)
    with open_workspace(root) as ws:
        plant_channel(ws, "web")
        plant_stub(ws)
    env = install_plugin(tmp_path / "site")
    with running(root, env) as server, httpx.Client(base_url=server.url, timeout=10) as asked:
        acknowledged: dict[str, str] = {}
        unsure: dict[str, str] = {}

        def predict() -> str:
            body = {"task": "tone", "channel": "web", "inputs": [{"text": "positive"}]}
            answer = asked.post("/v1/predict", json=body)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["predictions"][0]["id"])

        def give(key: str) -> int:
            said = {"prediction_id": unsure.get(key, prediction), "comment": key}
            answer = asked.post("/v1/feedback", json=said, headers={"Idempotency-Key": key})
            if answer.status_code == 200:
                assert acknowledged.setdefault(key, answer.json()["id"]) == answer.json()["id"]
            else:
                unsure[key] = prediction
            return answer.status_code

        prediction = predict()
        assert give("before") == 200
        if how == "killed":
            cluster.kill()
            statuses = {give(f"without-{n}") for n in range(5) if predict()}
            assert statuses == {503}
            cluster.start()
        else:
            ending = threading.Thread(target=_end_sessions, args=(cluster, url))
            ending.start()
            statuses = {give(f"ended-{n}") for n in range(30) if predict()}
            ending.join(WAIT_S)
            assert statuses <= {200, 503}
        back_at = time.monotonic()
        while give("after") != 200:
            assert time.monotonic() - back_at < 5
            time.sleep(0.05)
        for key in list(unsure):  # sent again under the same key, as a client does
            assert give(key) == 200
        predict()
    with psycopg.connect(url.replace("+psycopg", "")) as conn:
        rows = conn.execute("SELECT id, idempotency_key FROM feedback WHERE idempotency_key IS NOT NULL").fetchall()
    assert {key: row_id for row_id, key in rows} == acknowledged
    assert len(rows) == len(acknowledged)


def _end_sessions(cluster: Cluster, url: str) -> None:
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as conn:
        for _ in range(20):
            conn.execute(f"SELECT pg_terminate_backend(pid) {others}")
            time.sleep(0.05)
