"""Twelve strings that are somebody's are sent into every field there is, then looked for in every byte that is kept.

Catches: a door without a policy, text that is cleaned after it was written, an error, a log line or a quarantined row
that quotes what came, a model that reads in serving what it did not read in training.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from headrace import backups, retention
from headrace.config import TaskTable
from headrace.config_sources import FILE_NAME
from headrace.data.importing import import_rows
from headrace.data.label_studio import config_for
from headrace.data.snapshot import freeze
from headrace.errors import BadInput, UserError
from headrace.feedback import intake, known, reviews
from headrace.labelling import import_labels
from headrace.store import schema
from headrace.tasks import TASK_TYPES
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace, init, open_workspace
from planted import plant_channel
from stub_model import Server, plant_stub, running

PLANTED = (
    "jane.roe@mail.example.org", "+49 171 2345678", "(415) 555-2671", "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00", "81.2.69.142", "2a02:908:1:20::1f", "http://jane:secret7@host.example/a",
    "123-45-6789", "AB 12 34 56 C", "12345678Z", "11010519491231002X",
)  # fmt: skip
COMPACT = [one for one in (p.replace(" ", "") for p in PLANTED) if "/" not in one]  # as a request's id may be written
BAD = f"rows of {PLANTED[0]}.csv"
_STREAM = {"content-type": "application/x-ndjson"}
LABELS = ("negative", "neutral", "positive")
TEXTS = tuple(f"good, it is {p} ok" for p in PLANTED)
SECRET = tuple("jane:secret7" if "://" in p else p for p in PLANTED)
"""What may be nowhere."""


@dataclass
class Asked:
    """What was sent, and what came back."""

    root: Path
    said: list[str]
    """Answers of the server."""
    predicted: list[str]
    """Ids of the answers to TEXTS."""

    @property
    def backup(self) -> Path:
        return self.root.with_name("backup")


@pytest.fixture(scope="module", params=["mask", "replace"])
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]
) -> Asked:
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("planted")
    root = folder / "ws"
    init(root, task="tone", labels=LABELS).close()
    with (root / FILE_NAME).open("a") as file:
        file.write(f'[privacy]\npersonal = "{request.param}"\nkeep_mapping = true\n[data]\nmax_chars = 400\n')
        file.write("[split]\nvalidation_share = 0.3\ntest_share = 0.3\n")
    with open_workspace(root) as ws:
        for name in ("web", "phone"):
            plant_channel(ws, name)
        plant_stub(ws, log=str(root / "seen.jsonl"))
        _import_all(ws, folder)
        with running(root, plugin_env, serve__log_requests=True, feedback__audit_share=1.0) as server:
            found = Asked(root, *_ask_all(server))
            _tell_all(ws, folder, found)
            assert _holding(root, [*SECRET, *COMPACT]) == []  # with the database's log as it is while a server runs
        retention.move(ws)  # nothing is old enough; below everything is
    with open_workspace(root, overrides={"serve.log_keep_rows": 0}) as ws:
        assert retention.move(ws).n_rows
        freeze(ws)
        backups.backup(ws, found.backup)
    return found


def _import_all(ws: Workspace, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "id": f"row {p}", "text": text, "label": "positive", "group": f"of {p}",
            "labels": [{"labeller": f"by {p}", "label": "positive"}],
        }
        for p, text in zip(PLANTED, TEXTS, strict=True)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_rows(ws, "web", folder / "rows.jsonl")
    more = [{"text": f"nobody's {i}", "label": "neutral"} for i in range(60)]  # so that no side is empty
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    import_rows(ws, "web", folder / "more.jsonl")
    bad = [{"text": text, "label": f"no label {p}"} for p, text in zip(PLANTED, TEXTS, strict=True)]
    bad += [{"text": f"{text} {'x' * 400}", "label": "positive"} for text in TEXTS]
    with (folder / BAD).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(bad)
    assert import_rows(ws, "phone", folder / BAD).n_quarantined == len(bad)
    with pytest.raises(BadInput) as refused:
        import_rows(ws, "phone", folder / BAD, strict=True)
    assert not any(p in str(refused.value) for p in SECRET)
    pq.write_table(pa.Table.from_pylist([{**row, "id": f"{row['id']} p"} for row in rows]), folder / "rows.parquet")
    import_rows(ws, "phone", folder / "rows.parquet")
    (folder / "broken.jsonl").write_text('{"text": "a"}\n' + "".join(f'{{"text": "{text}"\n' for text in TEXTS))
    assert import_rows(ws, "phone", folder / "broken.jsonl").n_quarantined == len(TEXTS)
    known.add(ws, [(text, "positive") for text in TEXTS])


def _ask_all(server: Server) -> tuple[list[str], list[str]]:
    """Every way to ask, sound and not; what was answered, and the ids of the answers to TEXTS."""
    said, ids = [], []
    with httpx.Client(base_url=server.url, timeout=20) as http:

        def post(path: str, body: object, **headers: str) -> httpx.Response:
            content = body if isinstance(body, str) else json.dumps(body)
            answer = http.post(path, content=content, headers={"content-type": "application/json", **headers})
            said.append(answer.text)
            return answer

        config = config_for(TASK_TYPES.get("text-classification")(TaskTable(labels=LABELS)))
        for p, text in zip(PLANTED, TEXTS, strict=True):
            ask = {"task": "tone", "channel": "web", "unit": f"unit {p}", "inputs": [{"text": text}]}
            ids.append(post("/v1/predict", ask).json()["predictions"][0]["id"])
            for bad in (
                {**ask, "task": p},
                {**ask, p: 1},
                {**ask, "unit": f"{p} " * 40},
                {**ask, "inputs": [{"texts": p}]},
            ):
                assert post("/v1/predict", bad).status_code in (404, 422)
            post("/v1/predict", {**ask, "inputs": [{"text": text + "x" * 400}]})
            post("/v1/predict", f"{text} is no JSON", **{"X-Request-Id": p.replace(" ", "")})
            assert post("/predict", {"inputs": text}).status_code == 422  # two channels, none named
            tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
            infer = {"parameters": {"channel": "web", "unit": p}, "inputs": [tensor]}
            assert post("/v2/models/tone/infer", infer).status_code == 200
            post("/v2/models/tone/infer", {**infer, "id": p, "outputs": [{"name": p}]})
            task = {"id": 1, "data": {"text": text}}
            post("/label-studio/web/predict", {"tasks": [task], "label_config": config})
            result = {"type": "choices", "from_name": "label", "to_name": "text", "value": {"choices": [f"not {p}"]}}
            annotation = {"id": p, "result": [result], "completed_by": {"email": p}}
            told = {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": task}
            post("/label-studio/web/webhook", {**told, "project": {"label_config": config}})
            for about in ({"correction": f"not {p}"}, {"comment": f"ask {p} {text}"}, {"correction": "negative"}):
                given = {"prediction_id": ids[-1], "labeller": f"by {p}", **about}
                post("/v1/feedback", given, **{"Idempotency-Key": f"{p} {next(iter(about))}"})
                post("/v1/feedback/batch", {"feedbacks": [given, {**given, "metric": p}, {p: 1}]})
                lines = f"{json.dumps(given)}\n{p}\n"
                said.append(http.post("/v1/feedback/stream", content=lines, headers=_STREAM).text)
            said.append(http.get("/v1/reviews", params={"labeller": p, "channel": p}).text)
            said.append(http.get(f"/v1/{p}").text)
        said.append(http.get("/metrics").text)
    return said, ids


def _tell_all(ws: Workspace, folder: Path, found: Asked) -> None:
    """What comes by files and by the library."""
    reviews.fill(ws, "tone")
    (review, *_) = reviews.next_of(ws, "tone", labeller=f"by {PLANTED[0]}")
    reviews.answer(ws, review.id, "positive", f"by {PLANTED[0]}")
    rows = [
        {"headrace_id": one, "text": p, "label": label, "labels": [{"labeller": f"from {p}", "label": label}]}
        for one, p in zip(found.predicted, PLANTED, strict=True)
        for label in ("neutral", f"nothing {p}")
    ]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_labels(ws, folder / "labels.jsonl", task="tone")
    for p, one in zip(PLANTED, found.predicted, strict=True):
        intake.give(ws, one, comment=f"says {p}", labeller=p)
        with pytest.raises(UserError):
            intake.give(ws, one, correction=p)


def _holding(folder: Path, strings: tuple[str, ...]) -> list[tuple[str, str]]:
    """Files with one of some strings, in their bytes or in what is packed in them."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = b"\n".join(_read(path))
            found += [(str(path.relative_to(folder)), one) for one in strings if one.encode() in content]
    return found


