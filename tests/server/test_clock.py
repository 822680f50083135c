"""A clock that jumps. Catches: a deadline, a back-off or a queue that hangs on the time of day, a duration below zero,
a ledger that is read in the order of its times."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.release import releases
from headrace.store import ledger, predictions
from headrace.workspace import Workspace, open_workspace
from server.loading import eventually, post, request
from stub_model import Server, plant_stub, running

HOUR_S, YEAR_S = 3600.0, 400 * 86_400.0
PRELUDE = """
import datetime, time
from pathlib import Path
import headrace.workspace
offset = Path({path!r})
now_ns = time.time_ns
def shifted_ns():
    said = offset.read_text()
    return int(1e18) * 17 // 10 if said == "frozen" else now_ns() + int(float(said) * 1e9)
time.time_ns, time.time = shifted_ns, lambda: shifted_ns() / 1e9
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(shifted_ns() / 1e9, tz)
headrace.workspace.datetime = Shifted
"""


class Clock:
    """The time of day as the server's process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jump("0")

    def jump(self, to: float | str) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(str(to))
        draft.replace(self.path)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock") / "offset")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str], clock: Clock) -> Iterator[Server]:
    from server.conftest import new_workspace

    root = new_workspace(tmp_path_factory.mktemp("jumps") / "ws")
    with open_workspace(root) as ws:
        plant_stub(ws, row_s=0.001)
    prelude = PRELUDE.format(path=str(clock.path))
    with running(root, plugin_env, prelude=prelude, serve__max_queue_rows=10) as started:
        yield started


@pytest.fixture
def ws(server: Server) -> Iterator[Workspace]:
    with open_workspace(server.root) as opened:
        yield opened


@pytest.mark.parametrize("to", [HOUR_S, -HOUR_S, YEAR_S, "frozen", 0.0])
def test_answers_deadlines_and_refusals_take_no_notice(
    server: Server, clock: Clock, ws: Workspace, to: float | str
) -> None:
    clock.jump(to)
    answered = post(server, request("positive"))
    assert answered.status == 200
    late = post(server, request("stub:slow"), {"X-Request-Timeout-Ms": "100"})
    assert late.status == 504
    assert late.seconds < 5
    eventually(lambda: server.figure("queue_rows") == 0)
    full = post(server, request(["x"] * 9))  # an idle server takes any
    assert full.status == 200
    row_id = answered.body["predictions"][0]["id"]

    def is_logged() -> bool:
        with ws.store.read() as conn:
            return predictions.find(conn, row_id) is not None

    eventually(is_logged)
    with ws.store.read() as conn:
        found = predictions.find(conn, row_id)
    assert found is not None
    assert 0 <= found.latency_ms < 20_000
    assert "Traceback" not in server.log.read_text()


def test_the_newest_line_of_the_ledger_counts_whatever_its_time(server: Server, clock: Clock, ws: Workspace) -> None:
    clock.jump(0.0)
    second = plant_stub(ws, answer="positive")
    releases.promote(ws, second, task="tone")
    eventually(lambda: post(server, request("?")).body["model_version"] == second.name)
    clock.jump(-YEAR_S)
    with ws.store.read() as conn:
        seqs = [line.seq for line in ledger.listing(conn, "tone")]
    assert seqs == sorted(seqs)
    assert post(server, request("?")).body["model_version"] == second.name
