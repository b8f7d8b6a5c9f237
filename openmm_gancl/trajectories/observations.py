"""What was observed: collective variables of frames, from wherever they come, and what undoes their bias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import ENERGY_UNITS, BoolArray, FloatArray, IntArray, energy_unit, thermal_energy
from .arguments import ARGUMENTS, is_trajectory
from .periods import TURNS, check_period, check_same_turn, check_turns, contradicts, plumed_number
from .series import (
    Series,
    check_distinct,
    checked_log_weights,
    read_frame_values,
    read_log_weights,
    read_series,
    read_weights,
    weight_notes,
)
from .tables import expanded, is_variable

if TYPE_CHECKING:
    from .colvar import Colvar
    from .kernel_bias import KernelBias
    from .static_bias import StaticBias
    from .umbrella import UmbrellaWindows
    from .window_table import WindowTable


MAX_UNCOVERED = 0.5
"""Of the frames, that may lie where the bias of their run has no kernel."""

LARGEST = 1e30
"""That single precision holds with room to spare."""


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
        doubts: why the frames may not be what they are taken for.
        bias_columns: whose sum the log-weights are; empty where they come from elsewhere.
        energies: shape=(n,), kJ/mol, potential energy without restraints, where windows are of several temperatures.
    """

    series: Series
    n_surface: int
    temperature: float
    log_weights: FloatArray | None = None
    windows: "UmbrellaWindows | None" = None
    restrained: tuple[int, ...] = ()
    free_energies: FloatArray | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    bias_columns: tuple[str, ...] = ()
    energies: FloatArray | None = None


def _external(cv: str) -> tuple[str, str, float | None]:
    """Kind (column, npy, or empty), name and period of a collective variable that comes from a file."""
    kind, _, rest = cv.partition(":")
    if kind not in ("column", "npy"):
        return "", cv, None
    name, mark, period = rest.rpartition(":")
    if not mark:
        return kind, rest, None
    value = np.inf if period == "none" else plumed_number(period)
    if np.isnan(value):
        return kind, rest, None
    if not value > 0.0:
        raise InputError(f"{cv}: the period is {value:g}: give a positive one, or none")
    return kind, name, value


def _is_computed(cv: str) -> bool:
    return not _external(cv)[0]


def _empty_series(starts: IntArray) -> Series:
    return Series((), np.empty(0), (), np.empty((starts[-1], 0), dtype=np.float32), starts)


@dataclass(frozen=True)
class _Frames:
    """Frames with the collective variables that are computed, their rows in the table, and what is said of both."""

    series: Series
    rows: IntArray | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def _only(series: Series, kept: BoolArray) -> Series:
    """The frames that are kept."""
    if kept.all():
        return series
    starts = np.concatenate([[0], np.cumsum(kept)])[series.starts]
    time = None if series.time is None else series.time[kept]
    return replace(series, values=series.values[kept], starts=starts, time=time)


