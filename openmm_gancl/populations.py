"""What a density says of basins: populations, free energies, barriers, and how they settle over the trajectories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .basins import Barrier, BasinPopulation, find_saddles
from .density import Density, Rows
from .grid import bin_centres
from .surfaces import CEILING, FreeEnergySurface
from .units import FloatArray, thermal_energy

SLICES = np.linspace(0.1, 1.0, 10)
"""Fractions of the trajectories that convergence is shown for."""


LARGEST_SHIFT = 1.0
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


def _relative(masses: FloatArray, draws: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Populations, -log of them relative to the first, and the errors of both, linearised.

    Args:
        masses: shape=(n + 1,), of basins and of everything.
        draws: shape=(n_bootstrap, n + 1), of replicates.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        populations = masses[:-1] / masses[-1]
        ratios = draws / masses
        free = -np.log(masses[:-1] / masses[0])
        population_errors = populations * (ratios[:, :-1] - ratios[:, -1:]).std(axis=0)
        errors = (ratios[:, :-1] - ratios[:, :1]).std(axis=0)
    known = masses[:-1] > 0.0
    populations = np.where(known, populations, 0.0)
    known_free = known & known[0]
    return (
        populations,
        np.where(known_free, free, np.inf),
        np.where(known, population_errors, np.inf),
        np.where(known_free, errors, np.inf),
    )


def masses_of_basins(rows: Rows, names: Sequence[str], draws: FloatArray, kT: float) -> list[BasinPopulation]:
    """Populations of basins, and free energies relative to the first, with errors from replicates."""
    whole = rows.combine(np.ones((1, draws.shape[1])))[0]
    table = zip(names, *_relative(whole, rows.combine(draws)), strict=True)
    return [BasinPopulation(name, float(p), float(dp), kT * float(f), kT * float(df)) for name, p, f, dp, df in table]


def basin_barriers(
    surface: FreeEnergySurface, deviations: FloatArray, minima: Sequence[int], names: Sequence[str]
) -> list[Barrier]:
    """The lowest ways between basins, with errors from relative deviations of replicates."""
    kT, places, energy = thermal_energy(surface.temperature), bin_centres(surface.edges), surface.energy.ravel()
    flat, barriers = deviations.reshape(len(deviations), -1), []
    for first, second, saddle in find_saddles(surface, minima):
        ends = [minima[first], minima[second]]
        barriers.append(
            Barrier(
                names=(names[first], names[second]),
                place=tuple(map(float, places[saddle])),
                heights=(float(energy[saddle] - energy[ends[0]]), float(energy[saddle] - energy[ends[1]])),
                errors=(
                    kT * float((flat[:, saddle] - flat[:, ends[0]]).std()),
                    kT * float((flat[:, saddle] - flat[:, ends[1]]).std()),
                ),
            )
        )
    return barriers


def convergence_of(
    surface: FreeEnergySurface, density: Density, rows: Rows, names: Sequence[str], draws: FloatArray
) -> Convergence:
    """What parts of the trajectories say alone."""
    kT, counts = thermal_energy(surface.temperature), density.counts
    low = surface.energy < CEILING * kT
    rms, free, errors = (np.empty((2, len(SLICES), *shape)) for shape in ((), (len(names),), (len(names),)))
    for direction in range(2):
        parts = np.stack([counts.slices(*((0.0, f) if direction == 0 else (1.0 - f, 1.0))) for f in SLICES.tolist()])
        unknown = np.median(np.diff(counts.spans, axis=1)) - 1e-9 > SLICES
        if rows.influence is not None:
            unknown |= np.abs(parts @ rows.influence).max(axis=1) > LARGEST_SHIFT
        probabilities = density.of(parts)[:, low]
        for i, (part, probability) in enumerate(zip(parts, probabilities, strict=True)):
            seen = probability > 0.0
            difference = -kT * np.log(probability[seen]) - surface.energy[low][seen]
            rms[direction, i] = difference.std() if seen.any() else np.nan
            masses, replicates = rows.combine(part[None])[0], rows.combine(counts.normalised(draws * part))
            _, free[direction, i], _, errors[direction, i] = _relative(masses, replicates)
        for array in (rms, free, errors):
            array[direction, unknown] = np.nan
    return Convergence(SLICES, rms, kT * free, kT * errors, tuple(names))
