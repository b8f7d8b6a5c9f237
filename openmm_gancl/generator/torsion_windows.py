"""Learned labels as windows over torsions: native forces restrain each lift to what the generator predicts.

A learned label fixes a molecule's wide torsions only to within their scatter, and relaxing lets them drift, which
costs free lifts their weight. Here a table of labels, drawn beforehand, becomes a table of windows: the centres that
the generator predicts for the wide torsions at each label. What is lifted at a window is an ordinary restrained lift,
whose exact weight, check and mixture of windows are those of labels that are torsions.
"""

from dataclasses import replace

import numpy as np

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import ModuleCoordinates, Torsions
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..reference.chart import InternalCoordinates, chart_for
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .model import LiftingModel, with_generator
from .networks import LabelTable

MAX_RESULTANT_LENGTH = 0.8
"""A torsion is wide, and restrained, if the mean of exp(i phi) over the frames is shorter than this."""


def wide_torsions(system: MolecularSystem, slow: ModuleCoordinates, positions: FloatArray) -> Torsions:
    """The torsions of the generator's chart that sampled frames spread over, symmetric rotors left out.

    Args:
        system: the molecule.
        slow: the learned coordinates.
        positions: shape=(n, n_atoms, 3), nm.

    Raises:
        InputError: there is none.
    """
    chart = chart_for(system.topology, slow, system.positions, system.constraints)
    assert isinstance(chart, InternalCoordinates)
    angles = chart.to_internal(positions)[:, chart.periodic]
    wide = (np.abs(np.exp(1j * angles).mean(axis=0)) < MAX_RESULTANT_LENGTH) & (chart.torsion_folds == 1)
    if not wide.any():
        raise InputError("no torsion of the molecule is wide: there is nothing to restrain: use `restrain='none'`")
    atoms = chart.torsions[wide]
    return Torsions(tuple(_name(system, quadruple) for quadruple in atoms.tolist()), atoms)


def _name(system: MolecularSystem, atoms: list[int]) -> str:
    """That of the card, or the names of the atoms."""
    if isinstance(system.slow, Torsions):
        for name, known in zip(system.slow.names, system.slow.atoms.tolist(), strict=True):
            if atoms in (known, known[::-1]):
                return name
    every = list(system.topology.atoms())
    return "-".join(every[i].name for i in atoms)


def restrain_torsions(
    model: LiftingModel, torsions: Torsions, labels: FloatArray, seed: int
) -> tuple[LiftingModel, FloatArray]:
    """A lifting model over windows that restrain torsions to what the generator predicts at each of some labels.

    Args:
        model: of learned labels.
        torsions: of its chart.
        labels: shape=(k, d).
        seed: of the latents that the windows are predicted at.

    Returns:
        the model over the restrained torsions, and the windows, shape=(k, h), radians.
    """
    chart = model.chart
    assert isinstance(chart, InternalCoordinates)
    rows = {tuple(atoms): i for i, atoms in enumerate(chart.torsions.tolist())}
    indices = chart.n_bonds + chart.n_angles + np.array([rows[tuple(atoms)] for atoms in torsions.atoms.tolist()])
    latents = model.sample_latents(labels, named_rng(seed, "window latents"))
    windows = wrap(model.reference_parameters(labels, latents).centres[:, indices])
    table = LabelTable(model.networks.generator, windows, labels)
    return with_generator(model, table, replace(chart, label_indices=indices), torsions), windows
