"""The servers that bench.serving measures: how each is started and stopped, asked and understood."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from bench.sentiment import LABELS
from bench.serving_material import TASK, Asked, Material

RIVALS = Path(__file__).parent / "rivals"
HEADRACE = "headrace"
_ANSWER_S, _START_S, _STOP_S = 120.0, 180.0, 15.0
_N_ASKING = 16  # connections that ask at once when answers are compared


@dataclass(frozen=True)
class Server:
    """A program that serves the model, and its language."""

    name: str
    command: Sequence[str]
    """`{port}` stands for the port."""
    folder: Path
    path: str
    body: Callable[[Sequence[Asked]], Any]
    labels: Callable[[Any], list[str]]
    """Of an answer, in order."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def bodies(self, batches: Sequence[Sequence[Asked]]) -> list[bytes]:
        return [json.dumps(self.body(batch)).encode("ascii") for batch in batches]


@dataclass(frozen=True)
class Memory:
    """Of a server's processes together. What several of them share counts once in `pss_bytes`."""

    n_processes: int
    rss_bytes: int
    pss_bytes: int


class Running:
    """A server that answers."""

    def __init__(self, server: Server, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.server, self.process, self.port = server, process, port
        self.url = f"http://127.0.0.1:{port}{server.path}"
        self.start_s = 0.0
        """From the start of its process to its first answer."""

    @property
    def processes(self) -> list[psutil.Process]:
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def memory(self) -> Memory:
        found = []
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                found.append(process.memory_full_info())
        return Memory(len(found), sum(one.rss for one in found), sum(one.pss for one in found))

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of one answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        try:
            connection.request("POST", self.server.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def agreeing_share(self, batches: Sequence[Sequence[Asked]]) -> float:
        """Share of the answered rows that get the checkpoint's label, when several connections ask at once.

        What is refused is no other model's answer, and is counted where loads are measured.
        """

        def right_and_answered(batch: Sequence[Asked]) -> tuple[int, int]:
            status, body = self.ask(self.server.bodies([batch])[0])
            if status != 200:
                return 0, 0
            labels = self.server.labels(json.loads(body))
            return sum(label == row.label for label, row in zip(labels, batch, strict=False)), len(batch)

        with ThreadPoolExecutor(_N_ASKING) as pool:
            n_right, n_answered = map(sum, zip(*pool.map(right_and_answered, batches), strict=True))
        return n_right / n_answered if n_answered else 0.0


@contextmanager
def running(server: Server, first: Sequence[Asked]) -> Iterator[Running]:
    """A server from its first answer, which is to `first`, to the end of all its processes."""
    port = _free_port()
    command = [word.replace("{port}", str(port)) for word in server.command]
    environment = {**os.environ, **server.environment, "PORT": str(port)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or a checkout's modules are compiled anew at every start
    with tempfile.TemporaryFile() as log:
        began_at = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=server.folder, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        found = Running(server, process, port)
        try:
            _wait_for(found, server.bodies([first])[0], log)
            found.start_s = time.perf_counter() - began_at
            yield found
        finally:
            _stop(found)


def _wait_for(found: Running, body: bytes, log: Any) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and found.process.poll() is None:
        with suppress(OSError, HTTPException):
            if found.ask(body)[0] == 200:
                return
        time.sleep(0.02)
    log.seek(0)
    said = log.read().decode("utf-8", "replace")
    raise RuntimeError(f"{found.server.name} does not answer; the end of what it said:\n{said[-2000:]}")


def _stop(found: Running) -> None:
    """Have it end, and end what is left of it."""
    mine: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        mine = found.processes
    found.process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(mine, timeout=_STOP_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    found.process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def servers(material: Material, python: Path, scratch: Path) -> list[Server]:
    """headrace, then the others.

    Args:
        material: with a workspace that may be written to.
        python: of the environment of bench/rivals.
        scratch: an empty folder.
    """
    serve = [sys.executable, "-m", "headrace", "serve", "--port", "{port}"]
    own = {"HEADRACE_WORKSPACE": str(material.workspace)}
    given = {
        "CHECKPOINT": str(material.checkpoint),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(scratch / "bentoml"),
        "PYTRITON_NO_TENSORSTORE": "1",
    }

    def rival(name: str, script: Sequence[str], labels: Callable[[Any], list[str]], **more: Any) -> Server:
        told = {"path": "/predict", "body": _texts, **more}
        return Server(name, [str(python), *script], RIVALS, labels=labels, environment=given, **told)

    bento = ["-m", "bentoml", "serve", "bentoml_app:Classifier", "--host", "127.0.0.1", "--port", "{port}"]
    infer = {"path": "/v2/models/classifier/infer", "body": _tensor}
    return [
        Server(HEADRACE, serve, material.workspace, "/v1/predict", _inputs, _predictions, own),
        rival("FastAPI + pipeline", ["fastapi_pipeline.py"], _ranked),
        rival("LitServe", ["litserve_app.py"], _predictions),
        rival("BentoML", bento, lambda answer: [row["label"] for row in answer]),
        rival("Triton", ["triton_app.py"], _scores, **infer),
    ]


def _inputs(batch: Sequence[Asked]) -> Any:
    return {"task": TASK, "channel": batch[0].channel, "inputs": [{"text": row.text} for row in batch]}


def _texts(batch: Sequence[Asked]) -> Any:
    return {"inputs": [row.text for row in batch]}


def _tensor(batch: Sequence[Asked]) -> Any:
    data = [row.text for row in batch]
    return {"inputs": [{"name": "text", "shape": [len(batch), 1], "datatype": "BYTES", "data": data}]}


def _predictions(answer: Any) -> list[str]:
    return [row["label"] for row in answer["predictions"]]


def _ranked(answer: Any) -> list[str]:
    return [max(row, key=lambda one: one["score"])["label"] for row in answer["predictions"]]


def _scores(answer: Any) -> list[str]:
    data, n = answer["outputs"][0]["data"], len(LABELS)
    rows = [data[i : i + n] for i in range(0, len(data), n)]
    return [LABELS[max(range(n), key=row.__getitem__)] for row in rows]
