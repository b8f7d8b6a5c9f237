"""The process of a run: its threads, its workers, and Ctrl-C."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from ..engine.tasks import local_pool
from ..engine.threads import torch_threads


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """So many for torch and the linear algebra, whose last digits depend on it; afterwards as before."""
    with torch_threads(threads), threadpool_limits(threads):
        yield


def start_workers(workers: int) -> None:
    """Start worker processes that do not hear Ctrl-C, which the terminal sends to them too.

    They inherit that it is ignored; a mask would not do, for loky unblocks the signal on its way.
    """
    if workers < 2 or threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        local_pool(workers).submit(os.getpid)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C that falls into a destructor is lost to Python: what is yielded raises it again."""
    heard = []

    def hear(number: int, frame: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    def check() -> None:
        if heard:
            raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
