"""Whether a table of windows says what the windows were sampled under: its numbers against what their files hold.

PLUMED's files hold the energy of the restraint at every frame (``restraint.bias``): a table in another unit, of another
form or coordinate shows there.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray
from .colvar import Colvar
from .inputs import InputUnits
from .series import Series
from .tables import is_variable
from .umbrella import UmbrellaWindows

OTHER_BIASES = ("metad", "opes", "wall", "abmd", "pbmetad", "ves")
"""Parts of names of biases that are no restraint of a window."""

RESTRAINTS = ("restr", "umbrella", "harm")
"""Parts of names of biases that are one."""

MAX_DEVIATION = 0.05
"""Root mean square of an energy's deviation from the table's, over its own: rounding of centres stays below."""

MIN_ENERGY = 0.02
"""kJ/mol, root mean square, below which an energy says nothing."""

WRONG_KAPPA = {
    4.184: "kappa is in kcal/mol: give `kappa_unit`, as kcal/mol/rad^2",
    1 / 4.184: "the files' energies are in kcal/mol: give `input_unit`; or kappa is too large by 4.184",
    2.0: "kappa is of the form without the half (Amber): give `form=amber`",
    0.5: "kappa holds the half's 2 already: halve it",
    8.368: "kappa is in kcal/mol and of the form without the half (Amber): give `kappa_unit` and `form=amber`",
    (180 / np.pi) ** 2: "kappa is per degree^2: give `kappa_unit`, as kJ/mol/degree^2",
    4.184 * (180 / np.pi) ** 2: "kappa is in kcal/mol per degree^2: give `kappa_unit`, kcal/mol/degree^2",
    (np.pi / 180) ** 2: "kappa is per radian^2, the coordinate in degrees: give `kappa_unit`, as kJ/mol/rad^2",
    4.184 * (np.pi / 180) ** 2: "kappa is in kcal/mol per radian^2: give `kappa_unit`, kcal/mol/rad^2",
    8.368 * (np.pi / 180) ** 2: "kappa is Amber's: give `kappa_unit`, kcal/mol/rad^2, and `form=amber`",
    100.0: "kappa is per angstrom^2: give `kappa_unit`, as kJ/mol/angstrom^2",
    418.4: "kappa is in kcal/mol per angstrom^2: give `kappa_unit`, kcal/mol/angstrom^2",
    836.8: "kappa is Amber's: give `kappa_unit`, kcal/mol/angstrom^2, and `form=amber`",
}
"""What the energy over the table's energy tells."""


def check_centres(windows: UmbrellaWindows, series: Series, restrained: Sequence[int]) -> None:
    """Refuse centres beyond the period of their coordinate: they would be taken into it, silently.

    Raises:
        InputError: a centre is in another unit.
    """
    for column, i in zip(windows.centres.T, restrained, strict=True):
        period = float(series.periods[i])
        if np.isfinite(period) and (far := np.abs(column) > 1.001 * period).any():
            window = int(far.argmax())
            remedy = "degrees" if np.isclose(period, 2 * np.pi) else "the unit that the table is in"
            raise InputError(
                f"{windows.names[window]}: the centre {column[window]:g} is beyond the period {period:g} of "
                f"{series.names[i]}: give the unit of the table's centres, `centre_unit={remedy}`"
                if remedy == "degrees"
                else f"{windows.names[window]}: the centre {column[window]:g} is beyond the period {period:g} of "
                f"{series.names[i]}: give `centre_unit`, {remedy}"
            )


@dataclass(frozen=True)
class _Restraints:
    """Windows with the frames of their files, and the energies that the files hold."""

    windows: UmbrellaWindows
    series: Series
    restrained: tuple[int, ...]
    colvar: Colvar
    rows: IntArray
    units: InputUnits

    def parts(self) -> Iterator[tuple[int, slice]]:
        """Each window's frames."""
        for k, (begin, end) in enumerate(itertools.pairwise(self.series.starts)):
            yield k, slice(int(begin), int(end))

    def written(self, name: str) -> FloatArray:
        """An energy that the files hold, kJ/mol, shape=(n,)."""
        return self.units.energy_of(name, self.colvar.units) * self.colvar.column(name)[self.rows]

    def expected(self, values: FloatArray, periods: FloatArray, windows: UmbrellaWindows | None = None) -> FloatArray:
        """Of each frame under its own window, kJ/mol, shape=(n,)."""
        windows = windows or self.windows
        return np.concatenate(
            [windows.only([k]).biases(values[part], periods)[:, 0] for k, part in self.parts()] or [np.empty(0)]
        )

    def of_table(self, windows: UmbrellaWindows | None = None) -> FloatArray:
        """As the table says, kJ/mol, shape=(n,)."""
        columns = list(self.restrained)
        values = np.asarray(self.series.values[:, columns], dtype=float)
        return self.expected(values, self.series.periods[columns], windows)

    def energies(self) -> dict[str, FloatArray]:
        """Columns that hold a restraint's energy, and their sum where there are several."""
        names = [name for name in self.colvar.fields if name.endswith(("bias", "_energy")) or name.startswith("E_")]
        names = [name for name in names if not any(other in name.lower() for other in OTHER_BIASES)]
        found = {name: self.written(name) for name in names if self.colvar.is_sound(name)}
        moving = {name: energy for name, energy in found.items() if _size(energy) > MIN_ENERGY}
        if len(moving) > 1:
            moving[" + ".join(moving)] = np.sum(list(moving.values()), axis=0)
        return moving


