"""What do limits and metering add to a request, with 10,000 keys; and what does the audit log take?

    a request   the rate of its key, the rate of its channel, both quotas of rows, the count for the bill
    a second    writing the counts of all keys to the store, behind the requests
    at start    the rows of the day out of the store

All in time of the processor, which other programs change least; beside it there is the disk, for which no request
waits.

Run: python -m bench.metering [--keys 10000]
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.reporting import Measured, write
from headrace import auditing
from headrace.access.keyring import Keyring
from headrace.config import AccessTable, ChannelTable
from headrace.data import channels
from headrace.records import ApiKey, Channel
from headrace.serve.pool import Answer
from headrace.server.metering import Metering
from headrace.server.metrics import Metrics
from headrace.server.terms import CURRENT, Terms
from headrace.store import keys as key_rows
from headrace.workspace import Workspace, init

SEED = 1
_N_REQUESTS, _N_ROUNDS = 20_000, 7
_N_CHANNELS = 20
_N_LINES = 20_000
_MOST_US, _MOST_FLUSH_S = 50, 0.5
NEVER = 10**9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    n_keys = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as folder, init(Path(folder) / "ws", task="tone", labels=("a", "b")) as ws:
        named = [channels.add(ws, f"channel-{n}") for n in range(_N_CHANNELS)]
        key_ids = plant_keys(ws, n_keys)
        plain_us, _, _ = measured(ws, key_ids, named)
        full_us, flush_s, start_s = measured(limited(ws), key_ids, named)
        append_us, verify_us = audit_log(ws)
    write(
        "metering",
        [
            Measured("a request without limits, counted", plain_us, "us"),
            Measured(
                "a request with all limits, counted",
                full_us,
                "us",
                f"target {_MOST_US} us",
                full_us / _MOST_US,
            ),
            Measured(f"writing the counts of {n_keys:,} keys, once a second", flush_s * 1000, "ms"),
            Measured(f"start with a day of {n_keys:,} keys", start_s * 1000, "ms"),
            Measured("a line of the audit log", append_us, "us"),
            Measured("checking a line of the audit log", verify_us, "us"),
        ],
        [SEED],
    )
    return 0 if full_us < _MOST_US and flush_s < _MOST_FLUSH_S else 1


def plant_keys(ws: Workspace, n_keys: int) -> list[str]:
    """Keys with limits of their own, in one transaction; their ids."""
    now = ws.clock()
    found = [
        ApiKey(f"hr_live_{n:012}", f"key {n}", ("predict",), None, float(NEVER), NEVER, now) for n in range(n_keys)
    ]
    with ws.store.write() as conn:
        for key in found:
            key_rows.add(conn, key, secret_hash="sha256:", config_hash=ws.config_hash)
    return [key.id for key in found]


def limited(ws: Workspace) -> Workspace:
    """With all limits on, so high that none is reached."""
    tables = {f"channel-{n}": ChannelTable(requests_per_s=NEVER, rows_per_day=NEVER) for n in range(_N_CHANNELS)}
    access = AccessTable(requests_per_s=NEVER, rows_per_day=NEVER)
    return replace(ws, settings=ws.settings.model_copy(update={"access": access, "channels": tables}))


def measured(ws: Workspace, key_ids: list[str], named: list[Channel]) -> tuple[float, float, float]:
    """Microseconds of a request, and seconds of writing all keys' counts and of starting with them."""
    keyring = Keyring(ws)
    keyring.load()
    if not ws.settings.access.requests_per_s:  # nor any of their own
        keyring._held = {}
    metering = Metering(ws, keyring, Metrics())
    rng = random.Random(SEED)
    asked = [(rng.choice(key_ids), rng.choice(named)) for _ in range(_N_REQUESTS)]
    answer = Answer("sha256:0", [{"output": {}}], n_tokens=12, busy_s=0.001)
    CURRENT.set(Terms("req", 0.0))

    def ask() -> None:
        for key_id, channel in asked:
            metering.admit(key_id, "predict")
            metering.admit_rows(key_id, channel, "tone", 1).settle(answer)

    seconds = [timed(ask) for _ in range(_N_ROUNDS)]
    metering.keep()
    for key_id in key_ids:
        metering.admit_rows(key_id, named[0], "tone", 1).settle(answer)
    flush_s = timed(metering.keep)
    start_s = timed(Metering(ws, keyring, Metrics()).keep)
    return statistics.median(seconds) / _N_REQUESTS * 1e6, flush_s, start_s


def audit_log(ws: Workspace) -> tuple[float, float]:
    """Microseconds to write a line and to check one, many in a transaction."""

    def write_all() -> None:
        with ws.store.write() as conn:
            for n in range(_N_LINES):
                auditing.note(ws, conn, "channel.add", f"ch_{n}", facts={"channel": "web"})

    append_s = timed(write_all)
    check_s = timed(lambda: auditing.verify(ws))
    return append_s / _N_LINES * 1e6, check_s / _N_LINES * 1e6


def timed(do: Callable[[], object]) -> float:
    """Seconds of the processor."""
    began_at = time.thread_time()
    do()
    return time.thread_time() - began_at


if __name__ == "__main__":
    sys.exit(main())
