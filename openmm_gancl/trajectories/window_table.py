"""Tables of umbrella windows: CSV with a header, or the metadata of WHAM (Grossfield), in whatever units they are."""

import csv
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from ..errors import InputError, checked
from ..units import (
    ANGLES,
    COLD,
    COORDINATE_SIZES,
    ENERGY_UNITS,
    FloatArray,
    checked_temperature,
    energy_unit,
    unit_of_coordinate,
)
from .tables import LARGEST, opened
from .umbrella import WINDOW_FORMS, UmbrellaWindows, WindowForm

TABLE_FORMS = (*WINDOW_FORMS, "amber")
"""As of `UmbrellaWindows`, and kappa (xi - s)^2 without the half: Amber, CHARMM."""

SPELLINGS = {"center": "centre", "k": "kappa", "spring": "kappa", "temp": "temperature"}
"""Other names of columns."""

COMMENT = re.compile(r"(^|\s)#.*")
"""To the end of a line; names of files may hold the sign, as GROMACS' backups do."""

FORM = "give file, centre_0, kappa_0, and centre_1, kappa_1 for a second coordinate"


@dataclass(frozen=True)
class TableUnits:
    """What the numbers of a table of windows are in; empty for the unit of the coordinate, and kJ/mol.

    Args:
        centre: nm, angstrom, radians or degrees.
        energy: of kappa: kJ/mol, kcal/mol or kT.
        kappa: the unit whose square kappa is per.
    """

    centre: str = ""
    energy: str = "kJ/mol"
    kappa: str = ""

    @classmethod
    def of(cls, centre_unit: str | None, kappa_unit: str | None) -> "TableUnits":
        """From texts as ``degrees`` and ``kcal/mol/rad^2``.

        Raises:
            InputError: they are no units.
        """
        centre = "" if centre_unit is None else unit_of_coordinate(centre_unit)
        if kappa_unit is None:
            return cls(centre)
        found = re.fullmatch(
            r"(kj/mol|kcal/mol|kt)(?:[/ ]\(?([a-zå]+)\)?(?:\^|\*\*)?(?:2|²))?", kappa_unit.strip().lower()
        )
        if found is None:
            raise InputError(f"{kappa_unit} is no unit of a force constant: give one as kcal/mol/rad^2 or kJ/mol/nm^2")
        energy = next(name for name in ENERGY_UNITS if name.lower() == found[1])
        return cls(centre, energy, "" if found[2] is None else unit_of_coordinate(found[2]))

    def factors(self, unit: str, temperature: float, name: str) -> tuple[float, float]:
        """What centres and force constants are multiplied by, for a coordinate in a unit; nm or radians if unknown."""
        sizes = []
        for own in (self.centre, self.kappa):
            angle = own in ANGLES
            there = unit or ("radians" if angle else "nm")
            if own and (there in ANGLES) != angle:
                raise InputError(
                    f"{name} is in {there}, which {own} are no unit of: see `centre_unit` and `kappa_unit`"
                )
            sizes.append(COORDINATE_SIZES[own] / COORDINATE_SIZES[there] if own else 1.0)
        return sizes[0], energy_unit(self.energy, temperature) / sizes[1] ** 2


@dataclass(frozen=True)
class _Row:
    """One window of a table: numbers by the names of their columns."""

    line: int
    file: Path
    numbers: dict[str, float]


