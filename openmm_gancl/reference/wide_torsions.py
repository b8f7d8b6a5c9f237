"""Wide torsions: those that turn, and whose states neither labels, nor symmetry, nor the declared state decide."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from ..coordinates.residues import BACKBONE, backbone_atoms, from_openmm
from ..coordinates.slow_coordinates import Torsions
from ..errors import InputError
from ..system.molecular_system import MolecularSystem
from ..system.state import DeclaredState
from ..units import FloatArray, IntArray
from .chart import CartesianCoordinates, Chart, InternalCoordinates
from .wide_components import chosen_components
from .zmatrix import bond_graph

WIDE_FORCE_CONSTANT = 200.0
"""kJ/mol, of wide torsions while windows are pulled to them."""

MOST_OF_A_FLAT_RING = 6
"""Atoms: rings of seven and more flat atoms are boats or tubs, as those of azepines and cyclooctatetraene."""

RING_REACH = 0.7
"""To which torsions along a ring are pulled, either way."""

SATURATED = ("H", "C", "N", "O", "F", "Cl", "Br", "I")
"""Beside an amine's nitrogen: what has empty orbitals (boron, silicon, sulfur, phosphorus) makes it flat."""

FLAT = (("C", 3), ("N", 2), ("O", 1))
"""Elements and numbers of neighbours that draw in a lone pair beside them."""

FAR_OUT = np.radians(170.0)
"""Of a particle's component that is an angle: beyond it nothing is seen."""


def turning_indices(topology: Any, chart: Chart, state: DeclaredState) -> IntArray:
    """The coordinates of a chart that are wide by what is known of it, shape=(n,); of a Cartesian chart its angles.

    A torsion is wide if it turns a whole branch about a bond outside rings, has no rotational symmetry (methyls have),
    is no label, and is no peptide bond that the state keeps trans. Where the state declares nothing a double bond is
    wide too: both of its forms belong to the target. So are torsions along rings that are not flat, and those whose
    sign tells the two forms of an amine apart.

    Args:
        topology: an ``openmm.app.Topology``.
        chart: of the molecule.
        state: the declared state.
    """
    if not isinstance(chart, InternalCoordinates):
        return np.flatnonzero(chart.periodic)
    bridges = {frozenset(bond) for bond in nx.bridges(bond_graph(topology))}
    declared = {frozenset(bond) for bond in state.trans_peptides[:, 1:3].tolist()}
    found = []
    for i in _primary(chart).tolist():
        bond = set(chart.torsions[i - _first(chart), 1:3].tolist())
        decided = i in chart.label_indices or chart.folds[i] > 1 or bond in declared
        if bond in bridges and not decided:
            found.append(i)
    further = ring_indices(topology, chart), inverting_indices(topology, chart)
    return np.unique(np.concatenate([np.array(found, dtype=np.int64), *further]))


def inverting_indices(topology: Any, chart: Chart) -> IntArray:
    """The torsions of a chart whose sign tells the two forms of an amine apart, shape=(n,).

    Of a nitrogen with three neighbours, none of which draws its lone pair in: hydrogens, at most one of them, for to
    exchange two is a turn, carbons that are not flat (all hydrogens must be there to tell), oxygens, halogens, further
    nitrogens with three neighbours. It inverts over some 10 kT; not where all its bonds are in rings.
    """
    if not isinstance(chart, InternalCoordinates):
        return np.empty(0, dtype=np.int64)
    graph = bond_graph(topology)
    bridges, primary = {frozenset(bond) for bond in nx.bridges(graph)}, _primary(chart)
    amines = [atom for atom in graph if _inverts(graph, atom) and any({atom, b} in bridges for b in graph[atom])]
    about = chart.torsions[:, 1:3]
    # a ring is cut at its nitrogen: what it carries turns about a bond of the ring
    in_ring = [frozenset(bond) not in bridges for bond in about.tolist()]
    turns = np.isin(np.arange(len(about)) + _first(chart), primary)
    lone = [int((about[:, 0] == atom).sum()) == 1 for atom in about[:, 0].tolist()]
    return _first(chart) + np.flatnonzero(np.isin(about[:, 0], amines) & (~turns | np.array(in_ring) & np.array(lone)))


def _inverts(graph: nx.Graph, atom: int) -> bool:
    if graph.nodes[atom]["element"] != "N" or graph.degree[atom] != 3:
        return False
    near = [(graph.nodes[one]["element"], graph.degree[one]) for one in graph[atom]]
    flat = any((element, degree) in FLAT or element not in SATURATED for element, degree in near)
    return not flat and sum(element == "H" for element, _ in near) < 2


def ring_indices(topology: Any, chart: Chart) -> IntArray:
    """The torsions of a chart along three bonds of a ring that is not flat, shape=(n,): its forms differ in them."""
    if not isinstance(chart, InternalCoordinates):
        return np.empty(0, dtype=np.int64)
    puckered, primary = rings_with_forms(topology), _primary(chart)
    atoms = chart.torsions[primary - _first(chart)].tolist()
    along = [any(set(row) <= ring for ring in puckered) for row in atoms]
    return primary[np.array(along, dtype=bool)]


