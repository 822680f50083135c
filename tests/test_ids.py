"""Ids. Catches: two rows of one name, after a fork too; ids that sort otherwise than they were made; a bad UUID."""

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from headrace.ids import first_id, made_at, new_id

_FORKS = """
import os
from headrace.ids import new_id
new_id("prediction")  # whatever is kept between two ids is there now
for _ in range(2):
    if os.fork() == 0:
        break
else:
    os.wait(), os.wait()
os.write(1, "".join(new_id("prediction") + "\\n" for _ in range(100)).encode())  # at once, less than a pipe holds
"""


def _some(n: int) -> list[str]:
    return [new_id("prediction") for _ in range(n)]


def test_ids_are_uuids_of_version_7_and_differ() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    made = _some(50_000)
    assert len(set(made)) == len(made)
    assert {(one.version, one.variant) for one in (uuid.UUID(name.removeprefix("prd_")) for name in made)} == {
        (7, uuid.RFC_4122)
    }
    assert all(before <= made_at(name) <= datetime.now(UTC) for name in made[::1000])
    varied = [sum(int(name[-19:], 16) >> bit & 1 for name in made) for bit in range(62)]
    assert min(varied) > 24_000  # six deviations from half: no bit stands still
    assert max(varied) < 26_000


def test_an_instant_lies_before_what_is_made_in_it() -> None:
    at = datetime.now(UTC)
    names = _some(100)
    assert all(first_id("prediction", at) < name < first_id("prediction", at + timedelta(seconds=60)) for name in names)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_forked_processes_do_not_repeat_each_other() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, check=True, timeout=60)
    names = done.stdout.split()
    assert len(names) == 300
    assert len({name[-19:] for name in names}) == 300  # without the time, which may differ by itself
