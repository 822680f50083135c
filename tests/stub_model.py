"""A model that does as its texts say, installed as another package's plug-in; and real servers that serve it.

Tests of serving need texts that fail, hang and kill, which a real model does not do on request.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import update

from headrace.export.artifact import ArtifactFacts, write_facts
from headrace.records import Artifact, ModelVersion
from headrace.store import runs, schema
from headrace.workspace import Workspace
from planted import NOON, plant_version

START_TIMEOUT_S = 30

PLUGIN = '''
import hashlib, json, mmap, os, signal, time
import numpy as np

class Stub:
    """Answers the class named in the text, else the one its file says; `stub:` words in the text make it misbehave."""

    @staticmethod
    def load(folder, facts, *, n_threads=0):
        stub = Stub()
        stub.labels = list(facts.task.labels)
        stub.says = json.loads((folder / "stub.json").read_text())
        stub.n_at_once = stub.says.get("n_at_once", 1)
        time.sleep(stub.says.get("load_s", 0))
        if stub.says.get("dies_at_start"):
            os._exit(3)
        if stub.says.get("unloadable"):
            raise RuntimeError("these weights are of no use")
        return stub

    def logits(self, texts):
        if log := self.says.get("log"):
            with open(log, "a") as file:
                file.write(json.dumps(list(texts)) + "\\\\n")
        time.sleep(self.says.get("row_s", 0) * len(texts))
        out = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        for i, given in enumerate(texts):
            text = given if isinstance(given, str) else " ".join(given)
            if "stub:die" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "stub:exit" in text:
                os._exit(3)
            if "stub:eat" in text:
                bytearray(10**11)
            if "stub:fork" in text and os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            if "stub:fail" in text or self.says.get("fails"):
                raise ValueError("the stub was told to fail")
            if "stub:hang" in text:
                time.sleep(60)
            if "stub:slow" in text:
                time.sleep(0.6)
            if leak := self.says.get("leak_bytes"):
                self.leaked = [*getattr(self, "leaked", ()), mmap.mmap(-1, leak)]  # address space, never touched
            if self.chance("error", text) < self.says.get("error_share", 0):
                raise ValueError("the stub fails now and then")
            named = [k for k, label in enumerate(self.labels) if label in text]
            said = named[0] if named else self.labels.index(self.says["answer"])
            swapped = self.says.get("says_instead", {}).get(self.labels[said])
            said = said if swapped is None else self.labels.index(swapped)
            of_word = [share for word, share in self.says.get("wrong_by_word", {}).items() if word in text]
            if self.chance("wrong", text) < max([self.says.get("wrong_share", 0), *of_word]):
                said = (said + 1) % len(self.labels)
            out[i, said] = 5.0
            if "stub:nan" in text:
                out[i] = np.nan
        return out

    def chance(self, what, text):
        """A number in [0, 1) that hangs on the text and the stub's seed alone."""
        digest = hashlib.sha256(f"{what}{self.says.get('seed')}{text}".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32
'''.replace("\\\\", "\\")


def install_plugin(folder: Path) -> dict[str, str]:
    """Put the plug-in into `folder`, as pip would; the environment in which a process finds it."""
    (folder / "headrace_stub.py").write_text(PLUGIN)
    facts = folder / "headrace_stub-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: headrace-stub\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[headrace.backends]\nstub = headrace_stub:Stub\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def stub_artifact(ws: Workspace, task: str = "tone", **says: Any) -> str:
    """An artifact of the stub in the workspace's store; its digest."""
    folder = ws.artifacts.new_folder()
    write_facts(folder, ArtifactFacts(backend="stub", precision="fp32", task=ws.task(task)))
    (folder / "stub.json").write_text(json.dumps({"answer": "neutral", **says}))
    return ws.artifacts.put(folder)[0]


def plant_stub(ws: Workspace, task: str = "tone", **says: Any) -> ModelVersion:
    """The next version of a task, a stub that `says` describes."""
    version = plant_version(ws, task=task)
    digest = stub_artifact(ws, task, **says)
    with ws.store.write() as conn:
        runs.add_artifact(conn, Artifact(digest, "stub", 1, {}), NOON)
        versions = schema.model_versions
        conn.execute(update(versions).where(versions.c.id == version.id).values(artifact=digest))
    return replace(version, artifact=digest)


class Server:
    """A `start_server` process on a free port of this machine."""

    def __init__(
        self, root: Path, env: dict[str, str], *, wait: bool = True, prelude: str = "", **settings: object
    ) -> None:
        """
        Args:
            prelude: Python that the process runs first, to change a constant or a clock.
        """
        code = (
            f"{prelude}\nimport json, sys; from headrace.workspace import open_workspace as o; "
            "from headrace.server.running import start_server as s; "
            "s(o(sys.argv[1], overrides=json.loads(sys.argv[2])), port=0)"
        )
        settings = {"serve__n_workers": 1, "serve__n_threads": 1} | settings  # nothing to measure
        overrides = json.dumps({name.replace("__", "."): value for name, value in settings.items()})
        self.root = root
        self.log = root / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", code, str(root), overrides],
                stdout=subprocess.PIPE, stderr=log, text=True, env=env,
            )  # fmt: skip
        self.line = ""
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        if not self.line:
            self.stop()
            raise AssertionError(self.log.read_text())

    @property
    def url(self) -> str:
        return str(json.loads((self.root / ".headrace" / "server.json").read_text())["url"])

    def worker_pids(self) -> list[int]:
        import psutil

        return [int(worker.pid) for worker in psutil.Process(self.process.pid).children()]

    def worker_pid(self) -> int:
        (pid,) = self.worker_pids()
        return pid

    def figure(self, name: str, **labels: str) -> float:
        """One of /metrics; 0 when nothing was counted."""
        import httpx

        shown = httpx.get(f"{self.url}/metrics", timeout=START_TIMEOUT_S, verify=False).text
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in shown.splitlines():
            head, _, value = line.rpartition(" ")
            found, _, inside = head.partition("{")
            if found == f"headrace_{name}" and wanted <= set(inside.rstrip("}").split(",")):
                return float(value)
        return 0.0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop and wait; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(START_TIMEOUT_S)
        finally:
            self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def running(root: Path, env: dict[str, str], *, prelude: str = "", **settings: object) -> Iterator[Server]:
    server = Server(root, env, prelude=prelude, **settings)
    try:
        yield server
    finally:
        server.stop()
