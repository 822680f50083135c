"""Futures of a thread as futures of the loop. Catches: one that is never woken for, an error or a cancellation that is
lost on the way, a wake-up for each of a group."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from headrace.server.handover import Handover

TIMEOUT_S = 20


def test_a_group_is_handed_over_at_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[list[int], int]:
        loop, handover, n_wakes = asyncio.get_running_loop(), Handover(), 0
        wake = loop.call_soon_threadsafe

        def counted(*args: Any) -> Any:
            nonlocal n_wakes
            n_wakes += 1
            return wake(*args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        written: list[Future[int]] = [Future() for _ in range(100)]
        mine = [handover.awaited(one) for one in written]
        for n, one in enumerate(written):  # the loop does not run meanwhile
            one.set_result(n)
        return await asyncio.wait_for(asyncio.gather(*mine), TIMEOUT_S), n_wakes

    assert asyncio.run(main()) == (list(range(100)), 1)


def test_whatever_a_thread_finishes_while_the_loop_runs_arrives() -> None:
    async def main() -> list[int]:
        handover = Handover()
        written: list[Future[int]] = [Future() for _ in range(3000)]
        mine = [handover.awaited(one) for one in written]
        thread = threading.Thread(target=lambda: [one.set_result(n) for n, one in enumerate(written)])
        thread.start()
        try:
            return await asyncio.wait_for(asyncio.gather(*mine), TIMEOUT_S)
        finally:
            thread.join()

    assert asyncio.run(main()) == list(range(3000))


def test_errors_and_cancellations_go_both_ways() -> None:
    async def main() -> None:
        handover = Handover()
        failed, given_up, cancelled, running = (Future[int]() for _ in range(4))
        mine = [handover.awaited(one) for one in (failed, given_up, cancelled, running)]
        failed.set_exception(ValueError("no"))
        mine[1].cancel()
        cancelled.cancel()
        assert running.set_running_or_notify_cancel()
        mine[3].cancel()
        await asyncio.sleep(0)
        running.set_result(1)
        found = await asyncio.wait_for(asyncio.gather(*mine, return_exceptions=True), TIMEOUT_S)
        assert [type(one) for one in found] == [ValueError, *[asyncio.CancelledError] * 3]
        assert given_up.cancelled()
        assert running.result() == 1

    asyncio.run(main())
