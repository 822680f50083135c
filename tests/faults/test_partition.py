"""PostgreSQL behind a network that goes without a word. Catches: a server that waits for hours on a connection whose
other end is gone, and does not come back by itself."""

import pytest
import sqlalchemy as sa

from bench.drills import partition
from headrace.store import engine


@pytest.mark.slow
def test_the_server_notices_and_comes_back() -> None:
    reason = partition.why_not()
    if reason is not None:
        pytest.skip(reason)
    assert [figure for figure in partition.run(3) if not figure.is_met] == []


def test_the_url_may_have_limits_of_its_own() -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'headrace[postgres]'")
    made = engine._make_engine("postgresql+psycopg://u@h/d?connect_timeout=30", "")
    asked: dict[str, object] = {}

    @sa.event.listens_for(made, "do_connect")
    def note(_dialect: object, _record: object, _args: object, given: dict[str, object]) -> None:
        asked.update(given)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        made.connect()
    assert (asked["connect_timeout"], asked["tcp_user_timeout"]) == ("30", 8000)
