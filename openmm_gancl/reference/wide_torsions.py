"""Wide torsions: those that turn, and whose states neither labels, nor symmetry, nor the declared state decide."""

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from ..coordinates.slow_coordinates import Torsions
from ..system.molecular_system import MolecularSystem
from ..system.state import DeclaredState
from ..units import FloatArray, IntArray
from .chart import Chart, InternalCoordinates
from .zmatrix import bond_graph

WIDE_FORCE_CONSTANT = 200.0
"""kJ/mol, of wide torsions while windows are pulled to them."""


def wide_torsion_indices(topology: Any, chart: Chart, state: DeclaredState) -> IntArray:
    """The coordinates of a chart that are wide torsions, shape=(n_wide,); of a Cartesian chart its angles.

    A torsion is wide if it turns a whole branch about a bond outside rings, has no rotational symmetry (methyls have),
    is no label, and is no peptide bond that the state keeps trans. Where the state declares nothing a double bond is
    wide too: both of its forms belong to the target.

    Args:
        topology: an ``openmm.app.Topology``.
        chart: of the molecule.
        state: the declared state.
    """
    if not isinstance(chart, InternalCoordinates):
        return np.flatnonzero(chart.periodic)
    bridges = {frozenset(bond) for bond in nx.bridges(bond_graph(topology))}
    declared = {frozenset(bond) for bond in state.trans_peptides[:, 1:3].tolist()}
    partner = dict(chart.z_matrix[:, :2].tolist())
    first = chart.n_bonds + chart.n_angles
    found = []
    for i, (_, p, q, d) in enumerate(chart.torsions.tolist()):
        turns_a_branch = partner[d] != p
        decided = first + i in chart.label_indices or chart.torsion_folds[i] > 1 or {p, q} in declared
        if turns_a_branch and {p, q} in bridges and not decided:
            found.append(first + i)
    return np.array(found, dtype=np.int64)


def labels_in_rings(topology: Any, slow: Torsions) -> list[str]:
    """Names of the labels that turn a bond of a ring, which lets them turn a little alone.

    Args:
        topology: an ``openmm.app.Topology``.
        slow: the labels.
    """
    bridges = {frozenset(bond) for bond in nx.bridges(bond_graph(topology))}
    bonds = [frozenset(atoms[1:3]) for atoms in slow.atoms.tolist()]
    bonded = {frozenset(bond) for bond in bond_graph(topology).edges}
    return [name for name, bond in zip(slow.names, bonds, strict=True) if bond in bonded - bridges]


def torsions_of(topology: Any, chart: InternalCoordinates, indices: IntArray) -> Torsions:
    """Torsions of a chart by the names of their atoms, and of their residue where the topology has several."""
    atoms = chart.torsions[indices - chart.n_bonds - chart.n_angles]
    return Torsions(tuple(_name(topology, quadruple) for quadruple in atoms.tolist()), atoms)


def wide_names(topology: Any, chart: Chart, indices: IntArray) -> tuple[str, ...]:
    """Names of coordinates of a chart: torsions, or components of particles."""
    if isinstance(chart, InternalCoordinates):
        return torsions_of(topology, chart, indices).names if len(indices) else ()
    return tuple(f"particle {i // 3}, {'xyz'[i % 3]}" for i in indices.tolist())


def _name(topology: Any, atoms: list[int]) -> str:
    every = list(topology.atoms())
    residue = every[atoms[1]].residue
    place = f"{residue.name}{residue.id}:" if topology.getNumResidues() > 1 else ""
    return place + "-".join(every[i].name for i in atoms)


def with_more_labels(system: MolecularSystem, torsions: Torsions, force_constant: float) -> MolecularSystem:
    """The same system with torsions as labels after those it has.

    Args:
        system: its labels are torsions.
        torsions: the others.
        force_constant: of their restraint, kJ/mol.
    """
    slow = system.slow
    assert isinstance(slow, Torsions)
    joined = Torsions(slow.names + torsions.names, np.concatenate([slow.atoms, torsions.atoms]))
    constants: FloatArray = np.append(system.force_constants, np.full(len(torsions.names), force_constant))
    return replace(system, slow=joined, force_constants=constants)