def rings_with_forms(topology: Any) -> list[set[int]]:
    """Atoms of each ring that is not flat.

    Flat are rings of up to six atoms with at most three neighbours each, of carbon, nitrogen or boron with at most one
    other among them: benzene, imidazole, thiophene. Fused rings are taken apart into the smallest ones.
    """
    graph = bond_graph(topology)
    parts = [graph.subgraph(part) for part in nx.biconnected_components(graph) if len(part) > 2]
    rings = [ring for part in parts for ring in nx.minimum_cycle_basis(part)]
    return [set(ring) for ring in rings if not _is_flat(graph, ring)]


def _is_flat(graph: nx.Graph, ring: list[int]) -> bool:
    others = sum(graph.nodes[atom]["element"] not in ("C", "N", "B") for atom in ring)
    return len(ring) <= MOST_OF_A_FLAT_RING and others <= 1 and all(graph.degree[atom] <= 3 for atom in ring)


def reaches(topology: Any, chart: Chart, indices: IntArray) -> FloatArray:
    """How far torsions go from zero either way, radians, shape=(n,): those along rings do not turn."""
    return np.where(np.isin(indices, ring_indices(topology, chart)), RING_REACH, np.pi)


def wide_indices(system: MolecularSystem, chart: Chart) -> IntArray:
    """The coordinates of a chart that are wide: those found, less what the system leaves out, or those that it names.

    Args:
        system: of the chart.
        chart: of the molecule, or of particles, whose angles are chosen already.

    Raises:
        InputError: a name that is no torsion which turns, or one that the search would not find.
    """
    found = turning_indices(system.topology, chart, system.state)
    if not isinstance(chart, InternalCoordinates):
        chosen_components(system)
        return found
    if system.wide is not None:
        return np.sort(_named(system.topology, chart, found, system.wide, "wide"))
    return np.setdiff1d(found, _named(system.topology, chart, found, system.not_wide, "not_wide"))


def _named(topology: Any, chart: InternalCoordinates, candidates: IntArray, names: Sequence[str], key: str) -> IntArray:
    """Which of the candidates are named, by residue (``chi1:2``) or as a run lists them (``VAL2:CG1-CB-CA-N``)."""
    listed, atoms = wide_names(topology, chart, candidates), chart.torsions[candidates - _first(chart)]
    whole = np.isin(candidates, _primary(chart)).tolist()
    found = []
    for name in names:
        if name in listed:
            which = [listed.index(name)]
        else:
            kind, _, residue = name.partition(":")
            bond = set(backbone_atoms(kind, residue, name, from_openmm(topology))[1:3]) if kind in BACKBONE else set()
            which = [i for i, row in enumerate(atoms.tolist()) if whole[i] and set(row[1:3]) == bond]
        if not which:
            raise InputError(
                f"key '{key}' names {name}, which is no torsion that turns and is not a label: those are "
                f"{', '.join(listed) or 'none'}"
            )
        found.append(candidates[which[0]])
    return np.array(found, dtype=np.int64)


def _first(chart: InternalCoordinates) -> int:
    """Index of the first torsion."""
    return chart.n_bonds + chart.n_angles


def _primary(chart: InternalCoordinates) -> IntArray:
    """The torsions that turn a whole branch, shape=(n,)."""
    partner = dict(chart.z_matrix[:, :2].tolist())
    turns = [partner[d] != p for _, p, _, d in chart.torsions.tolist()]
    return np.flatnonzero(turns) + _first(chart)


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
    atoms = chart.torsions[indices - _first(chart)]
    return Torsions(tuple(torsion_name(topology, quadruple) for quadruple in atoms.tolist()), atoms)


def wide_names(topology: Any, chart: Chart, indices: IntArray) -> tuple[str, ...]:
    """Names of coordinates of a chart: torsions, or components of particles."""
    if isinstance(chart, InternalCoordinates):
        return torsions_of(topology, chart, indices).names if len(indices) else ()
    return tuple(f"particle {i // 3}, {'xyz'[i % 3]}" for i in indices.tolist())


def place_text(chart: Chart, index: int, angle: float) -> str:
    """A place of a coordinate that turns, as its users know it: a torsion to ten degrees, or a particle's component."""
    if isinstance(chart, CartesianCoordinates):
        return f"{chart.component(index, angle):.2f} nm"
    return f"{np.round(np.degrees(angle), -1) + 0.0:.0f} degrees"


def interval_text(chart: Chart, index: int, low: float, high: float) -> str:
    """From one angle of a coordinate that turns to another, around the circle, as its users know it.

    Args:
        chart: of the coordinate.
        index: of the coordinate; a particle's component goes to infinity at half a turn.
        low: radians.
        high: radians; less than `low` where half a turn lies between.
    """
    if not isinstance(chart, CartesianCoordinates):
        return f"{np.degrees(low):.0f} to {np.degrees(high):.0f} degrees"
    above, below = (
        f"{word} {chart.component(index, angle):.2f} nm" if abs(angle) < FAR_OUT else ""
        for word, angle in (("above", low), ("below", high))
    )
    return (" or " if low > high else " and ").join(part for part in (above, below) if part) or "anywhere"


def torsion_name(topology: Any, atoms: list[int]) -> str:
    """Of a torsion that has no other: the names of its atoms, after the residue where there are several."""
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
