"""headrace as an ML backend of Label Studio, asked with what Label Studio 1.23 really sent: runs/label_studio.py wrote
it down. Catches: a project that cannot be connected, a pre-label that the page cannot show, an annotation that is lost,
taken twice, or taken for another text, a labelling config that reaches out, a token that is kept."""

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from headrace.data.label_studio import config_for
from headrace.data.sources import Options, open_source
from headrace.data.sources.label_studio import LabelStudio
from headrace.feedback import reviews
from headrace.records import RawLabel
from headrace.store import predictions, schema
from headrace.tasks import TASK_TYPES
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_channel
from stub_model import Server, plant_stub, running

SENT = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((Path(__file__).parent / "label_studio").glob("*.json"))
}
LABELS = ("negative", "positive")
WAIT_S = 15
TOKEN = "a-token-of-its-api"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("studio") / "ws"
    with init(root, task="tone", labels=LABELS) as ws:
        for channel in ("shop", "phone"):
            plant_channel(ws, channel)
        plant_stub(ws, answer="negative")
    small = {"serve__default_channel": "shop", "serve__max_rows": 3, "feedback__audit_share": 1.0}
    with running(root, plugin_env, **small) as server:
        yield server


@pytest.fixture(scope="module")
def ws(served: Server) -> Iterator[Workspace]:
    with open_workspace(served.root) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20) as connected:
        yield connected


def sent(name: str, **changed: Any) -> dict[str, Any]:
    """A body that Label Studio sent, with other values in places such as `task__data__text`."""
    body: dict[str, Any] = copy.deepcopy(SENT[name]["body"])
    for place, value in changed.items():
        *path, last = place.split("__")
        inside = body
        for part in path:
            inside = inside[part]
        inside[last] = value
    return body


def told(
    http: httpx.Client, name: str = "webhook-annotation_created", path: str = "", **changed: Any
) -> dict[str, Any]:
    answer = http.post(f"/label-studio{path}/webhook", json=sent(name, **changed))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def predicted(http: httpx.Client, *texts: Any, path: str = "") -> list[dict[str, Any]]:
    template = sent("predict")["tasks"][0]
    tasks = [{**template, "id": i, "data": {"text": text}} for i, text in enumerate(texts)]
    answer = http.post(f"/label-studio{path}/predict", json=sent("predict", tasks=tasks))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def choices(label: str, result_id: str = "r1") -> list[dict[str, Any]]:
    return [
        {
            **sent("webhook-annotation_created")["annotation"]["result"][0],
            "id": result_id,
            "value": {"choices": [label]},
        }
    ]


def feedback_on(ws: Workspace, prediction_id: str) -> list[tuple[Any, str]]:
    with ws.store.read() as conn:
        found = predictions.feedback_on(conn, prediction_id)
    return [(one.correction, one.labeller) for one in found if one.kind == "correction"]


