"""Frames and their collective variables, computed or from files, in one series."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import ENERGY_UNITS, BoolArray, FloatArray, IntArray
from .arguments import is_trajectory
from .inputs import external, is_computed
from .periods import TURNS, check_period, check_same_turn, check_turns, contradicts
from .series import Series, read_frame_values, read_series
from .tables import COUNTS, LARGEST

if TYPE_CHECKING:
    from .colvar import Colvar

MIN_COUNTED, MAX_UNEVEN = 20, 0.02
"""Steps between frames, that tell of a counter; of a step, and of the steps, that may differ by rounding."""


def _empty_series(starts: IntArray) -> Series:
    return Series((), np.empty(0), (), np.empty((starts[-1], 0), dtype=np.float32), starts)


@dataclass(frozen=True)
class Frames:
    """Frames with the collective variables that are computed, their rows in the table, and what is said of both."""

    series: Series
    rows: IntArray | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def only(series: Series, kept: BoolArray) -> Series:
    """The frames that are kept."""
    if kept.all():
        return series
    starts = np.concatenate([[0], np.cumsum(kept)])[series.starts]
    time = None if series.time is None else series.time[kept]
    return replace(series, values=series.values[kept], starts=starts, time=time)


def frames_of(
    trajectories: Sequence[Any],
    top: Any,
    computed: Sequence[str],
    table: "Colvar | None",
    npy: Sequence[str],
    stride: int,
    progress: Callable[[], None] | None,
    by_file: bool,
) -> Frames:
    """Of trajectories, of the runs (or files) of a table, or of an array."""
    if computed:
        if top is None:
            raise InputError("trajectories need `top`, a PDB file, say: name it")
        series = read_series(trajectories, top, computed, stride=stride, progress=progress)
        if table is None:
            return Frames(series, doubts=series.doubts)
        from .frame_rows import rows_of_frames

        found = rows_of_frames(table, series, stride)
        kept = found.rows >= 0
        if not (parts := np.add.reduceat(kept, series.starts[:-1])).all():
            raise InputError(
                f"no frame of trajectory {int(parts.argmin()) + 1} has a row in {table.path}: give the table of these "
                "trajectories, or leave that one out"
            )
        return Frames(only(series, kept), found.rows[kept], found.notes, (*series.doubts, *found.doubts))
    if table is None:
        n = len(read_frame_values(Path(external(npy[0])[1]), None))
        return Frames(_empty_series(np.array([0, -(-n // stride)])))
    part = table.file if by_file else table.run
    counts = np.bincount(part)
    rows = np.concatenate([np.flatnonzero(part == i)[::stride] for i in range(len(counts))])
    return Frames(_empty_series(np.concatenate([[0], np.cumsum(-(-counts // stride))])), rows)


@dataclass(frozen=True)
class _Coordinate:
    """A collective variable that comes from a file."""

    name: str
    values: FloatArray
    period: float
    unit: str
    note: str = ""
    doubt: str = ""


def counts(values: FloatArray, starts: IntArray) -> bool:
    """Whether values grow by the same number from frame to frame of a file, as no collective variable does."""
    inner = np.delete(np.diff(values), starts[1:-1] - 1)
    step = float(np.median(inner)) if len(inner) >= MIN_COUNTED else 0.0
    return step != 0.0 and bool((np.abs(inner - step) < MAX_UNEVEN * abs(step)).mean() > 1 - MAX_UNEVEN)


def _of_file(cv: str, table: "Colvar | None", frames: Frames, stride: int, length: str) -> _Coordinate:
    """A column or an array, within one period around zero."""
    kind, name, period = external(cv)
    series, own, unit, note = frames.series, np.inf, "", ""
    if kind == "column" and table is not None:
        if (whole := cv.partition(":")[2]) in table.fields:
            name, period = whole, None  # as a name of ours, phi:2, is no period of 2
        name = table.name(name)
        if COUNTS.fullmatch(name):
            raise InputError(f"{cv}: {name} counts, it is no collective variable: name another column")
        values, own, unit = table.column(name)[frames.rows], table.period(name), table.units.get(name, length)
        unit = "" if unit in ENERGY_UNITS else unit
        if not contradicts(values, own, series.starts):  # else the one that is given is to correct it
            check_same_turn(name, own, period)
    else:
        # several files are thinned each by itself, so that one array cannot be
        step = stride if series.n_files == 1 else 1
        values, name = read_frame_values(Path(name), len(series.values), stride=step), Path(name).stem
    if not (there := np.abs(values) < LARGEST).all():
        raise InputError(f"{cv}, frame {int(there.argmin())}: not a finite number; remove it")
    doubt = ""
    if counts(values, series.starts):
        doubt = f"{cv} grows by the same number from frame to frame, as a time does: name another column"
    if period is None or np.isfinite(period):  # else it was said that there is none
        bare = cv if period is None else cv.rpartition(":")[0]
        note = check_period(name, bare, values, own if period is None else period, series.starts)
        check_turns(name, bare, values, own if period is None else period, series.starts)
    period = own if period is None else period
    turn = next((known for known, size in TURNS.items() if np.isclose(period, size)), None)
    return _Coordinate(name, values, period, turn or unit, note, doubt)


def joined_series(
    cvs: Sequence[str], table: "Colvar | None", frames: Frames, stride: int, length: str = ""
) -> tuple[Series, tuple[str, ...], tuple[str, ...]]:
    """All collective variables in the order requested, and notes on them and doubts."""
    series = frames.series
    columns, names, periods, units, labels, resolved = [], [], [], [], [], []
    notes, doubts = [], []
    computed = iter(range(len(series.names)))
    for cv in cvs:
        if is_computed(cv):
            i = next(computed)
            columns.append(series.values[:, i])
            names.append(cv)
            periods.append(float(series.periods[i]))
            units.append(series.units[i])
            labels.append(series.labels[i])
            resolved.append(series.resolved[i])
        else:
            found = _of_file(cv, table, frames, stride, length)
            columns.append(wrap(found.values, found.period).astype(np.float32))
            names.append(found.name)
            periods.append(found.period)
            units.append(found.unit)
            labels.append(found.name)
            resolved.append("")
            notes.append(found.note)
            doubts.append(found.doubt)
    same = len(columns) == len(series.names)
    joined = replace(
        series,
        names=tuple(names),
        periods=np.array(periods),
        units=tuple(units),
        labels=tuple(labels),
        resolved=tuple(resolved),
        values=series.values if same else np.stack(columns, axis=1),
    )
    return joined, tuple(filter(None, notes)), tuple(filter(None, doubts))


def part_names(files: Sequence[Any], table: "Colvar | None", series: Series) -> list[str]:
    """Of the trajectories, or of the files that a table's runs are from."""
    if len(files) == series.n_files:
        return [f"trajectory {i + 1}" if is_trajectory(file) else str(file) for i, file in enumerate(files)]
    if table is None:
        return ["the array"] * series.n_files
    part = table.file if series.n_files == len(table.paths) else table.run
    return [str(table.paths[table.file[np.flatnonzero(part == i)[0]]]) for i in range(series.n_files)]