@dataclass(frozen=True)
class WindowTable:
    """A table of windows as it was written.

    Args:
        path: of the table.
        rows: its windows.
        coordinates: what follows ``centre_`` in its header: numbers, or names of collective variables.
        form: harmonic, cosine or amber.
        units: of its numbers.
    """

    path: Path
    rows: tuple[_Row, ...]
    coordinates: tuple[str, ...]
    form: str = "harmonic"
    units: TableUnits = field(default_factory=TableUnits)

    @property
    def files(self) -> tuple[Path, ...]:
        """Of the windows."""
        return tuple(row.file for row in self.rows)

    @property
    def n_coordinates(self) -> int:
        """How many collective variables are restrained."""
        return len(self.coordinates)

    @property
    def named(self) -> tuple[str, ...]:
        """Collective variables that the header names; empty where it counts them."""
        return () if all(name.isdecimal() for name in self.coordinates) else self.coordinates

    def _column(self, kind: str) -> FloatArray:
        return np.array([[row.numbers[f"{kind}_{name}"] for name in self.coordinates] for row in self.rows])

    def _widths(self, factors: FloatArray) -> FloatArray | float:
        """Of colvars, in the coordinates' units: they are in those of the centres, or of kappa where it names one."""
        if f"width_{self.coordinates[0]}" not in self.rows[0].numbers:
            return 1.0
        return self._column("width") * (1.0 if self.units.kappa else factors)

    def windows(self, units: Sequence[str], temperature: float) -> UmbrellaWindows:
        """The windows in the units of their coordinates and kJ/mol.

        Args:
            units: of each coordinate that is restrained; empty where it is not known.
            temperature: K.
        """
        names = self.named or tuple(f"coordinate {name}" for name in self.coordinates)
        factors = np.array(
            [self.units.factors(unit, temperature, name) for unit, name in zip(units, names, strict=False)]
        )
        widths = self._widths(factors[:, 0])
        kappas = self._column("kappa") * factors[:, 1] / widths**2 * (2.0 if self.form == "amber" else 1.0)
        form = cast(WindowForm, "harmonic" if self.form == "amber" else self.form)
        windows = UmbrellaWindows.of_files(self.files, self._column("centre") * factors[:, 0], kappas, form)
        own = np.array([row.numbers.get("temperature", temperature) for row in self.rows])
        several = self.other_temperature(temperature) is not None
        return replace(windows, coordinates=self.named, temperatures=own if several else None)

    def check_kelvin(self, temperature: float) -> None:
        """Refuse temperatures that are in degrees Celsius beside that of the surface, K."""
        row = min(self.rows, key=lambda row: row.numbers.get("temperature", temperature))
        if (own := row.numbers.get("temperature", temperature)) < COLD <= temperature:
            raise InputError(
                f"{self.path}, line {row.line}: the temperature is {own:g} K, the surface is for {temperature:g} K: "
                f"give kelvin, {own + 273.15:g} if degrees Celsius are meant"
            )

    def other_temperature(self, temperature: float) -> _Row | None:
        """The first window that was sampled at another temperature than the surface's, K."""
        rows = (row for row in self.rows if abs(row.numbers.get("temperature", temperature) - temperature) > 1e-3)
        return next(rows, None)

    def check_one_temperature(self, temperature: float) -> None:
        """Refuse windows of another temperature: without the energies of their frames they cannot be joined."""
        if (row := self.other_temperature(temperature)) is not None:
            raise InputError(
                f"{self.path}, line {row.line}: {row.file.name} was sampled at {row.numbers['temperature']:g} K, the "
                f"surface is for {temperature:g} K: windows of one temperature can be joined, or give the potential "
                "energy of the frames by `energy_column`"
            )


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not abs(value) < LARGEST:
        raise InputError(f"{path}, line {line}: {column} is {text!r}: give a number below 1e30")
    return value


def _file_of(path: Path, line: int, name: str) -> Path:
    if not name:
        raise InputError(f"{path}, line {line}: no file is named: give the window's trajectory")
    near_table, here = path.parent / name, Path(name)
    with suppress(OSError):  # names longer than names can be
        for candidate in (near_table, here):
            if candidate.is_file():
                return candidate
    raise InputError(f"{path}, line {line}: there is no file {near_table} of this window: give it, or remove the line")


