"""Where a result may be blind, in sentences: modes that are only being discovered, and those that nothing looks for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import chdtrc

from ..coordinates.slow_coordinates import Axes, ParticleCoordinates
from ..free_energy.grid import bin_centres, bin_indices
from ..free_energy.weight_statistics import (
    LEAST_TAIL,
    MAX_PARETO_INDEX,
    effective_sample_size,
    pareto_index,
    shares_of_weight,
    tail_share,
)
from ..generator.trained_for import atom_names
from ..reference.chart import Chart
from ..reference.wide_torsions import interval_text, rings_with_forms
from ..system.molecular_system import MolecularSystem
from ..system.state import undeclared_centres
from ..units import BoolArray, FloatArray, IntArray
from .reverse_check import normal_score

SECTORS = 12
"""Of a wide coordinate's circle, whose weights are looked at."""

LEAST_MASS, FEWEST_DRAWS = 0.02, 10.0
"""Of a sector: less mass is not worth a sentence; fewer effective draws are a discovery."""

LARGEST_SHARE = 0.1
"""Of all weight, that a single draw may have."""

DISAGREEMENT = 5.0
"""Standard errors."""

BINS_OF_A_FIT, FEWEST_IN_A_BIN = (60, 24), 25.0
"""Along one label alone and along each of two, where weights are compared with the surface; effective draws in one."""

MIN_DEVIATION, MIN_SCORE, CHANCE = 0.03, 4.0, 1e-6
"""Of a mean weight over the surface, as it is and as a normal score, and the chance of all scores that is none."""

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


def doubts_about_ratios(log_ratios: FloatArray) -> Iterator[str]:
    """Of lifts' log-weights over a surface that was fitted to them, shape=(n,), where it is low."""
    effective, index = effective_sample_size(log_ratios), pareto_index(log_ratios)
    few = effective < FEWEST_DRAWS
    if few or (index > MAX_PARETO_INDEX and not tail_share(log_ratios) < LEAST_TAIL):
        why = "" if np.isnan(index) else f" (Pareto index {index:.2f}; above {MAX_PARETO_INDEX} is too much)"
        yield (
            f"a few weights decide{why}: {len(log_ratios)} lifts are worth {effective:.1f} effective ones, and the "
            "error bars are too small; lift more, with more relax steps or a generator that was trained for longer"
        )


def doubts_about_windows(labels: FloatArray, effective: FloatArray) -> Iterator[str]:
    """Of restrained windows that are low.

    Args:
        labels: shape=(n_windows, d).
        effective: shape=(n_windows,), effective lifts that tell the free energy of each.
    """
    if len(labels) and effective.min() < FEWEST_DRAWS:
        where = ", ".join(f"{x:.3g}" for x in labels[effective.argmin()])
        yield (
            f"the window at ({where}) is told by {effective.min():.1f} effective lifts, and "
            f"{np.sum(effective < FEWEST_DRAWS)} of {len(labels)} low ones by fewer than {FEWEST_DRAWS:.0f}: weights "
            "that were not seen may decide; lift more, with more relax steps or a generator that was trained for longer"
        )


def doubts_about_rounds(ratios: FloatArray) -> Iterator[str]:
    """Of the last round's weights over the surface of all rounds, shape=(n,)."""
    error = ratios.std() / np.sqrt(len(ratios))
    if abs(ratios.mean() - 1.0) > max(DISAGREEMENT * error, MIN_DEVIATION):
        yield (
            f"weights of the last round are {ratios.mean():.2f} times those of all rounds ({error:.2f}): what it found "
            "is new; raise `max_evaluations`"
        )


def doubts_about_fit(axes: Axes, labels: FloatArray, ratios: FloatArray, shares: FloatArray) -> Iterator[str]:
    """Of weights over the surface that was fitted to them, whose mean is one wherever their labels are.

    Args:
        axes: the labels.
        labels: shape=(n, d), where the surface is low.
        ratios: shape=(n,).
        shares: shape=(n,), how much each counts.
    """
    d, worst, where = len(axes.names), 0.0, ""
    for columns in [*([i] for i in range(d)), *([[0, 1]] if d == 2 else [])]:
        n_bins = BINS_OF_A_FIT[len(columns) - 1]
        edges = tuple(np.linspace(low, high, n_bins + 1) for low, high in axes.domain[columns])
        index = bin_indices(labels[:, columns], edges, axes.periods[columns])
        n = n_bins ** len(columns)
        total, sums, squares = (np.bincount(index, shares**p * ratios**q, n) for p, q in ((1, 0), (1, 1), (2, 2)))
        known = sums**2 >= FEWEST_IN_A_BIN * squares.clip(min=1e-300)
        mean = np.divide(sums, total, out=np.zeros(n), where=total > 0)
        scatter = np.bincount(index, (shares * (ratios - mean[index])) ** 2, n)
        error = np.sqrt(scatter[known]) / total[known]
        degrees = sums[known] ** 2 / squares[known] - 1.0
        # where the mean is low, a tail of the weights may not have been seen: no score
        scores = normal_score(mean[known] - 1.0, error, degrees).clip(min=0.0)
        large = np.where(scores > MIN_SCORE, mean[known] - 1.0, 0.0)
        if not len(large) or chdtrc(len(scores), (scores**2).sum()) > CHANCE or large.max() < max(MIN_DEVIATION, worst):
            continue
        worst, place = float(large.max()), bin_centres(edges)[known][large.argmax()]
        where = " and ".join(f"{axes.names[i]} = {x:.3g}" for i, x in zip(columns, place, strict=True))
    if worst:
        yield (
            f"weights near {where} are {worst:.0%} larger in the mean than the surface that was fitted to them, which "
            "chance does not explain: it has a well, an edge or a barrier there too narrow for the waves that surfaces "
            "are made of, and may be off by more than its error bars say; give the label a narrower `domain`"
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
    if len(centres := undeclared_centres(system.topology, system.state)):
        atoms = atom_names(system.topology)
        yield (
            f"{', '.join(atoms[i] for i in centres)} may turn into the mirror image, which no state of the card "
            "excludes and nothing looks for: declare the state (`chirality`)"
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
