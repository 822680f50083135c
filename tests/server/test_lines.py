"""Bytes into lines. Catches: a line that is lost, cut in two or joined with its neighbour wherever the body is cut up,
and a body without line ends that is kept in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BadInput
from headrace.server import lines
from headrace.server.lines import Splitter


@given(st.lists(st.binary(max_size=6)), st.booleans())
def test_lines_do_not_hang_on_how_the_body_is_cut(parts: list[bytes], ends_with_empty: bool) -> None:
    splitter = Splitter()
    cut = [*parts, b""] if ends_with_empty or not parts else parts
    found = [line for n, part in enumerate(cut) for line in splitter.feed(part, is_last=n == len(cut) - 1)]
    assert found == [line for line in b"".join(parts).split(b"\n") if line.strip()]


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 25))
def test_a_line_that_is_too_long_is_one_error_in_its_place(sizes: list[int], step: int) -> None:
    whole = b"\n".join(b"x" * size for size in sizes)
    splitter, found = Splitter(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE_BYTES", 10)
        for start in range(0, len(whole) + 1, step):
            found += splitter.feed(whole[start : start + step], is_last=start + step > len(whole))
            assert len(splitter._rest) <= 10
    assert [BadInput if isinstance(line, BadInput) else len(line) for line in found] == [
        BadInput if size > 10 else size for size in sizes if size
    ]
