"""Keys of a real server. Catches: a key that counts for a second too long, another channel's answers given away, scores
told to who may not see them, a key in a log or a list of processes, an open server that stays open."""

import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headrace.access import keys
from headrace.client import Client
from headrace.errors import Forbidden, NotFound, Unauthorized
from headrace.feedback import reviews, signals
from headrace.workspace import open_workspace
from server.conftest import new_workspace
from stub_model import Server, running

WITHIN_S = 1.0
EVERY = ("predict", "scores", "feedback", "data:write", "release", "audit:read")
SOUND = {"task": "tone", "channel": "web", "inputs": [{"text": "positive"}]}
CONFIG = '<View><Text name="text" value="$text"/><Choices name="label" toName="text"><Choice value="negative"/>' \
    '<Choice value="neutral"/><Choice value="positive"/></Choices></View>'  # fmt: skip


@dataclass(frozen=True)
class House:
    server: Server
    whole: str
    """A key that may do everything."""
    web: str
    """As much, of one channel."""
    plain: str
    """To predict, without scores."""

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[House]:
    root = new_workspace(tmp_path_factory.mktemp("keys") / "ws")
    with open_workspace(root) as ws:
        whole, web, plain = (
            keys.create(ws, "x", scopes=scopes, channels=channels).key
            for scopes, channels in ((EVERY, None), (EVERY, ["web"]), (["predict"], None))
        )
    tables = {"serve__default_task": "tone", "serve__default_channel": "phone", "feedback__audit_share": 0.5}
    settings = tables | {"serve__log_requests": True, "feedback__review_rows": 40}
    settings |= {"channels__phone__personal": "drop"}
    with running(root, plugin_env, **settings) as server:
        yield House(server, whole, web, plain)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def eventually(is_so: Any, *, within_s: float = WITHIN_S) -> float:
    began_at = time.monotonic()
    while not is_so():
        assert time.monotonic() < began_at + within_s
        time.sleep(0.01)
    return time.monotonic() - began_at


def test_a_client_sends_its_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(house.url) as nobody, pytest.raises(Unauthorized, match="needs a key"):
        nobody.predict("tone", "web", ["positive"])
    with Client(house.url, key=house.whole) as client:
        assert client.predict("tone", "web", ["positive"])["predictions"][0]["label"] == "positive"
        assert client.ready()
    monkeypatch.setenv("HEADRACE_KEY", house.plain)
    with Client(house.url) as client:
        client.predict("tone", "web", ["positive"])
        with pytest.raises(Forbidden, match="scope feedback"):
            client.feedback("prd_0", comment="x")


@pytest.mark.parametrize("where", ["bearer", "header", "basic"])
def test_a_key_comes_in_one_of_three_ways(house: House, where: str) -> None:
    password = base64.b64encode(f"label-studio:{house.whole}".encode()).decode()
    ways = {
        "bearer": bearer(house.whole),
        "header": {"X-API-Key": house.whole},
        "basic": {"Authorization": f"Basic {password}"},
    }
    assert httpx.post(f"{house.url}/v1/predict", json=SOUND, headers=ways[where]).status_code == 200


def test_a_new_key_counts_at_once_and_a_revoked_one_no_longer_than_a_second(house: House) -> None:
    with open_workspace(house.server.root) as ws, httpx.Client(base_url=house.url, timeout=20) as http:
        made = keys.create(ws, "brief", scopes=["predict"])
        time.sleep(0.06)  # between looks for new ones
        assert http.post("/v1/predict", json=SOUND, headers=bearer(made.key)).status_code == 200
        keys.revoke(ws, made.record.id)
        eventually(lambda: http.post("/v1/predict", json=SOUND, headers=bearer(made.key)).status_code == 401)


def test_an_open_server_closes_with_the_first_key(root: Path, plugin_env: dict[str, str]) -> None:
    with running(root, plugin_env) as server, httpx.Client(base_url=server.url, timeout=20) as http:
        assert http.post("/v1/predict", json=SOUND).status_code == 200
        with open_workspace(root) as ws:
            made = keys.create(ws, "first", scopes=["predict"])
        eventually(lambda: http.post("/v1/predict", json=SOUND).status_code == 401)
        assert http.post("/v1/predict", json=SOUND, headers=bearer(made.key)).status_code == 200
        assert http.get("/v2/health/ready").status_code == 200


