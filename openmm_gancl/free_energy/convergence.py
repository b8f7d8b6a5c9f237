"""How a surface and its basins settle over the trajectories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..units import FloatArray, thermal_energy
from .basins import relative_free_energies
from .block_counts import Rows
from .density import Density
from .surface import ALIGNMENT_CEILING, FreeEnergySurface

TRAJECTORY_FRACTIONS = np.linspace(0.1, 1.0, 10)
"""Fractions of the trajectories that convergence is shown for."""

MAX_SHIFT = 1.0
"""kT of a window's free energy, beyond which its first order says nothing."""


@dataclass(frozen=True)
class Convergence:
    """What the first, and the last, part of every trajectory says alone.

    With umbrella windows this is to first order in their free energies. NaN where that is too rough, or where a part is
    shorter than a block.

    Attributes:
        fractions: shape=(n,), of each trajectory.
        rms: shape=(2, n), deviation from the whole surface below 10 kT, kJ/mol; forward and backward.
        free_energies: shape=(2, n, n_basins), kJ/mol, relative to the first basin.
        errors: shape=(2, n, n_basins), one sigma.
        names: of the basins.
    """

    fractions: FloatArray
    rms: FloatArray
    free_energies: FloatArray
    errors: FloatArray
    names: tuple[str, ...]


def convergence_of(
    surface: FreeEnergySurface, density: Density, rows: Rows, names: Sequence[str], draws: FloatArray
) -> Convergence:
    """Surfaces and basins of parts of the trajectories alone."""
    kT, counts = thermal_energy(surface.temperature), density.counts
    low = surface.energy < ALIGNMENT_CEILING * kT
    fractions = TRAJECTORY_FRACTIONS.tolist()
    rms, free, errors = (np.empty((2, len(fractions), *shape)) for shape in ((), (len(names),), (len(names),)))
    for direction in range(2):
        parts = np.stack([counts.slices(*((0.0, f) if direction == 0 else (1.0 - f, 1.0))) for f in fractions])
        unknown = np.median(np.diff(counts.spans, axis=1)) - 1e-9 > TRAJECTORY_FRACTIONS
        if rows.influence is not None:
            unknown |= np.abs(parts @ rows.influence).max(axis=1) > MAX_SHIFT
        probabilities = density.of(parts)[:, low]
        for i, (part, probability) in enumerate(zip(parts, probabilities, strict=True)):
            seen = probability > 0.0
            difference = -kT * np.log(probability[seen]) - surface.energy[low][seen]
            rms[direction, i] = difference.std() if seen.any() else np.nan
            masses, replicates = rows.combine(part[None])[0], rows.combine(counts.normalised(draws * part))
            _, free[direction, i], _, errors[direction, i] = relative_free_energies(masses, replicates)
        for array in (rms, free, errors):
            array[direction, unknown] = np.nan
    return Convergence(TRAJECTORY_FRACTIONS, rms, kT * free, kT * errors, tuple(names))
