"""Whether the hills of well-tempered metadynamics are all of them: each was as high as the bias before it lets it be.

A hill is lower by exp(-V / ((gamma - 1) kT)), V being the bias where it was put (Barducci, Bussi, Parrinello 2008, doi
10.1103/PhysRevLett.100.020603). Hills of other walkers or of before a restart that are missing, another unit, another
temperature and a period that is not told all break this, and need nothing but the file to show.
"""

import numpy as np

from ..errors import InputError
from ..units import FloatArray, thermal_energy
from .hills import Hills

MIN_HILLS, MIN_SPREAD = 30, 0.2
"""Hills, and the standard deviation of the logarithm of their heights, below which they tell nothing."""

MAX_SCATTER, MAX_SCATTER_OF_WALKERS = 0.1, 0.3
"""Of the logarithm of a height, from what the bias lets it be; walkers read each other's hills late."""

MAX_SLOPE_ERROR, MAX_SLOPE_ERROR_OF_WALKERS = 0.02, 0.15
"""Of the slope of the logarithm over the bias, which is one."""

MAX_LINE_SCATTER = 0.05
"""Around a line of another slope, that explains it."""

MAX_TEMPERATURE_RATIO = 1.5
"""Of a slope that a temperature may explain."""

KILOCALORIES = 4.184
"""kJ/mol."""


def height_doubts(hills: Hills, energies: FloatArray, temperature: float, unit_said: bool) -> tuple[str, ...]:
    """Compare heights with the bias of the hills before them.

    Args:
        hills: of the run; of a constant height, nothing is compared.
        energies: shape=(n_hills,), kJ/mol, of the bias of all hills before each, where it was put.
        temperature: K.
        unit_said: whether the unit of their heights was given.

    Raises:
        InputError: the heights follow the bias in another unit.
    """
    if len(hills.heights) < MIN_HILLS or not (hills.heights > 0).all():
        return ()
    logs = np.log(hills.heights)
    if not np.isfinite(hills.bias_factor):
        return _untold_factor(hills, logs, energies, thermal_energy(temperature))
    lowering = energies / ((hills.bias_factor - 1.0) * thermal_energy(temperature))
    if max(logs.std(), lowering.std()) < MIN_SPREAD:
        return ()
    slope = -float(np.cov(logs, lowering)[0, 1] / max(lowering.var(ddof=1), 1e-12))
    several = len(np.unique(hills.times)) < len(hills.times)
    on_a_line = _scatter(logs + slope * lowering) < MAX_LINE_SCATTER
    if on_a_line and abs(slope - 1.0) > (MAX_SLOPE_ERROR_OF_WALKERS if several else MAX_SLOPE_ERROR):
        _check_unit(hills, slope, unit_said)
        if 1 / MAX_TEMPERATURE_RATIO < slope < MAX_TEMPERATURE_RATIO:
            return (
                f"the heights of the hills of {hills.path} decrease with their bias as at {temperature / slope:.4g} K, "
                f"not at {temperature:.4g} K: check the temperature, and the unit of the heights",
            )
    if (scatter := _scatter(logs + lowering)) > (MAX_SCATTER_OF_WALKERS if several else MAX_SCATTER):
        return (
            f"the heights of the hills of {hills.path} are off by {100 * scatter:.0f} % from what the bias before each "
            "lets them be: hills of another walker, of before a restart or in between are missing, or other runs' are "
            "among them: give all of this run",
        )
    return ()


def _untold_factor(hills: Hills, logs: FloatArray, energies: FloatArray, kT: float) -> tuple[str, ...]:
    """A doubt about hills that are lower the higher the bias is, as well-tempered ones, and tell no bias factor.

    Heights and their sum are both gamma / (gamma - 1) times those of the run then.
    """
    if min(logs.std(), energies.std() / kT) < MIN_SPREAD:
        return ()
    slope = -float(np.cov(logs, energies / kT)[0, 1] / (energies / kT).var(ddof=1))
    if slope <= 0 or slope >= 1 or _scatter(logs + slope * energies / kT) > MAX_LINE_SCATTER:
        return ()
    return (
        f"the heights of the hills of {hills.path} decrease with their bias as those of a bias factor of "
        f"{1 / slope:.3g} do, and the file tells none: add its column biasf, or correct it",
    )


def _scatter(values: FloatArray) -> float:
    """Around the median, as the standard deviation of a normal distribution."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _check_unit(hills: Hills, slope: float, unit_said: bool) -> None:
    """Refuse heights that are in another unit than they are taken to be in."""
    factor = 1.0 / KILOCALORIES if unit_said else KILOCALORIES
    if abs(slope / factor - 1.0) < 2 * MAX_SLOPE_ERROR:
        remedy = "leave `input_unit` out, or correct it" if unit_said else "give `input_unit=kcal/mol`"
        raise InputError(
            f"the heights of the hills of {hills.path} follow their bias as those in {'kJ' if unit_said else 'kcal'}"
            f"/mol do: {remedy}"
        )
