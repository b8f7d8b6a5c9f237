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
from ..errors import InputError, checked
from ..reference.chart import InternalCoordinates, chart_for
from ..reference.wide_torsions import torsion_name
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .model import LiftingModel, with_generator
from .networks import LabelTable

MAX_RESULTANT_LENGTH = 0.8
"""A torsion is wide, and restrained, if the mean of exp(i phi) over the frames is shorter than this."""


N_LABELS, N_WINDOWS = 4000, 500
"""Labels that are tried for `over_torsions`, and those that are kept."""


@checked
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
    """That of the card, or by residue and atoms."""
    if isinstance(system.slow, Torsions):
        for name, known in zip(system.slow.names, system.slow.atoms.tolist(), strict=True):
            if atoms in (known, known[::-1]):
                return name
    return torsion_name(system.topology, atoms)


def over_torsions(model: LiftingModel) -> LiftingModel:
    """A model of learned labels as one over the torsions that its labels were learned beside.

    Labels drawn over their whole domain have no weight: learned labels fill a thin part of it, and fix the torsions
    only to within their scatter. What the generator predicts for the torsions at labels that its own structures have
    again (micro-macro consistency) are labels that can be drawn, and read back. The model itself where it has none.

    Args:
        model: of learned labels, or of any others.
    """
    slow, chart = model.slow, model.chart
    if (
        not isinstance(slow, ModuleCoordinates)
        or not len(slow.chart_torsions)
        or not isinstance(chart, InternalCoordinates)
    ):
        return model
    low, high = slow.domain.T
    # the same table in any process: it is a part of the model, and nothing that is averaged is drawn with it
    labels = named_rng(0, "fixed", "learned labels").uniform(low, high, (N_LABELS, len(low)))
    latents = model.sample_latents(labels, named_rng(0, "fixed", "latents of learned labels"))
    found = slow.transform(chart.to_cartesian(model.reference_parameters(labels, latents).centres))
    errors = np.abs(wrap(found - labels, slow.periods) / (high - low)).max(axis=1)
    kept = labels[np.argsort(errors)[:N_WINDOWS]]
    known = {tuple(atoms) for atoms in chart.torsions.tolist()}
    rows = [atoms if tuple(atoms) in known else atoms[::-1] for atoms in slow.chart_torsions.tolist()]
    torsions = Torsions(_backbone_names(model.metadata["atom_names"], rows), np.array(rows))
    return restrain_torsions(model, torsions, kept, 0)[0]


BACKBONE = {"C-N-CA-C": "phi", "N-CA-C-N": "psi", "CA-C-N-CA": "omega"}


def _backbone_names(atom_names: list[str], rows: list[list[int]]) -> tuple[str, ...]:
    """phi and psi, with their residues where there are several; else the names of the atoms."""
    plain = [name.rpartition("-")[2] for name in atom_names]
    residues = [name.rpartition("-")[0].lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for name in atom_names]
    texts = ["-".join(plain[i] for i in row) for row in rows]
    found = [BACKBONE.get(text) or BACKBONE.get("-".join(text.split("-")[::-1])) or text for text in texts]
    if len(set(found)) < len(found):
        ends = [residues[row[1 if name == "phi" else 2]] for name, row in zip(found, rows, strict=True)]
        found = [f"{name}:{end}" for name, end in zip(found, ends, strict=True)]
    if len(set(found)) < len(found):
        found = ["-".join(map(str, row)) for row in rows]
    return tuple(found)


@checked
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
