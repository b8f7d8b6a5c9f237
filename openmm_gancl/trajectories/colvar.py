"""Tables in PLUMED's format (COLVAR): collective variables and biases over time, matched to frames."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, first_line
from ..units import FloatArray, IntArray, checked_temperature, thermal_energy
from .series import Series

CONSTANTS = {"pi": np.pi, "+pi": np.pi, "-pi": -np.pi, "inf": np.inf, "-inf": -np.inf}


@dataclass(frozen=True)
class Colvar:
    """One or more COLVAR files.

    Attributes:
        path: of the first, for messages.
        fields: names of the columns.
        rows: shape=(n, n_fields).
        settings: what ``#! SET`` lines say, as text.
        file: shape=(n,), the file that each row is from.
    """

    path: Path
    fields: tuple[str, ...]
    rows: FloatArray
    settings: dict[str, str]
    file: IntArray

    def column(self, name: str) -> FloatArray:
        """A column, shape=(n,)."""
        if name not in self.fields:
            raise InputError(f"{self.path} has no column {name}: it has {', '.join(self.fields)}")
        values = self.rows[:, self.fields.index(name)]
        if np.isnan(values).any():
            raise InputError(f"{self.path}, column {name}, row {int(np.isnan(values).argmax())}: NaN; remove such rows")
        return values

    def period(self, name: str) -> float:
        """Of a column, from its ``SET min_`` and ``max_``; ``inf`` without."""
        bounds = [self.settings.get(f"{end}_{name}") for end in ("min", "max")]
        if bounds[0] is None or bounds[1] is None:
            return float("inf")
        low, high = (CONSTANTS[bound] if bound in CONSTANTS else float(bound) for bound in bounds if bound)
        return float(high - low)


def _header(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    fields: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    try:
        with path.open() as file:
            for line in file:
                words = line.split()
                if words[:2] == ["#!", "FIELDS"]:
                    if fields and tuple(words[2:]) != fields:
                        raise InputError(f"{path} changes its columns within the file: cut it there")
                    fields = tuple(words[2:])
                elif words[:2] == ["#!", "SET"] and len(words) == 4:
                    settings[words[2]] = words[3]
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text file: give a COLVAR file") from None
    if not fields:
        raise InputError(f"{path} has no line '#! FIELDS time ...': give a COLVAR file as PLUMED writes it")
    return fields, settings


def _one_file(path: Path) -> tuple[tuple[str, ...], dict[str, str], FloatArray]:
    if not path.is_file():
        raise InputError(f"there is no file {path}: check `colvar`")
    fields, settings = _header(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no data: said below
            rows = np.loadtxt(path, comments="#", ndmin=2)
    except ValueError as error:
        raise InputError(f"cannot read {path} ({first_line(error)}): remove the broken line") from None
    if not len(rows):
        raise InputError(f"{path} holds no row: give the COLVAR of a run")
    if rows.shape[1] != len(fields):
        raise InputError(
            f"{path} names {len(fields)} columns but holds {rows.shape[1]}: give the file as it was written"
        )
    if "time" in fields:
        # a run that was started again repeats the rows since its last checkpoint: the later ones are kept
        time = rows[:, fields.index("time")]
        if (anew := np.flatnonzero((np.diff(time) < 0) & (time[1:] <= time[0]))).size:
            raise InputError(
                f"{path}: time starts anew at row {anew[0] + 1}: give each run's rows in a file of its own"
            )
        rows = rows[len(rows) - 1 - np.unique(time[::-1], return_index=True)[1]]
    return fields, settings, rows


def read_colvar(paths: Sequence[Path]) -> Colvar:
    """Read COLVAR files of one set of columns, one after the other.

    Raises:
        InputError: no such file, no ``FIELDS`` line, broken rows, or other columns in a later file.
    """
    parts = [_one_file(path) for path in paths]
    for path, (fields, _, _) in zip(paths, parts, strict=True):
        if fields != parts[0][0]:
            raise InputError(f"{path} has other columns than {paths[0]}: give files of one kind")
    return Colvar(
        path=paths[0],
        fields=parts[0][0],
        rows=np.concatenate([rows for _, _, rows in parts]),
        settings=parts[0][1],
        file=np.repeat(np.arange(len(parts)), [len(rows) for _, _, rows in parts]),
    )


def _nearest_rows(frame_times: FloatArray, row_times: FloatArray, message: str) -> IntArray:
    """The row at the time of each frame, shape=(n,)."""
    if (np.diff(frame_times) < 0).any():
        raise InputError(f"{message}, and the times of the frames start anew: give one COLVAR for each trajectory")
    right = np.clip(np.searchsorted(row_times, frame_times), 1, max(len(row_times) - 1, 1))
    left, right = right - 1, np.minimum(right, len(row_times) - 1)
    nearest = np.where(frame_times - row_times[left] < row_times[right] - frame_times, left, right)
    missed = np.abs(row_times[nearest] - frame_times) > _tolerance(frame_times)
    if missed.any():
        raise InputError(
            f"{message}, and no row at the time of the frame at {frame_times[missed.argmax()]:g} ps: "
            "give the COLVAR of these trajectories"
        )
    return np.asarray(nearest)


def _tolerance(times: FloatArray) -> FloatArray:
    """Single precision of the trajectory's times, and no more, ps."""
    return np.asarray(1e-3 + 1e-6 * np.abs(times))


