"""Requests made up from the OpenAPI document by schemathesis, with a key, with a wrong one and without: R28.

schemathesis is a program of its own, in an environment of its own:

    python -m venv made-up && made-up/bin/pip install schemathesis
    python -m bench.requests_made_up --program made-up/bin/schemathesis
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.reporting import Measured, write

sys.path.append(str(Path(__file__).parents[1] / "tests"))

SEED = 7
KEY_VARIABLE = "HEADRACE_BENCH__KEY"
CONFIG = f"""
[headers]
Authorization = "Bearer ${{{KEY_VARIABLE}}}"

[generation]
with-security-parameters = false  # whose values would take the place of the key

[parameters]
"path.task" = "tone"
"path.version" = "1"
"path.channel" = "web"
"query.task" = "tone"
"query.channel" = "web"
"body.task" = "tone"
"body.channel" = "web"

[[operations]]  # lines of JSON, which it cannot write
include-path = "/v1/feedback/stream"
enabled = false

[[operations]]  # each of several feedbacks has an error of its own
include-path = "/v1/feedback/batch"
[operations.checks.negative_data_rejection]
expected-statuses = ["200", "401", "404", "422"]

[[operations]]  # what no schema says: fields and labels of the task, the length of a shape
include-path-regex = "(infer|predict|setup|reviews/.+)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "404", "409", "422", "503"]
"""
_MOST_S = 7200
_LOG_CHARS = 10_000
_SHARE_REFUSED = 0.25  # of the examples: what is refused before it is read tells nothing by many


def main() -> int:
    """0 when every answer was as the document says."""
    given = _arguments()
    rows, n_failed = [], 0
    for who in ("a key", "a wrong key", "no key"):
        n_examples = given.examples if who == "a key" else max(1, int(given.examples * _SHARE_REFUSED))
        said = _asked(given.program, n_examples, who)
        failed = sum(one["count"] for one in (*said["failures"], *said["errors"]))
        n_failed += failed
        rows += [
            Measured(f"with {who}: operations", said["operations"]["tested"], ""),
            Measured(f"with {who}: requests", said["test_cases"]["generated"], ""),
            Measured(f"with {who}: answers that are not as the document says", failed, "", vs="0"),
            *(Measured(f"with {who}: {one['title']}", one["count"], "") for one in said["failures"]),
        ]
    write("requests_made_up", rows, [SEED])
    return 1 if n_failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="schemathesis")
    parser.add_argument("--examples", type=int, default=200, help="of each operation, with a key, at most")
    return parser.parse_args()


def _asked(program: Path, n_examples: int, who: str) -> dict[str, Any]:
    """What schemathesis reports of a server of its own."""
    with tempfile.TemporaryDirectory(prefix="headrace-made-up-") as name:
        folder = Path(name)
        with _served(folder) as (url, key, document):
            wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
            sent = {"a key": key, "a wrong key": wrong, "no key": None}[who]
            config = CONFIG if sent else CONFIG[CONFIG.index("[generation]") :]
            (folder / "schemathesis.toml").write_text(config, "utf-8")
            (folder / "openapi.json").write_bytes(document)
            command = [
                program.absolute(), "--config-file", "schemathesis.toml", "run", "openapi.json", "--url", url,
                "--checks", "all", "--max-examples", n_examples, "--seed", SEED, "--continue-on-failure",
                "--report-json-path", "report.json",
            ]  # fmt: skip
            done = subprocess.run(
                [str(part) for part in command],
                cwd=folder,
                env={**os.environ, KEY_VARIABLE: sent or ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_MOST_S,
            )
            if done.returncode:
                print(done.stdout, (folder / "ws" / "server.log").read_text("utf-8")[-_LOG_CHARS:])
        report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
        return report


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """A server of the stub model with reviews to answer: (URL, a key that may do everything, OpenAPI document)."""
    import httpx

    from headrace.access import keys
    from headrace.access.scopes import SCOPES
    from headrace.feedback import filling
    from headrace.workspace import open_workspace
    from server.conftest import new_workspace
    from stub_model import install_plugin, running

    (folder / "site").mkdir()
    environment, root = install_plugin(folder / "site"), new_workspace(folder / "ws")
    with open_workspace(root) as ws:
        key = keys.create(ws, "bench", scopes=list(SCOPES)).key
    with running(root, environment, serve__default_task="tone", serve__default_channel="web") as server:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            document = http.get("/openapi.json").content
            for n in range(20):
                body = {"task": "tone", "channel": "web", "inputs": [{"text": f"positive {n}"}]}
                answer = http.post("/v1/predict", json=body).json()
            http.post("/v1/feedback", json={"prediction_id": answer["predictions"][0]["id"], "comment": "written"})
        with open_workspace(root) as ws:
            filling.fill(ws, "tone")
        yield server.url, key, document


if __name__ == "__main__":
    sys.exit(main())
