"""`python -m headrace.upkeep ROOT SETTINGS`: the process in which a server has its log looked after now and then.

People are asked about what was drawn for an audit; old predictions move to files, and are deleted for good once their
channel keeps them no longer. SETTINGS is a JSON object of dotted settings, since the server may have got them on its
command line.
"""

import json
import os
import sys

from headrace.errors import HeadraceError, WrongState
from headrace.feedback import filling
from headrace.retention import move
from headrace.retention.expiry import expire
from headrace.workspace import open_workspace

_NICENESS = 15


def main(root: str, settings: str) -> int:
    """Open the reviews that are due, and move what is to be moved; the exit status."""
    os.nice(_NICENESS)
    try:
        with open_workspace(root, overrides=json.loads(settings)) as ws:
            for task in sorted(ws.settings.tasks):
                filling.fill(ws, task)
            expired, moved = expire(ws), move(ws)
    except WrongState:  # another process is at it
        return 0
    except HeadraceError as error:
        print(f"headrace: old predictions could not be moved: {error}", file=sys.stderr)
        return 1
    if expired.n_rows or expired.n_rows_in_files:
        n_rows = expired.n_rows + expired.n_rows_in_files
        print(f"headrace: {n_rows} predictions deleted, older than their channels keep them", file=sys.stderr)
    if moved.days_removed:
        days = ", ".join(moved.days_removed)
        print(f"headrace: old predictions deleted, of {days}: more than serve.log_max_bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
