"""Code blocks of README and docs/ do what they say: pasted into one terminal a page, in order, on a tiny base model.

Catches: a verb, option, route, field or SDK name that changed under a page; a CSV of a page that cannot be trained on.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import PAGES, Block, blocks, continues, name_of, refusals, runnable

TIMEOUT_S = 400
PORT = "8000"
STOP = "trap 'for pid in $(jobs -p); do kill $pid && wait $pid || true; done' EXIT"
STARTS = [p for p in PAGES if runnable(p) and continues(p) is None]


def test_every_block_names_its_language_and_every_page_is_run() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in ("bash", "python", "toml", "json"), f"{name_of(page)}:{block.line}"
    assert {name_of(p) for p in STARTS} >= {"README.md", "docs/quickstart.md"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages ask the server with curl")
@pytest.mark.parametrize("start", STARTS, ids=name_of)
def test_blocks_run(start: Path, tmp_path: Path, tiny_base: Path) -> None:
    pages = [start, *(p for p in PAGES if continues(p) == start)]
    script = "\n".join(["set -euo pipefail", STOP, *(_as_shell(p, b) for p in pages for b in runnable(p))])
    port = _free_port()
    script = script.replace(f":{PORT}", f":{port}")
    process = subprocess.Popen(
        ["bash", "-c", script], cwd=tmp_path, env=_environment(script, tiny_base, port),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"not done after {TIMEOUT_S} s:\n{said}")
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "Error:" not in said
    shown = {code for page in pages for code in refusals(page)}
    assert set(re.findall(r'"code": ?"(\w+)"', said)) - {"unavailable"} == shown, said  # curl -s ends well in any case


def _as_shell(page: Path, block: Block) -> str:
    """A block as lines of the page's script, announced so that a failure names it."""
    said = f"echo '== {name_of(page)}:{block.line}'"
    if block.language == "python":
        return f"{said}\npython - <<'END_OF_PYTHON'\n{block.body}END_OF_PYTHON"
    return f"{said}\n{block.body}"


def _environment(script: str, tiny_base: Path, port: int) -> dict[str, str]:
    """A user's environment, with what makes a run fast: a tiny base model for the page's tasks, one epoch, fp32."""
    tasks = set(re.findall(r"headrace.init.* (?:--task |task=\")(\w+)", script))
    own = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return own | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{f"HEADRACE_TASKS__{task.upper()}__BASE_MODEL": str(tiny_base) for task in tasks},
        "HEADRACE_FINETUNE__EPOCHS": "1",
        "HEADRACE_EXPORT__PRECISION": "fp32",
        "HEADRACE_SERVE__PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
