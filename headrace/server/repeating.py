"""Work that a server does now and then, beside its answers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(name: str, do: Callable[[threading.Event], None], *, first_s: float, every_s: float) -> Iterator[None]:
    """Do something in a thread, first after `first_s` and then `every_s` after each end, until the context is left.

    Args:
        do: is told by the event that it is to end; what it raises ends the thread.
    """
    stop = threading.Event()

    def run() -> None:
        wait_s = first_s
        while not stop.wait(wait_s):
            wait_s = every_s
            do(stop)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
