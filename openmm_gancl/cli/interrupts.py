"""Ctrl-C at any moment: one sentence and exit code 130.

Inside a command Ctrl-C is Python's KeyboardInterrupt, so that files and workers are left in order. Modules that are
being imported may swallow it or abort: there, and where a command does not end within some seconds (it may be in a
long call of a library, or its KeyboardInterrupt was lost in a destructor), the process ends at once. What it leaves is
what a kill leaves, of which nothing is lost.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ..engine.interrupts import note_interrupt

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130

GRACE = 4.0
"""Seconds in which a command may leave things in order."""

SHOW_CURSOR = "\x1b[?25h"
"""A bar of progress hides it."""


class _Heard:
    """What to say of Ctrl-C, and whether it has been said."""

    def __init__(self) -> None:
        self.in_command = self.answered = False
        self.advice = "repeat the command"


_heard = _Heard()


@contextmanager
def in_command(advice: str) -> Iterator[None]:
    """Here Ctrl-C is a KeyboardInterrupt, for which somebody waits.

    Args:
        advice: what to do after it.
    """
    _heard.in_command, _heard.advice = True, advice
    try:
        yield
    finally:
        _heard.in_command = False


def answered() -> None:
    """The sentence has been said: whatever happens now, it is not said again."""
    _heard.answered = True


def listen() -> None:
    """Hear Ctrl-C from now on, in the main thread of a program of its own."""
    if os.name != "posix" or not callable(signal.getsignal(signal.SIGINT)):
        return  # nohup, or a shell's background job: it is ignored
    signal.signal(signal.SIGINT, _hear)
    sys.unraisablehook = _lost
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    threading.Thread(target=_watch, args=(read,), name="Ctrl-C", daemon=True).start()


def _hear(number: int, frame: FrameType | None) -> None:
    note_interrupt()
    if not _heard.in_command or _is_importing(frame):
        _end()
    raise KeyboardInterrupt


def _lost(unraisable: "UnraisableHookArgs") -> None:
    """An exception that a destructor raised, of which Python can only tell."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _end()
    sys.__unraisablehook__(unraisable)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _watch(signals: int) -> None:
    """In a thread, which hears of Ctrl-C also while the main thread is in a call of a library."""
    while signal.SIGINT not in os.read(signals, 1):
        pass
    # not an event's wait: nothing ends this but the end of the process
    threading.Event().wait(GRACE)
    _end()


def _end() -> NoReturn:
    if not _heard.answered:
        cursor = SHOW_CURSOR if os.isatty(2) else ""
        os.write(2, f"{cursor}error: interrupted: {_heard.advice}\n".encode())
    os._exit(INTERRUPTED)
