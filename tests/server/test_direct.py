"""The short way of requests for predictions. Catches: an answer or an error that hangs on which way a request took, a
body that is lost where it changes to the long one."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stub_model import Server

SOUND = {"task": "tone", "channel": "web", "inputs": [{"text": "all negative here"}, {"text": "stub:fail"}]}
OWN = {"date": "", "x-request-id": ""}
SHORT, LONG = "application/json", "application/json; charset=utf-8"


def asked(served: Server, body: dict[str, Any], content_type: str) -> httpx.Response:
    content = json.dumps(body).encode()
    return httpx.post(f"{served.url}/v1/predict", content=content, headers={"Content-Type": content_type})


def without_ids(answer: httpx.Response) -> Any:
    text = answer.text
    for row in answer.json()["predictions"]:
        text = text.replace(row["id"], "an id")  # an error names it, too
    return json.loads(text)


def test_both_ways_answer_alike(served: Server) -> None:
    short, long = (asked(served, SOUND, content_type) for content_type in (SHORT, LONG))
    assert short.status_code == long.status_code == 200
    assert without_ids(short) == without_ids(long)
    assert {**short.headers, **OWN} == {**long.headers, **OWN}


@pytest.mark.parametrize(
    "change", [{"channel": "wep"}, {"inputs": []}, {"inputs": [{"text": 5}]}, {"more": 1}, {"inputs": [{"text": "\0"}]}]
)
def test_both_ways_refuse_alike(served: Server, change: dict[str, Any]) -> None:
    short, long = (asked(served, {**SOUND, **change}, content_type) for content_type in (SHORT, LONG))
    assert (short.status_code, short.json()) == (long.status_code, long.json())
    assert short.status_code >= 400


@pytest.mark.parametrize("body", [SOUND, {**SOUND, "more": 1}], ids=["sound", "unsound"])
def test_a_body_may_come_in_parts(served: Server, body: dict[str, Any]) -> None:
    def parts() -> Iterator[bytes]:
        content = json.dumps(body).encode()
        yield from (content[i : i + 20] for i in range(0, len(content), 20))

    whole = asked(served, body, SHORT)
    parted = httpx.post(f"{served.url}/v1/predict", content=parts(), headers={"Content-Type": SHORT})
    assert parted.status_code == whole.status_code
    assert parted.json().get("error") == whole.json().get("error")


def test_requests_of_either_way_count_under_their_route(served: Server) -> None:
    def n_counted() -> float:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        mine = [line for line in lines if line.startswith('headrace_requests_total{route="/v1/predict",status="200"}')]
        return float(mine[0].rpartition(" ")[2]) if mine else 0.0

    before = n_counted()
    for content_type in (SHORT, LONG):
        assert asked(served, SOUND, content_type).status_code == 200
    assert n_counted() == before + 2
