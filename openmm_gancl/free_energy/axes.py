"""Names and units that tables, pictures and records show coordinates in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..units import ANGLES, COORDINATE_SIZES, FloatArray, unit_of_coordinate
from .surface import FreeEnergySurface

SYMBOLS = {"phi": "φ", "psi": "ψ", "omega": "ω", "chi1": "χ₁", "chi2": "χ₂", "theta": "θ"}

ROUND_ANGLES = (60.0, 30.0, 20.0, 10.0, 5.0, 2.0, 1.0)
"""Degrees between ticks, the widest that leaves three of them first."""


@dataclass(frozen=True)
class SurfaceAxis:
    """How a coordinate is shown.

    Attributes:
        label: as a paper would print it, without its unit.
        unit: it is shown in; empty where none is known.
        size: of that unit in the coordinate's own.
        period: in the coordinate's own unit, ``inf`` where it has none.
    """

    label: str
    unit: str
    size: float
    period: float

    def shown(self, values: Any) -> Any:
        """Values in the unit that is shown."""
        return np.asarray(values, dtype=float) / self.size

    def own(self, values: Any) -> Any:
        """Values that are given in the unit that is shown, in the coordinate's own."""
        return np.asarray(values, dtype=float) * self.size

    @property
    def title(self) -> str:
        """With the unit."""
        unit = "Å" if self.unit == "angstrom" else self.unit
        return f"{self.label} ({unit})" if unit else self.label

    def ticks(self, edges: FloatArray) -> FloatArray | None:
        """Round places within these edges, in the unit that is shown; None where any are as good."""
        low, high = self.shown(edges[[0, -1]])
        if self.unit == "degrees":
            step = next((step for step in ROUND_ANGLES if high - low >= 3 * step - 1e-6), None)
        elif self.unit == "radians" and np.isfinite(self.period):
            step = np.pi / 2
        else:
            return None
        if step is None:
            return None
        return np.asarray(np.arange(np.ceil(low / step - 1e-6), np.floor(high / step + 1e-6) + 1) * step)


def _symbols(name: str) -> str:
    """A specification, as phi:2, with Greek letters."""
    kind, colon, rest = name.partition(":")
    return f"{SYMBOLS.get(kind, kind)}{' ' if kind in SYMBOLS and colon else colon}{rest}"


def _one_each(given: Sequence[Any], d: int, what: str) -> list[Any]:
    if len(given) not in (0, 1, d):
        raise InputError(f"{len(given)} {what} for {d} coordinates: give one for all, or one each")
    return list(given) * d if len(given) == 1 else list(given) or [None] * d


def unit_by_period(own: str, period: float) -> str:
    """The unit of a coordinate; where it is not known, the period may tell; else empty."""
    return own or ("radians" if np.isclose(period, 2 * np.pi) else "degrees" if np.isclose(period, 360.0) else "")


def shown_unit(own: str, period: float, wanted: str | None, name: str) -> tuple[str, float]:
    """The unit that a coordinate is shown in, and its size in the coordinate's own.

    Args:
        own: the coordinate's unit; empty where it is not known: it is PLUMED's then, nm or radians.
        period: in that unit.
        wanted: a unit; degrees for angles and the coordinate's own for others by default.
        name: of the coordinate, for messages.

    Raises:
        InputError: the coordinate has no such unit.
    """
    own = unit_by_period(own, period)
    if wanted is None:
        wanted = "degrees" if own in ANGLES else own
        return wanted, COORDINATE_SIZES[wanted] / COORDINATE_SIZES[own] if own in COORDINATE_SIZES else 1.0
    wanted = unit_of_coordinate(wanted)
    if own not in COORDINATE_SIZES:
        own = "radians" if wanted in ANGLES else "nm"
    if (own in ANGLES) != (wanted in ANGLES):
        raise InputError(f"{name} is in {own}, which no factor turns into {wanted}: choose another unit")
    return wanted, COORDINATE_SIZES[wanted] / COORDINATE_SIZES[own]


def units_of(
    names: Sequence[str], own: Sequence[str], periods: FloatArray, units: Sequence[str] = ()
) -> list[tuple[str, float]]:
    """The unit that each coordinate is shown in, and its size in the coordinate's own.

    Args:
        names: of the coordinates.
        own: their units.
        periods: shape=(d,), in these.
        units: for each coordinate or for all; degrees for angles and the coordinate's own for others by default.

    Raises:
        InputError: a coordinate has no such unit, or one is given for all where only some have one.
    """
    wanted, found = _one_each(units, len(names), "units"), list(map(unit_by_period, own, periods.tolist()))
    if len(units) == 1 and any(found) and not all(found):
        raise InputError(f"the unit of {names[found.index('')]} is not known: give a unit for each coordinate")
    parts = zip(own, periods.tolist(), wanted, names, strict=True)
    return [shown_unit(*part) for part in parts]


def axes_of(surface: FreeEnergySurface, units: Sequence[str] = ()) -> list[SurfaceAxis]:
    """How the coordinates of a surface are shown; the units as for `units_of`."""
    labels = surface.labels or tuple(map(_symbols, surface.names))
    found = units_of(surface.names, surface.units, surface.periods, units)
    return [
        SurfaceAxis(label, unit, size, float(period))
        for label, (unit, size), period in zip(labels, found, surface.periods, strict=True)
    ]
