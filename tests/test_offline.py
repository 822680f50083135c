"""Answering a file. Catches: a row that is lost, doubled or out of place; a column that is lost or changes; a file that
appears before it is whole; a run that begins again after a kill; parts of other rows or another model taken for one's
own; memory that grows with the file; a text taken for a file."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import offline
from headrace.config import TaskTable
from headrace.errors import AlreadyExists, BadInput, Damaged, HeadraceError, NotFound, Unusable, WrongState
from headrace.offline import predict_file
from headrace.records import Adapter, Artifact, Input
from headrace.release import releases
from headrace.store import adapters, ledger, runs
from headrace.tasks import TASK_TYPES
from headrace.workspace import Workspace, init, open_workspace
from planted import NOON, plant_channel, plant_version
from stub_model import install_plugin, plant_stub

LABELS = ("negative", "neutral", "positive")
WAIT_S = 60


class Stub:
    """Answers the class named in the text; `fail` and `nan` do what they say."""

    def __init__(self) -> None:
        self.asked: list[list[Input]] = []

    def logits(self, inputs: Sequence[Input]) -> np.ndarray:
        self.asked.append(list(inputs))
        out = np.zeros((len(inputs), len(LABELS)), dtype=np.float32)
        for i, given in enumerate(inputs):
            text = given if isinstance(given, str) else " ".join(given)
            if "fail" in text:
                raise ValueError("told to fail")
            out[i, next((k for k, label in enumerate(LABELS) if label in text), 1)] = 5
            if "nan" in text:
                out[i] = np.nan
        return out


@pytest.fixture
def ws(workspace: Workspace) -> Workspace:
    releases.promote(workspace, plant_stub(workspace))
    return workspace


@pytest.fixture
def stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """In place of the artifact's own predictor; parts of 3 rows."""
    made: Stub = getattr(request, "param", Stub)()

    def load_model(folder: Path, digest: str, *, n_threads: int) -> offline.Model:
        task = TaskTable(labels=LABELS)
        return offline.Model(digest, made, TASK_TYPES.get(task.type)(task), {}, 128)

    monkeypatch.setattr(offline, "load_model", load_model)
    monkeypatch.setattr(offline, "_PART_ROWS", 3)
    return made


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def read_csv(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def leftovers(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.glob(f"{path.name}.*"))


ROWS = [
    {"id": 1, "text": "positive, she said", "at": "Mon"},
    {"id": 2, "text": 'a "quoted"\nline, negative', "at": None},
    {"id": 3, "text": "   ", "at": "Tue"},
    {"id": 4, "text": "fail", "at": "Wed"},
    {"id": 5, "text": "ünïcode positive", "at": "Thu"},
    {"id": 6, "text": "nan", "at": "Fri"},
    {"id": 7, "text": "neutral", "at": "Sat"},
]


def test_every_row_is_answered_or_listed_in_the_order_of_the_file(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    seen = []
    report = predict_file(
        ws, jsonl(tmp_path / "rows.jsonl", ROWS), report=lambda step, done, total, **_: seen.append((done, total))
    )
    out = tmp_path / "rows.answers.jsonl"
    assert (report.output, report.n_rows, report.n_answered, report.n_bad) == (str(out), 7, 4, 3)
    assert report.reasons == {"missing_text": 1, "model_failed": 2}
    answered, bad = read_jsonl(out), read_jsonl(str(report.bad_rows))
    assert [row["id"] for row in answered] == [1, 2, 5, 7]
    assert [row["predicted_label"] for row in answered] == ["positive", "negative", "positive", "neutral"]
    assert set(answered[0]) == {"id", "text", "at", "predicted_label", "predicted_confidence", "predicted_scores"}
    assert set(answered[0]["predicted_scores"]) == set(LABELS)
    assert [(row["line"], row["reason"], row["row"]["id"]) for row in bad] == [
        (3, "missing_text", 3), (4, "model_failed", 4), (6, "model_failed", 6),
    ]  # fmt: skip
    assert "told to fail" in bad[1]["detail"]
    assert leftovers(out) == ["rows.answers.jsonl.bad.jsonl"]
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("given", [".csv", ".jsonl", ".parquet"])
def test_any_format_becomes_any_other(ws: Workspace, stub: Stub, tmp_path: Path, given: str, suffix: str) -> None:
    rows = [row for row in ROWS if row["id"] not in (3, 4, 6)]
    source = tmp_path / f"rows{given}"
    if given == ".csv":
        with source.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif given == ".jsonl":
        jsonl(source, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), source)
    out = tmp_path / f"out{suffix}"
    assert predict_file(ws, source, out).n_answered == 4
    if suffix == ".jsonl":
        found = read_jsonl(out)
    elif suffix == ".parquet":
        found = pq.read_table(out).to_pylist()
    else:
        with out.open(newline="") as file:
            found = list(csv.DictReader(file, delimiter="," if suffix == ".csv" else "\t"))
    assert [(str(row["id"]), row["text"], row["at"] or "") for row in found] == [
        (str(row["id"]), row["text"], row["at"] or "") for row in rows
    ]
    assert [row["predicted_label"] for row in found] == ["positive", "negative", "positive", "neutral"]
    scores = found[0]["predicted_scores"]
    assert set(json.loads(scores) if isinstance(scores, str) else scores) == set(LABELS)
    assert float(found[0]["predicted_confidence"]) > 0.9


def test_columns_of_parquet_keep_their_types(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("text", pa.string()),
            ("day", pa.date32()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("price", pa.decimal128(9, 2)),
            ("raw", pa.binary()),
            ("tags", pa.list_(pa.string())),
            ("kind", pa.dictionary(pa.int32(), pa.string())),
            ("labels", pa.list_(pa.int8())),
        ]
    )
    values = ["positive", date(2026, 3, 1), datetime(2026, 3, 1, tzinfo=UTC), Decimal("1.50"), b"\xff", ["a"], "x", [1]]
    table = pa.Table.from_pylist([dict(zip(schema.names, values, strict=True))] * 5, schema=schema)
    pq.write_table(table, tmp_path / "rows.parquet")
    predict_file(ws, tmp_path / "rows.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(schema.names).equals(table)
    assert found.schema.field("predicted_confidence").type == pa.float64()
    predict_file(ws, tmp_path / "rows.parquet", tmp_path / "out.jsonl")
    first = read_jsonl(tmp_path / "out.jsonl")[0]
    assert (first["day"], first["raw"], first["tags"], first["price"]) == ("2026-03-01", "/w==", ["a"], "1.50")


def test_columns_of_json_lines_that_only_some_rows_have(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    rows = [
        {"text": "positive", "n": 1, "m": 1, "yes": True, "any": "x"},
        {"text": "negative", "n": None, "m": 1.5, "any": {"a": [1]}},
        {"text": "neutral", "huge": 1 << 70},
        {"text": "neutral", "late": "here"},
    ]
    source = jsonl(tmp_path / "rows.jsonl", rows)
    predict_file(ws, source, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    types = {name: str(found.schema.field(name).type) for name in ("n", "m", "yes", "any", "huge", "late")}
    assert types == {"n": "int64", "m": "double", "yes": "bool", "any": "string", "huge": "string", "late": "string"}
    assert found.column("any").to_pylist() == ['"x"', '{"a": [1]}', None, None]
    predict_file(ws, source, tmp_path / "out.csv")
    assert [row["late"] for row in read_csv(tmp_path / "out.csv")] == ["", "", "", "here"]
    assert [row["any"] for row in read_csv(tmp_path / "out.csv")] == ["x", '{"a": [1]}', "", ""]


def test_rows_that_cannot_be_read_are_listed_whole(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    long = "x" * 500
    source.write_bytes(f'id,text\n1,positive\n2,"open {long}\n3,a,b\n'.encode() + b"4,\xff\n\xfe,negative\n6,neutral\n")
    report = predict_file(ws, source)
    assert [row["id"] for row in read_csv(report.output)] == ["1", "6"]
    bad = read_jsonl(str(report.bad_rows))
    assert [row["line"] for row in bad] == [3, 4, 5, 6]
    assert [row["reason"] for row in bad] == ["unreadable", "unreadable", "wrong_encoding", "wrong_encoding"]
    assert long in bad[0]["row"]
    assert bad[2]["row"] == {"id": "4", "text": "\udcff"}
    assert report.n_answered + report.n_bad == report.n_rows == 6


def test_the_columns_are_those_of_the_task_or_the_named(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "rows.jsonl", [{"body": "positive", "text": "negative"}])
    assert predict_file(ws, source, text_column="body").n_answered == 1
    assert read_jsonl(tmp_path / "rows.answers.jsonl")[0]["predicted_label"] == "positive"
    with pytest.raises(BadInput, match="no column 'txet'"):
        predict_file(ws, source, tmp_path / "o.csv", text_column="txet")
    with pytest.raises(BadInput, match="one part"):
        predict_file(ws, source, tmp_path / "o.csv", pair_column="body")
    with pytest.raises(NotFound, match="channel"):
        predict_file(ws, source, tmp_path / "o.csv", channel="nobody")


def test_a_task_of_two_parts_and_one_of_turns(tmp_path: Path, stub: Stub) -> None:
    with init(tmp_path / "ws", task="match", task_type="text-pair", labels=LABELS) as ws:
        releases.promote(ws, plant_stub(ws, "match"))
        source = jsonl(tmp_path / "rows.jsonl", [{"text": "a", "text_pair": "positive"}, {"text": "a"}])
        report = predict_file(ws, source)
    assert (report.n_answered, report.reasons) == (1, {"missing_text": 1})
    assert stub.asked == [[("a", "positive")]]
    toml = tmp_path / "talk" / "headrace.toml"
    with init(tmp_path / "talk", task="talk", labels=LABELS):
        toml.write_text(toml.read_text() + 'input = "turns"\n')
    with open_workspace(tmp_path / "talk") as ws:
        releases.promote(ws, plant_stub(ws, "talk"))
        turns = [{"role": "user", "text": "positive"}]
        report = predict_file(ws, jsonl(tmp_path / "talk.jsonl", [{"turns": turns}, {"turns": []}]))
    assert (report.n_answered, report.reasons) == (1, {"bad_turns": 1})
    assert read_jsonl(report.output)[0]["turns"] == turns


class Held:
    """An adapter in the memory of a bank."""

    def __init__(self, digest: str) -> None:
        self.digest = digest


class BankStub(Stub):
    """Answers `positive` wherever an adapter is asked for; an adapter's folder says its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters: list[str] = []

    def logits(self, inputs: Sequence[Input], adapters: Sequence[Held | None] = ()) -> np.ndarray:
        out = super().logits(inputs)
        for row, adapter in zip(out, adapters or [None] * len(out), strict=True):
            row[2] = 9 if adapter else row[2]
        return out

    def adapter(self, digest: str) -> Held:
        return Held(digest)

    def add_adapter(self, folder: Path) -> str:
        self.adapters.append((folder / "weights").read_text())
        return self.adapters[-1]

    def remove_adapter(self, digest: str) -> None:
        self.adapters.remove(digest)


def plant_adapter(ws: Workspace, channel: str, weights: str, *, says: str | None = None) -> None:
    folder = ws.artifacts.new_folder()
    (folder / "weights").write_text(says or weights)
    digest, n_bytes = ws.artifacts.put(folder)
    with ws.store.write() as conn:
        runs.add_artifact(conn, Artifact(digest, "adapter", n_bytes, {}), NOON)
        version = ledger.control_id(conn, "tone")
        assert version is not None
        adapters.add(conn, version, [Adapter(channel, digest, weights, True, {})])


@pytest.mark.parametrize("stub", [BankStub], indirect=True)
def test_each_row_is_answered_by_the_adapter_of_its_channel(ws: Workspace, stub: BankStub, tmp_path: Path) -> None:
    for name in ("web", "phone", "plain"):
        plant_channel(ws, name)
    plant_adapter(ws, "web", "sha256:w")
    plant_adapter(ws, "phone", "sha256:p")
    names = ["web", "plain", "phone", "nobody", None, "web"]
    source = jsonl(tmp_path / "rows.jsonl", [{"text": "neutral", "from": name} for name in names])
    report = predict_file(ws, source, channel_column="from")
    assert report.reasons == {"unknown_channel": 2}
    assert [(row["from"], row["predicted_label"], row["predicted_adapter"]) for row in read_jsonl(report.output)] == [
        ("web", "positive", "sha256:w"), ("plain", "neutral", None), ("phone", "positive", "sha256:p"),
        ("web", "positive", "sha256:w"),
    ]  # fmt: skip
    predict_file(ws, source, tmp_path / "web.jsonl", channel="web")
    assert {row["predicted_adapter"] for row in read_jsonl(tmp_path / "web.jsonl")} == {"sha256:w"}
    predict_file(ws, source, tmp_path / "none.jsonl")
    assert "predicted_adapter" not in read_jsonl(tmp_path / "none.jsonl")[0]
    for chosen in ({"channel": "web", "channel_column": "from"}, {"channel_column": "gone"}):
        with pytest.raises(BadInput):
            predict_file(ws, source, tmp_path / "o.csv", **chosen)  # type: ignore[arg-type]
    stopped(ws, source, tmp_path / "o.csv", after=3)
    with pytest.raises(WrongState, match="the channel and the adapters of channels"):
        predict_file(ws, source, tmp_path / "o.csv", channel="web")


@pytest.mark.parametrize("stub", [BankStub], indirect=True)
def test_weights_that_are_not_those_of_the_adapter_answer_nothing(
    ws: Workspace, stub: BankStub, tmp_path: Path
) -> None:
    plant_channel(ws, "web")
    plant_adapter(ws, "web", "sha256:w", says="sha256:other")
    with pytest.raises(Damaged, match="not those that were trained"):
        predict_file(ws, jsonl(tmp_path / "rows.jsonl", ROWS), channel="web")


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("rows.txt", "positive\n", BadInput, "format is not clear"),
        ("gone.csv", None, NotFound, "no such file"),
        ("rows.csv", "text\n", BadInput, "no rows"),
        ("rows.jsonl", "", BadInput, "empty"),
        ("rows.csv", "text,text\na,b\n", BadInput, "two columns are called 'text'"),
        ("rows.csv", "text,predicted_label\na,b\n", BadInput, "predicted_"),
        ("rows.parquet", "text\n", BadInput, "Parquet"),
        ("rows.csv", "id\n1\n", BadInput, "no column 'text'"),
    ],
)
def test_what_cannot_be_answered_as_a_whole_leaves_nothing(
    ws: Workspace, stub: Stub, tmp_path: Path, name: str, content: str | None, error: type[HeadraceError], says: str
) -> None:
    source = tmp_path / name
    if content is not None:
        source.write_text(content)
    out = tmp_path / "out.csv"
    with pytest.raises(error, match=says):
        predict_file(ws, source, out)
    assert not out.exists()


def test_outputs_that_cannot_be_written_are_refused_first(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / ".locked.csv.lock").mkdir()
    for out, error, says in [
        (source, BadInput, "would replace"),
        (tmp_path / "there.csv", AlreadyExists, "already"),
        (tmp_path / "no" / "out.csv", NotFound, "no such folder"),
        (tmp_path / "out.xlsx", BadInput, "Known: .csv"),
        (tmp_path / "locked.csv", Unusable, "the folder cannot be written: Is a directory"),
    ]:
        with pytest.raises(error, match=says):
            predict_file(ws, source, out)
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert stub.asked == []


def stopped(ws: Workspace, source: Path, out: Path, *, after: int) -> None:
    """A run that ends in the middle, as Ctrl-C ends it, after so many rows."""

    def stop(_step: str, done: int, _total: int, **_: object) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(ws, source, out, report=stop)


def test_a_stopped_run_goes_on_and_asks_nothing_twice(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "out.csv"
    whole = predict_file(ws, source, tmp_path / "whole.csv")
    stub.asked.clear()
    stopped(ws, source, out, after=3)
    assert not out.exists()
    report = predict_file(ws, source, out)
    assert (report.n_resumed, report.n_rows, report.n_bad, report.reasons) == (3, 7, 3, whole.reasons)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert Path(str(report.bad_rows)).read_bytes() == Path(str(whole.bad_rows)).read_bytes()
    asked = [text for batch in stub.asked for text in batch]
    assert asked.count("positive, she said") == 1
    assert leftovers(out) == ["out.csv.bad.jsonl"]
    with pytest.raises(AlreadyExists):
        predict_file(ws, source, out)


def test_parts_of_another_run_are_not_taken(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "out.csv"
    stopped(ws, source, out, after=3)
    plant_channel(ws, "web")
    with pytest.raises(WrongState, match=r"differs in the channel.*out.csv.parts"):
        predict_file(ws, source, out, channel="web")
    releases.promote(ws, plant_stub(ws, answer="positive"))
    with pytest.raises(WrongState, match="the model version"):
        predict_file(ws, source, out)
    jsonl(source, ROWS[:5])
    with pytest.raises(WrongState, match="the rows and the model version"):
        predict_file(ws, source, out)
    jsonl(source, ROWS)
    with (
        open_workspace(ws.root, overrides={"privacy.personal": "mask"}) as masking,
        pytest.raises(WrongState, match="differs in what is done about personal data"),
    ):
        predict_file(masking, source, out, version="1")
    assert predict_file(ws, source, out, version="1").n_resumed == 3


def test_a_kill_while_the_file_takes_its_place_is_finished(
    ws: Workspace, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = jsonl(tmp_path / "rows.jsonl", ROWS)
    real = os.replace
    for stop_at in range(1, 20):
        out, n_done = tmp_path / f"out{stop_at}.csv", 0

        def replace(a: Path, b: Path) -> None:
            nonlocal n_done
            n_done += 1
            if n_done == stop_at:  # noqa: B023
                raise KeyboardInterrupt
            real(a, b)

        monkeypatch.setattr(os, "replace", replace)
        try:
            predict_file(ws, source, out)
        except KeyboardInterrupt:
            monkeypatch.setattr(os, "replace", real)
            report = predict_file(ws, source, out)
            assert (report.n_rows, report.n_bad) == (7, 3)
        else:
            break
        assert len(read_csv(out)) == 4
        assert len(read_jsonl(f"{out}.bad.jsonl")) == 3
        assert leftovers(out) == [f"{out.name}.bad.jsonl"]
    assert stop_at > 6


def test_a_file_that_changes_meanwhile_is_refused(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "out.csv"

    def change(_step: str, done: int, _total: int, **_: object) -> None:
        if done == 3:
            jsonl(source, [*ROWS, {"id": 8, "text": "positive"}])

    with pytest.raises(WrongState, match="changed while it was read"):
        predict_file(ws, source, out, report=change)
    assert not out.exists()


def test_two_runs_do_not_write_one_output(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "out.csv"

    def second(_step: str, done: int, _total: int, **_: object) -> None:
        if done == 3:
            with pytest.raises(WrongState, match="another run"):
                predict_file(ws, source, out)

    assert predict_file(ws, source, out, report=second).n_answered == 4
    (lock,) = tmp_path.glob(".out.csv.lock")  # another could hold the file of that name that was removed
    assert lock.stat().st_size == 0


# ---------------------------------------------------------------------------------------- other processes


@pytest.fixture(scope="session")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install_plugin(tmp_path_factory.mktemp("site"))


def command(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "headrace", "predict", *words, "-w", str(root)]


@pytest.mark.slow
def test_a_killed_process_goes_on_and_the_answers_are_whole(ws: Workspace, env: dict[str, str], tmp_path: Path) -> None:
    source, out = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    n_rows = 4096 * 6 + 5
    with source.open("w") as file:
        file.write("n,text\n")
        file.writelines(f"{n},{LABELS[n % 3]} {'stub:slow' * (n % 4096 == 7)}\n" for n in range(n_rows))
    killed = subprocess.Popen(command(ws.root, str(source), "--out", str(out)), env=env)
    try:
        until = time.monotonic() + WAIT_S
        while len(list(tmp_path.glob("out.jsonl.parts/*.json"))) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait(WAIT_S)
    assert not out.exists()
    done = subprocess.run(
        command(ws.root, str(source), "--out", str(out), "--json"), env=env, capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    assert report["n_resumed"] >= 4096
    assert report["n_answered"] == report["n_rows"] == n_rows
    found = read_jsonl(out)
    assert [row["n"] for row in found] == [str(n) for n in range(n_rows)]
    assert all(row["predicted_label"] == LABELS[n % 3] for n, row in enumerate(found))


_PEAK = """
import re, sys
from headrace.offline import predict_file
from headrace.workspace import open_workspace
with open_workspace(sys.argv[1]) as ws:
    report = predict_file(ws, sys.argv[2], sys.argv[3])
assert report.n_rows == report.n_answered == int(sys.argv[4]), report
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])  # ru_maxrss begins with the parent's
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_memory_does_not_grow_with_the_file(ws: Workspace, env: dict[str, str], tmp_path: Path, suffix: str) -> None:
    peaks = []
    for n_rows in (8_000, 200_000):
        source = tmp_path / f"{n_rows}.csv"
        with source.open("w") as file:
            file.write("n,text\n")
            file.writelines(f"{n},positive {'word ' * 20}{n}\n" for n in range(n_rows))
        words = [str(ws.root), str(source), str(tmp_path / f"{n_rows}{suffix}"), str(n_rows)]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _PEAK, *words], env=env, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 40 * 1024  # KiB; the file alone has 25 MB, its rows as objects 100


def test_a_text_that_is_no_file_stays_a_text(ws: Workspace, env: dict[str, str], tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, Any]:
        done = subprocess.run(command(ws.root, *words, "--json"), env=env, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)

    assert run("positive.csv")[1][0]["label"] == "positive"
    (tmp_path / "rows.csv").write_text("text\nnegative\n")
    status, report = run("rows.csv")
    assert (status, report["output"]) == (0, "rows.answers.csv")
    status, answers = run("rows.csv", "two texts")
    assert (status, len(answers)) == (0, 2)
    assert run("--out", "o.csv", "a", "b")[0] == 2
    assert run("some text", "--channel", "web")[1]["error"]["code"] == "not_found"
    plant_channel(ws, "web")
    assert run("positive", "--channel", "web")[1][0]["label"] == "positive"
    assert run("some text", "--channel-column", "web")[0] == 2
    assert run("gone.csv", "--out", "o.csv")[1]["error"]["code"] == "not_found"


def test_the_version_in_charge_answers_unless_another_is_named(ws: Workspace, stub: Stub, tmp_path: Path) -> None:
    plant_version(ws)
    source = jsonl(tmp_path / "rows.jsonl", ROWS[:1])
    assert predict_file(ws, source).version == "tone/1"
    with pytest.raises(NotFound):
        predict_file(ws, source, tmp_path / "o.csv", version="9")
