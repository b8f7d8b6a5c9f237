"""Whether frames are what their topology and their box say: one check of the lengths of bonds."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..coordinates.residues import atom_label
from ..coordinates.specification import CollectiveVariable
from ..errors import InputError
from ..units import BoolArray, FloatArray, IntArray

MAX_BOND_LENGTH, MAX_BEAD_DISTANCE = 0.3, 1.0
"""nm; longer bonds of atoms, and of beads of coarse models, are none."""

MAX_BOX_LENGTH = 1e6
"""nm: the square of a longer one may be no number any more."""

MIN_FRAMES, MIN_DEVIATION, MAX_SPREADS = 10, 0.02, 8.0
"""Frames in which a bond must be whole to know its length; nm, and spreads, by which one across the box may differ."""

MIN_BOND_LENGTH = 0.06
"""nm; shorter than those of hydrogen."""

MAX_STEP = 0.7
"""Of the box along one of its vectors, within one frame: a molecule went into another image."""

MAX_ATOM_DENSITY = 300.0
"""Atoms per cubic nm, that no box holds; water has 100, and dense solids less than 200."""


RADII = {
    "H": 0.031,
    "B": 0.084,
    "C": 0.076,
    "N": 0.071,
    "O": 0.066,
    "F": 0.057,
    "Si": 0.111,
    "P": 0.107,
    "S": 0.105,
    "Cl": 0.102,
    "Se": 0.120,
    "Br": 0.120,
    "I": 0.139,
}
"""nm, covalent (Cordero et al. 2008, doi 10.1039/b801115j)."""

MAX_STRETCH = 1.35
"""Of the sum of their radii, that bonded atoms lie apart in the median of frames; two bonds away it is 1.6."""

MAX_MEASURED = 100
"""Frames in which the bonds beside a collective variable are measured."""


def _bonds_beside(variables: Sequence[CollectiveVariable], topology: Any) -> tuple[IntArray, FloatArray]:
    """Bonds of the atoms of distances, angles and torsions, shape=(m, 2), and how long each may be, nm, shape=(m,)."""
    atoms = {int(atom) for variable in variables if len(variable.atoms) <= 4 for atom in variable.atoms}
    bonds, limits = [], []
    for pair in topology.bonds:
        radii = [RADII.get(getattr(atom.element, "symbol", ""), 0.0) for atom in (pair[0], pair[1])]
        # hydrogens of rigid water are bonded to each other
        if min(radii) > 0 and max(radii) > RADII["H"] and {pair[0].index, pair[1].index} & atoms:
            bonds.append((pair[0].index, pair[1].index))
            limits.append(MAX_STRETCH * sum(radii))
    return np.array(bonds, dtype=np.int64).reshape(-1, 2), np.array(limits)


def _is_atomistic(topology: Any) -> bool:
    """Whether particles are atoms, not beads: a residue has a whole backbone, or an atom is hydrogen."""
    for residue in topology.residues:
        names = {atom.name for atom in residue.atoms}
        symbols = {atom.element.symbol for atom in residue.atoms if atom.element is not None}
        if {"N", "CA", "C"} <= names or "H" in symbols:
            return True
    return False


class BondCheck:
    """Refuses frames in which a bond that a collective variable rests on is longer than any bond.

    Args:
        variables: the collective variables.
        topology: an mdtraj.Topology.
    """

    def __init__(self, variables: list[CollectiveVariable], topology: Any):
        self.topology, self.variables = topology, variables
        self.doubts: tuple[str, ...] | None = None
        self.longest = MAX_BOND_LENGTH if _is_atomistic(topology) else MAX_BEAD_DISTANCE

    def _refuse(self, where: str, variable: CollectiveVariable, bond: Any, length: float, boxed: bool) -> None:
        first, second = sorted(map(int, bond))
        whole = "make molecules whole (mdtraj's make_molecules_whole, say)"
        gap = "name other atoms if a gap or the end of a chain lies between them"
        if boxed and variable.needs_whole:
            remedy = whole
        else:
            remedy = f"{gap}, or {'give the frames the box they were made in' if boxed else whole}"
        image = " by the minimum image" if boxed and not variable.needs_whole else ""
        names = " and ".join(atom_label(self.topology, atom) for atom in (first, second))
        raise InputError(
            f"{where}: the bond between atoms {first} and {second} ({names}), which {variable.name} rests on, is "
            f"{length:.2f} nm long{image}: {remedy}"
        )

    def _check_boxes(self, frames: Any, where: Callable[[int], str]) -> None:
        """Refuse boxes that cannot hold the frames."""
        from mdtraj.utils.unitcell import check_valid_unitcell_angles

        lengths, angles = frames.unitcell_lengths, frames.unitcell_angles
        small = (np.abs(angles) <= 180.0).all(axis=1)
        valid = np.asarray(check_valid_unitcell_angles(*np.where(small[:, None], angles, 90.0).T))
        impossible = np.isfinite(angles).all(axis=1) & ~(small & valid)
        impossible |= (np.abs(lengths) > MAX_BOX_LENGTH).any(axis=1)
        if impossible.any():
            row = int(impossible.argmax())
            sizes, corners = (", ".join(f"{x:.4g}" for x in part[row]) for part in (lengths, angles))
            raise InputError(
                f"{where(row)}: no box has lengths of {sizes} nm and angles of {corners} degrees: remove it, or give "
                "the one that the frames were made in"
            )
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said below
            vectors = np.asarray(frames.unitcell_vectors, dtype=float)
            volumes = np.abs(np.linalg.det(vectors))
            a, b, c = vectors.transpose(1, 0, 2)
            areas = [np.linalg.norm(np.cross(*pair), axis=1) for pair in ((b, c), (c, a), (a, b))]
            heights = np.min([volumes / area for area in areas], axis=0)
            possible = (heights > 2 * self.longest) & (volumes * MAX_ATOM_DENSITY > self.topology.n_atoms)
        if not possible.all():
            row = int(possible.argmin())
            shown = " x ".join(f"{x:.3g}" for x in lengths[row])
            raise InputError(
                f"{where(row)}: a box of {shown} nm cannot hold these {self.topology.n_atoms} atoms: remove it, or "
                "give the one that the frames were made in"
            )

    def __call__(self, frames: Any, where: Callable[[int], str]) -> None:
        """Check some frames.

        Args:
            frames: an mdtraj.Trajectory.
            where: the name of a frame, for messages.

        Raises:
            InputError: a bond is too long, or a box too small.
        """
        import mdtraj

        boxed = frames.unitcell_lengths is not None
        if boxed and any(len(variable.atoms) > 1 for variable in self.variables):
            self._check_boxes(frames, where)
        if self.doubts is None:
            self.doubts = self._order_doubts(frames.slice(slice(MAX_MEASURED), copy=False))
        for variable in self.variables:
            if boxed and variable.needs_whole:
                self._check_molecules(frames, variable, where)
            if not len(variable.bonds):
                continue
            image = boxed and not variable.needs_whole
            lengths = mdtraj.compute_distances(frames, variable.bonds, periodic=image)
            self._check_unit(lengths, variable, where)
            broken: BoolArray = ~(lengths <= self.longest)
            if broken.any():
                row, bond = np.argwhere(broken)[0]
                self._refuse(where(int(row)), variable, variable.bonds[bond], float(lengths[row, bond]), boxed)
            if image:
                self._check_images(frames, variable, lengths, where)
            if image and len(variable.atoms) == 2:
                self._check_ends(frames, variable, where)

    def _order_doubts(self, frames: Any) -> tuple[str, ...]:
        """A doubt where atoms that the topology bonds are not next to each other: they are others of the frames."""
        import mdtraj

        bonds, limits = _bonds_beside(self.variables, self.topology)
        if self.longest != MAX_BOND_LENGTH or not len(bonds):
            return ()
        with np.errstate(all="ignore"):
            lengths = mdtraj.compute_distances(frames, bonds, periodic=frames.unitcell_lengths is not None)
        longest = np.median(lengths, axis=0)
        if not (longest > limits).any():
            return ()
        worst = int((longest / limits).argmax())
        names = " and ".join(atom_label(self.topology, int(atom)) for atom in bonds[worst])
        return (
            f"{names}, which the topology bonds, are {longest[worst]:.2f} nm apart in the frames, longer than any such "
            "bond: the atoms of the trajectory are in another order: give the topology that it was written with",
        )

    def _check_unit(self, lengths: FloatArray, variable: CollectiveVariable, where: Callable[[int], str]) -> None:
        """Refuse positions in a larger unit than the format's: bonds of atoms are then far too short."""
        usual = float(np.median(lengths))
        if self.longest == MAX_BOND_LENGTH and usual < MIN_BOND_LENGTH:
            raise InputError(
                f"{where(0)}: the bonds that {variable.name} rests on are {usual:.2g} nm long: the positions are not "
                "in the unit of their format, or are no atoms of this topology; convert them"
            )

    def _check_molecules(self, frames: Any, variable: CollectiveVariable, where: Callable[[int], str]) -> None:
        """Refuse molecules that the box puts now into one image, now into another: what spans them jumps."""
        import networkx

        graph = networkx.Graph([tuple(map(int, bond)) for bond in variable.bonds])
        graph.add_nodes_from(map(int, variable.atoms))
        molecules = [sorted(part) for part in networkx.connected_components(graph)]
        if len(molecules) < 2:
            return
        centres = np.stack([frames.xyz[:, part].mean(axis=1) for part in molecules], axis=1).astype(float)
        inverse = np.linalg.inv(frames.unitcell_vectors.astype(float))
        apart = np.einsum("nmi,nij->nmj", centres - centres[:, :1], inverse)
        steps = np.abs(np.diff(apart, axis=0)).max(axis=2)
        jumps = steps > MAX_STEP
        if jumps.any():
            row, molecule = np.argwhere(jumps)[0]
            names = " and ".join(atom_label(self.topology, molecules[i][0]) for i in (0, int(molecule)))
            raise InputError(
                f"{where(int(row) + 1)}: the molecules of {names} move apart by {steps[row, molecule]:.1f} of the box "
                f"within one frame, so that the box cuts what {variable.name} spans: put all molecules into one image"
            )

    def _check_images(
        self, frames: Any, variable: CollectiveVariable, lengths: FloatArray, where: Callable[[int], str]
    ) -> None:
        """Refuse a box by whose image a bond is not as long as where the box does not cut it."""
        import mdtraj

        cut = np.abs(mdtraj.compute_distances(frames, variable.bonds, periodic=False) - lengths) > 1e-3
        for bond in np.flatnonzero(cut.any(axis=0) & ((~cut).sum(axis=0) >= MIN_FRAMES)):
            whole = lengths[~cut[:, bond], bond]
            usual = np.median(whole)
            allowed = max(MIN_DEVIATION, MAX_SPREADS * 1.5 * np.median(np.abs(whole - usual)))
            wrong = cut[:, bond] & (np.abs(lengths[:, bond] - usual) > allowed)
            if wrong.any():
                row = int(wrong.argmax())
                names = " and ".join(atom_label(self.topology, int(atom)) for atom in variable.bonds[bond])
                raise InputError(
                    f"{where(row)}: {names} are {lengths[row, bond]:.3f} nm apart by the minimum image, {usual:.3f} nm "
                    "where the box does not cut their bond: give the frames the box that they were made in"
                )

    def _check_ends(self, frames: Any, variable: CollectiveVariable, where: Callable[[int], str]) -> None:
        """Refuse a distance within a molecule that reaches further than half the box: its minimum image is another."""
        import mdtraj

        along = _path_along(variable.bonds, *map(int, variable.atoms))
        if along is None:
            return
        steps = mdtraj.compute_displacements(frames, along, periodic=True).sum(axis=1)
        image = mdtraj.compute_displacements(frames, [variable.atoms], periodic=True)[:, 0]
        other = np.linalg.norm(steps - image, axis=1) > 0.01
        if other.any():
            row = int(other.argmax())
            far, near = (float(np.linalg.norm(vectors[row])) for vectors in (steps, image))
            raise InputError(
                f"{where(row)}: along its bonds {variable.name} is {far:.2f} nm, by the minimum image {near:.2f} nm: "
                "the molecule reaches over half of the box; write the frames whole and without a box"
            )


