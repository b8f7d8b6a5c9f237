"""Collective variables of trajectories, named as on the command line: ``phi:2``, ``distance:0,7``, ``rg:protein``."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray

BACKBONE = ("phi", "psi", "omega", "chi1")
ATOM_COUNTS = {"torsion": 4, "angle": 3, "distance": 2}
ANGULAR = {"torsion", "angle"}
KINDS = (
    "phi:RES, psi:RES, omega:RES, chi1:RES, torsion:a,b,c,d, angle:a,b,c, distance:a,b, rg[:SELECTION], "
    "rmsd:FILE[:SELECTION], column:NAME, npy:FILE"
)


@dataclass(frozen=True)
class CollectiveVariable:
    """One collective variable.

    Attributes:
        name: as given.
        period: 2 pi for torsions, ``inf`` otherwise.
        unit: radians or nm.
        atoms: shape=(k,), the atoms that it depends on.
        compute: from an mdtraj.Trajectory to values, shape=(n,).
        bonds: shape=(m, 2), between these atoms.
        needs_whole: whether a molecule must not be cut by the box; elsewhere the minimum image mends it.
    """

    name: str
    period: float
    unit: str
    atoms: IntArray
    compute: Callable[[Any], FloatArray]
    bonds: IntArray
    needs_whole: bool


def _bonds_between(atoms: IntArray, topology: Any) -> IntArray:
    """Bonds on the paths that lead from atom to atom, shape=(m, 2)."""
    import networkx

    graph = networkx.Graph([(bond[0].index, bond[1].index) for bond in topology.bonds])
    bonds: set[tuple[int, int]] = set()
    left = {int(atom) for atom in atoms if int(atom) in graph}
    while left:
        source = min(left)
        parents = dict(networkx.bfs_predecessors(graph, source))
        for atom in left & {source, *parents}:
            while atom in parents and (atom, parents[atom]) not in bonds:
                bonds.add((atom, parents[atom]))
                atom = parents[atom]
        left -= {source, *parents}
    return np.array(sorted(bonds), dtype=np.int64).reshape(-1, 2)


def backbone_atoms(kind: str, residue: str, name: str, topology: Any) -> list[int]:
    """The four atoms of a backbone or side-chain torsion; of a residue by number, or of the only one."""
    from mdtraj.geometry import dihedral

    found = np.asarray(getattr(dihedral, f"indices_{kind}")(topology)).reshape(-1, 4)
    numbers = [topology.atom(int(row[1])).residue.resSeq for row in found]
    if residue:
        if not re.fullmatch(r"-?\d+", residue):
            raise InputError(f"{name}: {residue} is no residue number: give one, as in {kind}:2")
        chosen = [row for row, number in zip(found, numbers, strict=True) if number == int(residue)]
    else:
        chosen = list(found)
    if len(chosen) == 1:
        return [int(atom) for atom in chosen[0]]
    known = ", ".join(map(str, dict.fromkeys(numbers))) or "none"
    if not chosen:
        raise InputError(f"{name} matches nothing: residues of the topology with a {kind} are {known}")
    raise InputError(
        f"{name} matches {len(chosen)} torsions (residues with a {kind}: {known}): "
        "name one residue, or its atoms as torsion:a,b,c,d"
    )


def given_atoms(kind: str, rest: str, name: str, n_atoms: int) -> list[int]:
    """Atom numbers as they are written, checked."""
    parts, count = rest.split(","), ATOM_COUNTS[kind]
    if len(parts) != count or not all(part.strip().isdigit() for part in parts):
        example = ",".join("0123"[:count])
        raise InputError(f"{name}: {kind} needs {count} atom numbers counted from 0, as in {kind}:{example}")
    atoms = [int(part) for part in parts]
    if max(atoms) >= n_atoms:
        raise InputError(f"{name}: atom {max(atoms)} is out of range, the topology has {n_atoms}: count from 0")
    if len(set(atoms)) < count:
        raise InputError(f"{name} names an atom twice: give {count} different ones")
    return atoms


def selected_atoms(selection: str, name: str, topology: Any) -> IntArray:
    """Atoms that a selection in mdtraj's language matches, shape=(k,)."""
    try:
        chosen = topology.select(selection or "all")
    except Exception as error:  # mdtraj's parser raises many kinds
        raise InputError(f"{name}: cannot read the selection {selection!r} ({error})") from None
    if not len(chosen):
        raise InputError(f"{name}: the selection {selection!r} matches no atom")
    return np.asarray(chosen, dtype=np.int64)


def _rmsd(rest: str, name: str, topology: Any) -> tuple[IntArray, Callable[[Any], FloatArray]]:
    import mdtraj

    file, _, selection = rest.partition(":")
    if not Path(file).is_file():
        raise InputError(f"{name}: there is no file {file}: give a structure, as in rmsd:native.pdb")
    try:
        reference: Any = mdtraj.load(file)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{name}: cannot read {file} ({error}): give a structure, as a PDB file") from None
    atoms = selected_atoms(selection, name, topology)
    if reference.n_atoms != topology.n_atoms:
        raise InputError(
            f"{name}: {file} has {reference.n_atoms} atoms, the topology has {topology.n_atoms}: give the same molecule"
        )
    return atoms, lambda frames: mdtraj.rmsd(frames, reference, 0, atom_indices=atoms)


def parse_cv(name: str, topology: Any) -> CollectiveVariable:
    """The collective variable of a specification.

    Args:
        name: as ``phi:2`` (residue number of the topology; ``phi`` where there is one), ``torsion:4,6,8,14`` (atoms
            from 0), ``rg:backbone`` (an mdtraj selection), ``rmsd:native.pdb:name CA``.
        topology: an mdtraj.Topology.

    Raises:
        InputError: it matches nothing, or more than one.
    """
    import mdtraj

    def variable(atoms: Any, compute: Callable[[Any], FloatArray], needs_whole: bool) -> CollectiveVariable:
        atoms = np.asarray(atoms, dtype=np.int64)
        period, unit = (2 * np.pi if kind == "torsion" else np.inf), ("radians" if kind in ANGULAR else "nm")
        return CollectiveVariable(name, period, unit, atoms, compute, _bonds_between(atoms, topology), needs_whole)

    kind, _, rest = name.partition(":")
    if kind in BACKBONE:
        given = backbone_atoms(kind, rest, name, topology)
        kind = "torsion"
    elif kind in ATOM_COUNTS:
        given = given_atoms(kind, rest, name, topology.n_atoms)
    if kind in ATOM_COUNTS:
        measure = getattr(mdtraj, f"compute_{kind.replace('torsion', 'dihedral')}s")
        return variable(given, lambda frames: measure(frames, [given])[:, 0], False)
    if kind == "rg":
        chosen = selected_atoms(rest, name, topology)
        elements = [topology.atom(int(i)).element for i in chosen]
        masses = np.array([element.mass if element else 1.0 for element in elements])
        return variable(chosen, lambda frames: mdtraj.compute_rg(frames.atom_slice(chosen), masses), True)
    if kind == "rmsd":
        return variable(*_rmsd(rest, name, topology), True)
    raise InputError(f"{name}: there is no such kind: choose among {KINDS}")


def torsion_atoms(name: str, topology: Any) -> IntArray | None:
    """Atoms of ``phi:RES``, ``psi:RES`` or ``torsion:a,b,c,d``, shape=(4,); None if it is none of them.

    Args:
        name: a specification, as for `parse_cv`.
        topology: an mdtraj.Topology.
    """
    try:
        found = parse_cv(name, topology)
    except InputError:
        return None
    return found.atoms if np.isfinite(found.period) else None
