"""Series of collective variables and biases from text tables (COLVAR files and their like), run by run."""

import fnmatch
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray, checked_temperature, thermal_energy
from .tables import (
    COUNTS,
    IN_PICOSECONDS,
    LARGEST,
    NO_BIASES,
    TIME,
    TextTable,
    check_series,
    column_of,
    is_bias,
    period_of,
    read_table,
)

MAX_BACKWARD = 0.1
"""Of the rows, that may be of an earlier time than the row before; more are in no order, and no runs."""

MAX_REPEATED_TIMES = 0.01
"""Of the rows, that may repeat the time of the row before; where more do, times are rounded and tell nothing."""


@dataclass(frozen=True)
class Colvar:
    """One or more tables of the same columns, one after the other.

    Attributes:
        paths: of the files.
        fields: names of the columns.
        rows: shape=(n, n_fields).
        settings: what ``#! SET`` lines of each file say, as text.
        units: of columns, where the header tells.
        file: shape=(n,), the file that each row is from.
        run: shape=(n,), the run that each row is of: a file may hold several.
        notes: what the user should know, one sentence each.
        reordered: whether rows were sorted by their times.
    """

    paths: tuple[Path, ...]
    fields: tuple[str, ...]
    rows: FloatArray
    settings: tuple[dict[str, str], ...]
    units: dict[str, str]
    file: IntArray
    run: IntArray
    notes: tuple[str, ...] = ()
    reordered: bool = False

    @property
    def path(self) -> Path:
        """Of the first file, for messages."""
        return self.paths[0]

    @property
    def time(self) -> FloatArray | None:
        """Of the rows, ps, shape=(n,); None where no column says so."""
        for i, name in enumerate(self.fields):
            if found := TIME.fullmatch(name):
                return np.asarray(IN_PICOSECONDS[(found[1] or "ps").lower()] * self.rows[:, i])
        return None

    def name(self, name: str) -> str:
        """A column's own name, of one given by name or number."""
        return self.fields[column_of(self.fields, name, self.path)]

    def where(self, row: int) -> str:
        """The file of a row, and which it is of its rows that count, from 0."""
        return f"{self.paths[self.file[row]]}, row {row - int(np.searchsorted(self.file, self.file[row]))}"

    def column(self, name: str) -> FloatArray:
        """A column, by its name or its number from 1, shape=(n,)."""
        values = self.rows[:, column_of(self.fields, name, self.path)]
        if (bad := np.isnan(values)).any():
            raise InputError(f"{self.where(int(bad.argmax()))}: column {name} is NaN; remove such rows")
        return values

    def _of_files(self, name: str) -> list[FloatArray]:
        """A column's values in each file."""
        return np.split(self.column(name), np.searchsorted(self.file, np.arange(1, len(self.paths))))

    def bounds(self, name: str) -> tuple[float, float] | None:
        """Where a column begins and ends, by its ``SET min_`` and ``max_``; None without a period.

        Raises:
            InputError: the files disagree, or hold values beyond.
        """
        name = self.name(name)
        found = [period_of(settings, name, path) for settings, path in zip(self.settings, self.paths, strict=True)]
        for path, other in zip(self.paths, found, strict=True):
            if (found[0] is None) != (other is None) or not np.isclose(_length(found[0]), _length(other), rtol=1e-4):
                raise InputError(
                    f"{path} says that {name} has {_period_text(other)}, {self.path} {_period_text(found[0])}: "
                    "give files of one unit, or each with its own command"
                )
        for path, bounds, values in zip(self.paths, found, self._of_files(name) if found[0] else (), strict=False):
            if bounds is not None and np.ptp(values) > (1 + 1e-3) * _length(bounds):  # as degrees are beside 2 pi
                raise InputError(
                    f"{path}: {name} reaches {values[np.abs(values).argmax()]:g}, beyond its range of {bounds[0]:g} to "
                    f"{bounds[1]:g}: give the file as it was written, or correct its SET lines"
                )
        return found[0]

    def is_sound(self, name: str) -> bool:
        """Whether a column that nobody asked for can be looked at: numbers, and a range that is understood."""
        try:
            return bool((np.abs(self.column(name)) < LARGEST).all()) and self.period(name) > 0
        except InputError:
            return False

    def period(self, name: str) -> float:
        """Of a column; ``inf`` without."""
        return _length(self.bounds(name))


def _length(bounds: tuple[float, float] | None) -> float:
    return float("inf") if bounds is None else float(bounds[1] - bounds[0])


def _period_text(bounds: tuple[float, float] | None) -> str:
    return "no period" if bounds is None else f"a period of {_length(bounds):g}"


def _superseded(time: FloatArray) -> tuple[IntArray, IntArray, int]:
    """Rows that hold, the run that each of them is of, and how many were repeated by a restart.

    A run that goes on from a checkpoint repeats the rows since then, and the later ones hold; one that goes back to
    where it began is another run.
    """
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(time) < 0) + 1, [len(time)]])
    steps = np.diff(time)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    kept: list[IntArray] = []
    runs: list[int] = []
    run, begin = -1, np.inf
    for first, last in itertools.pairwise(cuts):
        rows = np.arange(first, last)
        if time[first] <= begin + 1.5 * step or run < 0:
            run, begin = run + 1, time[first]
        else:
            for i in reversed(range(len(kept))):
                if runs[i] == run:
                    kept[i] = kept[i][time[kept[i]] < time[first]]
        kept.append(rows)
        runs.append(run)
    rows = np.concatenate(kept)
    run_of_row = np.repeat(runs, list(map(len, kept)))
    same = (np.diff(time[rows]) == 0) & (np.diff(run_of_row) == 0)
    if 0 < same.sum() <= max(1, MAX_REPEATED_TIMES * len(same)):
        hold = np.append(~same, True)
        rows, run_of_row = rows[hold], run_of_row[hold]
    return rows, run_of_row, len(time) - len(rows)


