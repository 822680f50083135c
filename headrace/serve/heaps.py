"""What the C library keeps of memory that was freed."""

import contextlib
import ctypes


def give_back() -> None:
    """Return pages that hold nothing to the system; takes some ms. glibc's: others have no such call.

    Source: malloc_trim(3).
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
