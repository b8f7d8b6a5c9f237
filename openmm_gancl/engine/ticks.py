"""Something that is done every so often while this thread works."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(call: Callable[[], None], interval: float) -> Iterator[None]:
    """Call a function again and again, from a thread of its own, while this lasts.

    Args:
        call: what it raises ends the calls.
        interval: seconds between two calls.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(interval):
            call()

    thread = threading.Thread(target=repeat, name="openmm-gancl progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