def _spelled(name: str) -> str:
    """A column's name, its first part as we spell it: ``center`` is ``centre_0``."""
    kind, mark, rest = name.partition("_")
    if name == "force_constant" or name.startswith("force_constant_"):
        kind, mark, rest = "kappa", *name.removeprefix("force_constant").partition("_")[1:]
    kind = SPELLINGS.get(kind.lower(), kind.lower() if kind.lower() in ("file", "centre", "kappa", "width") else kind)
    if kind in ("centre", "kappa", "width"):
        return f"{kind}_{rest if mark else '0'}"
    return f"{kind}{mark}{rest}"


def _coordinates(path: Path, fields: Sequence[str]) -> tuple[str, ...]:
    """What the table restrains, its columns checked."""
    found = tuple(name.removeprefix("centre_") for name in fields if name.startswith("centre_"))
    counted = tuple(map(str, range(len(found))))
    coordinates = counted if all(name.isdecimal() for name in found) else found
    wanted = ["file", *(f"{kind}_{name}" for name in coordinates for kind in ("centre", "kappa"))]
    optional = ["temperature", *(f"width_{name}" for name in coordinates)]
    missing = [name for name in wanted if name not in fields] if found else ["centre_0"]
    unknown = [name for name in fields if name not in [*wanted, *optional]] if found else []
    widths = [name for name in optional[1:] if name in fields]
    if missing or unknown:
        problem = f"lacks the column {missing[0]}" if missing else f"has a column {unknown[0]!r} that is not understood"
        raise InputError(f"{path} {problem}: {FORM}")
    if (widths and len(widths) < len(coordinates)) or len(set(fields)) < len(fields):
        raise InputError(f"{path} has columns twice, or a width for some coordinates only: {FORM}")
    return coordinates


def _lines(path: Path) -> dict[int, str]:
    """Lines that say something, by their numbers."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check `windows`")
    try:
        with opened(path) as file:
            text = file.read(10_000_000).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} ({error}): give a CSV file") from None
    lines = {i: COMMENT.sub("", line) for i, line in enumerate(text, start=1)}
    return {i: line for i, line in lines.items() if line.strip()}


def _cells(line: str, mark: str | None) -> list[str]:
    """Of a row; a cell in quotes may hold the mark."""
    if mark is None:
        return [cell.strip('"') for cell in line.split()]
    return [cell.strip().strip('"').strip() for cell in next(csv.reader([line], delimiter=mark, skipinitialspace=True))]


def _is_wham(lines: dict[int, str]) -> bool:
    """A name and numbers in the first line already, divided by blanks."""
    words = next(iter(lines.values()), "").split()
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        return False
    try:
        float(words[0])
    except (ValueError, IndexError):
        return len(numbers) >= 2
    return False  # a series


def _wham_fields(path: Path, lines: dict[int, str], d: int) -> list[str]:
    """Names of the columns of WHAM's metadata: file, places, springs, and perhaps correlation time, temperature."""
    n = len(next(iter(lines.values())).split())
    names = [
        "file",
        *(f"centre_{i}" for i in range(d)),
        *(f"kappa_{i}" for i in range(d)),
        "correlation",
        "temperature",
    ]
    if not 1 + 2 * d <= n <= len(names):
        raise InputError(
            f"{path} has {n} columns: metadata of WHAM name a file, {d} places and {d} force constants, and perhaps "
            "a correlation time and a temperature"
        )
    return names[:n]


def _row(path: Path, line: int, fields: Sequence[str], cells: Sequence[str]) -> _Row:
    if len(cells) != len(fields):
        raise InputError(f"{path}, line {line}: {len(cells)} cells for {len(fields)} columns: give one each")
    texts = dict(zip(fields, cells, strict=True))
    file = _file_of(path, line, texts.pop("file"))
    numbers = {name: _number(path, line, name, text) for name, text in texts.items() if name != "correlation"}
    for name, value in numbers.items():
        if name.startswith("kappa_") and value < 0:
            raise InputError(f"{path}, line {line}: a force constant is not positive: give kappa, or 0 for none")
        if name.startswith("width_") and value <= 1 / LARGEST:
            raise InputError(f"{path}, line {line}: a width is not positive: give that of the colvar")
    checked_temperature(numbers.get("temperature", 300.0))
    return _Row(line, file, numbers)


