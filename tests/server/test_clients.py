"""Both clients with a real server. Catches: a header that the server reads in another way than the clients write it, a
deadline that one side ignores, answers that are mixed up between calls at once."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import AsyncClient, Client
from headrace.errors import NotFound, TooLate
from stub_model import Server
from test_client import Awaited

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture(params=[Client, Awaited], ids=["Client", "AsyncClient"])
def either(request: pytest.FixtureRequest, served: Server) -> Iterator[Any]:
    with request.param(served.url, timeout_s=20) as connected:
        yield connected


def test_the_calls_are_answered(either: Any) -> None:
    assert either.ready() is True
    assert [served["model_version"] for served in either.models()] == ["tone/1"]
    (row,) = either.predict("tone", "web", ["positive"], "u", request_id="order-4711")["predictions"]
    assert row["label"] == "positive"
    key = f"key-{row['id']}"
    first = either.feedback(row["id"], correction="negative", idempotency_key=key)
    assert either.feedback(row["id"], correction="negative", idempotency_key=key) == first
    with pytest.raises(NotFound, match="phone"):
        either.predict("tone", "fone", ["positive"])


def test_the_time_that_a_call_has_is_the_time_that_it_takes(either: Any) -> None:
    started_at = time.monotonic()
    with pytest.raises(TooLate):
        either.predict("tone", "web", ["stub:slow"], timeout_s=0.2)
    assert time.monotonic() - started_at < 0.5
    assert either.predict("tone", "web", ["stub:slow positive"], timeout_s=9)["predictions"][0]["label"] == "positive"


def test_a_hundred_calls_at_once_get_their_own_answers(served: Server) -> None:
    async def ask() -> list[dict[str, Any]]:
        async with AsyncClient(served.url) as client:
            return await asyncio.gather(*(client.predict("tone", "web", [LABELS[n % 3]] * 3) for n in range(100)))

    for n, answer in enumerate(asyncio.run(ask())):
        assert {row["label"] for row in answer["predictions"]} == {LABELS[n % 3]}
