"""Background work: submitted to the store, run by a process of its own, watched, cancelled and resumed from anywhere.

States: queued -> running -> done | failed | cancelled. A queued or running job whose process is gone is
*interrupted*; submitting the same work again runs it again, and the work itself knows how to go on from where it was.
"""

from headrace.jobs.local import (
    Progress,
    cancel,
    find_running,
    follow,
    listing,
    only_one,
    result_of,
    run_here,
    submit,
    wait,
)

__all__ = [
    "Progress",
    "cancel",
    "find_running",
    "follow",
    "listing",
    "only_one",
    "result_of",
    "run_here",
    "submit",
    "wait",
]
