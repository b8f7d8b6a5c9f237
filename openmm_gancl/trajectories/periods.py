"""Angles without their period, and periods in another unit than the values: surfaces cut at an edge, or folded."""

import ast
import itertools
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray

TURNS = {"radians": 2 * np.pi, "degrees": 360.0}
"""Periods that a coordinate without one may really have."""

AS_GIVEN = {"radians": "2pi", "degrees": "360"}

MIN_WRAP_FRACTION = 0.8
"""Of a period, between one frame and the next: the coordinate went across its edge."""

MIN_CROSSINGS = 3
"""Fewer of them may be chance, and leave little at the edge."""

EDGE, MIN_AT_EDGE = 0.02, 0.002
"""Of a turn, next to its edge on either side, and of the frames, that may be there if it is none."""

MIN_TURNS, MAX_JUMPS = 2, 0.02
"""Periods that values span, and of the steps between frames, that may exceed half of one: a continuous angle takes
shorter steps."""

SLACK = 0.01
"""Of a period, that values may lie beyond it by rounding."""


OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def plumed_number(text: str) -> float:
    """A number as PLUMED's input has it: ``-pi/2``, ``2*pi``, ``2pi``, ``-PI``, ``inf``; NaN if it is none."""

    def value(node: Any) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return float(node.value)
        if isinstance(node, ast.Name) and node.id in ("pi", "inf"):
            return float({"pi": np.pi, "inf": np.inf}[node.id])
        if isinstance(node, ast.UnaryOp | ast.BinOp) and type(node.op) in OPERATORS:
            sides = (node.operand,) if isinstance(node, ast.UnaryOp) else (node.left, node.right)
            return OPERATORS[type(node.op)](*map(value, sides))
        raise ValueError

    try:
        spelled = re.sub(r"(?<=[\d.)])\s*(?=pi)", "*", text.strip().lower())
        return value(ast.parse(spelled, mode="eval").body) if len(spelled) < 50 else np.nan
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return np.nan


def _within_a_turn(values: FloatArray, size: float) -> bool:
    """Whether values lie in -size/2..size/2 or 0..size, and fill most of it."""
    low, high, slack = float(values.min()), float(values.max()), SLACK * size
    centred = low >= -size / 2 - slack and high <= size / 2 + slack
    return (centred or (low >= -slack and high <= size + slack)) and high - low > MIN_WRAP_FRACTION * size


def crossings(values: FloatArray, size: float, starts: Sequence[int] | IntArray) -> tuple[int, bool]:
    """How often a series jumps across the edge of a period, and whether that is beyond doubt.

    It is where jumps of half a turn are rarer than those across the edge, or where both of its sides are populated.
    """
    if not _within_a_turn(values, size):
        return 0, False
    jumps = np.concatenate([np.abs(np.diff(values[begin:end])) for begin, end in itertools.pairwise(starts)]) / size
    across, half = int((jumps > MIN_WRAP_FRACTION).sum()), int(((jumps > 0.5) & (jumps < 0.75)).sum())
    low = -size / 2 if values.min() < -SLACK * size else 0.0
    sides = [(values < low + EDGE * size).mean(), (values > low + (1 - EDGE) * size).mean()]
    return across, across >= MIN_CROSSINGS and (across > half or min(sides) > MIN_AT_EDGE)


def check_period(name: str, cv: str, values: Any, period: float, starts: Sequence[int] | IntArray) -> str:
    """Refuse a coordinate that goes around and has no period, or one in another unit; a note where it only may.

    Args:
        name: of the coordinate.
        cv: as it was named, for the remedy.
        values: shape=(n,), as they were read.
        period: ``inf`` where there is none.
        starts: shape=(n_files + 1,), where each trajectory begins.

    Raises:
        InputError: it goes across the edge of a turn that is not its period.
    """
    values = np.asarray(values, dtype=float)
    note = ""
    for unit, size in TURNS.items():
        if np.isclose(period, size, rtol=1e-3):
            continue
        if np.isfinite(period) and not (period > 10 * size or size > 10 * period):
            continue  # a symmetric molecule's
        count, certain = crossings(values, size, starts)
        has = "has no period" if not np.isfinite(period) else f"has a period of {period:g}"
        remedy = f"give the period of an angle in {unit}, {cv}:{AS_GIVEN[unit]}"
        if certain:
            raise InputError(
                f"{name} goes across the edge of a full turn {count} times and {has}: {remedy}, or {cv}:none if it is "
                "no angle"
            )
        if count:
            note = f"{name} {has}: if it is an angle, {remedy}"
    return note


def check_turns(name: str, cv: str, values: Any, period: float, starts: Sequence[int] | IntArray) -> None:
    """Refuse degrees with a period in radians: they fill a full turn of their own, and jump over many of the period.

    Args:
        name: of the coordinate.
        cv: as it was named, for the remedy.
        values: shape=(n,), as they were read.
        period: that is given.
        starts: shape=(n_files + 1,), where each trajectory begins.

    Raises:
        InputError: they are in another unit than the period.
    """
    values, degrees = np.asarray(values, dtype=float), TURNS["degrees"]
    if not 10 * period < degrees or len(values) < 2:  # else a symmetric molecule's
        return
    centred = np.abs(values).max() <= (0.5 + SLACK) * degrees
    inside = centred or (values.min() >= -SLACK * degrees and values.max() <= (1 + SLACK) * degrees)
    steps = np.concatenate([np.abs(np.diff(values[begin:end])) for begin, end in itertools.pairwise(starts)])
    jumps = (steps > period / 2).mean() if len(steps) else 0.0
    if inside and np.ptp(values) > MIN_TURNS * period and jumps > MAX_JUMPS:
        raise InputError(
            f"{name} takes values from {values.min():.4g} to {values.max():.4g}, and jumps over its period of "
            f"{period:.4g}, as angles in degrees do: give {cv}:360; if it was made continuous over full turns, take it "
            "into one period first"
        )


def contradicts(values: Any, period: float, starts: Sequence[int] | IntArray) -> bool:
    """Whether values go around a turn that is not this period."""
    try:
        check_period("", "", values, period, starts)
    except InputError:
        return True
    return False


def check_same_turn(name: str, own: float, period: float | None) -> None:
    """Refuse a period that is given for a column whose file tells another one; a part of it may be meant.

    Raises:
        InputError: the file's is no multiple of it.
    """
    if period is None or not np.isfinite([own, period]).all():
        return
    if not np.isclose(own / period, max(round(own / period), 1), rtol=1e-3):
        raise InputError(f"{name} has a period of {own:g} by its file's SET lines, not of {period:g}: leave it out")
