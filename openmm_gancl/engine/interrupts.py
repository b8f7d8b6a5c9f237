"""Whether Ctrl-C came: a destructor or a callback may lose its KeyboardInterrupt, and what goes on is then damaged."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_came: list[int] = []


def note_interrupt() -> None:
    """For a handler of the signal."""
    _came.append(signal.SIGINT)


def interrupts() -> int:
    """How often Ctrl-C came so far."""
    return len(_came)


def _hear(number: int, frame: FrameType | None) -> None:
    note_interrupt()
    raise KeyboardInterrupt


@contextmanager
def noticed_interrupts() -> Iterator[Callable[[], None]]:
    """Of the main thread; what is yielded raises KeyboardInterrupt if one came meanwhile, however it was lost."""
    before = interrupts()

    def check() -> None:
        if interrupts() > before:
            raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _hear)
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
