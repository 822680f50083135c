"""Label Studio and headrace together, on this machine, as a user would set them up.

    pip install label-studio            # into an environment of its own: it brings versions of its own
    python runs/label_studio.py --label-studio PATH/TO/bin/label-studio

Makes a workspace with a small model, serves it, starts Label Studio, makes a project whose ML backend is headrace,
imports what headrace asks for, has Label Studio fetch pre-labels, annotates over its API, and looks for the answers in
headrace. `--record FOLDER` keeps what Label Studio sent, which tests/server/test_label_studio.py replays.
"""

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

WAIT_S = 240
WORDS = {
    "negative": ["awful", "broken", "rude", "slow"],
    "positive": ["lovely", "great", "kind", "fast"],
}
_SETTINGS = {  # Label Studio refuses backends on its own machine unless it is told otherwise
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--label-studio", default="label-studio", help="its executable")
    parser.add_argument("--record", type=Path, help="folder for what it sends")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        make_workspace(root)
        with (
            headrace_server(root) as headrace_url,
            recorder(headrace_url, options.record) as backend_url,
            label_studio(options.label_studio, Path(folder) / "studio") as studio,
        ):
            work_together(root, headrace_url, backend_url, studio, options.record)
    print("All of it worked.")


def work_together(root: Path, headrace_url: str, backend_url: str, studio: httpx.Client, record: Path | None) -> None:
    asked = httpx.post(f"{headrace_url}/v1/predict", json={"task": "tone", "channel": "shop", "inputs": TEXTS})
    asked.raise_for_status()
    headrace(root, "review", "fill", "--set", "feedback.review_rows=4")
    headrace(root, "label", "export", str(root / "tasks.json"), "--no-prelabels")
    waiting = json.loads((root / "tasks.json").read_text("utf-8"))
    unseen = [{"data": {"text": "the new lamp is lovely"}}, {"data": {"text": "my chair came broken"}}]
    config = json.loads(headrace(root, "label", "config", "--json"))["config"]
    project = sent(studio, "/api/projects", {"title": "tone", "label_config": config})["id"]
    backend = sent(
        studio, "/api/ml", {"project": project, "url": f"{backend_url}/label-studio/shop", "title": "headrace"}
    )
    print("backend:", backend["state"], backend.get("model_version"))
    sent(studio, f"/api/projects/{project}/import", [*waiting, *unseen])
    tasks = got(studio, f"/api/tasks?project={project}&fields=all")["tasks"]
    print(len(tasks), "tasks in Label Studio")
    chosen = {"selectedItems": {"all": True, "excluded": []}, "project": str(project)}
    sent(studio, f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", chosen)
    with_predictions = until(lambda: prelabelled(studio, project, len(tasks)), "pre-labels")
    print("pre-labels:", [task["predictions"][0]["result"][0]["value"]["choices"] for task in with_predictions])
    for task in with_predictions:
        flipped = json.loads(json.dumps(task["predictions"][0]["result"]))
        flipped[0]["value"]["choices"] = ["negative" if flipped[0]["value"]["choices"] == ["positive"] else "positive"]
        made = sent(studio, f"/api/tasks/{task['id']}/annotations", {"result": flipped, "lead_time": 2.5})
    studio.patch(f"/api/annotations/{made['id']}", json={"result": task["predictions"][0]["result"]}).raise_for_status()
    answered = until(lambda: answered_reviews(root, len(waiting)), "answers of reviews")
    print("answered reviews:", [(one["answer"], one["labeller"]) for one in answered])
    exported = got(studio, f"/api/projects/{project}/export?exportType=JSON")
    (root / "export.json").write_text(json.dumps(exported), "utf-8")
    if record is not None:
        (record / "export.json").write_text(json.dumps(exported[:2], indent=1, ensure_ascii=False) + "\n", "utf-8")
    again = json.loads(headrace(root, "label", "import", "export.json", "--json"))
    print("its export, imported:", {name: again[name] for name in ("n_rows", "n_labels", "n_unlabelled")})
    if again["n_labels"] or len(again["refused"]) != len(unseen):
        raise SystemExit(f"the export says something else than the webhooks did: {again}")
    corrected = corrections(root)
    print("corrections:", corrected)
    if len(corrected) < len(unseen):
        raise SystemExit(f"texts that headrace had not seen have no correction: {corrected}")


TEXTS = [{"text": f"{word} {thing}"} for word in ("awful", "lovely", "plain", "kind") for thing in ("shop", "table")]


def make_workspace(root: Path) -> None:
    headrace(root.parent, "init", str(root), "--task", "tone", "--labels", ",".join(WORDS))
    headrace(root, "channel", "add", "shop")
    rows = [
        {"text": f"the {noun} number {number} was {word}", "label": label}
        for label, words in WORDS.items()
        for word in words
        for number, noun in enumerate(("lamp", "chair", "table", "box", "service", "parcel", "phone", "film"))
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    headrace(root, "import", "shop", "rows.jsonl")
    headrace(root, "train", "--set", "finetune.method=head", "--set", "finetune.epochs=2")


def headrace(where: Path, *words: str) -> str:
    """Run a verb in a folder; what it printed."""
    done = subprocess.run([sys.executable, "-m", "headrace", *words], cwd=where, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"headrace {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def headrace_server(root: Path) -> Iterator[str]:
    words = ["serve", "--port", "0", "--set", "serve.n_workers=1", "--set", "serve.n_threads=1"]
    words += ["--set", "feedback.audit_share=0.5"]
    with running([sys.executable, "-m", "headrace", *words], root, root / "serve.log", {}):
        known = root / ".headrace" / "server.json"
        url = until(lambda: json.loads(known.read_text())["url"] if known.exists() else None, "headrace")
        until(lambda: is_up(f"{url}/v2/health/ready"), "the model")
        yield url


@contextmanager
def label_studio(executable: str, folder: Path) -> Iterator[httpx.Client]:
    """A Label Studio of its own; a client of its API."""
    folder.mkdir()
    port, token = free_port(), secrets.token_hex(20)
    words = [executable, "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    words += ["--username", "ann@example.org", "--password", secrets.token_hex(12), "--user-token", token]
    settings = {**_SETTINGS, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    with running(words, folder, folder / "studio.log", settings):
        url = f"http://127.0.0.1:{port}"
        until(lambda: is_up(f"{url}/health"), "Label Studio")
        with httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=120) as client:
            yield client


@contextmanager
def running(words: list[str], where: Path, log: Path, settings: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, cwd=where, env={**os.environ, **settings}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def recorder(url: str, folder: Path | None) -> Iterator[str]:
    """A server that hands requests on to `url`, and writes down what came and what was answered."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    seen: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._hand_on(b"")

        def do_POST(self) -> None:
            self._hand_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _hand_on(self, body: bytes) -> None:
            answer = httpx.request(
                self.command, url + self.path, content=body, headers={"Content-Type": "application/json"}, timeout=60
            )
            verb = self.path.rsplit("/", 1)[-1]
            told = json.loads(body) if body else {}
            name = f"{verb}-{told['action'].lower()}" if "action" in told else verb
            seen[name] = seen.get(name, 0) + 1
            print(f"  Label Studio: {self.command} {self.path} {told.get('action', '')} -> {answer.status_code}")
            if folder is not None and seen[name] == 1:
                facts = {"path": self.path, "body": worth_keeping(told), "answer": worth_keeping(answer.json())}
                (folder / f"{name}.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Say nothing more."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()


def worth_keeping(said: dict[str, Any]) -> dict[str, Any]:
    """What was said, without tokens, and of many tasks two."""
    kept = json.loads(json.dumps(said))
    for inside, name in ((kept, "access_token"), (kept.get("project"), "token")):
        if isinstance(inside, dict) and name in inside:
            inside[name] = "not kept"
    return {
        name: value[:2] if name in ("tasks", "task", "results") and isinstance(value, list) else value
        for name, value in kept.items()
    }


def prelabelled(studio: httpx.Client, project: int, n: int) -> list[dict[str, Any]] | None:
    tasks = got(studio, f"/api/tasks?project={project}&fields=all")["tasks"]
    found = [got(studio, f"/api/tasks/{task['id']}") for task in tasks]
    return found if len(found) == n and all(task["predictions"] for task in found) else None


def answered_reviews(root: Path, n: int) -> list[dict[str, Any]] | None:
    found: list[dict[str, Any]] = json.loads(headrace(root, "review", "list", "--state", "answered", "--json"))
    return found if len(found) >= n else None


def corrections(root: Path) -> list[tuple[str, str]]:
    """Text and correction of the feedback in a workspace."""
    from sqlalchemy import select

    from headrace.store import schema
    from headrace.workspace import open_workspace

    p, f = schema.predictions.c, schema.feedback.c
    with open_workspace(root) as ws, ws.store.read() as conn:
        return [tuple(row) for row in conn.execute(select(p.text, f.correction).where(p.id == f.prediction_id))]


def sent(studio: httpx.Client, path: str, body: object) -> Any:
    answer = studio.post(path, json=body)
    if answer.status_code >= 300:
        raise SystemExit(f"POST {path}: {answer.status_code} {answer.text[:2000]}")
    return answer.json()


def got(studio: httpx.Client, path: str) -> Any:
    answer = studio.get(path)
    if answer.status_code >= 300:
        raise SystemExit(f"GET {path}: {answer.status_code} {answer.text[:2000]}")
    return answer.json()


def until(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(1)
    raise SystemExit(f"waited {WAIT_S} s for {what}")


def is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
