"""Clients that vanish without a word. Catches: connections that stay open for ever once nobody is at their other end,
and limits of the kernel that were never set."""

import json
import socket

import pytest

from bench.drills import half_open
from headrace.server import running

WAITS_S = 60


@pytest.mark.slow
def test_connections_of_the_vanished_are_closed() -> None:
    reason = half_open.why_not()
    if reason is not None:
        pytest.skip(reason)
    brief = {"serve__header_timeout_s": 4, "serve__body_timeout_s": 4}
    figures = half_open.half_open(3, sockets=False, **brief)
    assert [figure for figure in figures if not figure.is_met] == []
    closed_s = next(figure.value for figure in figures if figure.what == "closed by the server after")
    assert closed_s < 30  # 5 s is how long an idle connection is kept


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has these limits")
def test_the_kernel_notices_within_a_minute_that_nobody_is_there() -> None:
    with running._listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        link, _ = listener.accept()
        with link:
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, every, n_times, unanswered_ms, unread = (
                link.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_NOTSENT_LOWAT")
            )
    assert idle + every * n_times <= WAITS_S
    assert unanswered_ms <= WAITS_S * 1000
    assert unread <= 2**18


def test_figures_that_could_not_be_seen_are_not_met() -> None:
    seen = half_open.Figure("x", float("nan"), "s", at_most=60)
    assert not seen.is_met
    assert json.dumps(seen.asked) == '"at most 60 s"'
