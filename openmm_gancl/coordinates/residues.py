"""Residues as the files name them, by chain, number and insertion code, and the torsions of their atoms."""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..units import IntArray

BACKBONE = ("phi", "psi", "omega", "chi1")

RESIDUE = re.compile(r"(?:(?P<chain>[^/:\s]+)/)?(?P<number>-?\d+)(?P<code>[A-Za-z]?)")
"""A residue of a specification: 2, 52A (with an insertion code), B/2 (of chain or segment B)."""

MAX_CANDIDATES = 12
"""That a message names."""


def set_insertion_codes(topology: Any, codes: Iterable[str]) -> Any:
    """Give each residue of an mdtraj.Topology, which has no place for it, its insertion code; the topology."""
    for residue, code in zip(topology.residues, codes, strict=True):
        residue.insertion_code = code.strip()
    return topology


def insertion_code(residue: Any) -> str:
    """Of an mdtraj residue, empty if it has none."""
    return str(getattr(residue, "insertion_code", ""))


def from_openmm(topology: Any) -> Any:
    """The mdtraj.Topology of an OpenMM topology, with insertion codes.

    Args:
        topology: an openmm.app.Topology, whose residues' ids are the numbers of its file.
    """
    import mdtraj

    return set_insertion_codes(
        mdtraj.Topology.from_openmm(topology), (str(residue.insertionCode) for residue in topology.residues())
    )


def _counts_from_zero(topology: Any) -> bool:
    """Whether residues have mdtraj's own numbers, 0, 1, 2, ..., and no file is known to have written these."""
    return all(
        residue.resSeq == residue.index and not hasattr(residue, "insertion_code") for residue in topology.residues
    )


def chain_names(residue: Any) -> tuple[str, ...]:
    """Names that its chain may be given by: the chain's and the segment's."""
    names = (str(residue.chain.chain_id or "").strip(), str(residue.segment_id or "").strip())
    return tuple(dict.fromkeys(name for name in names if name))


def residue_label(residue: Any, *, chain: bool = False) -> str:
    """As in ALA52A; in front of it the chain, where there is one and it is wanted, as in B/ALA52A."""
    names = chain_names(residue)
    return (f"{names[0]}/" if chain and names else "") + f"{residue.name}{residue.resSeq}{insertion_code(residue)}"


def atom_label(topology: Any, atom: int) -> str:
    """As in ``C of A/ALA2``."""
    found = topology.atom(int(atom))
    return f"{found.name} of {residue_label(found.residue, chain=True)}"


def atoms_label(topology: Any, atoms: Iterable[int]) -> str:
    """Names of some atoms by residue, in order, as in ``C of A/ACE1, N CA C of A/ALA2``."""
    groups: list[tuple[Any, list[str]]] = []
    for atom in (topology.atom(int(i)) for i in atoms):
        if not groups or groups[-1][0] is not atom.residue:
            groups.append((atom.residue, []))
        groups[-1][1].append(atom.name)
    return ", ".join(f"{' '.join(names)} of {residue_label(residue, chain=True)}" for residue, names in groups)


def _torsions(kind: str, topology: Any) -> IntArray:
    """Of a kind, shape=(n, 4), where no bond along it is missing between residues that have bonds of their own."""
    from mdtraj.geometry import dihedral

    rows = np.asarray(getattr(dihedral, f"indices_{kind}")(topology), dtype=np.int64).reshape(-1, 4)
    bonds, bonded = set(), set()
    for first, second in topology.bonds:
        bonds.add(frozenset((first.index, second.index)))
        if first.residue is second.residue:
            bonded.add(first.residue.index)

    def may_be_bonded(a: int, b: int) -> bool:
        residues = {topology.atom(a).residue.index, topology.atom(b).residue.index}
        return len(residues) == 1 or not residues <= bonded or frozenset((a, b)) in bonds

    kept = [all(may_be_bonded(int(a), int(b)) for a, b in itertools.pairwise(row)) for row in rows]
    return np.asarray(rows[np.array(kept, dtype=bool)])


