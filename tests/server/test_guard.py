"""Who may ask for what, over every route, method, key and scope. Catches: a route that is open by oversight, a method
that slips through, a scope that allows more than it says, an answer that tells somebody without a key what exists."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from headrace.access import keys
from headrace.access.scopes import ANY, OPEN, ROUTES, SCOPES, WHOLE
from headrace.errors import Unavailable
from headrace.server.app import create_app
from headrace.server.guard import key_of
from headrace.server.plane import ControlPlane
from headrace.workspace import open_workspace
from server.conftest import new_workspace

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
NOWHERE = ("/", "/v1", "/v1/predict/", "//v1/predict", "/v1/predict\n", "/docs/oauth2-redirect", "/redoc", "/admin",
           "/v2/models/tone/versions/1/infer/more", "/label-studio/web/x/predict", "/static/../metrics")  # fmt: skip
VALUES = {"task": "tone", "version": "1", "review_id": "rev_0", "row_id": "ex_0", "channel": "web"}
PATHS = sorted({path for _, path in ROUTES})
KNOWN = sorted({path.format(**VALUES) for path in PATHS})
OPEN_PATHS = {path for (_, path), scope in ROUTES.items() if scope == OPEN}


class House:
    """An application whose parts do not run, and keys of every kind to it."""

    def __init__(self, root: Path) -> None:
        self.ws = ws = open_workspace(new_workspace(root))
        self.of_scope = {scope: keys.create(ws, scope, scopes=[scope]).key for scope in SCOPES}
        every = list(SCOPES)
        self.bound = keys.create(ws, "bound", scopes=every, channels=["phone"]).key
        old = keys.create(ws, "old", scopes=every, expires_at=ws.clock() + timedelta(seconds=0.05)).key
        gone = keys.create(ws, "gone", scopes=every)
        keys.revoke(ws, gone.record.id)
        whole = keys.create(ws, "whole", scopes=every).key
        self.whole = whole
        self.bad: dict[str, dict[str, str]] = {
            "none": {},
            "junk": bearer("letmein"),
            "wrong check digits": bearer(whole[:-1] + ("0" if whole[-1] != "0" else "1")),
            "expired": bearer(old),
            "revoked": bearer(gone.key),
            "of nobody": bearer("hr_live_000000000000_" + "0" * 43 + "_42336234"),
            "another way": {"Authorization": f"Digest {whole}"},
            "two": bearer(whole) | {"X-API-Key": whole},
        }
        self.app: FastAPI = create_app(ControlPlane(ws))
        time.sleep(0.06)  # until `old` has expired


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("guard") / "ws")
    yield made
    made.ws.close()


def ask(house: House, asked: list[tuple[str, str, Mapping[str, str]]], body: bytes = b"") -> list[httpx.Response]:
    """Answers to (method, path with its query, headers), in order; paths as they are, which no client would send."""

    async def one(method: str, target: str, headers: Mapping[str, str]) -> httpx.Response:
        path, _, query = target.partition("?")
        sent = {"host": "localhost", "content-type": "application/json", **{k.lower(): v for k, v in headers.items()}}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 1),
        }
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await house.app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in said[1:])
        return httpx.Response(said[0]["status"], headers=said[0]["headers"], content=content)

    async def all_of_them() -> list[httpx.Response]:
        return [await one(*each) for each in asked]

    return asyncio.run(all_of_them())


def served_routes(routes: list[Any]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for route in routes:
        if hasattr(route, "original_router"):
            found |= served_routes(route.original_router.routes)
        else:
            found |= {(method, route.path) for method in route.methods}
    return found


def test_every_route_is_in_the_table_and_nothing_else(house: House) -> None:
    assert served_routes(house.app.routes) == set(ROUTES)
    assert {path for _, path in ROUTES} >= WHOLE
    assert set(ROUTES.values()) <= {*SCOPES, OPEN, ANY}
    assert {"/v2/health/live", "/v2/health/ready", "/health"} == OPEN_PATHS


def test_without_a_key_that_counts_nothing_is_answered_and_nothing_told(house: House) -> None:
    asked = [
        (method, path, headers)
        for method, path, headers in product(METHODS, [*KNOWN, *NOWHERE], house.bad.values())
        if path not in OPEN_PATHS
    ]
    answers = ask(house, asked)
    assert len(asked) > 2500
    wrong = [one[:2] for one, answer in zip(asked, answers, strict=True) if answer.status_code != 401]
    assert wrong == []
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    told = {}
    for (method, path, headers), answer in zip(asked, answers, strict=True):
        form = (
            "tensors" if re.match(r"/v2($|/(?!health/))", path) else "tei" if path in ("/predict", "/info") else "own"
        )
        told.setdefault((str(headers), form, method == "HEAD"), set()).add(answer.content)
    assert {len(bodies) for bodies in told.values()} == {1}  # what exists and what does not: the same words


def test_the_health_routes_are_answered_to_all(house: House) -> None:
    asked = [("GET", path, headers) for path, headers in product(sorted(OPEN_PATHS), house.bad.values())]
    assert {answer.status_code for answer in ask(house, asked)} == {200, 503}  # live; and not ready, since it is not
    others = [(m, p, h) for m, p, h in product(METHODS, sorted(OPEN_PATHS), house.bad.values()) if m != "GET"]
    assert {answer.status_code for answer in ask(house, others)} == {405}


def test_each_scope_opens_its_routes_and_no_other(house: House) -> None:
    asked, expected = [], []
    for scope, method, path in product(SCOPES, METHODS, PATHS):
        asked.append((method, path.format(**VALUES), bearer(house.of_scope[scope])))
        need = ROUTES.get((method, path))
        expected.append("none" if need is None else "open" if need in (scope, ANY, OPEN) else "closed")
    found = []
    for answer in ask(house, asked):
        is_none = answer.status_code == 405 or (answer.status_code == 404 and b"no such address" in answer.content)
        found.append("closed" if answer.status_code in (401, 403) else "none" if is_none else "open")
    wrong = [(one[:2], a, b) for one, a, b in zip(asked, found, expected, strict=True) if a != b]
    assert wrong == []
    assert expected.count("open") > 60


def test_what_tells_of_all_channels_is_closed_to_a_key_for_some(house: House) -> None:
    asked = [(method, path.format(**VALUES), bearer(house.bound)) for method, path in sorted(ROUTES)]
    closed = {path for (_, path), answer in zip(sorted(ROUTES), ask(house, asked), strict=True)
              if answer.status_code == 403}  # fmt: skip
    assert closed == WHOLE


def test_a_way_round_the_method_is_none(house: House) -> None:
    tricks = ({"X-HTTP-Method-Override": "GET"}, {"X-Method-Override": "POST"}, {"X-HTTP-Method": "GET"},
              {"X-Original-URL": "/v2/health/live"}, {"X-Rewrite-URL": "/v2/health/live"})  # fmt: skip
    asked = [(method, "/v1/predict", trick) for method, trick in product(METHODS, tricks)]
    assert {answer.status_code for answer in ask(house, asked)} == {401}
    keyed = [(m, p, trick | bearer(house.of_scope["feedback"])) for m, p, trick in asked]
    assert {answer.status_code for answer in ask(house, keyed)} == {403, 405}


def test_a_test_key_meets_the_version_in_charge(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(*_: object, in_charge_only: bool) -> None:
        drawn.append(in_charge_only)
        raise Unavailable("drawn")

    monkeypatch.setattr(house.app.state.plane.lineup, "draw", draw)
    test = keys.create(house.ws, "test", scopes=["predict"], is_test=True).key
    house.app.state.plane.keyring.load()
    body = json.dumps(BODIES["/v1/predict"]).encode()
    for key in (test, house.whole):
        ask(house, [("POST", "/v1/predict", bearer(key))], body)
    assert drawn == [True, False]


def test_an_unknown_method_says_which_are_known(house: House) -> None:
    (answer,) = ask(house, [("DELETE", "/v1/models", bearer(house.whole))])
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    asked = [(method, path, bearer(house.whole)) for method, path in product(METHODS, NOWHERE)]
    assert {answer.status_code for answer in ask(house, asked)} == {404}


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "[::1", "", "evil.test:80"]
)
def test_a_name_that_is_not_the_servers_is_refused(house: House, host: str) -> None:
    asked = [(method, path, bearer(house.whole) | {"Host": host}) for method, path in
             (("GET", "/v2/health/live"), ("POST", "/v1/predict"), ("GET", "/nothing"))]  # fmt: skip
    assert {answer.status_code for answer in ask(house, asked)} == {400}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "[::1]"])
def test_names_of_this_machine_are_the_servers(house: House, host: str) -> None:
    (answer,) = ask(house, [("GET", "/v2/health/live", {"Host": host})])
    assert answer.status_code == 200


def test_pages_of_other_sites_change_nothing(house: House) -> None:
    """The matrix of S2: a foreign Origin, on every route that can change something, with a key that allows it."""
    changing = sorted({(method, path) for method, path in ROUTES if method not in ("GET", "HEAD")})
    for origin in ("https://evil.test", "null", "http://localhost.evil.test", "http://"):
        asked = [(m, path.format(**VALUES), bearer(house.whole) | {"Origin": origin}) for m, path in changing]
        assert {answer.status_code for answer in ask(house, asked)} == {403}
    own = [
        (m, path.format(**VALUES), bearer(house.whole) | {"Origin": "http://localhost:8000"}) for m, path in changing
    ]
    assert 403 not in {answer.status_code for answer in ask(house, own)}


def test_a_key_in_a_url_is_refused(house: House) -> None:
    for url in (f"/v1/models?key={house.whole}", f"/v1/lineage/{house.whole}"):
        (answer,) = ask(house, [("GET", url, bearer(house.whole))])
        assert answer.status_code == 422
        assert "Revoke it" in answer.text
        assert house.whole not in answer.text


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"authorization", b"Bearer k")], "k"),
        ([(b"authorization", b"bearer  k ")], "k"),
        ([(b"x-api-key", b"k")], "k"),
        ([(b"authorization", basic("label-studio:k"))], "k"),
        ([(b"authorization", basic("k"))], ""),
        ([(b"authorization", b"Basic ?")], ""),
        ([(b"authorization", b"k")], ""),
        ([(b"authorization", b"Bearer k"), (b"authorization", b"Bearer k")], ""),
        ([(b"authorization", b"Bearer k"), (b"x-api-key", b"k")], ""),
    ],
)
def test_where_a_key_may_stand(headers: list[tuple[bytes, bytes]], found: str | None) -> None:
    assert key_of([(b"host", b"x"), *headers]) == found


BODIES: dict[str, dict[str, Any]] = {
    "/v1/predict": {"task": "tone", "channel": "web", "inputs": [{"text": "x"}]},
    "/v1/feedback": {"prediction_id": "prd_0", "comment": "x"},
    "/v1/feedback/batch": {"feedbacks": []},
    "/v1/reviews/{review_id}": {"skip": True},
    "/predict": {"inputs": "x"},
}
CODE = {"data": "http://evil.test/x", "code": "import os", "config": {"auto_map": "x"}, "model_path": "/etc/passwd"}
ELSEWHERE = {"/v1/feedback/stream", *(path for _, path in ROUTES if path.startswith(("/label-studio", "/v2/")))}
"""Lines have an error each (test_lines.py), tensors need a model (test_guard_served.py), and Label Studio sends more in
each version, of which nothing is read."""


def test_no_body_takes_code_a_path_or_settings(house: House) -> None:
    posted = {path for method, path in ROUTES if method == "POST"}
    assert posted - ELSEWHERE == {*BODIES}
    for path, body in BODIES.items():
        for name, value in CODE.items():
            more = [{**body, name: value}]
            if path == "/v1/predict":
                more.append({**body, "inputs": [{"text": "x", name: value}]})
            for one in more:
                asked = [("POST", path.format(**VALUES), bearer(house.whole))]
                (answer,) = ask(house, asked, json.dumps(one).encode())
                assert (answer.status_code, name in answer.text) == (422, True), (path, name, answer.text)
                assert "evil.test" not in answer.text


def test_the_document_says_what_the_guard_asks(house: House) -> None:
    document = house.app.openapi()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = ROUTES[method.upper(), path] == OPEN
            assert ("security" in operation, {"401", "403"} <= set(operation["responses"])) == (
                not is_open,
                not is_open,
            )
