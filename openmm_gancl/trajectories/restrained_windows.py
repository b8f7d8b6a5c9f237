"""Umbrella windows in the units of the series that they restrain, compared with what their files hold."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..units import FloatArray
from .frames import Frames
from .inputs import InputUnits
from .series import Series

if TYPE_CHECKING:
    from .colvar import Colvar
    from .umbrella import UmbrellaWindows
    from .window_table import WindowTable


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
class RestrainedWindows:
    """Windows, the columns of the series that they restrain, energies of the frames, doubts and notes."""

    windows: "UmbrellaWindows | None" = None
    restrained: tuple[int, ...] = ()
    energies: FloatArray | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def restrained_windows(
    given: "UmbrellaWindows | WindowTable | None",
    table: "Colvar | None",
    units: InputUnits,
    frames: Frames,
    series: Series,
    columns: tuple[int, ...],
    temperature: float,
    energy_column: str | None,
) -> "RestrainedWindows":
    """Windows in the units of the series, its columns that they restrain, and the frames' energies; checked."""
    if given is None:
        if energy_column is not None:
            raise InputError("`energy_column` is for windows of several temperatures: give `windows`, or leave it out")
        return RestrainedWindows()
    from .window_checks import check_energies
    from .window_table import WindowTable

    energies = None
    if energy_column is not None and (table is None or frames.rows is None):
        raise InputError("`energy_column` is one of the windows' COLVAR files: give all of `cvs` as column:NAME")
    if energy_column is not None and table is not None:
        energies = units.energy_of(energy_column, table.units) * table.column(energy_column)[frames.rows]
    if isinstance(given, WindowTable):
        given.check_kelvin(temperature)
        if energies is None:
            given.check_one_temperature(temperature)
        given = given.windows([series.units[i] for i in columns[: given.n_coordinates]], temperature)
    restrained = _restrained(given, series, columns)
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if energies is not None and not (units.said or (table and units.tells(str(energy_column), table.units))):
        notes = (f"{energy_column} is taken to be in kJ/mol: if it is not, give `input_unit`",)
    if table is not None and frames.rows is not None:
        doubts = check_energies(given, series, restrained, table, frames.rows, units)
    return RestrainedWindows(given, restrained, energies, doubts, notes)
