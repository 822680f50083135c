"""`python -m headrace.retention ROOT SETTINGS`: the process in which a server has old predictions moved.

SETTINGS is a JSON object of settings of the table `serve`, since the server may have got them on its command line.
"""

import json
import os
import sys

from headrace.errors import HeadraceError, WrongState
from headrace.retention import move
from headrace.workspace import open_workspace

_NICENESS = 15


def main(root: str, settings: str) -> int:
    """Move what is to be moved; the exit status."""
    os.nice(_NICENESS)
    overrides = {f"serve.{name}": value for name, value in json.loads(settings).items()}
    try:
        with open_workspace(root, overrides=overrides) as ws:
            moved = move(ws)
    except WrongState:  # another process is at it
        return 0
    except HeadraceError as error:
        print(f"headrace: old predictions could not be moved: {error}", file=sys.stderr)
        return 1
    if moved.days_removed:
        days = ", ".join(moved.days_removed)
        print(f"headrace: old predictions deleted, of {days}: more than serve.log_max_bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