def _check_rows(path: Path, rows: Sequence[_Row]) -> None:
    files = [row.file.resolve() for row in rows]
    repeated = [file for i, file in enumerate(files) if file in files[:i]]
    if repeated:
        raise InputError(f"{path} names {repeated[0].name} twice: give each window a file of its own")
    if len(rows) < 2:
        raise InputError(f"{path} names {len(rows)} windows: give at least two, or weights of another kind")
    if not any(value for row in rows for name, value in row.numbers.items() if name.startswith("kappa_")):
        raise InputError(f"{path}: no force constant is positive: give kappa of the windows that are restrained")


@checked
def read_table_of_windows(
    path: str | Path,
    form: str = "harmonic",
    *,
    centre_unit: str | None = None,
    kappa_unit: str | None = None,
    d: int = 1,
) -> WindowTable:
    """Read a table of windows, in the units that it is in.

    Args:
        path: CSV with the columns file (relative to the table, or to the working folder), centre_0, kappa_0 and so on
            (or centre_NAME, kappa_NAME of a collective variable), perhaps width_0 (colvars: kappa is per width^2) and
            temperature; or metadata of WHAM: file, place and force constant, divided by blanks.
        form: harmonic, cosine, or amber (kappa without the half).
        centre_unit: nm, angstrom, radians or degrees; that of the coordinate by default.
        kappa_unit: as kcal/mol/rad^2; kJ/mol, per square of the coordinate's unit, by default.
        d: collective variables that metadata of WHAM restrain.

    Raises:
        InputError: columns or numbers are missing, or a file does not exist.
    """
    path = Path(path)
    if form not in TABLE_FORMS:
        raise InputError(f"`form` is {form}: choose {', '.join(TABLE_FORMS[:-1])} or {TABLE_FORMS[-1]}")
    lines = _lines(path)
    wham = _is_wham(lines)
    if wham and kappa_unit is None:
        raise InputError(
            f"{path} is metadata of WHAM, whose force constants are in kcal/mol unless it was built otherwise: "
            "give `kappa_unit`, kcal/mol or kJ/mol"
        )
    if wham:
        fields = _wham_fields(path, lines, d)
        cells = {i: line.split() for i, line in lines.items()}
    else:
        mark = next((mark for mark in ";,\t" if mark in next(iter(lines.values()), "")), None)  # else blanks
        cells = {i: _cells(line, mark) for i, line in lines.items()}
        fields = [_spelled(name) for name in next(iter(cells.values()), [])]
        cells = dict(list(cells.items())[1:])
        if mark == ";":
            cells = {i: [row[0], *(cell.replace(",", ".") for cell in row[1:])] for i, row in cells.items()}
    coordinates = _coordinates(path, [name for name in fields if name != "correlation"])
    rows = tuple(_row(path, line, fields, row) for line, row in cells.items())
    _check_rows(path, rows)
    return WindowTable(path, rows, coordinates, form, TableUnits.of(centre_unit, kappa_unit))


@checked
def read_windows(
    path: str | Path,
    temperature: float,
    form: str = "harmonic",
    *,
    centre_unit: str | None = None,
    kappa_unit: str | None = None,
) -> UmbrellaWindows:
    """Windows of a table, for coordinates in nm and radians: `read_table_of_windows`, whose arguments these are.

    Args:
        path: of the table.
        temperature: K, of the surface.
        form: harmonic, cosine or amber.
        centre_unit: nm, angstrom, radians or degrees.
        kappa_unit: as kcal/mol/rad^2.

    Raises:
        InputError: columns or numbers are missing, or a file does not exist.
    """
    table = read_table_of_windows(path, form, centre_unit=centre_unit, kappa_unit=kappa_unit)
    table.check_one_temperature(temperature)
    return table.windows([""] * len(table.coordinates), temperature)
