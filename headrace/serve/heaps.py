"""What the C library keeps of memory that was freed. Both are glibc's; other systems' libraries have neither."""

import contextlib
import ctypes

_M_ARENA_MAX = -8  # of malloc.h


def share() -> None:
    """Have all threads that begin from now on allocate from two heaps; call it before there are any.

    glibc gives nearly each thread its own, and each keeps the most that it ever held: with threads that answer in turn,
    memory creeps up for hours. Source: mallopt(3), M_ARENA_MAX.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return pages that hold nothing to the system. Takes some ms. Source: malloc_trim(3)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
