"""The declared state: chirality, trans peptide bonds and unbroken bonds are part of the target."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..coordinates.geometry import dihedral_angles, wrap
from ..errors import InputError
from ..units import FloatArray, IntArray

Chirality = Literal["L", "structure", "none"]
TransPeptides = bool | Literal["auto"]

MAX_BOND_RATIO = 1.6
"""A bond longer than this many times its length in the structure is broken."""


def _no_atoms(columns: int) -> IntArray:
    return np.zeros((0, columns), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class DeclaredState:
    """The region of configuration space that the target is restricted to.

    The empty state, that of toys, holds every finite configuration.

    Args:
        chiral_centres: shape=(c, 4), a centre and three of its neighbours.
        chirality: shape=(c,), the sign of the triple product of the three bonds, +1 or -1.
        trans_peptides: shape=(p, 4), omega torsions that stay within pi/2 of trans.
        bonds: shape=(b, 2).
        longest_bonds: shape=(b,), nm; a longer bond is broken.
    """

    chiral_centres: IntArray = field(default_factory=lambda: _no_atoms(4))
    chirality: FloatArray = field(default_factory=lambda: np.zeros(0))
    trans_peptides: IntArray = field(default_factory=lambda: _no_atoms(4))
    bonds: IntArray = field(default_factory=lambda: _no_atoms(2))
    longest_bonds: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def is_empty(self) -> bool:
        """Whether every finite configuration is inside."""
        return not (len(self.chiral_centres) or len(self.trans_peptides) or len(self.bonds))

    def violations(self, positions: FloatArray) -> NDArray[np.str_]:
        """Why each frame is outside the state.

        Args:
            positions: shape=(n, n_atoms, 3), nm.

        Returns:
            shape=(n,), one of ``"" "cis" "chirality" "bond" "nan"``; the last that applies.
        """
        finite: NDArray[np.bool_] = np.all(np.isfinite(positions), axis=(1, 2))
        if self.is_empty:
            return np.where(finite, "", "nan").astype("<U9")
        x = np.where(finite[:, None, None], positions, 0.0)
        # A clash can throw atoms so far that products overflow: NaN then compares as outside.
        with np.errstate(all="ignore"):
            omega = dihedral_angles(x, self.trans_peptides)
            signs = _triple_signs(x, self.chiral_centres)
            lengths = np.linalg.norm(x[:, self.bonds[:, 1]] - x[:, self.bonds[:, 0]], axis=-1)
            kept = {
                "cis": (np.abs(wrap(omega - np.pi)) < np.pi / 2).all(axis=1),
                "chirality": (signs == self.chirality).all(axis=1),
                "bond": (lengths <= self.longest_bonds).all(axis=1),
                "nan": finite,
            }
        reasons = np.full(len(x), "", dtype="<U9")
        for reason, inside in kept.items():
            reasons[~inside] = reason
        return reasons

    def inside(self, positions: FloatArray) -> NDArray[np.bool_]:
        """Whether each frame, shape=(n, n_atoms, 3) in nm, is inside; NaN is not. Shape=(n,)."""
        return self.violations(positions) == ""


def _triple_signs(positions: FloatArray, centres: IntArray) -> FloatArray:
    """Sign of (a - c) . ((b - c) x (d - c)) for rows (c, a, b, d); shape=(n, len(centres))."""
    p = positions[:, centres]
    a, b, d = (p[:, :, i] - p[:, :, 0] for i in (1, 2, 3))
    return np.sign(np.sum(a * np.cross(b, d), axis=-1))


def _neighbours(topology: Any) -> dict[int, list[Any]]:
    neighbours: dict[int, dict[int, Any]] = defaultdict(dict)
    for one, other in topology.bonds():
        neighbours[one.index][other.index] = other
        neighbours[other.index][one.index] = one
    return {index: [atoms[i] for i in sorted(atoms)] for index, atoms in neighbours.items()}


def _is(symbol: str, atom: Any) -> bool:
    return atom.element is not None and atom.element.symbol == symbol


def _has_backbone_names(residue: Any) -> bool:
    return {"N", "CA", "C"} <= {atom.name for atom in residue.atoms()}


def _is_carbonyl(atom: Any, neighbours: dict[int, list[Any]]) -> bool:
    """A carbon of three neighbours, one of them an oxygen that has no other."""
    around = neighbours[atom.index]
    ends = [one for one in around if _is("O", one) and len(neighbours[one.index]) == 1]
    return _is("C", atom) and len(around) == 3 and len(ends) == 1


def _is_saturated(atom: Any, neighbours: dict[int, list[Any]]) -> bool:
    return _is("C", atom) and len(neighbours[atom.index]) == 4


def _alpha_carbons(topology: Any, neighbours: dict[int, list[Any]]) -> Iterator[tuple[list[int], Any]]:
    """N, CA, C and CB of each residue by their names; without names a CH with a nitrogen, a carbonyl and a carbon."""
    for residue in topology.residues():
        index = {atom.name: atom.index for atom in residue.atoms()}
        if {"N", "CA", "C", "CB"} <= index.keys():
            yield [index[name] for name in ("N", "CA", "C", "CB")], residue
        if _has_backbone_names(residue):
            continue
        for centre in residue.atoms():
            around = neighbours.get(centre.index, [])
            nitrogens = [atom for atom in around if _is("N", atom)]
            carbonyls = [atom for atom in around if _is_carbonyl(atom, neighbours)]
            others = [atom for atom in around if _is("C", atom) and atom not in carbonyls]
            hydrogens = [atom for atom in around if _is("H", atom)]
            if _is("C", centre) and all(len(one) == 1 for one in (nitrogens, carbonyls, others, hydrogens)):
                yield [nitrogens[0].index, centre.index, carbonyls[0].index, others[0].index], residue


def _check_l_residues(topology: Any, positions: FloatArray, neighbours: dict[int, list[Any]]) -> None:
    for atoms, residue in _alpha_carbons(topology, neighbours):
        n, ca, c, cb = positions[atoms]
        if np.dot(np.cross(ca - n, c - ca), cb - ca) >= 0:
            raise InputError(
                f"residue {residue.name} {residue.id} of the structure has the D form: give an L structure, "
                'or set chirality = "structure" to keep it'
            )


def _tetrahedral_centres(neighbours: dict[int, list[Any]]) -> IntArray:
    """Atoms of four neighbours, at least three of them heavy: rows of the centre and the first three."""
    rows = []
    for centre, atoms in sorted(neighbours.items()):
        heavy = [atom.index for atom in atoms if not _is("H", atom)]
        if len(atoms) == 4 and len(heavy) >= 3:
            rows.append([centre, *heavy[:3]])
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _named_peptide_bond(c: Any, n: Any, neighbours: dict[int, list[Any]]) -> list[int] | None:
    """Its omega torsion, by the names of C and N in two residues."""
    if (c.name, n.name) != ("C", "N") or c.residue is n.residue:
        return None
    before = [atom for atom in neighbours[c.index] if _is("C", atom)]
    after = [atom for atom in neighbours[n.index] if _is("C", atom) and atom.index != c.index]
    if not (before and after):
        return None
    # Proline's N has two carbons: the backbone's decides.
    last = min(after, key=lambda atom: (atom.name != "CA", atom.index))
    return [before[0].index, c.index, n.index, last.index]


def _in_ring(one: Any, other: Any, neighbours: dict[int, list[Any]]) -> bool:
    """Whether two bonded atoms are connected another way, too."""
    seen, front = {one.index}, [atom.index for atom in neighbours[one.index] if atom.index != other.index]
    while front:
        here = front.pop()
        if here == other.index:
            return True
        if here not in seen:
            seen.add(here)
            front += [atom.index for atom in neighbours[here]]
    return False


def _unnamed_peptide_bond(c: Any, n: Any, neighbours: dict[int, list[Any]]) -> list[int] | None:
    """Its omega torsion, by elements and neighbours, in residues without the backbone's names.

    A secondary amide between two saturated carbons, in no ring; no urea, imide, carbamate, anilide or benzamide, no
    base, and no nitrogen with two carbons beside, of which nothing says which is to be trans.
    """
    if any(_has_backbone_names(atom.residue) and atom.name != name for atom, name in ((c, "C"), (n, "N"))):
        return None
    if not (_is_carbonyl(c, neighbours) and _is("N", n) and len(neighbours[n.index]) == 3):
        return None
    before = [atom for atom in neighbours[c.index] if _is_saturated(atom, neighbours)]
    after = [atom for atom in neighbours[n.index] if _is_saturated(atom, neighbours)]
    hydrogens = [atom for atom in neighbours[n.index] if _is("H", atom)]
    if not len(before) == len(after) == len(hydrogens) == 1 or _in_ring(c, n, neighbours):
        return None
    return [before[0].index, c.index, n.index, after[0].index]


def _peptide_bonds(topology: Any, neighbours: dict[int, list[Any]]) -> Iterator[tuple[list[int], Any]]:
    """Omega torsions (carbon, C, N, CA or the capping carbon), each with the residue of its N."""
    for bond in topology.bonds():
        c, n = sorted(bond, key=lambda atom: (_is("N", atom), str(atom.name)))
        omega = _named_peptide_bond(c, n, neighbours) or _unnamed_peptide_bond(c, n, neighbours)
        if omega is not None:
            yield omega, n.residue


def _turned_about(labels: IntArray | None) -> set[frozenset[int]]:
    """Bonds that torsions turn about, of shape=(d, 4)."""
    return set() if labels is None else {frozenset(bond) for bond in labels[:, 1:3].tolist()}


def _trans_peptides(
    topology: Any,
    positions: FloatArray,
    neighbours: dict[int, list[Any]],
    wanted: TransPeptides,
    turned: set[frozenset[int]],
) -> IntArray:
    if wanted is False:
        return _no_atoms(4)
    rows = []
    for atoms, residue in _peptide_bonds(topology, neighbours):
        if wanted == "auto" and frozenset(atoms[1:3]) in turned:
            continue
        omega = dihedral_angles(positions[None], np.array([atoms]))[0, 0]
        if abs(wrap(omega - np.pi)) < np.pi / 2:
            rows.append(atoms)
        elif wanted is True:
            raise InputError(
                f"the peptide bond before residue {residue.name} {residue.id} is cis in the structure: "
                "give a trans structure, or set trans_peptides = false"
            )
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def other_isomers(
    topology: Any, structure: FloatArray, positions: FloatArray, labels: IntArray | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Which configurations are another isomer than a structure: what is the other way around, and in which of them.

    Args:
        topology: ``openmm.app.Topology`` with bonds.
        structure: shape=(n_atoms, 3), nm.
        positions: shape=(n, n_atoms, 3), nm.
        labels: shape=(d, 4), torsions that may have any value: peptide bonds that they turn about are left out.

    Returns:
        by what differs (a chiral centre, a peptide bond) in any, shape=(n,).
    """
    neighbours, turned = _neighbours(topology), _turned_about(labels)
    omegas = [atoms for atoms, _ in _peptide_bonds(topology, neighbours) if frozenset(atoms[1:3]) not in turned]
    both = np.concatenate([structure[None], positions])
    signs = {
        "a chiral centre": _triple_signs(both, _tetrahedral_centres(neighbours)),
        "a peptide bond": np.sign(np.cos(dihedral_angles(both, np.array(omegas, dtype=np.int64).reshape(-1, 4)))),
    }
    others = {what: (found[1:] != found[0]).any(axis=1) for what, found in signs.items()}
    return {what: found for what, found in others.items() if found.any()}


