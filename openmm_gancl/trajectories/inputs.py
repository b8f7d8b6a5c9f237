"""What the user asks for: names of collective variables, units, and whether the ways given fit each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..units import COLD, ENERGY_UNITS, energy_unit, unit_of_coordinate
from .arguments import is_trajectory
from .periods import plumed_number

if TYPE_CHECKING:
    from .umbrella import UmbrellaWindows
    from .window_table import WindowTable


def external(cv: str) -> tuple[str, str, float | None]:
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


def is_computed(cv: str) -> bool:
    """Whether a collective variable is computed from frames."""
    return not external(cv)[0]


@dataclass(frozen=True)
class InputUnits:
    """Units of what the user's files hold: of energies, kJ/mol, and of columns whose file tells nothing."""

    energy: float = 1.0
    length: str = ""
    said: bool = False
    temperature: float = 300.0

    def energy_of(self, name: str, units: Mapping[str, str]) -> float:
        """Of a column of energies, kJ/mol: as its file's header tells, or as it was said.

        Raises:
            InputError: the two differ.
        """
        if not self.tells(name, units):
            return self.energy
        size = energy_unit(units[name], self.temperature)
        if self.said and not np.isclose(size, self.energy):
            raise InputError(f"{name} is in {units[name]} by its file's header: leave `input_unit` out, or correct it")
        return size

    @staticmethod
    def tells(name: str, units: Mapping[str, str]) -> bool:
        """Whether a header tells the unit of an energy."""
        return units.get(name) in ENERGY_UNITS

    @classmethod
    def of(cls, text: str | None, temperature: float) -> "InputUnits":
        """Words as ``kcal/mol, degrees``."""
        energy, length, said = 1.0, "", False
        if text is not None and not isinstance(text, str):
            raise InputError(f"`input_unit` is a {type(text).__name__}: give a text, as kcal/mol")
        for word in filter(None, map(str.strip, (text or "").split(","))):
            if "/mol" in word.lower() or word.lower() == "kt":
                name = next((unit for unit in ENERGY_UNITS if unit.lower() == word.lower()), word)
                energy, said = energy_unit(name, temperature), True
            else:
                length = unit_of_coordinate(word)
        return cls(energy, length, said, temperature)


def check_sources(
    trajectories: Sequence[Path],
    cvs: Sequence[str],
    colvars: Sequence[Path],
    bias_columns: Sequence[str],
    **ways: Any,
) -> None:
    """Check that what is requested is available, and that the bias is undone in one way only."""
    computed = [cv for cv in cvs if is_computed(cv)]
    columns = [cv for cv in cvs if external(cv)[0] == "column"]
    windows, hills = ways["windows"] is not None, ways["hills"] is not None
    given = [f"`{name}`" for name, value in ways.items() if value is not None]
    given += ["`bias_columns`"] * bool(bias_columns and not (windows or hills))
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given: choose one way to undo the bias")
    if windows and bias_columns and computed:
        raise InputError("`bias_columns` are of the windows' COLVAR files: give all of `cvs` as column:NAME")
    if windows and colvars:
        raise InputError("`windows` names a COLVAR or trajectory file for each window: leave `colvar` out")
    if windows and any(not is_computed(cv) for cv in cvs) and len(columns) < len(cvs):
        raise InputError("with `windows` all of `cvs` are column:NAME, of COLVAR files, or all are computed: choose")
    if (columns and not (colvars or windows or hills)) or (bias_columns and not (colvars or windows)):
        raise InputError("columns are requested, but no file that contains them: give `colvar`, in PLUMED's format")
    if colvars and not (columns or bias_columns or hills or ways["bias"] is not None):
        raise InputError(
            "a COLVAR file is given, but nothing of it is requested: give `bias_columns`, or column:NAME in `cvs`"
        )
    if computed and not (trajectories or windows):
        raise InputError(f"{computed[0]} needs trajectories: name them, or give column:NAME in `cvs`")
    if trajectories and not computed:
        raise InputError("none of `cvs` is computed from the trajectories: leave them out, or name one, as in phi:2")


def check_once(tables: Sequence[Path]) -> None:
    """Refuse a table that is given twice: its frames would count twice."""
    files = [path.resolve() for path in tables]
    if repeated := [path for i, path in enumerate(files) if path in files[:i]]:
        raise InputError(f"{repeated[0].name} is given twice: give each file once")


def temperature_notes(temperature: float) -> tuple[str, ...]:
    """That a temperature may be in degrees Celsius."""
    if temperature >= COLD:
        return ()
    return (f"the temperature is {temperature:g} K: if degrees Celsius are meant, give {temperature + 273.15:g}",)


def check_unlike(cvs: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a column that is named in two ways, by its name and by its number."""
    for i, name in enumerate(names[: len(cvs)]):
        if name in names[:i]:
            raise InputError(
                f"`cvs`: {cvs[names.index(name)]} and {cvs[i]} are the same: name two different collective variables"
            )


def check_named(trajectories: Sequence[Any], files: Sequence[Path]) -> None:
    """See that the trajectories given are those of the windows."""
    if any(map(is_trajectory, trajectories)):
        raise InputError("windows are files: give the names of the trajectories, or none, not mdtraj.Trajectory")
    given, named = {path.resolve() for path in trajectories}, {path.resolve() for path in files}
    if given and given != named:
        odd = sorted(given - named or named - given)[0]
        which = "is given, but not named in the table of windows" if odd in given else "of `windows` is not given"
        raise InputError(f"{odd.name} {which}: name the same files in both, or none on the command line")


def as_windows(
    given: "UmbrellaWindows | WindowTable | str | Path | None", d: int
) -> "UmbrellaWindows | WindowTable | None":
    """Windows, of a table that is given by its name too; of d collective variables if it is metadata of WHAM."""
    from .umbrella import UmbrellaWindows
    from .window_table import WindowTable, read_table_of_windows

    if isinstance(given, str | Path):
        return read_table_of_windows(given, d=d)
    if given is not None and not isinstance(given, UmbrellaWindows | WindowTable):
        raise InputError(
            f"`windows` is a {type(given).__name__}: give the name of a table, `read_table_of_windows(...)` or "
            "`UmbrellaWindows.of_files(files, centres, force_constants)`"
        )
    if given is not None and not given.files:
        raise InputError("`windows` name no files: give `UmbrellaWindows.of_files(files, centres, force_constants)`")
    return given


def _acting_on(windows: "UmbrellaWindows | WindowTable | None") -> tuple[str, ...]:
    """Collective variables that the table of windows names itself."""
    if windows is None:
        return ()
    return tuple(getattr(windows, "named", ()) or (windows.coordinates if hasattr(windows, "centres") else ()))


def _named_cvs(names: Sequence[str], cvs: Sequence[str]) -> tuple[str, ...]:
    """Specifications of names in a table of windows: of those given, or as columns of its files, or as they are."""
    columns = all(not is_computed(cv) for cv in cvs)
    known = {name: cv for cv in reversed(cvs) for name in (cv, external(cv)[1])}
    return tuple(known.get(name, f"column:{name}" if columns else name) for name in names)


def check_bias_cvs(
    cvs: Sequence[str], bias_cvs: Sequence[str], windows: "UmbrellaWindows | WindowTable | None", bias: Any
) -> tuple[str, ...]:
    """What windows or a bias act on."""
    named = _acting_on(windows)
    acting = _named_cvs(named, [*bias_cvs, *cvs]) if named else tuple(bias_cvs) or tuple(cvs)
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
