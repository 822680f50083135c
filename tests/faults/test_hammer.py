"""Several processes write and read at once, and an older database is brought up to date. Catches: 'database is locked'
that a user sees, a writer that starves, a line lost; rows lost by a migration."""

import pytest

from bench.drills import hammer, migrations


@pytest.mark.slow
def test_writers_of_several_processes_are_all_served() -> None:
    assert [figure for figure in hammer.run(seconds=2) if not figure.is_met] == []


def test_an_older_database_is_brought_up_to_date_with_all_its_rows() -> None:
    assert [figure for figure in migrations.run(n_rows=2000) if not figure.is_met] == []
