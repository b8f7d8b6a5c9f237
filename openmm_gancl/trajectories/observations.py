"""What was observed: collective variables of frames, from wherever they come, and what undoes their bias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, checked
from ..units import FloatArray, thermal_energy
from .arguments import ARGUMENTS, is_trajectory
from .inputs import (
    InputUnits,
    as_windows,
    check_bias_cvs,
    check_named,
    check_once,
    check_sources,
    check_unlike,
    external,
    is_computed,
    temperature_notes,
)
from .series import Series, weight_notes
from .tables import expanded

if TYPE_CHECKING:
    from .colvar import Colvar
    from .frames import Frames
    from .static_bias import StaticBias
    from .umbrella import UmbrellaWindows
    from .undone import Undone
    from .window_table import WindowTable


@dataclass(frozen=True)
class Observations:
    """Collective variables of frames, with what undoes their bias.

    Attributes:
        series: those of the surface, then those that only windows or a bias act on.
        n_surface: how many of them span the surface.
        temperature: K.
        log_weights: shape=(n,), up to a constant; None for equal weights, or where windows alone determine them.
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


def _each_frame_once(observations: Observations) -> Observations:
    """Without frames that parts of a run have in common."""
    from .frames import only
    from .repeats import without_repeats

    kept, logs = without_repeats(observations.series), observations.log_weights
    if kept.all():
        return observations
    note = f"{int((~kept).sum())} frames at the end of a trajectory, with which the next one begins, are counted once"
    return replace(
        observations,
        series=only(observations.series, kept),
        log_weights=None if logs is None else logs[kept],
        notes=(*observations.notes, note),
    )


def _table(paths: Sequence[Path], series: bool) -> "Colvar | None":
    from .colvar import read_colvar

    return read_colvar(paths, series) if paths else None


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
        from .bias_checks import lagging_bias
        from .frames import joined_series, part_names
        from .repeats import check_distinct
        from .restrained_windows import restrained_windows
        from .undone import unrelated_notes

        files, tables, hills = list(self.paths), expanded(self.colvar), expanded(self.hills)
        units = InputUnits.of(self.input_unit, self.temperature)
        windows = as_windows(self.windows, len(self.bias_cvs or self.cvs))
        acting = check_bias_cvs(self.cvs, self.bias_cvs, windows, hills or None if self.bias is None else self.bias)
        everything = list(dict.fromkeys([*self.cvs, *acting]))
        ways = {"log_weights": self.log_weights, "weights": self.weights, "windows": windows, "bias": self.bias}
        check_once([*tables, *hills])
        check_sources(files, everything, tables, self.bias_columns, **ways, hills=hills or None)
        computed = [cv for cv in everything if is_computed(cv)]
        if windows is not None:
            check_named(files, windows.files)
            files, tables = (list(windows.files), []) if computed else ([], list(windows.files))
        table = _table(tables or ([] if computed else hills), series=bool(tables))
        frames = self._frames(files, computed, table, [cv for cv in everything if external(cv)[0] == "npy"])
        series, of_columns, unlikely = joined_series(everything, table, frames, self.stride, units.length)
        check_unlike(self.cvs, series.names)
        columns = tuple(everything.index(cv) for cv in acting)
        undone = self._undone(table, hills, units, frames, series, columns)
        joined = restrained_windows(
            windows, table, units, frames, series, columns, self.temperature, self.energy_column
        )
        if undone.log_weights is not None and joined.windows is not None and joined.windows.temperatures is not None:
            raise InputError(
                "windows of several temperatures cannot be joined beside another bias, of which nothing tells whether "
                "`energy_column` holds it: give windows of one temperature, or leave the bias out"
            )
        check_distinct(series, part_names(files, table, series))
        lagging: tuple[str, ...] = ()
        if undone.log_weights is not None and not hills:
            lagging = lagging_bias(series.values, series.periods, undone.log_weights, series.starts)
        unrelated = () if lagging or hills else unrelated_notes(undone, table, frames, series)
        observations = Observations(
            series,
            len(self.cvs),
            self.temperature,
            undone.log_weights,
            joined.windows,
            joined.restrained,
            notes=(
                *temperature_notes(self.temperature),
                *(table.notes if table else ()),
                *frames.notes,
                *of_columns,
                *undone.notes,
                *unrelated,
                *joined.notes,
            ),
            doubts=(*frames.doubts, *unlikely, *undone.doubts, *joined.doubts, *lagging),
            bias_columns=undone.bias_columns,
            energies=joined.energies,
        )
        return observations if windows is not None else _each_frame_once(observations)

    def _frames(
        self, files: Sequence[Path], computed: Sequence[str], table: "Colvar | None", npy: Sequence[str]
    ) -> "Frames":
        from .frames import frames_of

        top, by_file = self.top, self.windows is not None
        if top is None and computed and files and is_trajectory(files[0]):
            top = files[0]
        return frames_of(files, top, computed, table, npy, self.stride, self.progress, by_file)

    def _undone(
        self,
        table: "Colvar | None",
        hills: Sequence[Path],
        units: InputUnits,
        frames: "Frames",
        series: Series,
        columns: tuple[int, ...],
    ) -> "Undone":
        """The bias undone, in the one way that is given."""
        from .undone import (
            Undone,
            beside_static,
            given_log_weights,
            left_out,
            of_columns,
            of_hills,
            of_static_bias,
            weight_doubts,
            written_biases,
        )

        windows = self.windows is not None
        if hills:
            return of_hills(hills, table, units, frames, series, columns, self.temperature, self.bias_columns)
        if self.bias_columns and table is not None:
            undone = of_columns(table, self.bias_columns, units, frames, series, self.temperature)
            return left_out(undone, table, units, frames, series, self.temperature, windows)
        if self.bias is not None:
            undone = of_static_bias(self.bias, series, columns, thermal_energy(self.temperature))
            return beside_static(undone, written_biases(table, frames, units), series, self.temperature)
        logs = given_log_weights(self.log_weights, self.weights, table, frames, series, self.stride)
        if logs is not None:
            doubts = weight_doubts(logs, written_biases(table, frames, units), thermal_energy(self.temperature))
            undone = Undone(logs, notes=weight_notes(logs) if self.weights is not None else (), doubts=doubts)
            if (logs != logs.max()).any():
                return undone
        else:
            undone = Undone()
        return left_out(undone, table, units, frames, series, self.temperature, windows)


@checked
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
        bias_columns: columns of them whose sum is a static bias; beside windows or hills, one that acted as well.
        hills: HILLS files of PLUMED, whose bias at each frame is undone; alone, their centres are the frames.
        windows: `UmbrellaWindows`, or their table: a file, or what `read_table_of_windows` gives; joined by MBAR.
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
