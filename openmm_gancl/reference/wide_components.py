"""Components of particles in an external field that have several modes: coordinates that become angles."""

from dataclasses import replace

import numpy as np

from ..coordinates.slow_coordinates import ParticleCoordinates
from ..errors import InputError
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .chart import CartesianCoordinates

APART = 5.0
"""Widths of two clusters between their centres, from which they are two modes: those of a single mode are 1.7, of an
even spread 3.5 apart."""

FEWEST = 10
"""Frames of a mode."""

MOST_MODES = 4

TURNS = 30
"""Of the search for clusters."""


def other_components(slow: ParticleCoordinates, positions: FloatArray) -> ParticleCoordinates | None:
    """The components of the labelled particles that are no labels, each as far about the structure as the label goes.

    Args:
        slow: the labels.
        positions: shape=(n_atoms, 3), nm, the structure.
    """
    labelled = {tuple(row) for row in slow.components.tolist()}
    span = float((slow.domain[:, 1] - slow.domain[:, 0]).max())
    rows = [
        (particle, axis)
        for particle in sorted({particle for particle, _ in labelled})
        for axis in range(3)
        if (particle, axis) not in labelled
    ]
    if not rows:
        return None
    components = np.array(rows)
    at = positions[components[:, 0], components[:, 1]]
    domain = np.stack([at - 0.5 * span, at + 0.5 * span], axis=1)
    return ParticleCoordinates(tuple(f"particle {i}, {'xyz'[axis]}" for i, axis in rows), components, domain)


def chosen_components(system: MolecularSystem) -> ParticleCoordinates | None:
    """Those of `other_components` that the system names, or does not leave out.

    Raises:
        InputError: a name that none of them has.
    """
    assert isinstance(system.slow, ParticleCoordinates)
    every = other_components(system.slow, system.positions)
    names = () if every is None else every.names
    for key, given in (("wide", system.wide or ()), ("not_wide", system.not_wide)):
        if unknown := [name for name in given if name not in names]:
            raise InputError(f"key '{key}' names {unknown[0]}: components without a label are {'; '.join(names)}")
    kept = [name not in system.not_wide and (system.wide is None or name in system.wide) for name in names]
    if every is None or not any(kept):
        return None
    rows = np.flatnonzero(kept)
    return ParticleCoordinates(tuple(names[i] for i in rows), every.components[rows], every.domain[rows])


def with_angles(
    chart: CartesianCoordinates, positions: FloatArray, components: ParticleCoordinates
) -> CartesianCoordinates:
    """The chart in which components with two or more modes among frames are angles.

    Args:
        chart: of the particles.
        positions: shape=(n, n_atoms, 3), nm, frames that began anywhere and ran free.
        components: those that are looked at.
    """
    turned, centres, scales = [], [], []
    for (particle, axis), values in zip(components.components, components.transform(positions).T, strict=True):
        if (modes := separate_modes(values)) is not None:
            turned.append(3 * particle + axis)
            centres.append(0.5 * (modes[0] + modes[-1]))
            scales.append(0.5 * (modes[-1] - modes[0]))
    return replace(chart, turned=np.array(turned, dtype=np.int64), centres=np.array(centres), scales=np.array(scales))


def separate_modes(values: FloatArray) -> FloatArray | None:
    """The centres of clusters, rising, that are all far apart for their width; None where there is one alone.

    Args:
        values: shape=(n,).
    """
    for n_clusters in range(2, MOST_MODES + 1):
        centres = np.linspace(values.min(), values.max(), n_clusters)
        for _ in range(TURNS):
            nearest = np.abs(values[:, None] - centres).argmin(axis=1)
            counts = np.bincount(nearest, minlength=n_clusters)
            if counts.min() < FEWEST:
                break
            centres = np.bincount(nearest, values, n_clusters) / counts
        width = np.sqrt(np.mean((values - centres[nearest]) ** 2))
        if counts.min() >= FEWEST and np.diff(centres).min() > APART * width:
            return centres
    return None
