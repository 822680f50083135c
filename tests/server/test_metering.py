"""Limits and usage of a server. Catches: more let in than a limit says, by more workers, by another address, after a
restart or beside another server; a bill that is not what clients were answered; counts lost while the store cannot be
written; an audit log that a stranger fills."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from headrace import auditing
from headrace.access import keys
from headrace.access.keyring import Keyring
from headrace.access.usage import usage
from headrace.config import ChannelTable
from headrace.errors import TooMany, Unauthorized, Unusable
from headrace.records import Channel
from headrace.release import releases
from headrace.serve.batcher import estimate_tokens
from headrace.serve.pool import Answer
from headrace.server.metering import Metering
from headrace.server.metrics import Metrics
from headrace.server.terms import CURRENT, LIMITS, Terms
from headrace.store import schema
from headrace.store.engine import Store
from headrace.store.usage import Used
from headrace.workspace import Workspace, open_workspace
from planted import plant_channel
from server.loading import eventually
from stub_model import Server, plant_stub, running

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@dataclass
class House:
    """A workspace with two channels, whose clocks stand until they are moved."""

    ws: Workspace
    web: Channel
    now: datetime = NOON
    at: float = 1000.0

    def metering(self, **access: Any) -> Metering:
        """As a server makes it, with its first look done and no thread."""
        settings = self.ws.settings.model_copy(update={"access": self.ws.settings.access.model_copy(update=access)})
        ws = replace(self.ws, settings=settings, clock=lambda: self.now)
        keyring = Keyring(ws)
        keyring.load()
        made = Metering(ws, keyring, Metrics(), monotonic=lambda: self.at)
        made.keep()
        return made

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.at += seconds

    def total(self) -> Used:
        return usage(self.ws).total


@pytest.fixture
def house(workspace: Workspace) -> House:
    CURRENT.set(Terms("req", time.monotonic() + 60))
    return House(workspace, plant_channel(workspace, "web"))


def answer(n_rows: int, n_failed: int = 0) -> Answer:
    rows: list[dict[str, Any]] = [{"output": {}}] * (n_rows - n_failed) + [{"error": {}}] * n_failed
    return Answer("sha256:0", rows, n_tokens=10 * (n_rows - n_failed), busy_s=0.5)


def n_let_in(ask: Callable[[], object], n: int = 50) -> int:
    waits = []
    for _ in range(n):
        try:
            ask()
        except TooMany as error:
            waits.append(error.retry_after_s)
    assert all(wait_s > 0 for wait_s in waits)
    return n - len(waits)


def test_a_key_has_a_rate_and_each_scope_a_budget_of_its_own(house: House) -> None:
    metering = house.metering(requests_per_s=2, burst_s=5)
    assert n_let_in(lambda: metering.admit("", "predict")) == 10
    assert n_let_in(lambda: metering.admit("", "feedback")) == 10
    house.pass_time(3)
    assert n_let_in(lambda: metering.admit("", "predict")) == 6
    assert CURRENT.get().state[LIMITS] == [
        (b"ratelimit-policy", b'"requests";q=10;w=5'),
        (b"ratelimit", b'"requests";r=0;t=5'),
    ]


def test_a_key_can_have_limits_of_its_own(house: House) -> None:
    made = keys.create(house.ws, "big", scopes=["predict"], requests_per_s=4, rows_per_day=7).record
    metering = house.metering(requests_per_s=1, burst_s=1, rows_per_day=3)
    assert n_let_in(lambda: metering.admit(made.id, "predict")) == 4
    assert n_let_in(lambda: metering.admit("another", "predict")) == 1
    assert n_let_in(lambda: metering.admit_rows(made.id, house.web, "tone", 1).settle(answer(1))) == 7
    assert n_let_in(lambda: metering.admit_rows("another", house.web, "tone", 1).settle(answer(1))) == 3


def test_a_channel_has_a_rate_and_a_quota_whoever_asks(house: House) -> None:
    table = ChannelTable(requests_per_s=3, rows_per_day=100)
    house.ws = replace(house.ws, settings=house.ws.settings.model_copy(update={"channels": {"web": table}}))
    metering = house.metering(burst_s=1)
    phone = plant_channel(house.ws, "phone")
    asking = iter(range(1000))
    assert n_let_in(lambda: metering.admit_rows(f"key{next(asking)}", house.web, "tone", 1).settle(answer(1))) == 3
    assert n_let_in(lambda: metering.admit_rows("key", phone, "tone", 1).settle(answer(1)), 9) == 9
    house.pass_time(10)
    with pytest.raises(TooMany, match="rows of the day"):
        metering.admit_rows("key", house.web, "tone", 98)
    metering.admit_rows("key", house.web, "tone", 97)


def test_rows_that_fail_are_neither_billed_nor_used_up(house: House) -> None:
    metering = house.metering(rows_per_day=10)
    metering.admit_rows("", house.web, "tone", 6).settle(answer(6, n_failed=2))
    metering.admit_rows("", house.web, "tone", 6).settle(None)
    metering.admit_rows("", house.web, "tone", 6).settle(answer(6, n_failed=6))
    assert n_let_in(lambda: metering.admit_rows("", house.web, "tone", 6)) == 1
    metering.keep()
    assert house.total() == Used(n_requests=1, n_refused=49, n_rows=4, n_tokens=40, seconds=0.5)


def test_the_rows_of_the_day_survive_a_restart_and_are_shared_with_another_server(house: House) -> None:
    first = house.metering(rows_per_day=10)
    first.admit_rows("", house.web, "tone", 4).settle(answer(4))
    first.keep()
    second = house.metering(rows_per_day=10)
    second.admit_rows("", house.web, "tone", 3).settle(answer(3))
    second.keep()
    third = house.metering(rows_per_day=10)
    assert n_let_in(lambda: third.admit_rows("", house.web, "tone", 4)) == 0
    third.admit_rows("", house.web, "tone", 3).settle(answer(3))
    third.keep()
    house.pass_time(31)
    first.keep()
    assert n_let_in(lambda: first.admit_rows("", house.web, "tone", 1)) == 0


def test_a_day_ends_at_midnight_and_a_clock_that_goes_back_forgets_nothing(house: House) -> None:
    metering = house.metering(rows_per_day=10)
    metering.admit_rows("", house.web, "tone", 10).settle(answer(10))
    with pytest.raises(TooMany) as refused:
        metering.admit_rows("", house.web, "tone", 1)
    assert refused.value.retry_after_s == 12 * 3600
    house.pass_time(12 * 3600)
    metering.admit_rows("", house.web, "tone", 9).settle(answer(9))
    metering.keep()
    house.now -= timedelta(hours=6)  # back to the first day
    metering.keep()
    assert n_let_in(lambda: metering.admit_rows("", house.web, "tone", 1)) == 0
    house.now += timedelta(days=400)
    metering.admit_rows("", house.web, "tone", 10).settle(answer(10))
    house.now -= timedelta(days=400) - timedelta(hours=6)  # the second day again
    metering.keep()
    assert n_let_in(lambda: metering.admit_rows("", house.web, "tone", 1)) == 1
    assert house.total().n_rows == 29


def test_counts_stay_until_the_store_takes_them(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    metering = house.metering()

    def full(*_: object, **__: object) -> None:
        raise Unusable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", full)
        for _ in range(3):
            metering.admit_rows("", house.web, "tone", 2).settle(answer(2))
            metering.note_refused("", Unauthorized("a request needs a key"))
            house.pass_time(61)
            metering.keep()
    assert house.total() == Used()
    house.pass_time(61)
    metering.keep()
    metering.keep()
    assert house.total() == Used(n_requests=3, n_rows=6, n_tokens=60, seconds=1.5)
    assert [line.facts["n"] for line in auditing.listing(house.ws, action="refused")] == [3]


def test_who_is_refused_during_a_write_that_fails_is_named_with_the_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    metering = house.metering()

    def refuse(place: int) -> None:
        metering.note_refused("", Unauthorized("no such key, or it was revoked", value=f"hr_live_{place:012}"))

    def full(*_: object, **__: object) -> None:
        refuse(2)
        raise Unusable("the disk is full")

    refuse(1)
    house.pass_time(61)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", full)
        metering.keep()
    house.pass_time(61)
    metering.keep()
    (line,) = auditing.listing(house.ws, action="refused")
    assert (line.facts["n"], len(line.facts["claimed"])) == (2, 2)


def test_counts_are_exact_while_another_thread_writes_them(house: House) -> None:
    metering, enough = house.metering(), threading.Event()

    def write() -> None:
        while not enough.is_set():
            metering.keep()

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2000):
        metering.admit_rows("", house.web, "tone", 3).settle(answer(3))
    enough.set()
    writer.join()
    metering.keep()
    assert house.total() == Used(n_requests=2000, n_rows=6000, n_tokens=60_000, seconds=1000)


def test_what_waits_to_be_written_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.server.metering._MAX_PLACES", 5)
    metering = house.metering()
    for name in range(10):
        metering.admit_rows(f"key{name}", house.web, "tone", 1).settle(answer(1))
        metering.admit_rows("key0", house.web, "tone", 1).settle(answer(1))
    metering.keep()
    assert house.total().n_rows == 15


def test_refused_requests_are_a_line_per_key_and_reason_a_minute(house: House) -> None:
    """And no more than a hundred, whatever strangers send."""
    metering = house.metering()
    for place in range(1000):
        metering.note_refused("", Unauthorized("no such key, or it was revoked", value=f"hr_live_{place:012}"))
        metering.note_refused("key", TooMany("the key asks too often", value="2 requests/s"))
    metering.keep()
    assert auditing.listing(house.ws) == []
    house.pass_time(60)
    metering.keep()
    stranger, key = auditing.listing(house.ws)
    assert (stranger.actor, stranger.action, stranger.facts["n"]) == ("nobody", "refused", 1000)
    assert len(stranger.facts["claimed"]) == 5
    assert (key.actor, key.object, key.facts) == ("key", "the key asks too often", {"code": "too_many", "n": 1000})
    for place in range(1000):
        metering.note_refused(f"key{place}", TooMany("the key asks too often"))
    house.pass_time(60)
    metering.keep()
    more = auditing.listing(house.ws, since=2)
    assert len(more) == 101
    assert sum(line.facts["n"] for line in more) == 1000


def test_who_leaves_writes_what_was_counted_and_refused(house: House) -> None:
    keyring = Keyring(house.ws)
    keyring.load()
    with Metering(house.ws, keyring, Metrics()) as metering:
        metering.admit_rows("", house.web, "tone", 2).settle(answer(2))
        metering.note_refused("", Unauthorized("a request needs a key"))
    assert house.total().n_rows == 2
    (line,) = auditing.listing(house.ws)
    assert (line.actor, line.object, line.facts) == (
        "nobody",
        "a request needs a key",
        {"code": "unauthorized", "n": 1},
    )


def test_metrics_hold_an_anchor_of_the_audit_log(house: House) -> None:
    with house.ws.store.write() as conn:
        line = auditing.note(house.ws, conn, "channel.add", "ch_1")
    metering = house.metering()
    assert f'headrace_audit_log_lines{{hash="{line.hash}"}} 1.0' in metering._metrics.text().decode()


# With a real server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    from server.conftest import new_workspace

    root = new_workspace(tmp_path_factory.mktemp("limited") / "ws")
    settings = {"access__requests_per_s": 5, "access__burst_s": 2, "serve__n_workers": 2}
    with running(root, plugin_env, serve__default_task="tone", serve__default_channel="web", **settings) as server:
        yield server


def body(*texts: str) -> dict[str, Any]:
    return {"task": "tone", "channel": "web", "inputs": [{"text": text} for text in texts]}


def test_two_workers_share_a_limit_and_no_header_gets_around_it(limited: Server) -> None:
    """By whatever address, and by whatever protocol."""

    def ask(number: int) -> httpx.Response:
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.0.{number}", "Forwarded": "for=10.0.0.9"}
        if number % 2:
            return httpx.post(f"{limited.url}/predict", json={"inputs": "well"}, headers=headers, timeout=20)
        return httpx.post(f"{limited.url}/v1/predict", json=body("well"), headers=headers, timeout=20)

    began_at = time.monotonic()
    with ThreadPoolExecutor(8) as several:
        replies = list(several.map(ask, range(60)))
    seconds = time.monotonic() - began_at
    n_answered = sum(reply.status_code == 200 for reply in replies)
    assert 10 <= n_answered <= 10 + 5 * seconds + 1
    refused = [reply for reply in replies if reply.status_code != 200]
    assert {reply.status_code for reply in refused} == {429}
    assert {reply.headers["Retry-After"] for reply in refused} == {"1"}
    assert {reply.headers["RateLimit-Policy"] for reply in replies} == {'"requests";q=10;w=2'}
    assert all(reply.headers["RateLimit"].startswith('"requests";r=0;t=') for reply in refused)
    assert limited.figure("refused_requests_total", code="too_many") == len(refused)
    fed = httpx.post(f"{limited.url}/v1/feedback", json={"prediction_id": "prd_1", "comment": "x"}, timeout=20)
    assert fed.status_code == 404  # of a budget of its own


def test_of_a_refused_request_no_personal_value_is_kept(tmp_path: Path, plugin_env: dict[str, str]) -> None:
    """Refused requests are cheap to send: what they name would fill the table of what surrogates stand for."""
    from server.conftest import new_workspace

    root = new_workspace(tmp_path / "ws")
    settings = {"access__rows_per_day": 5, "privacy__personal": "replace"}
    with running(root, plugin_env, privacy__keep_mapping=True, **settings) as server:
        asked = [body(f"well, says a{n}@mail.example.org") for n in range(20)]
        statuses = [httpx.post(f"{server.url}/v1/predict", json=one, timeout=20).status_code for one in asked]
    assert set(statuses) == {200, 429}
    with open_workspace(root) as ws, ws.store.read() as conn:  # the server has written what it had
        assert conn.execute(select(func.count()).select_from(schema.replaced)).scalar() == statuses.count(200)


class Customer(threading.Thread):
    """Asks on and on, and keeps account of what was answered."""

    def __init__(self, server: Server, channel: str) -> None:
        super().__init__()
        self._url, self._channel, self._enough = server.url, channel, threading.Event()
        self.got = Used()
        self.start()

    def run(self) -> None:
        texts = ("good", "a longer text than that", "stub:fail", "well")
        with httpx.Client(base_url=self._url, timeout=20) as client:
            number = 0
            while not self._enough.is_set():
                number += 1
                sent = [texts[(number + place) % 4] for place in range(number % 3 + 1)]
                asked = {"task": "tone", "channel": self._channel, "inputs": [{"text": text} for text in sent]}
                try:
                    reply = client.post("/v1/predict", json=asked)
                except httpx.TransportError:  # the server is gone
                    return
                if reply.status_code == 200:
                    rows = zip(sent, reply.json()["predictions"], strict=True)
                    answered = [text for text, row in rows if "error" not in row]
                    tokens = sum(estimate_tokens(text, 128) for text in answered)
                    self.got += Used(1, 0, len(answered), tokens)

    def stop(self) -> None:
        self._enough.set()
        self.join(20)


@pytest.mark.slow
def test_what_clients_were_answered_is_what_is_billed(root: Path, plugin_env: dict[str, str]) -> None:
    """Over a swap under load, a server that is stopped while clients ask, and one that is killed after it wrote."""
    customers, began_at = [], time.monotonic()
    with running(root, plugin_env, serve__n_workers=2) as server, open_workspace(root) as ws:
        customers += [Customer(server, "web"), Customer(server, "phone")]
        plant_stub(ws, answer="positive")
        time.sleep(0.3)
        releases.promote(ws, "2", task="tone")
        time.sleep(1.2)
        server.stop()
    with running(root, plugin_env) as server, open_workspace(root) as ws:
        customers.append(Customer(server, "web"))
        time.sleep(0.5)
        customers[-1].stop()

        def billed() -> tuple[int, int, int]:
            total = httpx.get(f"{server.url}/v1/usage", timeout=20).json()["total"]
            return total["n_requests"], total["n_rows"], total["n_tokens"]

        got = sum((customer.got for customer in customers), Used())
        eventually(lambda: billed() == (got.n_requests, got.n_rows, got.n_tokens))
        server.process.kill()
        found = usage(ws, by=["channel"])
        lines = {line.names["channel"]: line.used.n_rows for line in found.lines}
    for customer in customers:
        customer.stop()
    assert lines == {"phone": customers[1].got.n_rows, "web": customers[0].got.n_rows + customers[2].got.n_rows}
    assert got.n_rows > 100
    assert 0 < found.total.seconds < 2 * (time.monotonic() - began_at)  # two workers
