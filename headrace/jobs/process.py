"""`python -m headrace.jobs.process ROOT JOB_ID`: the process that does one job."""

import sys
from pathlib import Path

from headrace.jobs.local import run_here

if __name__ == "__main__":
    sys.exit(run_here(Path(sys.argv[1]), sys.argv[2]))
