"""Progress on stderr: bars in a terminal, a few plain lines in a log file; results, wrapped to a terminal."""

import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import typer

from ..engine.ticks import repeated
from .options import as_options

LONGEST_SILENCE = 4.0
"""Seconds after which a log hears of a step again, also while a fit says nothing of itself."""

TICK = 0.25
"""Seconds after which it is looked whether that is due."""

ROOM_FOR_BARS = 70
"""Columns of a terminal, below which a step is its title, how far it is and how long it took."""


class LogReporter:
    """A line at the start, at each quarter, every few seconds and at the end of every step."""

    @contextmanager
    def step(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A piece of work; the callable takes how much of it is done."""
        start, quarter, last = time.monotonic(), 0, 0
        said, lock = start, threading.Lock()
        typer.echo(f"{title}: begun", err=True)

        def say_if_due() -> None:
            nonlocal quarter, said
            with lock:
                now = time.monotonic()
                if last >= total or (4 * last // total <= quarter and now - said < LONGEST_SILENCE - TICK):
                    return
                quarter, said = 4 * last // total, now
                part = f"{100 * last // total} % " if total > 1 else ""  # a step in one piece does not say
                typer.echo(f"{title}: {part}after {now - start:.0f} s", err=True)

        def done(count: int) -> None:
            nonlocal last
            last = count
            say_if_due()

        def tick() -> None:
            with suppress(OSError, ValueError):  # of an output that is closed: the work goes on
                say_if_due()

        with repeated(tick, TICK):
            yield done
        early = f" (ended at {last} of {total})" if last < total else ""
        typer.echo(f"{title}: 100 % after {time.monotonic() - start:.0f} s{early}", err=True)

    def note(self, message: str) -> None:
        """One sentence."""
        typer.echo(f"note: {as_options(message)}", err=True)


class TerminalReporter:
    """A rich bar for each step."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def step(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A piece of work; the callable takes how much of it is done."""
        from rich.progress import (
            BarColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns: list[ProgressColumn] = [TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn()]
        if self.console.width < ROOM_FOR_BARS:
            columns.insert(0, TextColumn("{task.description}"))
        else:
            columns[:0] = TextColumn("{task.description:<24}"), BarColumn()
            columns += TextColumn("left"), TimeRemainingColumn()
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.update(task, completed=count)
            bar.update(task, completed=total)

    def note(self, message: str) -> None:
        """One sentence."""
        self.console.print(f"note: {as_options(message)}", markup=False, highlight=False, soft_wrap=True)


def make_reporter() -> LogReporter | TerminalReporter:
    """Bars if stderr is a terminal."""
    return TerminalReporter() if sys.stderr.isatty() else LogReporter()


def print_results(text: str) -> None:
    """Lines for people on stdout, with names of options; in a terminal they break between words."""
    text = as_options(text)
    typer.echo(wrapped(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text)


def wrapped(text: str, columns: int) -> str:
    """Lines that break between words; what follows a name and two spaces goes on below itself where there is room."""
    lines = []
    for line in text.split("\n"):
        name = re.match(r"\S.*?\s{2,}(?=\S)", line)
        indent = len(name[0]) if name else 0
        # as names of one width would be in every line, or a table of many columns
        if indent > columns // 2 or (len(line) > columns and len(re.findall(r"\S\s{2,}(?=\S)", line)) > 1):
            line, indent = re.sub(r"(?<=\S)\s{2,}", "  ", line), 2
        lines += textwrap.wrap(
            line,
            columns,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)
