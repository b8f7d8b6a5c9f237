"""How far learning is, reported every few seconds, also while a fit says nothing of itself."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..engine.ticks import repeated

INTERVAL = 4.0
"""Seconds between two messages at most, less what one comes late."""

TICK = 0.25
"""Seconds after which it is looked whether a message is due."""


@dataclass(frozen=True)
class LearningProgress:
    """How far learning is.

    Attributes:
        step: what is being done: sampling, fitting, lifting, round 2, checking, surface.
        fraction: of that step; NaN of a fit, which does not say.
        seconds: since learning began.
        note: a sentence on the system or the folder, or none.
    """

    step: str
    fraction: float
    seconds: float
    note: str = ""

    def __str__(self) -> str:
        """One line."""
        if self.note:
            return f"learning: {self.note}"
        part = f"{100 * self.fraction:.0f} %, " if self.fraction == self.fraction else ""
        return f"learning: {self.step}, {part}{self.seconds:.0f} s"


Tell = Callable[[LearningProgress], None]


def print_progress(progress: LearningProgress) -> None:
    """One line to standard error."""
    print(progress, file=sys.stderr, flush=True)


class TimedReporter:
    """A run's reporter (`openmm_gancl.workflow.context.Reporter`) that tells at least every few seconds.

    Args:
        tell: called by the thread that learns when a step begins, else by one of its own; what it raises ends the
            learning.
    """

    def __init__(self, tell: Tell):
        self._tell = tell
        self._lock = threading.RLock()
        self._began = self._told = time.monotonic()
        self._title, self._done, self._total = "", 0, 1
        self._failure: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Tell while this lasts."""
        self._began = self._told = time.monotonic()
        with repeated(self._tick, TICK):
            yield

    @contextmanager
    def step(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A piece of work; the callable takes how much of it is done."""
        self._title, self._done, self._total = title, 0, total
        self._say()
        yield self._count
        self._title = ""
        self._check()

    def note(self, message: str) -> None:
        """One sentence."""
        self._say(message)

    def _count(self, done: int) -> None:
        self._done = done
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _say(self, note: str = "") -> None:
        with self._lock:
            self._told = time.monotonic()
            fraction = self._done / self._total if self._total > 1 else float("nan")
            self._tell(LearningProgress(self._title or "preparing", fraction, self._told - self._began, note))

    def _tick(self) -> None:
        if self._failure is not None or time.monotonic() - self._told < INTERVAL - TICK:
            return
        try:
            self._say()
        except BaseException as error:
            self._failure = error