def same_but_id(answer: httpx.Response, name: str) -> tuple[int, str]:
    return answer.status_code, answer.text.replace(name, "ID")


def test_what_is_of_another_channel_looks_as_if_it_were_not_there(house: House) -> None:
    """Each way to name a row or a channel, with a key of another channel, against a name that there is not."""
    with httpx.Client(base_url=house.url, timeout=20) as http:
        whole, web = bearer(house.whole), bearer(house.web)
        (given,) = asked = [{"text": "positive, asked there alone"}]
        body = {**SOUND, "channel": "phone", "inputs": asked}
        theirs = http.post("/v1/predict", json=body, headers=whole).json()["predictions"][0]["id"]
        missing = theirs[:-4] + ("aaaa" if theirs[-4:] != "aaaa" else "bbbb")
        http.post("/v1/feedback", json={"prediction_id": theirs, "comment": "written"}, headers=whole)
        with open_workspace(house.server.root) as ws:
            reviews.fill(ws, "tone")
            review = next(one.id for one in reviews.listing(ws, "tone") if one.channel == "phone")
        no_review = review[:-4] + ("aaaa" if review[-4:] != "aaaa" else "bbbb")

        def feedback(name: str, **more: str) -> httpx.Response:
            said = {"prediction_id": name, "comment": "x", **more}
            return http.post("/v1/feedback", json=said, headers=web)

        def batch(name: str) -> httpx.Response:
            said = {"feedbacks": [{"prediction_id": name, "comment": "x"}]}
            return http.post("/v1/feedback/batch", json=said, headers=web)

        def lines(name: str) -> httpx.Response:
            said = json.dumps({"prediction_id": name, "comment": "x"})
            return http.post("/v1/feedback/stream", content=said, headers=web | {"Content-Type": "application/jsonl"})

        def webhook(name: str) -> httpx.Response:
            result = [{"from_name": "label", "type": "choices", "value": {"choices": ["negative"]}}]
            told = {"action": "ANNOTATION_CREATED", "project": {"label_config": CONFIG},
                    "annotation": {"id": 1, "result": result, "completed_by": 1},
                    "task": {"data": {"text": "positive", "headrace_id": name}}}  # fmt: skip
            return http.post("/label-studio/web/webhook", json=told, headers=web)

        def marked(name: str) -> httpx.Response:
            """The text of another channel's answer, with an id that Label Studio got from there."""
            result = [{"id": f"{name}.0", "from_name": "label", "type": "choices", "value": {"choices": ["negative"]}}]
            told = {"action": "ANNOTATION_CREATED", "project": {"label_config": CONFIG},
                    "annotation": {"id": 1, "result": result, "completed_by": 1},
                    "task": {"data": given}}  # fmt: skip
            return http.post("/label-studio/web/webhook", json=told, headers=web)

        pairs = [
            (feedback(theirs), feedback(missing)),
            (feedback(theirs, comment="ask jane@shop.org"), feedback(missing, comment="ask jane@shop.org")),
            (marked(theirs), marked(missing)),
            (feedback(theirs, channel="phone"), feedback(missing, channel="phone")),
            (batch(theirs), batch(missing)),
            (lines(theirs), lines(missing)),
            (
                http.post(f"/v1/reviews/{review}", json={"answer": "positive"}, headers=web),
                http.post(f"/v1/reviews/{no_review}", json={"answer": "positive"}, headers=web),
            ),
            (
                http.post(f"/v1/reviews/{review}", json={"skip": True}, headers=web),
                http.post(f"/v1/reviews/{no_review}", json={"skip": True}, headers=web),
            ),
            (webhook(theirs), webhook(missing)),
            (webhook(review), webhook(no_review)),
            (http.get(f"/v1/lineage/{theirs}", headers=web), http.get(f"/v1/lineage/{missing}", headers=web)),
            (http.get("/v1/releases/tone", headers=web), http.get("/v1/releases/none", headers=web)),
        ]  # fmt: skip
        statuses = [there.status_code for there, _ in pairs]
        # 200: an error for each of several
        assert statuses == [404, 404, 200, 404, 200, 200, 404, 404, 200, 200, 403, 403]
        for place, (there, not_there) in enumerate(pairs):
            said = there.text.replace(theirs, "ID").replace(review, "ID")
            other = not_there.text.replace(missing, "ID").replace(no_review, "ID")
            assert (there.status_code, said) == (not_there.status_code, other), place
            assert "ID" not in said or "no such" in said, said
        asks = [
            lambda name: http.post("/v1/predict", json={**SOUND, "channel": name}, headers=web),
            lambda name: http.post("/predict", json={"inputs": "x"}, headers=web | {"X-Headrace-Channel": name}),
            lambda name: http.get(f"/v1/accuracy?task=tone&channel={name}", headers=web),
            lambda name: http.get(f"/v1/reviews?task=tone&channel={name}", headers=web),
            lambda name: http.post(f"/label-studio/{name}/setup", json={"schema": CONFIG}, headers=web),
            lambda name: http.post(
                "/v2/models/tone/infer",
                json={"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}],
                      "parameters": {"channel": name}},
                headers=web,
            ),
        ]  # fmt: skip
        for ask in asks:
            theirs_said, none_said = ask("phone"), ask("phony")
            assert same_but_id(theirs_said, "phone") == same_but_id(none_said, "phony")
            assert theirs_said.status_code == 404
        assert review not in json.dumps(
            [http.get(f"/v1/reviews?task=tone&n=50&labeller=l{i}", headers=web).json() for i in range(3)]
        )
        assert not {one["channel"] for one in http.get("/v1/models", headers=web).json()["models"]} - {None, "web"}