def test_a_project_connects_as_it_did(http: httpx.Client, served: Server) -> None:
    assert http.get("/label-studio/health").json()["status"] == "UP"
    assert http.get("/label-studio/shop/health").json()["status"] == "UP"
    answer = http.post(SENT["setup"]["path"], json=sent("setup", access_token=TOKEN))
    assert (answer.status_code, answer.json()) == (200, {"model_version": "tone/1"})
    assert set(SENT["setup"]["answer"]) == {"model_version"}
    files = [path for path in served.root.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_pre_labels_have_the_shape_that_it_took(http: httpx.Client) -> None:
    answer = http.post(SENT["predict"]["path"], json=sent("predict"))
    results, accepted = answer.json()["results"], SENT["predict"]["answer"]["results"]
    assert len(results) == len(accepted) == len(sent("predict")["tasks"])
    for found, good in zip(results, accepted, strict=True):
        assert set(found) == set(good)
        (mine,), (theirs,) = found["result"], good["result"]
        assert {key: mine[key] for key in mine if key not in ("id", "value")} == {
            key: theirs[key] for key in theirs if key not in ("id", "value")
        }
        assert set(mine["value"]) == set(theirs["value"])
        assert set(mine["value"]["choices"]) <= set(LABELS)


def test_each_task_gets_its_own_answer_and_what_cannot_be_read_an_empty_one(http: httpx.Client) -> None:
    texts = [
        "positive a",
        "",
        "positive b",
        None,
        7,
        "negative c",
        "x" * 30_000,
        "positive\0",
        "positive stub:fail",
        "d",
    ]
    found = [[one["value"]["choices"][0] for one in row["result"]] for row in predicted(http, *texts)]
    assert found == [["positive"], [], ["positive"], [], [], ["negative"], [], [], [], ["negative"]]


def test_what_it_asks_for_is_logged_and_never_audited(http: httpx.Client, ws: Workspace) -> None:
    (row,) = predicted(http, "positive, and logged", path="/phone")
    prediction_id = row["result"][0]["id"]
    until = time.monotonic() + WAIT_S
    while True:
        with ws.store.read() as conn:
            found = predictions.find(conn, prediction_id)
        if found is not None:
            break
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (found.channel, found.audit_probability, found.text) == ("phone", None, "positive, and logged")


def test_an_annotation_corrects_the_answer_that_it_was_shown(http: httpx.Client, ws: Workspace) -> None:
    text = "negative at first"
    (first,), (second,) = predicted(http, text), predicted(http, text)
    ids = [row["result"][0]["id"] for row in (first, second)]
    said = {"task__data": {"text": text}, "annotation__completed_by": 5}
    for n_taken in (1, 0):
        answer = told(http, **said, annotation__result=choices("positive", ids[0]))
        assert (answer["n_taken"], answer["refused"]) == (n_taken, [])
    assert feedback_on(ws, ids[0]) == [("positive", "5")]
    told(http, "webhook-annotation_updated", **said, annotation__result=choices("negative", ids[0]))
    told(http, "webhook-annotation_updated", **said, annotation__result=choices("positive", ids[0]))
    assert [label for label, _ in feedback_on(ws, ids[0])] == ["positive", "negative", "positive"]
    assert told(http, **said, annotation__result=choices("positive", "of no answer"))["n_taken"] == 1
    assert feedback_on(ws, ids[1]) == [("positive", "5")]  # the latest with this text
    elsewhere = told(
        http, **said | {"task__data": {"text": "of another text"}}, annotation__result=choices("positive", ids[0])
    )
    assert elsewhere["n_taken"] == 0
    assert "no answer or example has its text" in elsewhere["refused"][0]


def test_an_annotation_of_an_exported_task_answers_its_review(
    http: httpx.Client, served: Server, ws: Workspace
) -> None:
    body = {"task": "tone", "channel": "shop", "inputs": [{"text": "negative, to be audited"}]}
    prediction_id = http.post("/v1/predict", json=body).json()["predictions"][0]["id"]
    http.post("/v1/feedback", json={"prediction_id": prediction_id, "comment": "it is in the store now"})
    reviews.fill(ws)
    (review,) = [one for one in reviews.listing(ws) if one.prediction_id == prediction_id and one.reason == "audit"]
    data = {"text": "negative, to be audited", "headrace_id": review.id, "channel": "shop"}
    assert told(http, task__data=data, annotation__result=choices("positive"))["n_taken"] == 1
    (done,) = [one for one in reviews.listing(ws, state="answered") if one.id == review.id]
    who = sent("webhook-annotation_created")["annotation"]["completed_by"]
    assert (done.answer, done.labeller) == ("positive", str(who))
    assert feedback_on(ws, prediction_id) == [("positive", str(who))]


def test_several_annotations_come_at_once_and_a_bad_one_keeps_none_out(http: httpx.Client, ws: Workspace) -> None:
    texts = ["negative one", "negative two", "negative three"]
    ids = [row["result"][0]["id"] for row in predicted(http, *texts)]
    one = sent("webhook-annotation_created")
    tasks = [{**one["task"], "id": i, "data": {"text": text}} for i, text in enumerate(texts)]
    annotations = [
        {**one["annotation"], "id": 70 + i, "task": i, "result": choices(label, ids[i])}
        for i, label in ((2, "positive"), (0, "positive"), (1, "no label"))
    ]
    answer = http.post(
        "/label-studio/webhook",
        json={**one, "action": "ANNOTATIONS_CREATED", "annotation": annotations, "task": tasks},
    ).json()
    assert answer["n_taken"] == 2
    assert len(answer["refused"]) == 1
    assert answer["refused"][0].startswith("annotation 71: unknown label")
    assert [feedback_on(ws, one_id)[:1] != [] for one_id in ids] == [True, False, True]


@pytest.mark.parametrize(
    "changed",
    [
        {"action": "ANNOTATIONS_DELETED"}, {"action": "START_TRAINING"}, {"action": "PROJECT_UPDATED"},
        {"annotation__was_cancelled": True}, {"annotation__result": []}, {"annotation": None}, {"task": [1]},
        {"annotation__result": "x"}, {"annotation__result": [{"type": "choices", "from_name": "label"}]},
        {"annotation__completed_by": "x" * 300},
    ],
    ids=str,
)  # fmt: skip
def test_what_says_nothing_changes_nothing(http: httpx.Client, ws: Workspace, changed: dict[str, Any]) -> None:
    predicted(http, "negative stays")
    with ws.store.read() as conn:
        before = len(conn.execute(select(schema.feedback.c.id)).all())
    said = {"task__data": {"text": "negative stays"}, "annotation__result": choices("positive")}
    assert told(http, **said | changed)["n_taken"] == 0
    with ws.store.read() as conn:
        assert len(conn.execute(select(schema.feedback.c.id)).all()) == before


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/label-studio/setup", {"schema": "<View><Text name='t' value='$t'/></View>"}, 422),
        (
            "/label-studio/setup",
            {"schema": "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><View>&a;</View>"},
            422,
        ),
        ("/label-studio/setup", {}, 422),
        ("/label-studio/none/setup", {"schema": "<View/>"}, 404),
        ("/label-studio/predict", {"tasks": [], "label_config": "<View>"}, 422),
        ("/label-studio/none/webhook", {"action": "ANNOTATION_CREATED"}, 404),
    ],
)
def test_what_cannot_be_used_is_refused(http: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    assert http.post(path, json=body).status_code == status


KEYS = st.sampled_from(["id", "data", "text", "result", "value", "type", "choices", "from_name", "headrace_id", "task"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, JSON, st.lists(st.dictionaries(KEYS, JSON), max_size=3))
def test_no_shape_at_all_makes_the_server_fail(
    http: httpx.Client, annotation: Any, task: Any, tasks: list[dict[str, Any]]
) -> None:
    said = sent("webhook-annotation_created")
    for body in ({"annotation": annotation, "task": task}, {"annotation": said["annotation"] | {"result": annotation}}):
        assert http.post("/label-studio/webhook", json=said | body).status_code == 200
    for body in (said | {"project": task}, {"action": "ANNOTATION_CREATED", "annotation": annotation}):
        assert http.post("/label-studio/webhook", json=body).status_code in (200, 422)
    answer = http.post("/label-studio/predict", json=sent("predict", tasks=tasks))
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == len(tasks)


def test_its_own_export_is_read() -> None:
    path = str(Path(__file__).parent / "label_studio" / "export.json")
    assert open_source(path) is LabelStudio
    rows = list(LabelStudio.read(path, Options(id="headrace_id", group="")))
    assert len(rows) == 2
    for row, task in zip(rows, SENT["export"], strict=True):
        (annotation,) = task["annotations"]
        assert (row.key, row.text, row.error) == (task["data"]["headrace_id"], task["data"]["text"], None)
        assert row.labels == (RawLabel("1", annotation["result"][0]["value"]["choices"][0]),)


def test_the_printed_config_is_the_one_that_was_used(ws: Workspace) -> None:
    task_type = TASK_TYPES.get("text-classification")(ws.task("tone"))
    assert config_for(task_type) == sent("predict")["label_config"]