def _check_names(atoms: Sequence[int], name: str, topology: Any) -> None:
    """See that none of the atoms shares its name within its residue."""
    for atom in (topology.atom(int(i)) for i in atoms):
        if [other.name for other in atom.residue.atoms].count(atom.name) > 1:
            raise InputError(
                f"{name}: {residue_label(atom.residue, chain=True)} has two atoms named {atom.name} (alternate "
                "locations, or two residues under one number): name the atoms, as torsion:a,b,c,d"
            )


def _named(rows: Sequence[Any], topology: Any) -> list[str]:
    """The residue of each torsion as a specification names it and no other; empty where none does."""
    owners = [topology.atom(int(row[1])).residue for row in rows]
    names = []
    for residue in owners:
        number = f"{residue.resSeq}{insertion_code(residue)}"
        names.append([number, *(f"{chain}/{number}" for chain in chain_names(residue))])
    every = [name for mine in names for name in mine]
    return [next((name for name in mine if every.count(name) == 1), "") for mine in names]


def _owner(row: Any, topology: Any) -> str:
    return residue_label(topology.atom(int(row[1])).residue, chain=True)


def _by_atoms(row: Any) -> str:
    return "torsion:" + ",".join(map(str, row))


def _listed(texts: list[str]) -> str:
    return ", ".join(texts[:MAX_CANDIDATES]) + (", ..." if len(texts) > MAX_CANDIDATES else "")


def _those_of(residue: str, kind: str, name: str, found: IntArray, topology: Any) -> list[Any]:
    """The torsions of a residue that is named."""
    match = RESIDUE.fullmatch(residue)
    if match is None:
        raise InputError(
            f"{name}: {residue} is no residue number: give one, as in {kind}:2, with an insertion code or a chain "
            f"as in {kind}:52A and {kind}:B/52A"
        )
    if _counts_from_zero(topology):
        raise InputError(
            f"{name}: the residues of this topology are numbered from 0, as mdtraj does where a file writes no "
            "number: give the topology's file, which says how it counts, or name the atoms, as torsion:a,b,c,d"
        )
    chosen = []
    for row in found:
        owner = topology.atom(int(row[1])).residue
        same = owner.resSeq == int(match["number"]) and insertion_code(owner) == match["code"]
        if same and (match["chain"] is None or match["chain"] in chain_names(owner)):
            chosen.append(row)
    return chosen


def backbone_atoms(kind: str, residue: str, name: str, topology: Any) -> list[int]:
    """The four atoms of a backbone or side-chain torsion.

    Args:
        kind: one of `BACKBONE`.
        residue: its number as the file writes it, perhaps with an insertion code and a chain, as in 2, 52A, B/52A;
            empty for the only one.
        name: the specification, for messages.
        topology: an mdtraj.Topology.

    Raises:
        InputError: no torsion matches, or several do; the message names those that could be meant.
    """
    found = _torsions(kind, topology)
    chosen = _those_of(residue, kind, name, found, topology) if residue else list(found)
    if len(chosen) > 1:
        names = _named(chosen, topology)
        texts = [
            f"{f'{kind}:{only}' if only else _by_atoms(row)} ({_owner(row, topology)})"
            for row, only in zip(chosen, names, strict=True)
        ]
        raise InputError(f"{name} matches {len(chosen)} torsions: name one of {_listed(texts)}")
    if not chosen:
        names = _named(list(found), topology)
        residues = [
            only or f"{_owner(row, topology)} ({_by_atoms(row)})" for row, only in zip(found, names, strict=True)
        ]
        known = _listed(residues) or "none"
        raise InputError(f"{name} matches nothing: residues of the topology that have {kind}: {known}")
    _check_names(chosen[0], name, topology)
    return [int(atom) for atom in chosen[0]]
