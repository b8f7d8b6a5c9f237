"""Umbrella windows as a table: which file was sampled under which restraint, and what each restraint costs a frame."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..coordinates.geometry import wrap
from ..coordinates.restraint_energies import restraint_terms
from ..errors import InputError
from ..units import FloatArray, IntArray

WindowForm = Literal["harmonic", "cosine"]

WINDOW_FORMS: tuple[WindowForm, ...] = ("harmonic", "cosine")
"""kappa (xi - s)^2 / 2, its difference taken around a periodic coordinate, or kappa (1 - cos(xi - s))."""


@dataclass(frozen=True)
class UmbrellaWindows:
    """Umbrella windows over the first few collective variables.

    Args:
        names: of each window.
        centres: shape=(n_windows, d), nm or radians.
        force_constants: shape=(n_windows, d), kJ/mol/nm^2 or kJ/mol/rad^2; kJ/mol for the cosine form.
        form: harmonic or cosine.
        files: a trajectory or COLVAR file of each window; none where they come from memory.
    """

    names: tuple[str, ...]
    centres: FloatArray
    force_constants: FloatArray
    form: WindowForm = "harmonic"
    files: tuple[Path, ...] = ()

    @classmethod
    def of_files(
        cls, files: Sequence[Path], centres: FloatArray, force_constants: FloatArray, form: WindowForm = "harmonic"
    ) -> "UmbrellaWindows":
        """Windows that are named as their files."""
        return cls(tuple(file.name for file in files), centres, force_constants, form, tuple(files))

    def __len__(self) -> int:
        return len(self.names)

    def biases(self, values: FloatArray, periods: FloatArray) -> FloatArray:
        """Of every window at every frame, kJ/mol, shape=(n, n_windows).

        Args:
            values: shape=(n, d), the restrained collective variables.
            periods: shape=(d,), ``inf`` where there is none.
        """
        total = np.zeros((len(values), len(self)))
        for i in range(self.centres.shape[1]):
            difference = values[:, i, None] - self.centres[None, :, i]
            if self.form == "harmonic":
                difference = wrap(difference, periods[i])
            total += self.force_constants[:, i] * restraint_terms(difference, self.form == "cosine")
        return total

    def only(self, chosen: Sequence[int] | IntArray) -> "UmbrellaWindows":
        """Some of the windows."""
        names, files = tuple(self.names[i] for i in chosen), tuple(self.files[i] for i in chosen if self.files)
        return UmbrellaWindows(names, self.centres[chosen], self.force_constants[chosen], self.form, files)

    def describe(self, window: int) -> str:
        """Name and centre of a window."""
        centre = ", ".join(f"{value:.4g}" for value in self.centres[window])
        return f"{self.names[window]} at ({centre})"

    def missing_centres(self) -> list[tuple[float, ...]]:
        """Places without a window in a grid of centres that is otherwise full."""
        axes = [np.unique(np.round(column, 6)) for column in self.centres.T]
        moving = [i for i, axis in enumerate(axes) if len(axis) > 1]
        if len(moving) == 1 and len(axes[moving[0]]) > 3:
            steps = np.diff(axes[moving[0]])
            usual = np.median(steps)
            added = [
                np.linspace(low, low + step, round(step / usual) + 1)
                for low, step in zip(axes[moving[0]], steps, strict=False)
                if 1.5 * usual < step < 10 * usual
            ]
            axes[moving[0]] = np.unique(np.concatenate([axes[moving[0]], *added]).round(6))
        places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        if len(moving) > 1 and len(places) > 1.25 * len(self):
            return []  # no grid, or one that leaves out a whole region on purpose
        there = {tuple(row) for row in np.round(self.centres, 6)}
        return [tuple(map(float, place)) for place in places if tuple(place) not in there]


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path}, line {line}: {column} is {text!r}: give a number")
    return value


def _columns(path: Path, fields: Sequence[str]) -> int:
    """How many coordinates the table restrains, its columns checked."""
    d = sum(field.startswith("centre_") for field in fields)
    wanted = ["file", *(f"{kind}_{i}" for i in range(d) for kind in ("centre", "kappa"))]
    missing = [name for name in wanted if name not in fields] if d else ["centre_0"]
    unknown = [name for name in fields if name not in [*wanted, "temperature"]] if d else []
    if missing or unknown:
        problem = f"lacks the column {missing[0]}" if missing else f"has a column {unknown[0]!r} that is not understood"
        raise InputError(
            f"{path} {problem}: give file, centre_0, kappa_0, and centre_1, kappa_1 for a second coordinate"
        )
    return d


def _file_of(path: Path, line: int, name: str | None) -> Path:
    if not (name or "").strip():
        raise InputError(f"{path}, line {line}: no file is named: give the window's trajectory")
    near_table, here = path.parent / str(name).strip(), Path(str(name).strip())
    for candidate in (near_table, here):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}, line {line}: there is no file {near_table} of this window: give it, or remove the line")


def read_windows(path: str | Path, temperature: float, form: str = "harmonic") -> UmbrellaWindows:
    """Read a table of windows.

    Args:
        path: CSV with the columns file (relative to the table, or to the working folder), centre_0, kappa_0 and so on,
            and perhaps temperature; nm, radians, kJ/mol.
        temperature: K, of the surface.
        form: harmonic or cosine.

    Raises:
        InputError: columns or numbers are missing, a file does not exist, or temperatures are mixed.
    """
    path = Path(path)
    if form not in WINDOW_FORMS:
        raise InputError(f"`form` is {form}: choose harmonic or cosine")
    if not path.is_file():
        raise InputError(f"there is no file {path}: check `windows`")
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
        lines = {i: line for i, line in enumerate(text, start=1) if line.strip() and line[0] != "#"}
        cells = {i: [cell.strip() for cell in next(csv.reader([line], strict=True))] for i, line in lines.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path} ({error}): give a CSV file") from None
    fields = next(iter(cells.values()), [])
    d = _columns(path, fields)
    files: list[Path] = []
    numbers: list[list[list[float]]] = []
    for line, row_cells in list(cells.items())[1:]:
        if len(row_cells) != len(fields):
            raise InputError(f"{path}, line {line}: {len(row_cells)} cells for {len(fields)} columns: give one each")
        row = dict(zip(fields, row_cells, strict=True))
        files.append(_file_of(path, line, row["file"]))
        names = [[f"{kind}_{i}" for i in range(d)] for kind in ("centre", "kappa")]
        numbers.append([[_number(path, line, name, row[name]) for name in kind] for kind in names])
        if not ((force_constants := np.array(numbers[-1][1])) >= 0).all() or not force_constants.any():
            raise InputError(f"{path}, line {line}: a force constant is not positive: give kappa in kJ/mol (per nm^2)")
        if "temperature" in row:
            own = _number(path, line, "temperature", row["temperature"])
            if abs(own - temperature) > 1e-3:
                raise InputError(
                    f"{path}, line {line}: {files[-1].name} was sampled at {own:g} K, the surface is for "
                    f"{temperature:g} K: windows of one temperature can be joined"
                )
    repeated = [file for i, file in enumerate(files) if file.resolve() in [other.resolve() for other in files[:i]]]
    if repeated:
        raise InputError(f"{path} names {repeated[0].name} twice: give each window a file of its own")
    if len(files) < 2:
        raise InputError(f"{path} names {len(files)} windows: give at least two, or weights of another kind")
    table = np.array(numbers)
    return UmbrellaWindows.of_files(files, table[:, 0], table[:, 1], WINDOW_FORMS[WINDOW_FORMS.index(form)])
