"""``--help`` as wide as the terminal, 80 columns at most: the library's own is never narrower than 50."""

import shutil
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WIDEST = 80
"""Columns."""

ROOM_FOR_TWO_COLUMNS = 48
"""Columns, from which on options stand beside what they mean, and not above."""


class _Formatter(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        columns = min(shutil.get_terminal_size().columns, max_width or WIDEST)
        super().__init__(indent_increment, width or max(columns - 2, 20), max_width)

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Options, arguments or commands, each with what it means."""
        super().write_dl(rows, col_max if self.width >= ROOM_FOR_TWO_COLUMNS else 2, col_spacing)


class _Context(typer.Context):
    formatter_class = _Formatter


class Command(TyperCommand):
    """Whose ``--help`` fits."""

    context_class: Any = _Context


class Group(TyperGroup):
    """Whose ``--help`` fits."""

    context_class: Any = _Context
