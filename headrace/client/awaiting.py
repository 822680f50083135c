"""The client for asyncio: any number of calls under way at once."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from headrace.client.calls import OPTIONS, Ask, Calls, Came, Given, Reply, Result, Wait, in_parts, trusted
from headrace.errors import BadInput

_T = TypeVar("_T")


class AsyncClient:
    """`headrace.Client` for asyncio: the same calls, arguments, answers and errors, awaited."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout_s: float = 30,
        certificates: Path | str | None = None,
    ) -> None:
        """See `headrace.Client`."""
        self._calls = Calls(base_url, timeout_s, key)
        verify = trusted(certificates)
        try:
            self._http = httpx.AsyncClient(
                base_url=self._calls.url, headers=self._calls.headers, verify=verify, timeout=None, **OPTIONS
            )
        except httpx.InvalidURL as error:
            raise BadInput(f"not a URL: {error}", value=base_url, next_step="Use http://HOST:PORT") from None

    async def predict(
        self,
        task: str,
        channel: str,
        inputs: Sequence[Given],
        unit: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """See `headrace.Client.predict`."""
        return await self._done(self._calls.predict(task, channel, inputs, unit, timeout_s, request_id))

    async def feedback(
        self,
        prediction_id: str,
        *,
        correction: object = None,
        metric: str | None = None,
        value: float | None = None,
        comment: str | None = None,
        event: str | None = None,
        channel: str | None = None,
        labeller: str = "anonymous",
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """See `headrace.Client.feedback`."""
        said = {
            "correction": correction,
            "metric": metric,
            "value": value,
            "comment": comment,
            "event": event,
            "channel": channel,
        }
        return await self._done(self._calls.feedback(prediction_id, said, labeller, idempotency_key, timeout_s))

    async def feedback_batch(
        self, given: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> list[Result]:
        """See `headrace.Client.feedback_batch`."""
        return await self._done(self._calls.feedback_batch(given, timeout_s))

    async def feedback_stream(
        self, given: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> AsyncIterator[Result]:
        """See `headrace.Client.feedback_stream`."""
        for part in in_parts(given):
            for result in await self._done(self._calls.feedback_lines(part, timeout_s)):
                yield result

    async def next_reviews(
        self,
        task: str,
        *,
        labeller: str = "anonymous",
        channel: str | None = None,
        n: int = 1,
        timeout_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """See `headrace.Client.next_reviews`."""
        return await self._done(self._calls.next_reviews(task, labeller, channel, n, timeout_s))

    async def answer_review(
        self, review_id: str, answer: object, *, labeller: str = "anonymous", timeout_s: float | None = None
    ) -> dict[str, Any]:
        """See `headrace.Client.answer_review`."""
        return await self._done(
            self._calls.answer_review(review_id, {"answer": answer, "labeller": labeller}, timeout_s)
        )

    async def skip_review(
        self, review_id: str, *, labeller: str = "anonymous", timeout_s: float | None = None
    ) -> dict[str, Any]:
        """See `headrace.Client.skip_review`."""
        return await self._done(self._calls.answer_review(review_id, {"skip": True, "labeller": labeller}, timeout_s))

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """See `headrace.Client.ready`."""
        return await self._done(self._calls.ready(timeout_s))

    async def models(self, *, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """See `headrace.Client.models`."""
        return await self._done(self._calls.models(timeout_s))

    async def release_status(self, task: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """See `headrace.Client.release_status`."""
        return await self._done(self._calls.release_status(task, timeout_s))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _done(self, call: Generator[Ask | Wait, Came, _T]) -> _T:
        came: Came = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as stop:
                answer: _T = stop.value
                return answer
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                came = None
            else:
                came = await self._sent(step)

    async def _sent(self, ask: Ask) -> Came:
        try:
            async with asyncio.timeout(ask.timeout_s):
                response = await self._http.request(
                    ask.method, ask.path, content=ask.content, headers=dict(ask.headers)
                )
        except TimeoutError:
            return httpx.ReadTimeout("the answer came too slowly")
        except httpx.TransportError as error:
            return error
        return Reply(response.status_code, response.headers, response.content)
