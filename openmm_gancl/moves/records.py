"""What is known of an attempt, and its lines in a file."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError
from ..files import check_writable


@dataclass(frozen=True)
class LiftRecord:
    """One attempt.

    Attributes:
        attempt: its number, from 0.
        step: the Simulation's step count.
        move: its kind: ``independent``, ``local`` or ``relaxed``.
        accepted: whether the lift is the configuration now.
        log_weight: log w' of the lift; minus infinity where it failed, NaN where it was not needed, as the
            configuration before has none.
        log_weight_before: log w of the configuration before, likewise; NaN where it has none yet.
        reason: of the lift, one of `openmm_gancl.lifting.lifts.REASONS`.
        reason_before: of the configuration before, one of these, or ``label`` where p(s) is zero there; empty where it
            was not weighed.
        label: of the lift.
        before: labels of the configuration before.
        after: labels of the configuration now.
        force_evaluations: that the attempt cost: of the Simulation's potential, and of relaxations in a copy.
        seed: of the move.
    """

    attempt: int
    step: int
    move: str
    accepted: bool
    log_weight: float
    log_weight_before: float
    reason: str
    reason_before: str
    label: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    force_evaluations: int
    seed: int


Report = Callable[[LiftRecord], None]


def record_of(row: dict[str, Any]) -> LiftRecord:
    """A record as read from JSON, which has no tuples."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return LiftRecord(**values)


class LiftReporter:
    """Writes one line an attempt, comma-separated, in the manner of OpenMM's StateDataReporter.

    Args:
        file: a path, or a stream.
        append: whether to go on with a file that exists.
    """

    def __init__(self, file: str | Path | TextIO, append: bool = False):
        self._stream: Any = file
        if isinstance(file, str | Path):
            check_writable(Path(file))
            self._stream = Path(file).open("a" if append else "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._headed = append

    def describeNextReport(self, simulation: Any) -> Any:  # as OpenMM calls it
        """Of a reporter of a Simulation, which this is not.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a LiftReporter reports attempts of a move, not steps of a Simulation: take it out of simulation.reporters "
            "and give it to the move, move.reporters.append(...)"
        )

    def __call__(self, record: LiftRecord) -> None:
        """Write a record."""
        table = csv.writer(self._stream)
        if not self._headed:
            table.writerow(field.name for field in fields(LiftRecord))
            self._headed = True
        table.writerow(" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in vars(record).values())
        self._stream.flush()