def test_a_key_of_one_channel_speaks_for_it_where_none_is_named(house: House) -> None:
    with httpx.Client(base_url=house.url, timeout=20, headers=bearer(house.web)) as http:
        assert http.post("/predict", json={"inputs": "x"}).status_code == 200  # the default channel is not its own
        mine = http.post("/v1/predict", json=SOUND).json()["predictions"][0]["id"]
        assert http.post("/v1/feedback", json={"prediction_id": mine, "comment": "x"}).status_code == 200
        assert http.get("/v1/accuracy?task=tone").json().keys() >= {"overall"}


def test_what_somebody_says_is_kept_with_the_key_it_came_through(house: House) -> None:
    """By feedback, a review and a webhook: else one key speaks for those whom another one knows."""
    with httpx.Client(base_url=house.url, timeout=20) as http:
        whole, web = bearer(house.whole), bearer(house.web)
        body = SOUND | {"inputs": [{"text": "said through a key"}]}
        name = http.post("/v1/predict", json=body, headers=web).json()["predictions"][0]["id"]
        told = {
            "action": "ANNOTATION_CREATED",
            "project": {"label_config": CONFIG},
            "task": {"data": {"headrace_id": name, "text": "said through a key"}},
            "annotation": {
                "completed_by": {"email": "kim"},
                "result": [{"from_name": "label", "type": "choices", "value": {"choices": ["negative"]}}],
            },
        }
        said = {"prediction_id": name, "correction": "positive", "labeller": "kim"}
        assert http.post("/v1/feedback", json=said, headers=whole).status_code == 200
        assert http.post("/label-studio/web/webhook", json=told, headers=web).json()["n_taken"] == 1
        with open_workspace(house.server.root) as ws:
            found = [(one.feedback.key_id, one.feedback.correction) for one in signals.listing(ws, labeller="kim")]
            assert set(found) == {(keys.id_of(house.whole), "positive"), (keys.id_of(house.web), "negative")}
            reviews.fill(ws, "tone")
            review = next(one.id for one in reviews.listing(ws, "tone") if one.channel == "web")
        answer = {"answer": "positive", "labeller": "kim"}
        assert http.post(f"/v1/reviews/{review}", json=answer, headers=web).status_code == 200
        again = http.post(f"/v1/reviews/{review}", json=answer | {"answer": "negative"}, headers=whole)
        assert again.status_code == 409


def test_channels_have_idempotency_keys_of_their_own(house: House) -> None:
    with httpx.Client(base_url=house.url, timeout=20) as http:
        answers = []
        for channel, key in (("phone", house.whole), ("web", house.web), ("web", house.web)):
            body = {**SOUND, "channel": channel}
            made = http.post("/v1/predict", json=body, headers=bearer(key)).json()["predictions"][0]["id"]
            said = {"prediction_id": made, "comment": "x"}
            answers.append(http.post("/v1/feedback", json=said, headers=bearer(key) | {"Idempotency-Key": "order-1"}))
        assert [answer.status_code for answer in answers] == [200, 200, 409]


def is_coarse(number: float) -> bool:
    return number == round(number, 2)


