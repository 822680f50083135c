"""Run every bench, or those named: `python -m bench [NAME ...]`. Each runs in its own process.

Those of methods take hours, and those of serving want an environment of their own; they run only when they are named.
"""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_PARTS = {"__main__", "load", "serving_limits", "serving_material"}  # programs that benches start
_LONG = {"serving", "behaviour", "soak", "offline", "methods", "rates", "regression", "memory", "caching", "reaching"}
_LONG |= {"release_drills", "release_replay", "compress", "adapters", "wheel"}


def main(names: list[str]) -> int:
    programs = (p for p in _HERE.glob("*.py") if '__name__ == "__main__"' in p.read_text("utf-8"))
    known = sorted(p.stem for p in programs if p.stem not in _PARTS)
    if unknown := sorted(set(names) - set(known)):
        print(f"unknown: {', '.join(unknown)}. Known: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or [name for name in known if name not in _LONG]:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=_HERE.parent).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
