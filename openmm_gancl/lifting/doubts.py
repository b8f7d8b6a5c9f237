"""Where a result may be blind, in sentences: modes that are only being discovered, and those that nothing looks for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..coordinates.slow_coordinates import ParticleCoordinates
from ..free_energy.weight_statistics import shares_of_weight
from ..reference.chart import Chart
from ..reference.wide_torsions import interval_text, rings_with_forms
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray

SECTORS = 12
"""Of a wide coordinate's circle, whose weights are looked at."""

LEAST_MASS, FEWEST_DRAWS = 0.02, 10.0
"""Of a sector: less mass is not worth a sentence; fewer effective draws are a discovery."""

LARGEST_SHARE = 0.1
"""Of all weight, that a single draw may have."""

DISAGREEMENT = 5.0
"""Standard errors."""

FEW_AXES, LEAST_EFFECTIVE = 4, 0.05
"""Labels and wide coordinates that are not many; effective lifts to a lift, below which of more windows are offered."""

MOST_OF_TWO_FORMS = 5
"""Atoms of a ring."""


def doubts_about_weights(
    names: Sequence[str], angles: FloatArray, log_weights: FloatArray, chart: Chart, indices: IntArray
) -> Iterator[str]:
    """Of draws to the equilibrium over labels.

    Args:
        names: of the wide coordinates.
        angles: shape=(n, n_wide), radians.
        log_weights: shape=(n,), the label's density included.
        chart: whose coordinates they are.
        indices: shape=(n_wide,), among them.
    """
    weights = shares_of_weight(log_weights)
    if weights.max() > LARGEST_SHARE:
        yield (
            f"one draw has {weights.max():.0%} of all weight: a mode is being discovered, or the generator fits "
            "badly; raise `max_evaluations`"
        )
    for name, index, values in zip(names, indices.tolist(), angles.T, strict=True):
        mass, effective, few = _sectors(values, weights)
        if not few.any():
            continue
        most = int(np.where(few, mass, 0.0).argmax())
        where = interval_text(chart, index, *(2 * np.pi / SECTORS * (most + np.arange(2)) - np.pi))
        others = f" ({mass[few].sum():.0%} at {few.sum()} such places)" * int(few.sum() > 1)
        yield (
            f"{name} has {mass[most]:.0%} of its weight at {where}, and that from {effective[most]:.0f} effective "
            f"draws{others}: a mode is being discovered, or draws are few; raise `max_evaluations`"
        )


def _sectors(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Mass of each sector of a circle, its effective draws, and whether these are few, shape=(SECTORS,) each."""
    sectors = np.floor(np.mod(values + np.pi, 2 * np.pi) / (2 * np.pi) * SECTORS).astype(np.int64) % SECTORS
    mass = np.bincount(sectors, weights, SECTORS).astype(float)
    effective = mass**2 / np.maximum(np.bincount(sectors, weights**2, SECTORS), 1e-300)
    return mass, effective, (mass > LEAST_MASS) & (effective < FEWEST_DRAWS)


def weight_being_discovered(angles: FloatArray, log_weights: FloatArray) -> float:
    """Share of the weight that few draws have: of one draw, or of one coordinate's places of few effective draws.

    Args:
        angles: shape=(n, n_wide), radians, of the wide coordinates.
        log_weights: shape=(n,), the label's density included.
    """
    weights = shares_of_weight(log_weights)
    found = (_sectors(values, weights) for values in angles.T)
    return float(max([weights.max(), *(mass[few].sum() for mass, _, few in found)]))


def doubts_about_rounds(ratios: FloatArray) -> Iterator[str]:
    """Of the last round's weights over the surface of all rounds, shape=(n,)."""
    error = ratios.std() / np.sqrt(len(ratios))
    if abs(ratios.mean() - 1.0) > DISAGREEMENT * error:
        yield (
            f"weights of the last round are {ratios.mean():.2f} times those of all rounds ({error:.2f}): what it found "
            "is new; raise `max_evaluations`"
        )


def doubts_about_size(n_axes: int, effective: float, n: int) -> Iterator[str]:
    """Of the labels and wide coordinates together, and of effective lifts of n of the last round, at low labels.

    Of few low labels, most of whose weight one has, the fraction says nothing: too few effective ones are a doubt too.
    """
    if n_axes > FEW_AXES and (effective < LEAST_EFFECTIVE * n or effective < FEWEST_DRAWS):
        yield (
            f"{n_axes} labels and wide coordinates are many: {n} lifts of the last round, below the ceiling, are worth "
            f"{effective:.1f} effective ones; raise `max_evaluations`, label fewer, or join windows over some of "
            "them (`gancl.sample_windows`, `gancl fes --windows`)"
        )


def doubts_about_coordinates(
    system: MolecularSystem, n_wide: int, n_combinations: int, n_windows: int, held: Sequence[Sequence[int]] = ()
) -> Iterator[str]:
    """Of what is looked for at all.

    Args:
        system: the real system.
        n_wide: wide torsions.
        n_combinations: of their states, about.
        n_windows: first windows.
        held: shape=(n, 4), torsions along rings that the check held on both sides of zero.
    """
    if isinstance(system.slow, ParticleCoordinates):
        yield from _doubts_about_particles(system.slow, system.n_atoms)
        return
    if n_combinations > n_windows:
        yield (
            f"{n_wide} wide torsions have some {n_combinations} combinations of states, and {n_windows} windows "
            "began in that many at most: give frames of your own, or label what matters"
        )
    yield from _doubts_about_rings(system.topology, held)


def _doubts_about_particles(slow: ParticleCoordinates, n_particles: int) -> Iterator[str]:
    others = n_particles - len(set(slow.components[:, 0].tolist()))
    if others:
        yield f"no modes were looked for of {others} particles without a label: only those that windows met are there"


def _doubts_about_rings(topology: Any, held: Sequence[Sequence[int]] = ()) -> Iterator[str]:
    """Of up to five atoms the two forms of a ring are told apart by one torsion, of more they are not."""
    names = [atom.name for atom in topology.atoms()]
    for ring in rings_with_forms(topology):
        if len(ring) > MOST_OF_TWO_FORMS or not any(set(atoms) <= ring for atoms in held):
            yield (
                f"the ring of {', '.join(names[atom] for atom in sorted(ring))} is not proposed in forms that no "
                "window met, and no check held both of two: give frames of each form"
            )
