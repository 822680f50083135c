"""How big is an installation that serves? Makes a virtual environment without extras and measures it.

    python scripts/serving_size.py                   # size in MB, and that no training library is in it
    python scripts/serving_size.py --serve WORKSPACE --channel NAME   # also: serve a model exported elsewhere

Downloads about 200 MB. Ends with status 1 if a training library came along, or the server gave no answer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAINING = ("torch", "transformers", "peft", "accelerate", "datasets", "nncf", "pyarrow")
START_TIMEOUT_S = 60

ASK = """
import sys
from headrace import Client
with Client(sys.argv[1]) as client:
    task = client.models()[0]["task"]
    print(client.predict(task, sys.argv[2], ["A plain sentence."])["predictions"][0])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serve", type=Path, metavar="WORKSPACE", help="a workspace with a model version")
    parser.add_argument("--channel", default="default", help="the channel that asks")
    args = parser.parse_args()
    if args.serve and not (args.serve / "headrace.toml").exists():
        parser.error(f"no workspace at {args.serve}")
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        facts = measure(Path(folder))
        if args.serve:
            facts["answer"] = serve_once(python, args.serve.absolute(), args.channel)
    print(json.dumps(facts))
    return 1 if facts["training_libraries"] else 0


def install(folder: Path) -> Path:
    """A virtual environment with headrace and no extra; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
    return python


def measure(folder: Path) -> dict[str, object]:
    """Size of the installed packages in MB, without pip and what it brings, and the training libraries among them."""
    (site,) = folder.glob("lib/python*/site-packages")
    n_bytes = {
        top.name: sum(f.lstat().st_size for f in top.rglob("*") if f.is_file()) if top.is_dir() else top.stat().st_size
        for top in site.iterdir()
        if not top.name.startswith(("pip", "setuptools"))
    }
    largest = sorted(n_bytes.items(), key=lambda item: -item[1])[:5]
    return {
        "megabytes": round(sum(n_bytes.values()) / 1e6),
        "largest": {name: round(size / 1e6) for name, size in largest},
        "training_libraries": [name for name in TRAINING if (site / name).exists()],
    }


def serve_once(python: Path, workspace: Path, channel: str) -> str:
    """Start `headrace serve` from that environment, ask it once, stop it; the answer."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    started_at = time.monotonic()
    server = subprocess.Popen(
        [str(python.with_name("headrace")), "serve", "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=env, cwd=workspace,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            sys.exit("the server did not start; what it said is above")
        print(f"{line.strip()} after {time.monotonic() - started_at:.1f} s", file=sys.stderr)
        asked = subprocess.run(
            [str(python), "-c", ASK, line.split()[-1], channel],
            stdout=subprocess.PIPE, text=True, env=env, check=True, timeout=START_TIMEOUT_S,
        )  # fmt: skip
        return asked.stdout.strip()
    finally:
        server.terminate()
        server.wait(START_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
