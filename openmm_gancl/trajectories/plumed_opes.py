"""The bias of PLUMED's OPES_METAD, from the kernels that it writes: KERNELS (all of them) or STATE (compressed).

Invernizzi & Parrinello 2020, doi 10.1021/acs.jpclett.0c00497. Both files tell the bias factor and epsilon; the heights
hold the kernels' weights and widths already.
"""

from pathlib import Path

import numpy as np

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import FloatArray, thermal_energy
from .kernel_bias import KernelBias
from .periods import plumed_number
from .tables import TextTable, column_of, period_of, read_table

COMPRESSION_THRESHOLD = 1.0
"""Widths within which PLUMED joins kernels by default."""

MAX_NUMBER = 1e8
"""Of a centre or a width, beyond which a file is broken; and its inverse below which a width is."""


class _Kernels:
    """Kernels that are joined where they come near each other, as PLUMED does."""

    def __init__(self, d: int, periods: FloatArray, threshold: float):
        self.periods, self.threshold = periods, threshold
        self.heights, self.centres, self.widths = np.empty(0), np.empty((0, d)), np.empty((0, d))

    def _nearest(self, centre: FloatArray, skip: int = -1) -> int | None:
        """The kernel within the threshold of a place, in its own widths."""
        if not len(self.heights):
            return None
        distances = (wrap(centre - self.centres, self.periods) ** 2 / self.widths**2).sum(axis=1)
        if skip >= 0:
            distances[skip] = np.inf
        found = int(distances.argmin())
        return found if distances[found] < self.threshold**2 else None

    def add(self, height: float, centre: FloatArray, width: FloatArray) -> None:
        """One more kernel; what it is joined to may then be near another."""
        taker = self._nearest(centre)
        if taker is None:
            self.heights = np.append(self.heights, height)
            self.centres, self.widths = np.vstack([self.centres, centre]), np.vstack([self.widths, width])
            return
        self._join(taker, height, centre, width)
        while (other := self._nearest(self.centres[taker], skip=taker)) is not None:
            self._join(other, self.heights[taker], self.centres[taker].copy(), self.widths[taker].copy())
            self.heights = np.delete(self.heights, taker)
            self.centres, self.widths = (np.delete(rows, taker, axis=0) for rows in (self.centres, self.widths))
            taker = other - (taker < other)

    def _join(self, i: int, height: float, centre: FloatArray, width: FloatArray) -> None:
        """Heights add up; centres and variances are means, weighted by height."""
        total = self.heights[i] + height
        own, added = self.heights[i] / total, height / total
        shift = wrap(centre - self.centres[i], self.periods)
        mean = added * shift
        variance = own * (self.widths[i] ** 2 + mean**2) + added * (width**2 + (shift - mean) ** 2)
        self.heights[i], self.widths[i] = total, np.sqrt(variance)
        self.centres[i] = wrap(self.centres[i] + mean, self.periods)


def _setting(table: TextTable, name: str) -> float:
    value = plumed_number(table.settings.get(name, ""))
    if np.isnan(value):
        raise InputError(f"{table.path} does not tell {name} in a SET line: give KERNELS or STATE as PLUMED writes it")
    return value


def plumed_opes_bias(path: Path, *, temperature: float, d: int) -> KernelBias:
    """The bias of a KERNELS or STATE file.

    Args:
        path: as PLUMED writes it; of a file with several states the last one.
        temperature: K.
        d: collective variables that are named.

    Raises:
        InputError: it is none, or acts on another number of variables.
    """
    table = read_table(path)
    names = tuple(name for name in table.names if f"sigma_{name}" in table.names)
    state = table.settings.get("action", "").startswith("OPES")
    if not names or "height" not in table.names or not (state or "logweight" in table.names):
        raise InputError(f"{path} holds no kernels of OPES: give KERNELS or STATE as PLUMED writes it")
    if len(names) != d:
        raise InputError(
            f"{path} holds kernels on {', '.join(names)}, named are {d} variables: name them so by `bias_cvs`"
        )
    rows = table.rows[table.begins[-1] :] if state and table.begins else table.rows
    ranges = [period_of(table.settings, name, path) for name in names]
    periods = np.array([np.inf if found is None else found[1] - found[0] for found in ranges])
    centres = rows[:, [column_of(table.names, name, path) for name in names]]
    widths = rows[:, [column_of(table.names, f"sigma_{name}", path) for name in names]]
    heights = rows[:, column_of(table.names, "height", path)]
    sensible = (np.abs(np.concatenate([centres, widths], axis=1)) < MAX_NUMBER).all() and np.isfinite(heights).all()
    if not (sensible and (widths > 1 / MAX_NUMBER).all() and (heights > 0).all()):
        raise InputError(f"{path}: a height or width cannot be: give the file as it was written")
    if not state:
        text = table.settings.get("compression_threshold", str(COMPRESSION_THRESHOLD))
        joined = _Kernels(d, periods, plumed_number(text))
        for height, centre, width in zip(heights, centres, widths, strict=True):
            joined.add(float(height), centre, width)
        heights, centres, widths = joined.heights, joined.centres, joined.widths
    kT, bias_factor, epsilon = thermal_energy(temperature), _setting(table, "biasfactor"), _setting(table, "epsilon")
    explore = "EXPLORE" in table.settings.get("action", "")
    if not (bias_factor > 1 and epsilon > 0):
        raise InputError(f"{path}: a bias factor of {bias_factor:g} and an epsilon of {epsilon:g} make no OPES bias")
    prefactor = kT * (bias_factor - 1.0 if explore else 1.0 - 1.0 / bias_factor)
    log_weights = np.log(heights) + np.log(widths).sum(axis=1)  # heights are divided by the widths already
    barrier = -prefactor * float(np.log(epsilon))
    return KernelBias(centres, widths, log_weights, periods, prefactor, barrier, names=names)
