"""Collective variables of trajectories, named as on the command line: ``phi:2``, ``distance:0,7``, ``rg:protein``."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, checked
from ..units import FloatArray, IntArray
from .residues import BACKBONE, RESIDUE, atom_label, atoms_label, backbone_atoms, residue_label

ATOM_COUNTS = {"torsion": 4, "angle": 3, "distance": 2}
KINDS = (
    "phi:RES, psi:RES, omega:RES, chi1:RES, torsion:a,b,c,d, angle:a,b,c, distance:a,b, rg[:SELECTION], "
    "rmsd:FILE[:SELECTION], column:NAME, npy:FILE"
)


@dataclass(frozen=True)
class CollectiveVariable:
    """One collective variable.

    Attributes:
        name: as given.
        label: as a paper would print it, as in ``phi of ALA2``.
        resolved: the atoms that it depends on, as the file names them, as in ``C of A/ACE1, N CA C of A/ALA2``.
        period: 2 pi for torsions, ``inf`` otherwise.
        unit: radians or nm.
        atoms: shape=(k,), the atoms that it depends on.
        compute: from an mdtraj.Trajectory to values, shape=(n,).
        bonds: shape=(m, 2), on the paths between these atoms, and along a torsion of a residue.
        needs_whole: whether a molecule must not be cut by the box; elsewhere the minimum image mends it.
    """

    name: str
    label: str
    resolved: str
    period: float
    unit: str
    atoms: IntArray
    compute: Callable[[Any], FloatArray]
    bonds: IntArray
    needs_whole: bool


MAX_LISTED_ATOMS = 12
"""Of a collective variable; more are counted."""


def _is_certain(first: Any, second: Any) -> bool:
    """Whether a bond is no guess: readers join whatever residues follow each other, over gaps and ends of chains."""
    ends = sorted((first, second), key=lambda atom: int(atom.index))
    return [atom.name for atom in ends] != ["C", "N"] or ends[1].residue.resSeq - ends[0].residue.resSeq in (0, 1)


def _bonds_along(atoms: IntArray, topology: Any) -> list[tuple[int, int]]:
    """Bonds between atoms that follow each other, guessed ones too."""
    known = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    return [(int(a), int(b)) for a, b in itertools.pairwise(atoms) if frozenset((int(a), int(b))) in known]


def _bonds_between(atoms: IntArray, topology: Any, along: Iterable[tuple[int, int]]) -> IntArray:
    """Bonds on the paths that lead from atom to atom, and those along some atoms, shape=(m, 2)."""
    import networkx

    graph = networkx.Graph([(bond[0].index, bond[1].index) for bond in topology.bonds if _is_certain(*bond)])
    graph.add_edges_from(along)
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


def _measured(kind: str, atoms: list[int]) -> tuple[IntArray, Callable[[Any], FloatArray]]:
    """A torsion, angle or distance of its atoms, by the minimum image in a periodic box."""
    import mdtraj

    measure, chosen = getattr(mdtraj, f"compute_{kind.replace('torsion', 'dihedral')}s"), np.array(atoms)
    return chosen, lambda frames: measure(frames, [chosen])[:, 0]


def _radius_of_gyration(atoms: IntArray, topology: Any) -> tuple[IntArray, Callable[[Any], FloatArray]]:
    import mdtraj

    elements = [topology.atom(int(i)).element for i in atoms]
    masses = np.array([element.mass if element else 1.0 for element in elements])
    return atoms, lambda frames: mdtraj.compute_rg(frames.atom_slice(atoms), masses)


def _rmsd(rest: str, name: str, topology: Any) -> tuple[IntArray, Callable[[Any], FloatArray]]:
    import mdtraj

    file, _, selection = rest.partition(":")
    if not Path(file).is_file():
        raise InputError(f"{name}: there is no file {file}: give a structure, as in rmsd:native.pdb")
    try:
        reference: Any = mdtraj.load(file)
    except Exception as error:  # readers of text stumble over broken files in any way
        raise InputError(f"{name}: cannot read {file} ({error}): give a structure, as a PDB file") from None
    atoms = selected_atoms(selection, name, topology)
    if reference.n_atoms != topology.n_atoms:
        raise InputError(
            f"{name}: {file} has {reference.n_atoms} atoms, the topology has {topology.n_atoms}: give the same molecule"
        )
    return atoms, lambda frames: mdtraj.rmsd(frames, reference, 0, atom_indices=atoms)


def _label(kind: str, rest: str, atoms: IntArray, topology: Any) -> str:
    """As a paper would print it."""
    if kind in BACKBONE:
        match, residue = RESIDUE.fullmatch(rest), topology.atom(int(atoms[1])).residue
        return f"{kind} of {residue_label(residue, chain=match is not None and match['chain'] is not None)}"
    if kind == "torsion":
        names = "-".join(topology.atom(int(i)).name for i in atoms)
        return f"torsion {names} of {residue_label(topology.atom(int(atoms[1])).residue)}"
    if kind in ATOM_COUNTS:
        return f"{kind} of {' and '.join(atom_label(topology, i) for i in atoms)}"
    if kind == "rg":
        return "radius of gyration" + (f" of {rest}" if rest else "")
    file, _, selection = rest.partition(":")
    return f"RMSD from {Path(file).stem}" + (f" of {selection}" if selection else "")


@checked
def parse_cv(name: str, topology: Any) -> CollectiveVariable:
    """The collective variable of a specification.

    Args:
        name: as ``phi:2`` (residue number as the topology's file writes it; ``phi`` where there is one), ``phi:B/52A``
            (chain or segment, and insertion code), ``torsion:4,6,8,14`` (atoms from 0), ``rg:backbone`` (an mdtraj
            selection), ``rmsd:native.pdb:name CA``.
        topology: an mdtraj.Topology.

    Raises:
        InputError: it matches nothing, or more than one.
    """
    kind, _, rest = name.partition(":")
    if kind in BACKBONE:
        chosen, compute = _measured("torsion", backbone_atoms(kind, rest, name, topology))
    elif kind in ATOM_COUNTS:
        chosen, compute = _measured(kind, given_atoms(kind, rest, name, topology.n_atoms))
    elif kind == "rg":
        chosen, compute = _radius_of_gyration(selected_atoms(rest, name, topology), topology)
    elif kind == "rmsd":
        chosen, compute = _rmsd(rest, name, topology)
    else:
        raise InputError(f"{name}: there is no such kind: choose among {KINDS}")
    along = []
    if kind in BACKBONE:
        along = list(itertools.pairwise(map(int, chosen)))
    elif kind in ("torsion", "angle"):
        along = _bonds_along(chosen, topology)
    is_torsion, listed = kind in (*BACKBONE, "torsion"), len(chosen) <= MAX_LISTED_ATOMS
    return CollectiveVariable(
        name=name,
        label=_label(kind, rest, chosen, topology),
        resolved=atoms_label(topology, chosen) if listed else f"{len(chosen)} atoms",
        period=2 * np.pi if is_torsion else np.inf,
        unit="radians" if is_torsion or kind == "angle" else "nm",
        atoms=chosen,
        compute=compute,
        bonds=_bonds_between(chosen, topology, along),
        needs_whole=kind in ("rg", "rmsd"),
    )


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
