"""Requests that look for what they should not find (S10, S12, S14). Catches: an error that names a path, a statement or
a process of this machine, a filter that nobody declared, a request that has the server fetch something."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.conftest import new_workspace
from server.loading import request
from stub_model import Server, running

HEADRACE = Path(__file__).parents[2] / "headrace"
CLIENTS = {"httpx", "requests", "aiohttp", "urllib3", "http.client", "urllib.request", "ftplib", "smtplib"}
FETCHED = re.compile(r"ur[il]s?|href|uri|endpoint|webhook|callback|host|path|file|folder|module|template|code|config")
BREAKS = """
from headrace.errors import Damaged, Unusable
from headrace.server.routes import lineage, monitoring, releases
import sqlalchemy.exc
def sql(*a, **k): raise sqlalchemy.exc.OperationalError("SELECT x FROM api_keys", {"x": 1}, Exception("disk /var/x"))
def damaged(*a, **k): raise Damaged("a file does not match", value="/var/lib/headrace/secret", next_step="See /root")
def unusable(*a, **k): raise Unusable("the disk is full: /dev/shm/headrace-77", value="/var/lib/headrace")
releases.release_status, lineage.trace, monitoring.live = sql, damaged, unusable
"""
BROKEN = {"/v1/releases/tone": 500, "/v1/lineage/prd_1": 500, "/v1/accuracy?task=tone&channel=web": 507}
LEAKS = re.compile(
    r"/(?:root|home|tmp|usr|var|work|opt|proc|dev)\b|Traceback|File \"|line \d+, in |\.py\b|site-packages|"
    r"\b(?:SELECT|INSERT|UPDATE|DELETE|PRAGMA)\b|sqlite|sqlalchemy|psycopg|\bpid\b|\bhr_(?:live|test)_|0x[0-9a-f]{6,}"
)
ODD = ["x'; DROP TABLE examples;--", "..%2f..%2fetc%2fpasswd", "%00", "a" * 5000, "{{7*7}}", "file:///etc/passwd"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    root = new_workspace(tmp_path_factory.mktemp("broken") / "ws")
    with running(root, plugin_env, prelude=BREAKS, serve__max_rows=20, serve__timeout_s=5) as server:
        yield server


@pytest.fixture(scope="module")
def document(served: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/openapi.json").json()
    return found


def _forced(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Requests that fail: of every route with names that are not there, and of the model."""
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            for odd in ODD[:3] if method == "get" else ODD:
                asked = re.sub(r"\{[^}]+\}", odd, path)
                names = [one["name"] for one in said.get("parameters", ()) if one["in"] == "query"]
                more = {"json": {"task": odd, "channel": odd, "inputs": [{"text": odd}]}} if method == "post" else {}
                yield method, asked, {"params": dict.fromkeys(names, odd), **more}
    for text in ("stub:fail", "stub:nan", "stub:exit"):
        yield "post", "/v1/predict", {"json": request(text)}
        yield "post", "/predict", {"json": {"inputs": text}}
    yield "post", "/v1/predict", {"json": request("stub:slow"), "headers": {"X-Request-Timeout-Ms": "1"}}
    yield "post", "/v1/predict", {"content": b"{" * 1000}
    yield from (("get", path, {}) for path in BROKEN)


def test_no_error_says_what_is_inside(served: Server, document: dict[str, Any]) -> None:
    statuses, leaks = [], []
    with httpx.Client(base_url=served.url, timeout=20) as http:
        for method, path, more in _forced(document):
            reply = http.request(method, path, **more)
            if reply.status_code < 400:
                continue
            statuses.append(reply.status_code)
            said = reply.text
            for odd in (*ODD, httpx.URL(path).path):  # a client may be told what it said
                said = said.replace(json.dumps(odd)[1:-1], "")
            told = str(served.process.pid) in said or str(served.root) in said or LEAKS.search(said)
            leaks += [(method, path[:80], said[:300])] if told else []
    assert leaks == []
    assert len(statuses) >= 50
    assert {500, 503, 404, 422} <= set(statuses)
    log = served.log.read_text()
    assert "id " in log


def test_an_error_of_the_servers_own_has_a_number_that_the_log_has_too(served: Server) -> None:
    for path, status in BROKEN.items():
        reply = httpx.get(f"{served.url}{path}")
        assert reply.status_code == status
        number = reply.json()["error"]["value"]
        assert re.fullmatch("[0-9a-f]{32}", number)
        assert number in served.log.read_text()


def test_a_filter_that_no_route_declares_is_refused(served: Server, document: dict[str, Any]) -> None:
    asked = [path for path, methods in document["paths"].items() if "get" in methods and "{" not in path]
    assert len(asked) > 5
    with httpx.Client(base_url=served.url) as http:
        for path in asked:
            for name in ("key_hash__startswith", "order_by", "task__ne", "where", "fields[]", "TASK", "task;drop"):
                reply = http.get(path, params={name: "a"})
                assert reply.status_code == 422, (path, name, reply.text[:200])
        assert http.get("/v2/health/live?").status_code == 200


def test_no_request_names_what_is_to_be_fetched_or_run(document: dict[str, Any]) -> None:
    """Names of parameters and of fields of bodies, wherever they are."""
    asked = [one for methods in document["paths"].values() for one in methods.values()]
    found = {one["name"] for method in asked for one in method.get("parameters", ())}
    waiting: list[Any] = [method.get("requestBody") for method in asked]
    seen: set[str] = set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        if not isinstance(one, dict):
            continue
        found |= set(one["properties"]) if isinstance(one.get("properties"), dict) else set()
        waiting += one.values()
        if (ref := one.get("$ref")) and ref not in seen:
            seen.add(ref)
            waiting.append(document["components"]["schemas"][ref.rpartition("/")[2]])
    assert {"task", "channel", "inputs", "prediction_id", "month"} <= found
    assert {name for name in found if FETCHED.fullmatch(name.lower())} == set()


def test_the_server_has_no_way_to_fetch() -> None:
    imports = re.compile(rf"^\s*(?:import|from) +({'|'.join(map(re.escape, CLIENTS))})\b", re.M)
    assert imports.search("    import httpx")
    for part in ("server", "serve", "feedback", "access", "release", "personal"):
        for path in (HEADRACE / part).rglob("*.py"):
            assert not imports.search(path.read_text("utf-8")), path