def _path_along(bonds: Any, first: int, last: int) -> FloatArray | None:
    """Bonds from an atom to another in order, shape=(m, 2); None where none lead there."""
    import networkx

    graph = networkx.Graph([tuple(map(int, bond)) for bond in bonds])
    if first not in graph or last not in graph or not networkx.has_path(graph, first, last):
        return None
    path = networkx.shortest_path(graph, first, last)
    return np.array(list(itertools.pairwise(path)))


def counted_from_one(variables: Sequence[CollectiveVariable], topology: Any) -> tuple[str, ...]:
    """Doubts about angles and torsions whose atoms are not bonded in a row, while those one before each are.

    PLUMED, GROMACS and Amber count atoms from 1.
    """
    chosen = [variable for variable in variables if variable.name.startswith(("torsion:", "angle:"))]
    bonds = {frozenset((first.index, second.index)) for first, second in topology.bonds} if chosen else set()
    doubts = []
    for variable in chosen:
        kind, _, numbers = variable.name.partition(":")
        atoms = [int(number) for number in numbers.split(",")]
        pairs = list(itertools.pairwise(atoms))
        as_given = all(frozenset(pair) in bonds for pair in pairs)
        if not as_given and min(atoms) > 0 and all(frozenset((a - 1, b - 1)) in bonds for a, b in pairs):
            right = ",".join(str(atom - 1) for atom in atoms)
            doubts.append(
                f"{variable.name} are {variable.resolved}, which are not bonded in a row, while those one before each "
                f"are: atoms are counted from 0: give {kind}:{right} if they were counted from 1"
            )
    return tuple(doubts)