def undeclared_centres(topology: Any, state: DeclaredState) -> IntArray:
    """Tetrahedral centres that a state says nothing of, atom indices; none where it declares nothing at all."""
    if not len(state.bonds):
        return np.empty(0, dtype=np.int64)
    return np.setdiff1d(_tetrahedral_centres(_neighbours(topology))[:, 0], state.chiral_centres[:, 0])


def declare_state(
    topology: Any,
    positions: FloatArray,
    *,
    chirality: Chirality = "structure",
    trans_peptides: TransPeptides = "auto",
    labels: IntArray | None = None,
) -> DeclaredState:
    """Read the declared state off a structure.

    Args:
        topology: ``openmm.app.Topology`` with bonds.
        positions: shape=(n_atoms, 3), nm.
        chirality: ``"structure"`` keeps every tetrahedral centre of at least three heavy neighbours at
            its sign in the structure; ``"L"`` also refuses D amino acids; ``"none"`` keeps none.
        trans_peptides: True keeps every peptide bond trans and refuses a cis one; ``"auto"`` keeps those
            that are trans in the structure; False keeps none. They are found by names, and in residues without N, CA
            and C as secondary amides between two saturated carbons, in no ring.
        labels: shape=(d, 4), torsions that may have any value: ``"auto"`` keeps no peptide bond that they turn about.

    Raises:
        InputError: the structure is not in the declared state.
    """
    neighbours = _neighbours(topology)
    if chirality == "L":
        _check_l_residues(topology, positions, neighbours)
    centres = _no_atoms(4) if chirality == "none" else _tetrahedral_centres(neighbours)
    pairs = sorted(sorted((a.index, b.index)) for a, b in topology.bonds())
    bonds = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return DeclaredState(
        chiral_centres=centres,
        chirality=_triple_signs(positions[None], centres)[0],
        trans_peptides=_trans_peptides(topology, positions, neighbours, trans_peptides, _turned_about(labels)),
        bonds=bonds,
        longest_bonds=MAX_BOND_RATIO * np.linalg.norm(positions[bonds[:, 1]] - positions[bonds[:, 0]], axis=1),
    )
