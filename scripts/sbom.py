"""Write a software bill of materials (CycloneDX 1.6, JSON): the packages of an environment, and a version's model.

    python scripts/sbom.py --out sbom.json                                # of the Python that runs this
    python scripts/sbom.py --out sbom.json --workspace FOLDER --version 3 # with the model: base, data, licence, files

The packages are listed by cyclonedx-bom, whose command is on the path (`make sbom`). The model is added here as a
machine-learning component: what it was made from, by hash, and what it answers.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from headrace.artifacts import MANIFEST
from headrace.release import controls
from headrace.store import runs, snapshots
from headrace.workspace import Workspace, open_workspace


def of_environment(python: str) -> dict[str, Any]:
    """The packages that a Python has installed."""
    command = ["cyclonedx-py", "environment", "--of", "JSON", "--sv", "1.6", python]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of_version(ws: Workspace, name: str, *, task: str | None = None, licence: str | None = None) -> dict[str, Any]:
    """A version as a component: its files by hash, its base model and its training rows."""
    version = controls.find_version(ws, ws.task_name(task), name)
    with ws.store.read() as conn:
        run = runs.find(conn, version.run_id)
        snapshot = snapshots.find(conn, version.snapshot_id)
    assert run is not None
    assert snapshot is not None
    files = json.loads((ws.artifacts.get(version.artifact) / MANIFEST).read_text("utf-8"))["files"]
    data = {
        "type": "dataset",
        "name": f"snapshot of {version.task}",
        "contents": {"properties": [{"name": "headrace:content_hash", "value": snapshot.content_hash}]},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": f"headrace:{version.id}",
        "name": version.task,
        "version": str(version.number),
        "hashes": [_hash(version.artifact)],
        **({"licenses": [{"license": {"id": licence}}]} if licence else {}),
        "modelCard": {
            "modelParameters": {
                "task": run.params["task"]["type"],
                "datasets": [data],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "JSON"}],
            }
        },
        "pedigree": {
            "ancestors": [
                {"type": "machine-learning-model", "name": run.base_model, "hashes": [_hash(run.base_digest)]}
            ]
        },
        "components": [
            {"type": "file", "name": file, "hashes": [_hash(entry["sha256"])]} for file, entry in sorted(files.items())
        ],
    }


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="Whose packages; default: this one.")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--task")
    parser.add_argument("--version", help="Number, id or TASK/NUMBER.")
    parser.add_argument("--licence", help="Of the version, as SPDX names it; you choose it.")
    args = parser.parse_args(argv)
    bom = of_environment(args.python)
    if args.version is not None:
        with open_workspace(args.workspace or Path(".")) as ws:
            bom.setdefault("components", []).append(of_version(ws, args.version, task=args.task, licence=args.licence))
    args.out.write_text(json.dumps(bom, indent=1) + "\n", "utf-8")
    print(f"{args.out}: {len(bom.get('components', ()))} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
