"""What was observed: collective variables of frames, from wherever they come, and what undoes their bias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import FloatArray, IntArray, checked_temperature, thermal_energy
from .colvar import Colvar, bias_log_weights, read_colvar, rows_of_frames
from .series import Series, checked_log_weights, read_frame_values, read_log_weights, read_series

if TYPE_CHECKING:
    from .static_bias import StaticBias
    from .umbrella import UmbrellaWindows

FULL_TURNS = {"radians": 2 * np.pi, "degrees": 360.0}
"""Periods that a coordinate without one may really have."""

MIN_WRAP_FRACTION = 0.8
"""Of a period, between one frame and the next: the coordinate went across its edge."""


@dataclass(frozen=True)
class Observations:
    """Collective variables of frames, with what undoes their bias.

    Attributes:
        series: those of the surface, then those that only windows or a bias act on.
        n_surface: how many of them span the surface.
        temperature: K.
        log_weights: shape=(n,), up to a constant; None for equal weights, or where windows determine them.
        windows: umbrella windows, one a trajectory; None without.
        restrained: columns of the series that the windows restrain.
        free_energies: shape=(n_windows,), kT, about right, that MBAR starts from; None to find some.
        notes: what the user should know, one sentence each.
    """

    series: Series
    n_surface: int
    temperature: float
    log_weights: FloatArray | None = None
    windows: "UmbrellaWindows | None" = None
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
        raise InputError(f"{cv}: the period is {value:g}: give a positive one, or none")
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
            raise InputError("trajectories need `top`, a PDB file, say: name it")
        series = read_series(trajectories, top, computed, stride=stride, progress=progress)
        return series, None if table is None else rows_of_frames(table, series, stride)
    if table is None:
        n = len(read_frame_values(Path(_external(npy[0])[1]), None))
        return _empty_series(np.array([0, -(-n // stride)])), None
    counts = np.bincount(table.file)
    rows = np.concatenate([np.flatnonzero(table.file == file)[::stride] for file in range(len(counts))])
    return _empty_series(np.concatenate([[0], np.cumsum(-(-counts // stride))])), rows


def _joined(series: Series, cvs: Sequence[str], table: Colvar | None, rows: IntArray | None, stride: int) -> Series:
    """All collective variables in the order requested."""
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
    """Notes on coordinates that may be angles but have no period."""
    notes = []
    for column, name, period, unit in zip(series.values.T, series.names, series.periods, series.units, strict=True):
        if np.isfinite(period) or unit:
            continue  # computed here, so the period is known
        for turn, size in FULL_TURNS.items():
            if 0.9 * size < float(np.ptp(column)) <= 1.01 * size:
                crossings = int((np.abs(np.diff(column)) > MIN_WRAP_FRACTION * size).sum())
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
    """Check that what is requested is available, and that the bias is undone in one way only."""
    computed = [cv for cv in cvs if _is_computed(cv)]
    columns = [cv for cv in cvs if _external(cv)[0] == "column"]
    given = [f"`{name}`" for name, value in weights.items() if value is not None]
    given += ["`bias_columns`"] * bool(bias_columns)
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given: choose one way to undo the bias")
    windows = weights["windows"] is not None
    if windows and colvars:
        raise InputError("`windows` names a COLVAR or trajectory file for each window: leave `colvar` out")
    if windows and any(not _is_computed(cv) for cv in cvs) and len(columns) < len(cvs):
        raise InputError("with `windows` all of `cvs` are column:NAME, of COLVAR files, or all are computed: choose")
    if (columns or bias_columns) and not (colvars or windows):
        raise InputError("columns are requested, but no file that contains them: give `colvar`, in PLUMED's format")
    if colvars and not (columns or bias_columns):
        raise InputError(
            "a COLVAR file is given, but nothing of it is requested: give `bias_columns`, or column:NAME in `cvs`"
        )
    if computed and not (trajectories or windows):
        raise InputError(f"{computed[0]} needs trajectories: name them, or give column:NAME in `cvs`")
    if trajectories and not computed:
        raise InputError("none of `cvs` is computed from the trajectories: leave them out, or name one, as in phi:2")


def _check_named(trajectories: Sequence[Path], windows: "UmbrellaWindows") -> None:
    """See that the trajectories given are those of the windows."""
    given, named = {path.resolve() for path in trajectories}, {path.resolve() for path in windows.files}
    if given and given != named:
        odd = sorted(given - named or named - given)[0]
        which = "is given, but not named in the table of windows" if odd in given else "of `windows` is not given"
        raise InputError(f"{odd.name} {which}: name the same files in both, or none on the command line")


def _given_log_weights(given: FloatArray | str | Path | None, series: Series, stride: int) -> FloatArray | None:
    """Of the frames that are taken; None where none are given."""
    if isinstance(given, str | Path):
        return read_log_weights(Path(given), len(series.values), stride if series.n_files == 1 else 1)
    return None if given is None else checked_log_weights(given, len(series.values), "log_weights")


def _energies_of(
    bias: "StaticBias | Callable[[FloatArray], StaticBias]", series: Series, columns: tuple[int, ...]
) -> FloatArray:
    """Of a static bias at the frames, kJ/mol, shape=(n,)."""
    static = bias(series.periods[list(columns)]) if callable(bias) else bias
    return static.energies(np.asarray(series.values[:, list(columns[: static.n_variables])], dtype=float))


def _as_windows(given: "UmbrellaWindows | str | Path | None", temperature: float) -> "UmbrellaWindows | None":
    from .umbrella import read_windows

    return read_windows(given, temperature) if isinstance(given, str | Path) else given


def _check_bias_cvs(
    cvs: Sequence[str], bias_cvs: Sequence[str], windows: "UmbrellaWindows | None", bias: Any
) -> tuple[str, ...]:
    """What windows or a bias act on."""
    acting = tuple(bias_cvs) or tuple(cvs)
    if len(set(cvs)) < len(cvs):
        repeated = next(cv for i, cv in enumerate(cvs) if cv in cvs[:i])
        raise InputError(f"`cvs`: {repeated} is given twice: name two different collective variables, or one")
    if bias_cvs and windows is None and bias is None:
        raise InputError("`bias_cvs` says what a bias acts on, but none is given: give `windows` or another bias")
    if windows is not None and windows.centres.shape[1] > len(acting):
        raise InputError(
            f"the windows restrain {windows.centres.shape[1]} collective variables, named are {len(acting)}: "
            "name each of them by `bias_cvs`"
        )
    return acting


def _restrained(windows: "UmbrellaWindows | None", series: Series, columns: tuple[int, ...]) -> tuple[int, ...]:
    """Which of these columns of the series the windows restrain."""
    if windows is None:
        return ()
    restrained = columns[: windows.centres.shape[1]]
    for i in restrained if windows.form == "cosine" else ():
        if not np.isclose(series.periods[i], 2 * np.pi):
            raise InputError(f"cosine windows restrain angles in radians, {series.names[i]} is none: see its period")
    return restrained


def read(
    paths: Sequence[str | Path],
    top: str | Path | None,
    cvs: Sequence[str],
    temperature: float,
    *,
    log_weights: FloatArray | str | Path | None = None,
    colvar: Sequence[str | Path] = (),
    bias_columns: Sequence[str] = (),
    windows: "UmbrellaWindows | str | Path | None" = None,
    bias: "StaticBias | Callable[[FloatArray], StaticBias] | None" = None,
    bias_cvs: Sequence[str] = (),
    stride: int = 1,
    progress: Callable[[], None] | None = None,
) -> Observations:
    """Read collective variables of frames, and what undoes their bias: one of five ways, or none.

    Args:
        paths: trajectories that mdtraj reads; empty if the collective variables are columns or npy files.
        top: their topology.
        cvs: one or two of the surface: as for `parse_cv`, or ``column:NAME`` of a COLVAR file, or ``npy:FILE``.
        temperature: K.
        log_weights: of the frames, in the order of the files: shape=(n,), or an npy or text file.
        colvar: COLVAR files, in PLUMED's format.
        bias_columns: columns of them whose sum is a static bias, kJ/mol.
        windows: umbrella windows, or a CSV table of harmonic ones (`read_windows`), joined by MBAR.
        bias: a static bias (`metadynamics_bias`, `opes_bias`), or what makes one for given periods.
        bias_cvs: what windows or bias act on, where that is not ``cvs``.
        stride: take every so many frames.
        progress: called once for each finished file.

    Raises:
        InputError: files that cannot be read or do not fit each other.
    """
    files, colvars, kT = (
        list(map(Path, paths)),
        list(map(Path, colvar)),
        thermal_energy(checked_temperature(temperature)),
    )
    windows = _as_windows(windows, temperature)
    acting = _check_bias_cvs(cvs, bias_cvs, windows, bias)
    everything = list(dict.fromkeys([*cvs, *acting]))
    _check_sources(files, everything, colvars, bias_columns, log_weights=log_weights, windows=windows, bias=bias)
    computed = [cv for cv in everything if _is_computed(cv)]
    if windows is not None:
        _check_named(files, windows)
        files, colvars = (list(windows.files), []) if computed else ([], list(windows.files))
    table = read_colvar(colvars) if colvars else None
    npy = [cv for cv in everything if _external(cv)[0] == "npy"]
    base, rows = _base_series(files, None if top is None else Path(top), computed, table, npy, stride, progress)
    series, columns = _joined(base, everything, table, rows, stride), tuple(everything.index(cv) for cv in acting)
    logs = _given_log_weights(log_weights, series, stride)
    if bias_columns and table is not None and rows is not None:
        logs = bias_log_weights(table, bias_columns, temperature, rows)
    if bias is not None:
        logs = _energies_of(bias, series, columns) / kT
    restrained = _restrained(windows, series, columns)
    return Observations(series, len(cvs), temperature, logs, windows, restrained, notes=tuple(_edge_notes(series)))