def rows_of_frames(colvar: Colvar, series: Series, stride: int = 1) -> IntArray:
    """The row of each frame, shape=(n,): one a frame, or by time; file by file, or one table for all of them.

    Args:
        colvar: the tables.
        series: the frames.
        stride: that the trajectories were read with.

    Raises:
        InputError: the rows are not one a frame and the times do not determine which belong together.
    """
    n_tables = int(colvar.file[-1]) + 1
    if n_tables not in (1, series.n_files):
        raise InputError(f"{n_tables} COLVAR files for {series.n_files} trajectories: give one, or one each")
    ends = series.starts if n_tables > 1 else series.starts[[0, -1]]
    times, chosen = colvar.column("time") if "time" in colvar.fields else None, []
    for table, (begin, end) in enumerate(itertools.pairwise(ends)):
        rows = np.flatnonzero(colvar.file == table)
        message = f"{colvar.path} has {len(rows)} rows for {end - begin} frames"
        if series.time is None or times is None:
            thinned = rows[::stride] if n_tables == series.n_files else rows
            fitting = [candidate for candidate in (rows, thinned) if len(candidate) == end - begin]
            if not fitting:
                raise InputError(
                    f"{message}, and the trajectories hold no times to match them by: write both with one stride, "
                    "or give trajectories that hold times (XTC)"
                )
            chosen.append(fitting[0])
            continue
        frame_times = np.asarray(series.time[begin:end], dtype=float)
        # one a frame, though perhaps counted from another beginning
        aligned = len(rows) == end - begin and np.ptp(frame_times - times[rows]) < 2 * _tolerance(frame_times).max()
        chosen.append(rows if aligned else rows[_nearest_rows(frame_times, times[rows], message)])
    return np.concatenate(chosen)


def bias_log_weights(colvar: Colvar, columns: Sequence[str], temperature: float, rows: IntArray) -> FloatArray:
    """Sum of bias columns (kJ/mol) over kT, shape=(n,): the log-weights that undo a bias which no longer changes."""
    bias = sum((colvar.column(name)[rows] for name in columns), np.zeros(len(rows)))
    if not np.isfinite(bias).all():
        row = int(rows[np.isfinite(bias).argmin()])
        raise InputError(f"{colvar.path}, row {row}: the bias is infinite; remove such rows")
    return np.asarray(bias / thermal_energy(checked_temperature(temperature)))
