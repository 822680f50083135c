"""GET /v1/releases/{task} of a real server, beside what the command line says of the same workspace."""

from collections.abc import Iterator

import httpx
import pytest

from headrace.client import Client
from headrace.errors import NotFound
from headrace.release import releases
from headrace.releasing.standing import release_status
from headrace.workspace import Workspace
from stub_model import Server, plant_stub


@pytest.fixture(scope="module")
def http(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as connected:
        yield connected


def test_the_state_of_a_release_is_there_over_http(http: httpx.Client, served_workspace: Workspace) -> None:
    idle = http.get("/v1/releases/tone").json()
    assert (idle["state"], idle["control"], idle["arms"]) == ("idle", "tone/1", {})
    releases.start(served_workspace, candidate=plant_stub(served_workspace, answer="positive"))
    answer = http.get("/v1/releases/tone")
    assert answer.status_code == 200
    found = answer.json()
    here = release_status(served_workspace, task="tone")
    assert set(found) == set(here)
    assert (found["state"], found["candidate"], found["health"]) == ("open", "tone/2", "no traffic")
    assert found["arms"]["shadow"]["all"]["says"] == "no request has come yet"
    assert set(found["arms"]["shadow"]["channels"]) == {"web", "phone"}
    releases.stop(served_workspace, "tone")
    assert http.get("/v1/releases/tone").json()["state"] == "idle"


def test_a_task_without_a_version_and_one_that_is_not_there(http: httpx.Client) -> None:
    assert http.get("/v1/releases/unborn").json()["state"] == "empty"
    with Client(str(http.base_url)) as client:
        assert client.release_status("unborn")["state"] == "empty"
        with pytest.raises(NotFound, match="no such task"):
            client.release_status("a b ?")
    missing = http.get("/v1/releases/tome")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    assert "tone" in missing.json()["error"]["next_step"]
