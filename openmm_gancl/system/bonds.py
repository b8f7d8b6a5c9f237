"""Which atoms belong to one molecule: by the bonds of a Topology, and by what a System's forces bind."""

from typing import Any

import numpy as np
import openmm
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError
from ..units import FloatArray, IntArray, number

LONGEST_BOND = 1.0
"""nm; a longer one joins parts of a molecule that a periodic box has cut."""

MAX_BOND_FACTOR = 3.0
"""Times the length that a System gives it that a bond may be, or as many times shorter."""

SPREADS = 6.0
"""Standard deviations of a harmonic bond, that it may be longer than at rest: a soft one is none the worse."""


def bonds_of(topology: Any) -> IntArray:
    """The bonds of an ``openmm.app.Topology``, shape=(n_bonds, 2)."""
    return np.array([(a.index, b.index) for a, b in topology.bonds()], dtype=np.int64).reshape(-1, 2)


def check_in_one_piece(
    topology: Any, positions: FloatArray, structure: FloatArray | None = None, near: IntArray | None = None
) -> None:
    """Refuse positions at which bonded atoms are so far apart that a periodic box has cut the molecule.

    Args:
        topology: an ``openmm.app.Topology``.
        positions: shape=(n_frames, n_atoms, 3), nm.
        structure: shape=(n_atoms, 3), nm, whose bonds may be long, as between coarse beads.
        near: atoms whose molecules are looked at; by default all are.

    Raises:
        InputError: they are.
    """
    bonds = bonds_of(topology)
    if near is not None:
        parts = molecule_numbers(topology)
        bonds = bonds[np.isin(parts[bonds[:, 0]], parts[near])]
    for one, other in bonds:
        longest = np.linalg.norm(positions[:, other] - positions[:, one], axis=1).max(initial=0.0)
        usual = 0.0 if structure is None else float(np.linalg.norm(structure[other] - structure[one]))
        if longest > max(LONGEST_BOND, 2 * usual):
            raise InputError(
                f"atoms {one} and {other} are bonded and {longest:.1f} nm apart (a molecule cut by a periodic box?): "
                "make it whole"
            )


def count_molecules(topology: Any) -> int:
    """Molecules by the bonds of an ``openmm.app.Topology``; 0 where it has no bonds at all."""
    bonds = bonds_of(topology)
    return int(_parts(bonds, topology.getNumAtoms()).max(initial=-1)) + 1 if len(bonds) else 0


def count_bound_parts(system: Any) -> int:
    """Molecules by the bonds and constraints of a System's forces."""
    pairs = _constrained(system) + _bound(system, openmm.HarmonicBondForce | openmm.CustomBondForce)
    return int(_parts(np.array(pairs, dtype=np.int64).reshape(-1, 2), system.getNumParticles()).max(initial=-1)) + 1


def check_lengths(topology: Any, system: Any, positions: FloatArray) -> None:
    """See that bonds are about as long as a System has them: in Angstrom they are ten times as long.

    Args:
        topology: ``openmm.app.Topology``.
        system: its ``openmm.System``, whose constraints and HarmonicBondForces have lengths.
        positions: shape=(..., n_atoms, 3), nm; NaN of what is lost.

    Raises:
        InputError: in one configuration none is.
    """
    found = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            found += [force.getBondParameters(i)[:3] for i in range(force.getNumBonds())]
    lengths = {frozenset(pair): number(length) for *pair, length in found}
    # a restraint is no bond
    pairs = [(a, b) for a, b in bonds_of(topology).tolist() if lengths.get(frozenset((a, b)))]
    if not pairs:
        return
    first, second = np.array(pairs).T
    there = np.linalg.norm(positions[..., first, :] - positions[..., second, :], axis=-1)
    ratios = there / [lengths[frozenset(pair)] for pair in pairs]
    # all bonds of a configuration: those that a periodic box cuts are some; False for NaN
    off = (ratios.min(axis=-1) > MAX_BOND_FACTOR) | (ratios.max(axis=-1) < 1 / MAX_BOND_FACTOR)
    if off.any():
        raise InputError(
            f"bonds are {np.median(ratios[off]):.2g} times as long as the System has them (median): give positions in "
            "nm, or a Quantity"
        )


def thermal_lengths(system: Any, bonds: IntArray, kT: float) -> FloatArray:
    """Lengths that bonds hardly ever exceed by a System's HarmonicBondForces, nm, zero where none has them, (n,).

    Args:
        system: an ``openmm.System``.
        bonds: shape=(n, 2).
        kT: kJ/mol.
    """
    found: dict[frozenset[int], float] = {}
    for force in system.getForces():
        for i in range(force.getNumBonds() if isinstance(force, openmm.HarmonicBondForce) else 0):
            one, other, length, k = force.getBondParameters(i)
            if (stiffness := number(k)) > 0:
                found[frozenset((one, other))] = number(length) + SPREADS * float(np.sqrt(kT / stiffness))
    return np.array([found.get(frozenset(pair), 0.0) for pair in bonds.tolist()])


def molecule_numbers(topology: Any) -> IntArray:
    """The molecule of each atom of an ``openmm.app.Topology``, shape=(n_atoms,)."""
    return _parts(bonds_of(topology), topology.getNumAtoms())


def molecules_of(topology: Any) -> list[IntArray]:
    """The atoms of each molecule of an ``openmm.app.Topology``, ascending."""
    parts = molecule_numbers(topology)
    return [np.flatnonzero(parts == part) for part in range(int(parts.max(initial=-1)) + 1)]


def molecule_with(topology: Any, atom: int) -> IntArray:
    """The atoms of the molecule that an atom belongs to, ascending.

    Args:
        topology: an ``openmm.app.Topology``.
        atom: from 0.

    Raises:
        InputError: there is no such atom.
    """
    n = topology.getNumAtoms()
    if not 0 <= atom < n:
        raise InputError(f"`molecule` is {atom}, and the Topology has atoms 0 to {n - 1}: name an atom of the molecule")
    parts = molecule_numbers(topology)
    return np.flatnonzero(parts == parts[atom])


def bound_across(system: Any, atoms: IntArray) -> tuple[int, int] | None:
    """Two atoms, one of these and one not, that a constraint or a HarmonicBondForce binds; None where none are.

    A CustomBondForce may bind any two: restraints of a ligand are made so, and weighed as any other energy.
    """
    own = set(atoms.tolist())
    for one, other in _constrained(system) + _bound(system, openmm.HarmonicBondForce):
        if (one in own) != (other in own):
            return one, other
    return None


def _constrained(system: Any) -> list[tuple[int, int]]:
    return [tuple(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())]


def _bound(system: Any, kinds: Any) -> list[tuple[int, int]]:
    forces = [force for force in system.getForces() if isinstance(force, kinds)]
    return [tuple(force.getBondParameters(i)[:2]) for force in forces for i in range(force.getNumBonds())]


def _parts(bonds: IntArray, n: int) -> IntArray:
    """The number of the molecule of each atom, shape=(n,)."""
    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