def test_without_the_scope_scores_answers_are_coarse_in_every_protocol(house: House) -> None:
    plain, whole = bearer(house.plain), bearer(house.whole)
    with httpx.Client(base_url=house.url, timeout=20) as http:
        own = http.post("/v1/predict", json=SOUND, headers=plain).json()["predictions"][0]
        assert set(own) == {"id", "label", "confidence"}
        assert is_coarse(own["confidence"])
        assert set(http.post("/v1/predict", json=SOUND, headers=whole).json()["predictions"][0]) > {"scores"}

        tei = http.post("/predict", json={"inputs": "positive"}, headers=plain).json()
        assert [one["label"] for one in tei] == ["positive"]
        assert is_coarse(tei[0]["score"])
        assert len(http.post("/predict", json={"inputs": "positive"}, headers=whole).json()) == 3

        tensors = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["positive"]}]}
        v2 = http.post("/v2/models/tone/infer", json=tensors, headers=plain).json()["outputs"]
        by_name = {one["name"]: one["data"][0] for one in v2}
        assert set(by_name) == {"label", "confidence", "json"}
        assert is_coarse(by_name["confidence"])
        assert "scores" not in json.loads(by_name["json"])
        names = [one["name"] for one in http.get("/v2/models/tone", headers=plain).json()["outputs"]]
        assert names == ["label", "confidence", "json"]
        asked = tensors | {"outputs": [{"name": "scores"}]}
        assert http.post("/v2/models/tone/infer", json=asked, headers=plain).status_code == 422

        tasks = {"tasks": [{"data": {"text": "positive"}}], "label_config": CONFIG}
        (one,) = http.post("/label-studio/web/predict", json=tasks, headers=plain).json()["results"]
        assert is_coarse(one["score"])


@pytest.mark.parametrize("name", ["data", "code", "config", "model_path"])
def test_no_tensor_takes_code_a_path_or_settings(house: House, name: str) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["positive"]}
    bodies = [
        {"inputs": [tensor], name: "x"},
        {"inputs": [tensor], "parameters": {name: "x"}},
        {"inputs": [tensor], "outputs": [{"name": "label", name: "x"}]},
        {"inputs": [tensor | {"parameters": {name: "x"}}]},
        *([{"inputs": [tensor | {name: "x"}]}] if name != "data" else []),
    ]
    for path in ("/v2/models/tone/infer", "/v2/models/tone/versions/1/infer"):
        for body in bodies:
            answer = httpx.post(f"{house.url}{path}", json=body, headers=bearer(house.whole))
            assert answer.status_code == 422, body


def test_a_test_key_takes_no_part_in_releases_and_audits(house: House) -> None:
    with open_workspace(house.server.root) as ws:
        test = keys.create(ws, "ci", scopes=EVERY, is_test=True)
        time.sleep(0.06)
        with Client(house.url, key=test.key) as client:
            rows = client.predict("tone", "web", ["positive"] * 20)["predictions"]
            client.feedback(rows[0]["id"], comment="written")
        with ws.store.read() as conn:
            from headrace.store import predictions

            assert {predictions.find(conn, row["id"]).audit_probability for row in rows} == {None}  # type: ignore[union-attr]


def test_no_key_is_written_anywhere(house: House) -> None:
    """Logs, the store, its log, the list of processes and what an error says: S24."""
    with httpx.Client(base_url=house.url, timeout=20) as http:
        for headers in (bearer(house.whole), bearer(house.whole[:-1]), {"X-API-Key": house.whole + "x"}):
            answer = http.post("/v1/predict", json=SOUND, headers=headers)
            assert house.whole[:-9] not in answer.text
        http.get(f"/v1/models?key={house.whole}")
    secrets = [key.split("_")[3].encode() for key in (house.whole, house.web, house.plain)]
    for path in [*house.server.root.rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path
    process = psutil.Process(house.server.process.pid)
    lists = " ".join(" ".join(one.cmdline()) for one in [process, *process.children(recursive=True)]).encode()
    assert not any(secret in lists for secret in secrets)
    assert "POST" in house.server.log.read_text()  # requests were logged
    assert os.stat(house.server.root / ".headrace" / keys.PEPPER).st_mode & 0o077 == 0


def test_errors_of_access_have_their_class_in_the_client(house: House) -> None:
    with Client(house.url, key=house.web) as client:
        with pytest.raises(NotFound, match="no such channel"):
            client.predict("tone", "phone", ["x"])
        with pytest.raises(Forbidden, match="all channels"):
            client.release_status("tone")