def _frames(
    trajectories: Sequence[Any],
    top: Any,
    computed: Sequence[str],
    table: "Colvar | None",
    npy: Sequence[str],
    stride: int,
    progress: Callable[[], None] | None,
    by_file: bool,
) -> _Frames:
    """Of trajectories, of the runs (or files) of a table, or of an array."""
    if computed:
        if top is None:
            raise InputError("trajectories need `top`, a PDB file, say: name it")
        series = read_series(trajectories, top, computed, stride=stride, progress=progress)
        if table is None:
            return _Frames(series)
        from .frame_rows import rows_of_frames

        found = rows_of_frames(table, series, stride)
        kept = found.rows >= 0
        return _Frames(_only(series, kept), found.rows[kept], found.notes, found.doubts)
    if table is None:
        n = len(read_frame_values(Path(_external(npy[0])[1]), None))
        return _Frames(_empty_series(np.array([0, -(-n // stride)])))
    part = table.file if by_file else table.run
    counts = np.bincount(part)
    rows = np.concatenate([np.flatnonzero(part == i)[::stride] for i in range(len(counts))])
    return _Frames(_empty_series(np.concatenate([[0], np.cumsum(-(-counts // stride))])), rows)


@dataclass(frozen=True)
class _Coordinate:
    """A collective variable that comes from a file."""

    name: str
    values: FloatArray
    period: float
    unit: str
    note: str = ""


def _of_file(cv: str, table: "Colvar | None", frames: _Frames, stride: int, length: str) -> _Coordinate:
    """A column or an array, within one period around zero."""
    kind, name, period = _external(cv)
    series, own, unit, note = frames.series, np.inf, "", ""
    if kind == "column" and table is not None:
        if (whole := cv.partition(":")[2]) in table.fields:
            name, period = whole, None  # as a name of ours, phi:2, is no period of 2
        name = table.name(name)
        values, own, unit = table.column(name)[frames.rows], table.period(name), table.units.get(name, length)
        if not contradicts(values, own, series.starts):  # else the one that is given is to correct it
            check_same_turn(name, own, period)
    else:
        # several files are thinned each by itself, so that one array cannot be
        step = stride if series.n_files == 1 else 1
        values, name = read_frame_values(Path(name), len(series.values), stride=step), Path(name).stem
    if not (there := np.abs(values) < LARGEST).all():
        raise InputError(f"{cv}, frame {int(there.argmin())}: not a finite number; remove it")
    if period is None or np.isfinite(period):  # else it was said that there is none
        bare = cv if period is None else cv.rpartition(":")[0]
        note = check_period(name, bare, values, own if period is None else period, series.starts)
        check_turns(name, bare, values, own if period is None else period, series.starts)
    period = own if period is None else period
    turn = next((known for known, size in TURNS.items() if np.isclose(period, size)), None)
    return _Coordinate(name, values, period, turn or unit, note)


def _joined(
    cvs: Sequence[str], table: "Colvar | None", frames: _Frames, stride: int, length: str = ""
) -> tuple[Series, tuple[str, ...]]:
    """All collective variables in the order requested, and notes on them."""
    series = frames.series
    columns, names, periods, units, notes, labels, resolved = [], [], [], [], [], [], []
    computed = iter(range(len(series.names)))
    for cv in cvs:
        if _is_computed(cv):
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
    return joined, tuple(filter(None, notes))


def _part_names(files: Sequence[Any], table: "Colvar | None", series: Series) -> list[str]:
    """Of the trajectories, or of the files that a table's runs are from."""
    if len(files) == series.n_files:
        return [f"trajectory {i}" if is_trajectory(file) else str(file) for i, file in enumerate(files)]
    if table is None:
        return ["the array"] * series.n_files
    part = table.file if series.n_files == len(table.paths) else table.run
    return [str(table.paths[table.file[np.flatnonzero(part == i)[0]]]) for i in range(series.n_files)]


def _check_sources(
    trajectories: Sequence[Path],
    cvs: Sequence[str],
    colvars: Sequence[Path],
    bias_columns: Sequence[str],
    **ways: Any,
) -> None:
    """Check that what is requested is available, and that the bias is undone in one way only."""
    computed = [cv for cv in cvs if _is_computed(cv)]
    columns = [cv for cv in cvs if _external(cv)[0] == "column"]
    given = [f"`{name}`" for name, value in ways.items() if value is not None]
    given += ["`bias_columns`"] * bool(bias_columns)
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given: choose one way to undo the bias")
    windows, hills = ways["windows"] is not None, ways["hills"] is not None
    if windows and colvars:
        raise InputError("`windows` names a COLVAR or trajectory file for each window: leave `colvar` out")
    if windows and any(not _is_computed(cv) for cv in cvs) and len(columns) < len(cvs):
        raise InputError("with `windows` all of `cvs` are column:NAME, of COLVAR files, or all are computed: choose")
    if (columns or bias_columns) and not (colvars or windows or hills):
        raise InputError("columns are requested, but no file that contains them: give `colvar`, in PLUMED's format")
    if colvars and not (columns or bias_columns):
        raise InputError(
            "a COLVAR file is given, but nothing of it is requested: give `bias_columns`, or column:NAME in `cvs`"
        )
    if computed and not (trajectories or windows):
        raise InputError(f"{computed[0]} needs trajectories: name them, or give column:NAME in `cvs`")
    if trajectories and not computed:
        raise InputError("none of `cvs` is computed from the trajectories: leave them out, or name one, as in phi:2")


def _check_once(tables: Sequence[Path]) -> None:
    """Refuse a table that is given twice: its frames would count twice."""
    files = [path.resolve() for path in tables]
    if repeated := [path for i, path in enumerate(files) if path in files[:i]]:
        raise InputError(f"{repeated[0].name} is given twice: give each file once")


def _check_named(trajectories: Sequence[Any], files: Sequence[Path]) -> None:
    """See that the trajectories given are those of the windows."""
    if any(map(is_trajectory, trajectories)):
        raise InputError("windows are files: give the names of the trajectories, or none, not mdtraj.Trajectory")
    given, named = {path.resolve() for path in trajectories}, {path.resolve() for path in files}
    if given and given != named:
        odd = sorted(given - named or named - given)[0]
        which = "is given, but not named in the table of windows" if odd in given else "of `windows` is not given"
        raise InputError(f"{odd.name} {which}: name the same files in both, or none on the command line")


def _given_log_weights(
    given: FloatArray | str | Path | None, weights: FloatArray | str | Path | None, series: Series, stride: int
) -> FloatArray | None:
    """Of the frames that are taken, from logarithms or weights; None where none are given."""
    n, step = len(series.values), stride if series.n_files == 1 else 1
    if weights is not None:
        return read_weights(weights, n, step)
    if isinstance(given, str | Path):
        return read_log_weights(Path(given), n, step)
    return None if given is None else checked_log_weights(given, n, "log_weights")


def _of_static_bias(
    bias: "StaticBias | Callable[[FloatArray], StaticBias]", series: Series, columns: tuple[int, ...], kT: float
) -> "_Undone":
    """A bias that no longer changes, on the range and in the order that its frames fit."""
    from .kernel_bias import KernelBias
    from .static_bias import TabulatedBias, with_fitting_range

    static = bias(series.periods[list(columns)]) if callable(bias) else bias
    acting = list(columns[: static.n_variables])
    if isinstance(static, KernelBias) and sorted(static.names) == sorted(series.names[i] for i in acting):
        acting = [acting[[series.names[i] for i in acting].index(name)] for name in static.names]
    values, note, doubt = np.asarray(series.values[:, acting], dtype=float), "", ""
    names = [series.names[i] for i in acting]
    if isinstance(static, TabulatedBias):
        static, note, doubt = with_fitting_range(static, values, names)
    energies = static.energies(values)
    if isinstance(static, KernelBias):
        _check_kernels(static, energies, series, acting)
    if _fits_turned(static, values, energies, series.periods[acting]):
        raise InputError(
            f"the frames fit the bias with its variables in the other order than {', '.join(names)}: "
            "name them in its own order by `bias_cvs`"
        )
    return _Undone(energies / kT, notes=(note,) if note else (), doubts=(doubt,) if doubt else ())


def _check_kernels(static: "KernelBias", energies: FloatArray, series: Series, acting: Sequence[int]) -> None:
    """Refuse kernels in another unit than the frames: of another period, or elsewhere."""
    names = ", ".join(series.names[i] for i in acting)
    for own, period in zip(static.periods, series.periods[list(acting)], strict=True):
        if np.isfinite(own) != np.isfinite(period) or (np.isfinite(own) and not np.isclose(own, period, rtol=1e-3)):
            raise InputError(
                f"the kernels have a period of {own:g}, {names} of the frames {period:g}: give both in one unit"
            )
    if (part := static.uncovered(energies)) > MAX_UNCOVERED:
        raise InputError(
            f"{100 * part:.0f} % of the frames lie where the bias on {names} has no kernel: check that both are of one "
            "run and in one unit, and the order of `bias_cvs`"
        )


def _fits_turned(static: "StaticBias", values: FloatArray, energies: FloatArray, periods: FloatArray) -> bool:
    """Whether frames of two variables tell that these are in the other order."""
    if values.shape[1] != 2 or periods[0] != periods[1]:
        return False
    from .bias_evidence import decide, log_likelihoods

    low, high = values.min(), values.max()
    axis = np.linspace(*((-periods[0] / 2, periods[0] / 2) if np.isfinite(periods[0]) else (low, high)), 49)[:-1]
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    everywhere = static.energies(places)
    turned = static.energies(np.ascontiguousarray(values[:, ::-1]))
    found = decide([log_likelihoods(energies, everywhere), log_likelihoods(turned, everywhere)])
    return bool(found.decisive and found.best == 1)


def _as_windows(
    given: "UmbrellaWindows | WindowTable | str | Path | None", d: int
) -> "UmbrellaWindows | WindowTable | None":
    if not isinstance(given, str | Path):
        return given
    from .window_table import read_table_of_windows

    return read_table_of_windows(given, d=d)


def _acting_on(windows: "UmbrellaWindows | WindowTable | None") -> tuple[str, ...]:
    """Collective variables that the table of windows names itself."""
    if windows is None:
        return ()
    return tuple(getattr(windows, "named", ()) or (windows.coordinates if hasattr(windows, "centres") else ()))


def _named_cvs(names: Sequence[str], cvs: Sequence[str], files: Sequence[Path]) -> tuple[str, ...]:
    """Specifications of names in a table of windows: of those given, or as columns of its files, or as they are."""
    columns = all(not _is_computed(cv) for cv in cvs)
    known = {name: cv for cv in reversed(cvs) for name in (cv, _external(cv)[1])}
    return tuple(known.get(name, f"column:{name}" if columns else name) for name in names)


def _check_bias_cvs(
    cvs: Sequence[str], bias_cvs: Sequence[str], windows: "UmbrellaWindows | WindowTable | None", bias: Any
) -> tuple[str, ...]:
    """What windows or a bias act on."""
    named = _acting_on(windows)
    acting = _named_cvs(named, [*bias_cvs, *cvs], ()) if named else tuple(bias_cvs) or tuple(cvs)
    if len(set(cvs)) < len(cvs):
        repeated = next(cv for i, cv in enumerate(cvs) if cv in cvs[:i])
        raise InputError(f"`cvs`: {repeated} is given twice: name two different collective variables, or one")
    if bias_cvs and windows is None and bias is None:
        raise InputError("`bias_cvs` says what a bias acts on, but none is given: give `windows` or another bias")
    if windows is not None and windows.n_coordinates > len(acting):
        raise InputError(
            f"the windows restrain {windows.n_coordinates} collective variables, named are {len(acting)}: "
            "name each of them by `bias_cvs`"
        )
    return acting


def _restrained(windows: "UmbrellaWindows | None", series: Series, columns: tuple[int, ...]) -> tuple[int, ...]:
    """Which of these columns of the series the windows restrain."""
    if windows is None:
        return ()
    from .window_checks import check_centres

    restrained = columns[: windows.n_coordinates]
    for i in restrained if windows.form == "cosine" else ():
        if not np.isclose(series.periods[i], 2 * np.pi):
            raise InputError(f"cosine windows restrain angles in radians, {series.names[i]} is none: see its period")
    check_centres(windows, series, restrained)
    return restrained


@dataclass(frozen=True)
class _Input:
    """Units of what the user's files hold: of energies, kJ/mol, and of columns whose file tells nothing."""

    energy: float = 1.0
    length: str = ""
    said: bool = False

    @classmethod
    def of(cls, text: str | None, temperature: float) -> "_Input":
        """Words as ``kcal/mol, degrees``."""
        from .window_table import unit_of_coordinate

        energy, length, said = 1.0, "", False
        for word in filter(None, map(str.strip, (text or "").split(","))):
            if "/mol" in word.lower() or word.lower() == "kt":
                name = next((unit for unit in ENERGY_UNITS if unit.lower() == word.lower()), word)
                energy, said = energy_unit(name, temperature), True
            else:
                length = unit_of_coordinate(word)
        return cls(energy, length, said)


@dataclass(frozen=True)
class _Undone:
    """What undoes the bias of frames."""

    log_weights: FloatArray | None = None
    bias_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def _all_columns(table: "Colvar", rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """Every collective variable that a table holds, shape=(n, d), and their periods: what a bias may act on."""
    sound = [name for name in table.fields if is_variable(name) and table.is_sound(name)]
    names = [name for name in sound if np.ptp(table.column(name)[rows]) > 0]
    values = np.stack([table.column(name)[rows] for name in names], axis=1) if names else np.empty((len(rows), 0))
    return values, np.array([table.period(name) for name in names])


def _written_biases(table: "Colvar | None", frames: _Frames, units: _Input) -> dict[str, FloatArray]:
    """Biases that a COLVAR holds, kJ/mol, shape=(n,) each."""
    if table is None or frames.rows is None:
        return {}
    names = [name for name in table.fields if name.endswith(".bias") and table.is_sound(name)]
    return {name: units.energy * table.column(name)[frames.rows] for name in names}


def _of_columns(
    table: "Colvar", columns: Sequence[str], units: _Input, frames: _Frames, series: Series, temperature: float
) -> _Undone:
    """The sum of bias columns, if it is one function of the collective variables for all runs."""
    from .bias_checks import bias_differences, unused_bias
    from .colvar import bias_log_weights, bias_names

    assert frames.rows is not None
    names = tuple(bias_names(table, columns))
    logs = bias_log_weights(table, names, temperature, frames.rows, units.energy)
    spaces = [(np.asarray(series.values, dtype=float), series.periods), _all_columns(table, frames.rows)]
    several = series.n_files > 1 and not all(name.endswith("rbias") for name in names)  # less c(t), runs may be joined
    found = [bias_differences(*space, logs, series.starts) for space in spaces if several and len(space[1])]
    if any(differences.one_for_each_run for differences in found):
        raise InputError(
            f"{' + '.join(names)} at the same {', '.join(series.names)} differs from run to run, as in umbrella "
            "windows: give a table of them by `windows`, with the restraint of each; of metadynamics runs give rbias"
        )
    note = f"{' + '.join(names)} is taken to be in kJ/mol: if PLUMED's UNITS say otherwise, give `input_unit`"
    unused = unused_bias(_written_biases(table, frames, units), names, temperature)
    return _Undone(logs, names, (*unused, *(() if units.said else (note,))))


def _of_hills(
    paths: Sequence[Path],
    table: "Colvar | None",
    units: _Input,
    frames: _Frames,
    series: Series,
    columns: tuple[int, ...],
    temperature: float,
) -> _Undone:
    """The bias of hills as it was at each frame, less c(t)."""
    from .bias_checks import unused_bias
    from .hills import check_bias, check_deposits, check_periods, hills_bias, read_hills, same_biases

    hills = read_hills(paths, units.energy)
    if (
        table is not None
        and frames.rows is not None
        and set(hills.names) <= set(table.fields)
        and table.time is not None
    ):
        check_periods(hills, [table.period(name) for name in hills.names])
        values = np.stack([table.column(name)[frames.rows] for name in hills.names], axis=1)
        times = table.time[frames.rows]
    elif series.time is not None and len(columns) >= len(hills.names):
        acting = list(columns[: len(hills.names)])
        check_periods(hills, series.periods[acting])
        values, times = np.asarray(series.values[:, acting], dtype=float), np.asarray(series.time, dtype=float)
    else:
        raise InputError(
            f"the hills of {hills.path} are on {', '.join(hills.names)} over time: give the COLVAR of the run by "
            "`colvar`, or trajectories that hold times (XTC) and its collective variables by `bias_cvs`"
        )
    check_deposits(hills, values, times)
    bias = hills_bias(hills, values, times, temperature)
    written = _written_biases(table, frames, units)
    doubts = check_bias(hills, bias, times, written)
    doubts += unused_bias(written, same_biases(bias, written), temperature)
    note = f"heights of {hills.path} are taken to be in kJ/mol: if PLUMED's UNITS say otherwise, give `input_unit`"
    logs = bias.log_weights(temperature)
    filling = (
        f"{int(np.isneginf(logs).sum())} frames of the first tenth of the hills have no weight: the bias still filled"
    )
    return _Undone(logs, notes=(filling,) if units.said else (filling, note), doubts=doubts)


def _table(paths: Sequence[Path], series: bool) -> "Colvar | None":
    from .colvar import read_colvar

    return read_colvar(paths, series) if paths else None


@dataclass(frozen=True)
class _Joined:
    """Windows, the columns of the series that they restrain, energies of the frames, doubts and notes."""

    windows: "UmbrellaWindows | None" = None
    restrained: tuple[int, ...] = ()
    energies: FloatArray | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _windows_of(
    given: "UmbrellaWindows | WindowTable | None",
    table: "Colvar | None",
    units: _Input,
    frames: _Frames,
    series: Series,
    columns: tuple[int, ...],
    temperature: float,
    energy_column: str | None,
) -> "_Joined":
    """Windows in the units of the series, its columns that they restrain, and the frames' energies; checked."""
    if given is None:
        if energy_column is not None:
            raise InputError("`energy_column` is for windows of several temperatures: give `windows`, or leave it out")
        return _Joined()
    from .window_checks import check_energies
    from .window_table import WindowTable

    energies = None
    if energy_column is not None and (table is None or frames.rows is None):
        raise InputError("`energy_column` is one of the windows' COLVAR files: give all of `cvs` as column:NAME")
    if energy_column is not None and table is not None:
        energies = units.energy * table.column(energy_column)[frames.rows]
    if isinstance(given, WindowTable):
        if energies is None:
            given.check_one_temperature(temperature)
        given = given.windows([series.units[i] for i in columns[: given.n_coordinates]], temperature)
    restrained = _restrained(given, series, columns)
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if energies is not None and not units.said:
        notes = (f"{energy_column} is taken to be in kJ/mol: if it is not, give `input_unit`",)
    if table is not None and frames.rows is not None:
        doubts = check_energies(given, series, restrained, table, frames.rows, units.energy)
    return _Joined(given, restrained, energies, doubts, notes)


@dataclass(frozen=True)
class _Sources:
    """What the user gives, as for `read`."""

    paths: Any
    top: Any
    cvs: Sequence[str]
    temperature: float
    log_weights: FloatArray | str | Path | None
    weights: FloatArray | str | Path | None
    colvar: Any
    bias_columns: Sequence[str]
    hills: Any
    windows: "UmbrellaWindows | WindowTable | str | Path | None"
    bias: "StaticBias | Callable[[FloatArray], StaticBias] | None"
    bias_cvs: Sequence[str]
    energy_column: str | None
    input_unit: str | None
    stride: int
    progress: Callable[[], None] | None

    def __post_init__(self) -> None:
        """As people give them, to what is meant."""
        for name, convert in ARGUMENTS.items():
            object.__setattr__(self, name, convert(name, getattr(self, name)))

    def observed(self) -> Observations:
        """Frames of all files, their collective variables, and what undoes their bias."""
        files, tables, hills = list(self.paths), expanded(self.colvar), expanded(self.hills)
        units = _Input.of(self.input_unit, self.temperature)
        windows = _as_windows(self.windows, len(self.bias_cvs or self.cvs))
        acting = _check_bias_cvs(self.cvs, self.bias_cvs, windows, self.bias or hills or None)
        everything = list(dict.fromkeys([*self.cvs, *acting]))
        ways = {"log_weights": self.log_weights, "weights": self.weights, "windows": windows, "bias": self.bias}
        _check_once([*tables, *hills])
        _check_sources(files, everything, tables, self.bias_columns, **ways, hills=hills or None)
        computed = [cv for cv in everything if _is_computed(cv)]
        if windows is not None:
            _check_named(files, windows.files)
            files, tables = (list(windows.files), []) if computed else ([], list(windows.files))
        table = _table(tables or ([] if computed else hills), series=bool(tables))
        frames = self._frames(files, computed, table, [cv for cv in everything if _external(cv)[0] == "npy"])
        series, of_columns = _joined(everything, table, frames, self.stride, units.length)
        columns = tuple(everything.index(cv) for cv in acting)
        undone = self._undone(table, hills, units, frames, series, columns)
        joined = _windows_of(windows, table, units, frames, series, columns, self.temperature, self.energy_column)
        check_distinct(series, _part_names(files, table, series))
        return Observations(
            series,
            len(self.cvs),
            self.temperature,
            undone.log_weights,
            joined.windows,
            joined.restrained,
            notes=(*(table.notes if table else ()), *frames.notes, *of_columns, *undone.notes, *joined.notes),
            doubts=(*frames.doubts, *undone.doubts, *joined.doubts),
            bias_columns=undone.bias_columns,
            energies=joined.energies,
        )

    def _frames(
        self, files: Sequence[Path], computed: Sequence[str], table: "Colvar | None", npy: Sequence[str]
    ) -> _Frames:
        top, by_file = self.top, self.windows is not None
        if top is None and computed and files and is_trajectory(files[0]):
            top = files[0]
        return _frames(files, top, computed, table, npy, self.stride, self.progress, by_file)

    def _undone(
        self,
        table: "Colvar | None",
        hills: Sequence[Path],
        units: _Input,
        frames: _Frames,
        series: Series,
        columns: tuple[int, ...],
    ) -> _Undone:
        """The bias undone, in the one way that is given."""
        from .bias_checks import unused_bias

        if self.bias_columns and table is not None:
            return _of_columns(table, self.bias_columns, units, frames, series, self.temperature)
        if hills:
            return _of_hills(hills, table, units, frames, series, columns, self.temperature)
        if self.bias is not None:
            return _of_static_bias(self.bias, series, columns, thermal_energy(self.temperature))
        logs = _given_log_weights(self.log_weights, self.weights, series, self.stride)
        if logs is not None:
            return _Undone(logs, notes=weight_notes(logs) if self.weights is not None else ())
        if self.windows is None:
            return _Undone(doubts=unused_bias(_written_biases(table, frames, units), (), self.temperature))
        return _Undone()


def read(
    paths: Any,
    top: Any,
    cvs: str | Sequence[str],
    temperature: Any,
    *,
    log_weights: FloatArray | str | Path | None = None,
    weights: FloatArray | str | Path | None = None,
    colvar: Sequence[str | Path] = (),
    bias_columns: Sequence[str] = (),
    hills: Sequence[str | Path] = (),
    windows: "UmbrellaWindows | WindowTable | str | Path | None" = None,
    bias: "StaticBias | Callable[[FloatArray], StaticBias] | None" = None,
    bias_cvs: Sequence[str] = (),
    energy_column: str | None = None,
    input_unit: str | None = None,
    stride: int = 1,
    progress: Callable[[], None] | None = None,
) -> Observations:
    """Read collective variables of frames, and what undoes their bias: one of six ways, or none.

    Args:
        paths: trajectories that mdtraj reads, or mdtraj.Trajectory, one or several; empty if the collective variables
            are columns or npy files.
        top: their topology: a file, mdtraj.Topology or mdtraj.Trajectory.
        cvs: one or two of the surface: as for `parse_cv`, or ``column:NAME`` of a table, or ``npy:FILE``.
        temperature: K, or a Quantity.
        log_weights: of the frames, in the order of the files: shape=(n,), or an npy or text file.
        weights: themselves, not their logarithms.
        colvar: tables of columns (COLVAR files of PLUMED, xvg, colvars, cpptraj, CSV), wildcards too.
        bias_columns: columns of them whose sum is a static bias.
        hills: HILLS files of PLUMED, whose bias at each frame is undone; alone, their centres are the frames.
        windows: umbrella windows, or a table of harmonic ones (`read_windows`), joined by MBAR.
        bias: a static bias (`metadynamics_bias`, `opes_bias`), or what makes one for given periods.
        bias_cvs: what windows or bias act on, where that is not ``cvs``.
        energy_column: potential energy without restraints, where windows are of several temperatures.
        input_unit: of energies in tables (kJ/mol by default, kcal/mol, kT), and of columns that tell none, as
            ``kcal/mol, degrees``.
        stride: take every so many frames.
        progress: called once for each finished file.

    Raises:
        InputError: files that cannot be read or do not fit each other.
    """
    undoing = (log_weights, weights, colvar, bias_columns, hills, windows, bias, bias_cvs)
    return _Sources(paths, top, cvs, temperature, *undoing, energy_column, input_unit, stride, progress).observed()