def _size(energy: FloatArray) -> float:
    return float(np.sqrt((energy**2).mean())) if len(energy) else 0.0


def _fits(energy: FloatArray, expected: FloatArray) -> bool:
    return _size(energy - expected) < MAX_DEVIATION * max(_size(energy), _size(expected)) + 1e-3


def _scale(energy: FloatArray, expected: FloatArray) -> float | None:
    """The factor between two energies; None where they are not proportional."""
    if not expected.any():
        return None
    factor = float(energy @ expected / (expected @ expected))
    return factor if factor > 0 and _fits(energy, factor * expected) else None


def _other_coordinate(restraints: _Restraints, energy: FloatArray) -> str:
    """The column that a restraint acts on, if it is not the one that was named; empty if none fits."""
    if len(restraints.restrained) > 1:
        return ""
    for name in restraints.colvar.fields:
        if not is_variable(name) or not restraints.colvar.is_sound(name):
            continue
        values = restraints.colvar.column(name)[restraints.rows][:, None]
        if _scale(energy, restraints.expected(values, np.array([restraints.colvar.period(name)]))) is not None:
            return name
    return ""


def _wrong_unit(restraints: _Restraints, energy: FloatArray) -> str:
    """The unit of the centres with which the energies are right; empty if there is none."""
    for unit, factor in (("degrees", np.pi / 180), ("radians", 180 / np.pi), ("angstrom", 0.1), ("nm", 10.0)):
        windows = replace(restraints.windows, centres=factor * restraints.windows.centres)
        if _scale(energy, restraints.of_table(windows)) is not None:
            return unit
    return ""


def _order(restraints: _Restraints, energy: FloatArray) -> bool:
    """Whether the table has the coordinates in the other order."""
    if len(restraints.restrained) != 2:
        return False
    turned = replace(restraints, restrained=restraints.restrained[::-1])
    return _scale(energy, turned.of_table()) is not None


def _explained(restraints: _Restraints, name: str, energy: FloatArray, expected: FloatArray) -> str:
    """Why an energy is not the table's; empty where nothing explains it."""
    factor = _scale(energy, expected)
    first = restraints.windows.files[0] if restraints.windows.files else restraints.colvar.path
    if factor is not None:
        known = next((text for size, text in WRONG_KAPPA.items() if np.isclose(size, factor, rtol=0.02)), None)
        return (
            f"{name} of {first.name} and the other windows is {factor:.4g} times what the table gives: "
            f"{known or 'correct kappa, or give `kappa_unit`'}"
        )
    if other := _other_coordinate(restraints, energy):
        return f"{name} is of a restraint on {other}: give `bias_cvs=column:{other}`"
    if _order(restraints, energy):
        return f"{name} fits the table with its coordinates in the other order: name them so by `bias_cvs`"
    if unit := _wrong_unit(restraints, energy):
        return f"{name} fits the table if its centres are in {unit}: give `centre_unit={unit}`"
    return ""


def _of_one_window(restraints: _Restraints, name: str, energy: FloatArray, expected: FloatArray) -> str:
    """The first window whose energy is not the table's."""
    for k, part in restraints.parts():
        if not _fits(energy[part], expected[part]):
            return (
                f"{name} of {restraints.windows.names[k]} is {energy[part].mean():.3g} kJ/mol in the mean, the table "
                f"gives {expected[part].mean():.3g}"
            )
    return ""


def check_energies(
    windows: UmbrellaWindows,
    series: Series,
    restrained: tuple[int, ...],
    colvar: Colvar,
    rows: IntArray,
    units: InputUnits = InputUnits(),  # noqa: B008  # frozen
) -> tuple[str, ...]:
    """Compare the energy of a restraint that the windows' files hold with that of the table.

    Args:
        windows: in the units of the series.
        series: frames of the windows, one a trajectory.
        restrained: its columns that are.
        colvar: the windows' files.
        rows: of the frames.
        units: of energies in them.

    Returns:
        doubts: about a bias that is neither the table's nor by its name a restraint.

    Raises:
        InputError: the energies of a restraint differ; with the reason, where it is known.
    """
    restraints = _Restraints(windows, series, restrained, colvar, rows, units)
    energies = restraints.energies()
    expected = restraints.of_table()
    wrong = {
        name: energy
        for name, energy in energies.items()
        if not all(
            _fits(energy[part], expected[part]) for _, part in restraints.parts() if _size(energy[part]) > MIN_ENERGY
        )
    }
    if len(wrong) < len(energies) or not wrong:
        return ()
    for name, energy in wrong.items():
        if reason := _explained(restraints, name, energy, expected):
            raise InputError(reason)
    named = [name for name in wrong if any(part in name.lower() for part in RESTRAINTS)]
    biases = [*named, *(name for name in wrong if name.endswith("bias"))]
    found = next(filter(None, (_of_one_window(restraints, name, wrong[name], expected) for name in biases)), "")
    if found and named:
        raise InputError(f"{found}: check its file, centre and force constant, and their units")
    return (f"{found}: if it is another bias, it is not undone",) if found else ()
