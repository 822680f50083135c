"""Write requirements/*.txt: every package of an installation with its exact version and the hashes of its files.

    python scripts/lock.py             # what constraints.txt pins, for the Python and the machine that run this
    pip install --require-hashes -r requirements/core.txt && pip install --no-deps headrace-*.whl

pip decides what an installation needs and which files it takes; this writes down what it would do. A file that somebody
put in place of another, in a registry or on the way, has another hash and is not installed.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
WANTED = {"core": ".", "train": ".[train]"}
NOTE = """# Made by `python scripts/lock.py {name}`, for CPython {python} on {system}; other systems take other files:
# run it there. Install with: pip install --require-hashes -r requirements/{name}.txt
"""


def planned(wish: str) -> list[dict[str, Any]]:
    """What pip would install for a wish, and from which files."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["--only-binary", ":all:", "-c", "constraints.txt", wish]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return [one for one in found if "archive_info" in one["download_info"]]  # all but headrace itself


def text_of(name: str, packages: list[dict[str, Any]]) -> str:
    """The file of requirements."""
    lines = []
    for one in packages:
        hashes = one["download_info"]["archive_info"]["hashes"]
        wheel = f"{one['metadata']['name'].lower()}=={one['metadata']['version']}"
        lines.append(f"{wheel} --hash=sha256:{hashes['sha256']}\n")
    system = f"{platform.system()} {platform.machine()}"
    head = NOTE.format(name=name, python=".".join(map(str, sys.version_info[:2])), system=system)
    return head + "".join(sorted(lines))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *WANTED], help="Which ones; default: all.")
    for name in parser.parse_args(argv).names or WANTED:
        FOLDER.mkdir(exist_ok=True)
        packages = planned(WANTED[name])
        (FOLDER / f"{name}.txt").write_text(text_of(name, packages), "utf-8")
        print(f"requirements/{name}.txt: {len(packages)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
