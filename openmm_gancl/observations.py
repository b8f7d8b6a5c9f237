"""What was observed: collective variables of frames, from wherever they come, and what undoes their bias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .colvar import Colvar, bias_log_weights, read_colvar, rows_of_frames
from .errors import InputError
from .static_bias import StaticBias
from .trajectories import Series, checked_log_weights, read_frame_values, read_log_weights, read_series
from .umbrella import UmbrellaWindows
from .units import FloatArray, IntArray, thermal_energy, wrap

TURNS = {"radians": 2 * np.pi, "degrees": 360.0}
"""Periods that a coordinate without one may really have."""

JUMP = 0.8
"""Of a period, between one frame and the next: the coordinate went across its edge."""


@dataclass(frozen=True)
class Observations:
    """Collective variables of frames, with what undoes their bias.

    Attributes:
        series: those of the surface, then those that windows or a bias act on besides.
        n_surface: how many of them span the surface.
        log_weights: shape=(n,), up to a constant; None if every frame counts alike, or windows tell.
        windows: umbrella windows, one a trajectory; None without.
        restrained: columns of the series that the windows restrain.
        free_energies: shape=(n_windows,), kT, about right, that MBAR starts from; None to find some.
        notes: what the user should know, one sentence each.
    """

    series: Series
    n_surface: int
    log_weights: FloatArray | None = None
    windows: UmbrellaWindows | None = None
    restrained: tuple[int, ...] = ()
    free_energies: FloatArray | None = None
    notes: tuple[str, ...] = ()


def _external(cv: str) -> tuple[str, str, float | None]:
    """Kind (column, npy, or empty), name and period of a collective variable that comes from a file."""
    kind, _, rest = cv.partition(":")
    if kind not in ("column", "npy"):
        return "", cv, None
    name, _, period = rest.rpartition(":")
    try:
        value = 2 * np.pi if period == "2pi" else float(period)
    except ValueError:
        return kind, rest, None
    if not value > 0.0:
        raise InputError(f"--cv {cv}: the period is {value:g}: give a positive one, or none")
    return kind, name, value


def _is_computed(cv: str) -> bool:
    return not _external(cv)[0]


def _empty_series(starts: IntArray) -> Series:
    return Series((), np.empty(0), (), np.empty((starts[-1], 0), dtype=np.float32), starts)


def _base_series(
    trajectories: Sequence[Path],
    top: Path | None,
    computed: Sequence[str],
    table: Colvar | None,
    npy: Sequence[str],
    stride: int,
    progress: Callable[[], None] | None,
) -> tuple[Series, IntArray | None]:
    """Frames with the collective variables that are computed, and their rows in the table."""
    if computed:
        if top is None:
            raise InputError("trajectories need --top FILE, a PDB file, say: name it")
        series = read_series(trajectories, top, computed, stride=stride, progress=progress)
        return series, None if table is None else rows_of_frames(table, series, stride)
    if table is None:
        n = len(read_frame_values(Path(_external(npy[0])[1]), None))
        return _empty_series(np.array([0, -(-n // stride)])), None
    counts = np.bincount(table.file)
    rows = np.concatenate([np.flatnonzero(table.file == file)[::stride] for file in range(len(counts))])
    return _empty_series(np.concatenate([[0], np.cumsum(-(-counts // stride))])), rows


def _joined(series: Series, cvs: Sequence[str], table: Colvar | None, rows: IntArray | None, stride: int) -> Series:
    """All collective variables in the order asked for."""
    columns, names, periods, units = [], [], [], []
    computed = iter(range(len(series.names)))
    for cv in cvs:
        kind, name, period = _external(cv)
        if not kind:
            i = next(computed)
            columns.append(series.values[:, i])
            periods.append(float(series.periods[i]))
            units.append(series.units[i])
        else:
            if kind == "column" and table is not None:
                values, own = table.column(name)[rows], table.period(name)
            else:
                # several files are thinned each by itself, so that one array cannot be
                step = stride if series.n_files == 1 else 1
                values, own = read_frame_values(Path(name), len(series.values), stride=step), np.inf
                name = Path(name).stem
            if not np.isfinite(values).all():
                raise InputError(f"{cv}, frame {int(np.isfinite(values).argmin())}: not a finite number; remove it")
            periods.append(own if period is None else period)
            columns.append(wrap(values, periods[-1]).astype(np.float32))
            units.append("radians" if np.isclose(periods[-1], 2 * np.pi) else "")
        names.append(name)
    same = len(columns) == len(series.names)
    return replace(
        series,
        names=tuple(names),
        periods=np.array(periods),
        units=tuple(units),
        values=series.values if same else np.stack(columns, axis=1),
    )


def _edge_notes(series: Series) -> list[str]:
    """Of coordinates that look like angles but have no period."""
    notes = []
    for column, name, period, unit in zip(series.values.T, series.names, series.periods, series.units, strict=True):
        if np.isfinite(period) or unit:
            continue  # computed here, so the period is known
        for turn, size in TURNS.items():
            if 0.9 * size < float(np.ptp(column)) <= 1.01 * size:
                crossings = int((np.abs(np.diff(column)) > JUMP * size).sum())
                if crossings:
                    notes.append(
                        f"{name} goes across its edge {crossings} times and is treated as not periodic: if it is an "
                        f"angle in {turn}, give its period, as in column:NAME:{'2pi' if turn == 'radians' else '360'}"
                    )
    return notes


def _check_sources(
    trajectories: Sequence[Path],
    cvs: Sequence[str],
    colvars: Sequence[Path],
    bias_columns: Sequence[str],
    **weights: Any,
) -> None:
    """See that what is asked for is there to be had, and that the bias is undone in one way only."""
    computed = [cv for cv in cvs if _is_computed(cv)]
    columns = [cv for cv in cvs if _external(cv)[0] == "column"]
    given = [f"--{name.replace('_', '-')}" for name, value in weights.items() if value is not None]
    given += ["--bias-columns"] * bool(bias_columns)
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given: choose one way to undo the bias")
    windows = weights["windows"] is not None
    if windows and colvars:
        raise InputError("--windows names a COLVAR or trajectory file for each window: leave --colvar out")
    if windows and any(not _is_computed(cv) for cv in cvs) and len(columns) < len(cvs):
        raise InputError("with --windows every --cv is column:NAME, of COLVAR files, or every one is computed: choose")
    if (columns or bias_columns) and not (colvars or windows):
        raise InputError("columns are asked for, but no file that holds them: give --colvar FILE")
    if colvars and not (columns or bias_columns):
        raise InputError("a COLVAR file is given, but nothing of it asked for: give --bias-columns or --cv column:NAME")
    if computed and not (trajectories or windows):
        raise InputError(f"--cv {computed[0]} needs trajectories: name them, or give --cv column:NAME")
    if trajectories and not computed:
        raise InputError("no --cv is computed from the trajectories: leave them out, or name one, as in phi:2")


def _check_named(trajectories: Sequence[Path], windows: UmbrellaWindows) -> None:
    """See that the trajectories given are those of the windows."""
    given, named = {path.resolve() for path in trajectories}, {path.resolve() for path in windows.files}
    if given and given != named:
        odd = sorted(given - named or named - given)[0]
        which = "is given, but not named in the table of windows" if odd in given else "of --windows is not given"
        raise InputError(f"{odd.name} {which}: name the same files in both, or none on the command line")


def observe(
    trajectories: Sequence[str | Path],
    top: str | Path | None,
    cvs: Sequence[str],
    temperature: float,
    *,
    log_weights: FloatArray | str | Path | None = None,
    colvar: Sequence[str | Path] = (),
    bias_columns: Sequence[str] = (),
    windows: UmbrellaWindows | None = None,
    bias: StaticBias | Callable[[FloatArray], StaticBias] | None = None,
    bias_cvs: Sequence[str] = (),
    stride: int = 1,
    progress: Callable[[], None] | None = None,
) -> Observations:
    """Read collective variables and weights; the arguments are those of `analyse_trajectories`."""
    paths = [Path(path) for path in trajectories]
    colvars = [Path(path) for path in colvar]
    acting = tuple(bias_cvs) or tuple(cvs)
    if len(set(cvs)) < len(cvs):
        repeated = next(cv for i, cv in enumerate(cvs) if cv in cvs[:i])
        raise InputError(f"--cv {repeated} is given twice: name two different collective variables, or one")
    if bias_cvs and windows is None and bias is None:
        raise InputError("--bias-cv says what a bias acts on, but none is given: give --windows or another bias")
    if windows is not None and windows.centres.shape[1] > len(acting):
        raise InputError(
            f"the windows restrain {windows.centres.shape[1]} collective variables, named are {len(acting)}: "
            "name each of them by --bias-cv"
        )
    everything = list(dict.fromkeys([*cvs, *acting]))
    _check_sources(paths, everything, colvars, bias_columns, log_weights=log_weights, windows=windows, bias=bias)
    computed = [cv for cv in everything if _is_computed(cv)]
    if windows is not None:
        _check_named(paths, windows)
        paths, colvars = (list(windows.files), []) if computed else ([], list(windows.files))
    table = read_colvar(colvars) if colvars else None
    npy = [cv for cv in everything if _external(cv)[0] == "npy"]
    base, rows = _base_series(paths, None if top is None else Path(top), computed, table, npy, stride, progress)
    series = _joined(base, everything, table, rows, stride)
    logs: FloatArray | None = None
    if isinstance(log_weights, str | Path):
        logs = read_log_weights(Path(log_weights), len(series.values), stride if series.n_files == 1 else 1)
    elif log_weights is not None:
        logs = checked_log_weights(log_weights, len(series.values), "log_weights")
    elif bias_columns and table is not None and rows is not None:
        logs = bias_log_weights(table, bias_columns, temperature, rows)
    columns = tuple(everything.index(cv) for cv in acting)
    if bias is not None:
        static = bias(series.periods[list(columns)]) if callable(bias) else bias
        acted = np.asarray(series.values[:, list(columns[: static.n_variables])], dtype=float)
        logs = static.energies(acted) / thermal_energy(temperature)
    restrained = columns[: windows.centres.shape[1]] if windows is not None else ()
    if windows is not None and windows.form == "cosine":
        for i in restrained:
            if not np.isclose(series.periods[i], 2 * np.pi):
                raise InputError(
                    f"cosine windows restrain angles in radians, {series.names[i]} is none: see its period"
                )
    return Observations(series, len(cvs), logs, windows, restrained, notes=tuple(_edge_notes(series)))