class _File(NamedTuple):
    """A table, its rows that hold, the run of each, notes, and whether rows were sorted by their times."""

    table: TextTable
    rows: FloatArray
    run: IntArray
    notes: list[str]
    reordered: bool = False


def _one_file(path: Path, hills: bool) -> _File:
    table = read_table(path)
    rows, notes = table.rows, list(table.notes)
    if not len(rows):
        raise InputError(f"{path} holds no row: give the COLVAR of a run")
    if table.time is None:
        return _File(table, rows, np.zeros(len(rows), dtype=np.int64), notes)
    time = rows[:, table.time]
    if not np.isfinite(time).all():
        raise InputError(f"{path}, row {int(np.isfinite(time).argmin())}: no finite time; remove such rows")
    reordered = (np.diff(time) < 0).sum() > MAX_BACKWARD * len(time) and len(np.unique(time)) == len(time)
    if reordered:
        rows, time = rows[np.argsort(time)], np.sort(time)
        notes.append(f"the rows of {path} are not in the order of their times: they are sorted")
    hold, run, repeated = _superseded(time)
    if hills and not run[-1]:
        return _File(table, rows, np.zeros(len(rows), dtype=np.int64), notes, bool(reordered))
    if repeated:
        notes.append(f"{repeated} rows of {path} were written again after a restart; the later ones hold")
    if run[-1]:
        notes.append(f"{path} holds {run[-1] + 1} runs, each from its beginning: all of them are used")
    return _File(table, rows[hold], np.asarray(run), notes, bool(reordered))


def read_colvar(paths: Sequence[Path], series: bool = False, hills: bool = False) -> Colvar:
    """Read tables of one set of columns, one after the other.

    Args:
        paths: of the tables.
        series: refuse hills, kernels and surfaces, which are no series of collective variables.
        hills: keep rows that a restart wrote again: PLUMED reads all hills of the file when it restarts, and all act.

    Raises:
        InputError: no such file, broken rows, or other columns in a later file.
    """
    parts = [_one_file(path, hills) for path in paths]
    for part in parts if series else ():
        check_series(part.table)
    first = parts[0].table
    for i, part in enumerate(parts):
        table = part.table
        if sorted(table.names) != sorted(first.names):
            raise InputError(f"{table.path} has other columns than {first.path}: give files of one kind")
        odd = next((name for name in first.names if table.header.units.get(name) != first.header.units.get(name)), None)
        if odd is not None:
            raise InputError(
                f"{table.path} has {odd} in {table.header.units.get(odd, 'no unit')}, {first.path} in "
                f"{first.header.units.get(odd, 'none')}: give files of one unit"
            )
        if table.names != first.names:
            parts[i] = part._replace(rows=part.rows[:, [table.names.index(name) for name in first.names]])
    before = np.concatenate([[0], np.cumsum([part.run[-1] + 1 for part in parts])])
    return Colvar(
        paths=tuple(map(Path, paths)),
        fields=first.names,
        rows=np.concatenate([part.rows for part in parts]),
        settings=tuple(part.table.settings for part in parts),
        units=first.header.units,
        file=np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts]),
        run=np.concatenate([offset + part.run for offset, part in zip(before, parts, strict=False)]),
        notes=tuple(note for part in parts for note in part.notes),
        reordered=any(part.reordered for part in parts),
    )


def bias_names(colvar: Colvar, columns: Sequence[str]) -> list[str]:
    """The columns of a bias, patterns as ``*.bias`` resolved.

    Raises:
        InputError: there is no such column, or it is no bias.
    """
    names: list[str] = []
    for given in map(str.strip, columns):
        found = fnmatch.filter(colvar.fields, given) if any(mark in given for mark in "*?[") else [given]
        if not found:
            raise InputError(f"{colvar.path} has no column {given}: it has {', '.join(colvar.fields)}")
        names += [colvar.name(name) for name in found]
    names = list(dict.fromkeys(names))  # each acts once, whatever patterns find it
    biases = [name for name in colvar.fields if is_bias(name) or name.endswith("rbias")]
    hint = f"give {', '.join(biases)}" if biases else "give the bias itself"
    for name in names:
        if COUNTS.fullmatch(name) or name.rpartition(".")[2] in NO_BIASES or colvar.bounds(name) is not None:
            raise InputError(f"{colvar.path}: column {name} is no bias energy: {hint}")
        if name.endswith(".rbias") and name.removesuffix(".rbias") + ".bias" in names:
            raise InputError(f"{name} is the bias already, less c(t): give it, or the bias column, not both")
    return names


def bias_log_weights(
    colvar: Colvar,
    columns: Sequence[str],
    temperature: float,
    rows: IntArray,
    unit: Callable[[str], float] = lambda name: 1.0,
) -> FloatArray:
    """Sum of bias columns over kT, shape=(n,): the log-weights that undo a bias which no longer changes.

    Args:
        colvar: the tables.
        columns: of the bias; one that is named twice counts once.
        temperature: K.
        rows: of the frames.
        unit: of a column by its name, kJ/mol.
    """
    bias = sum((unit(name) * colvar.column(name)[rows] for name in bias_names(colvar, columns)), np.zeros(len(rows)))
    if not (there := np.abs(bias) < LARGEST).all():
        raise InputError(f"{colvar.where(int(rows[there.argmin()]))}: the bias is no finite energy; remove such rows")
    return np.asarray(bias / thermal_energy(checked_temperature(temperature)))
