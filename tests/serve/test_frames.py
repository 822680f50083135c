"""Messages between pool and worker. Catches: text that changes on the way, a half message taken for a whole one."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serve import frames

TEXTS = st.text(st.characters())  # also halves of surrogate pairs


@given(st.lists(st.dictionaries(TEXTS, st.lists(TEXTS)), max_size=4))
def test_messages_come_back_as_they_were_sent(messages: list[dict[str, object]]) -> None:
    stream = io.BytesIO()
    for message in messages:
        frames.send(stream, message)
    stream.seek(0)
    assert [frames.receive(stream) for _ in messages] == messages
    assert frames.receive(stream) is None


@pytest.mark.parametrize("n_kept", [0, 1, 3, 4, 5, 12])
def test_a_stream_that_breaks_off_is_the_end(n_kept: int) -> None:
    stream = io.BytesIO()
    frames.send(stream, {"id": 1, "texts": ["a"]})
    assert frames.receive(io.BytesIO(stream.getvalue()[:n_kept])) is None
