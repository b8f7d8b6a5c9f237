"""Units, normalised once: nm, ps, K, kJ/mol, amu, radians."""

import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

GAS_CONSTANT = 8.31446261815324e-3
"""kJ/mol/K (CODATA 2018, exact)."""


@lru_cache(maxsize=64)
def _is_ours(unit_of_openmm: Any) -> bool:
    from openmm import unit

    return bool(unit_of_openmm.conversion_factor_to(unit.md_unit_system.express_unit(unit_of_openmm)) == 1.0)


def _without_unit(quantity: Any) -> Any:
    if _is_ours(quantity.unit):
        # as a State has them: a conversion would cost as much as several steps of a small molecule
        return quantity._value
    from openmm import unit

    return quantity.value_in_unit_system(unit.md_unit_system)


def number(value: Any) -> float:
    """Return a bare number in nm, ps, K, kJ/mol, amu or radians.

    Args:
        value: a number, taken to be in these units already, or an ``openmm.unit.Quantity``.
    """
    return float(_without_unit(value) if hasattr(value, "value_in_unit_system") else value)


def numbers(values: Any) -> FloatArray:
    """The same of an array, or of a Quantity that holds one, or of several; what is not of numbers becomes NaN."""
    if hasattr(values, "value_in_unit_system"):
        values = _without_unit(values)
    elif isinstance(values, list | tuple) and any(isinstance(v, list | tuple) or hasattr(v, "unit") for v in values):
        values = [numbers(value) for value in values]
    try:
        return np.array(np.nan) if np.iscomplexobj(values) else np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        return np.array(np.nan)


def masses_of(system: Any) -> FloatArray:
    """Of the particles of an ``openmm.System``, shape=(n_atoms,), amu."""
    return np.array([number(system.getParticleMass(i)) for i in range(system.getNumParticles())])


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """A count, if it can be one.

    Raises:
        InputError: a fraction, less than the least, or no number.
    """
    found = numbers(np.nan if isinstance(value, bool | np.bool_) else value)
    if found.ndim or not (np.isfinite(found) and found == np.floor(found) and found >= least):
        raise InputError(f"{name} is {value}: give a whole number from {least} up")
    return int(found)


def check_radians(values: FloatArray, periods: FloatArray, what: str) -> None:
    """Refuse angles beyond a whole period, which look like degrees: they would be wrapped, silently, into others.

    Args:
        values: shape=(..., d).
        periods: shape=(d,), ``inf`` where there is none.
        what: they are of.

    Raises:
        InputError: a periodic one is beyond its period.
    """
    if (far := np.isfinite(periods) & (np.abs(values) > periods + 1e-6)).any():
        period = np.broadcast_to(periods, np.shape(values))[far][0]
        if np.isclose(period, 2 * np.pi):
            raise InputError(f"{what} {values[far][0]:g} is beyond 2 pi: give radians (numpy.radians of degrees)")
        raise InputError(f"{what} {values[far][0]:g} is beyond the period {period:g}: give the coordinate's own unit")


COLD = 100.0
"""K, below which a temperature may be one in degrees Celsius."""


def checked_temperature(temperature: Any) -> float:
    """The temperature, K, if it can be one; from a number or a Quantity."""
    if hasattr(temperature, "unit"):
        from openmm import unit

        if not temperature.unit.is_compatible(unit.kelvin):
            raise InputError(f"the temperature is {temperature}: give kelvin")
    found = numbers(np.nan if isinstance(temperature, str | bool | np.bool_) else temperature)
    if found.ndim or not (np.isfinite(found) and found > 0):
        plain = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        shown = f"{float(found):g} K" if plain else repr(temperature)
        raise InputError(f"the temperature is {shown}: give a positive one, in kelvin")
    return float(found)


def thermal_energy(temperature: float) -> float:
    """kT in kJ/mol at a temperature in K."""
    return GAS_CONSTANT * temperature


ENERGY_UNITS = ("kJ/mol", "kcal/mol", "kT")


def energy_unit(name: str, temperature: float) -> float:
    """One of `ENERGY_UNITS` in kJ/mol, at a temperature in K."""
    if name not in ENERGY_UNITS:
        raise InputError(f"{name} is no unit of energy here: choose {', '.join(ENERGY_UNITS)}")
    return {"kJ/mol": 1.0, "kcal/mol": 4.184, "kT": thermal_energy(temperature)}[name]


COORDINATE_UNITS = {
    "nm": ("nm", "nanometer", "nanometers"),
    "angstrom": ("angstrom", "angstroms", "a", "å", "ang"),
    "radians": ("radians", "radian", "rad"),
    "degrees": ("degrees", "degree", "deg", "deg."),
}
"""Of lengths and angles, and how they are spelled in lower case."""

COORDINATE_SIZES = {"nm": 1.0, "angstrom": 0.1, "radians": 1.0, "degrees": np.pi / 180.0}
"""Of these, in nm and radians."""

ANGLES = ("radians", "degrees")
"""Those of angles."""

ENERGY_SPELLINGS = {
    "kJ/mol": ("kj/mol", "kj/mole", "kj mol^-1", "kj mol$^{-1}$", "kj\\smol\\s-1\\n"),
    "kcal/mol": ("kcal/mol", "kcal/mole", "kcal mol^-1", "kcal mol$^{-1}$"),
    "kT": ("kt", "kbt", "k_bt"),
}
"""Of `ENERGY_UNITS`, likewise."""


def unit_of_coordinate(text: str) -> str:
    """A unit by its usual spellings: nm, angstrom, radians or degrees.

    Raises:
        InputError: it is none of them.
    """
    found = next((name for name, spelled in COORDINATE_UNITS.items() if text.strip().lower() in spelled), None)
    if found is None:
        raise InputError(f"{text} is no unit of a coordinate here: choose {', '.join(COORDINATE_UNITS)}")
    return found


def unit_in_words(text: str) -> str:
    """The unit of an energy or a coordinate that a name ends with in brackets, as ``bias (kcal/mol)``; else empty."""
    found = re.search(r"[(\[]([^()\[\]]+)[)\]]\s*$", text)
    word = found[1].strip().lower() if found else ""
    spelled = {**ENERGY_SPELLINGS, **COORDINATE_UNITS}
    return next((name for name, words in spelled.items() if word in words), "")
