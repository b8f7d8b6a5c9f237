"""Lifts that learn from windows of one structure, and are checked against such windows: what both cannot see."""

from collections.abc import Iterator

import numpy as np

from ..coordinates.slow_coordinates import ParticleCoordinates
from ..engine.serialization import serialized
from ..reference.chart import chart_for
from ..reference.wide_components import other_components
from ..reference.wide_torsions import turning_indices, wide_names
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .evaluation import evaluate

REMEDY = "leave `generator` out, which looks for them, or label it"

N_SCANNED, N_LABELS = 201, 5
"""Places of a component, and lifts through which it is scanned."""

HIGHEST = 12.0
"""kT above the lowest place: a higher well is empty."""

FAR = 6.0
"""Standard deviations of the lifts, from which a well has none."""


def doubts_about_one_structure(system: MolecularSystem, positions: FloatArray) -> Iterator[str]:
    """Sentences on coordinates without a label whose other modes such lifts do not look for.

    Torsions that turn, by topology; components of the labelled particles by the energy along them, at a few lifts.

    Args:
        system: the real system, with the card's labels.
        positions: shape=(n, n_atoms, 3), nm, of lifts.
    """
    if isinstance(system.slow, ParticleCoordinates):
        yield from _wells_without_lifts(system, system.slow, positions)
        return
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    for name in wide_names(system.topology, chart, turning_indices(system.topology, chart, system.state)):
        yield f"{name} turns (or inverts) and is no label, and lifts and check begin in one mode of it: {REMEDY}"


def _wells_without_lifts(system: MolecularSystem, slow: ParticleCoordinates, positions: FloatArray) -> Iterator[str]:
    components = other_components(slow, system.positions)
    if components is None or not len(positions):
        return
    begins = positions[np.linspace(0, len(positions) - 1, N_LABELS).astype(int)]
    xml = serialized(system.system)
    rows = zip(components.names, components.components, components.domain, strict=True)
    for name, (particle, axis), (low, high) in rows:
        places = np.linspace(low, high, N_SCANNED)
        scanned = np.repeat(begins[:, None], N_SCANNED, axis=1)
        scanned[:, :, particle, axis] = places
        energies = evaluate(xml, scanned.reshape(-1, *positions.shape[1:]), "Reference")[0]
        values = positions[:, particle, axis]
        for row in energies.reshape(N_LABELS, N_SCANNED) / system.kT:
            inner = row[1:-1]
            is_well = (inner < row[:-2]) & (inner < row[2:]) & (inner < row.min() + HIGHEST)
            gaps = np.abs(places[1:-1, None] - values).min(axis=1)
            empty = np.flatnonzero(is_well & (gaps > FAR * values.std()))
            if len(empty):
                yield f"{name} has a well near {places[1:-1][empty[0]]:.2f} nm, where no lift is: {REMEDY}"
                break