def _read(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    content = path.read_bytes()
    yield content
    if path.suffix == ".gz":
        yield gzip.decompress(content)
    if path.suffix == ".parquet":
        yield json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode()


def test_nothing_that_is_kept_holds_them(asked: Asked) -> None:
    suffixes = {path.suffix for path in asked.root.rglob("*") if path.is_file()}
    assert {".db", ".parquet", ".log", ".jsonl", ".json"} <= suffixes, "the search has something to search"
    assert _holding(asked.root, SECRET) == []
    assert (asked.backup / "headrace.db").exists()
    assert _holding(asked.backup, SECRET) == []


def test_nothing_that_is_answered_repeats_them(asked: Asked) -> None:
    assert [(p, said) for said in asked.said for p in SECRET if p in said] == []


def test_a_model_reads_in_serving_what_it_was_trained_on(asked: Asked) -> None:
    with open_workspace(asked.root) as ws, ws.store.read() as conn:
        examples = schema.examples.c
        of_web = examples.key.like("row %"), examples.key.not_like("% p")
        trained = set(conn.execute(select(examples.text).where(*of_web)).scalars())
        kept = set(conn.execute(select(schema.known_answers.c.text_hash)).scalars())
    seen = {text for line in (asked.root / "seen.jsonl").read_text().splitlines() for text in json.loads(line)}
    assert len(trained) >= len(TEXTS) - 2  # two telephones become one text where they are masked, two addresses too
    assert trained <= seen
    policy = next(line for line in (asked.root / FILE_NAME).read_text().splitlines() if line.startswith("personal"))
    assert ("mask" in policy) == (kept == {text_hash(text) for text in trained})


def test_names_stay_apart(asked: Asked) -> None:
    with open_workspace(asked.root) as ws, ws.store.read() as conn:
        labellers = set(conn.execute(select(schema.labellers.c.name)).scalars())
        keys = set(conn.execute(select(schema.examples.c.key)).scalars())
    assert sum(name.startswith("by ") for name in labellers) == len(PLANTED)
    assert sum(key.startswith("row ") for key in keys) == 2 * len(PLANTED)
