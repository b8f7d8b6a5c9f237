"""The user's own frames as training data: read, checked against the system, resampled by weight."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..coordinates.residues import from_openmm
from ..coordinates.slow_coordinates import Torsions
from ..coordinates.specification import torsion_atoms
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..system.molecular_system import MolecularSystem
from ..trajectories.files import read_chunks
from ..trajectories.series import read_log_weights
from ..trajectories.topologies import load_topology
from ..units import FloatArray, IntArray


def check_cvs(system: MolecularSystem, cvs: Sequence[str]) -> None:
    """Check that the labels requested are those of the system.

    Raises:
        InputError: one is not, or one of the system's is missing.
    """
    slow, named = system.slow, []
    for cv in cvs:
        atoms = torsion_atoms(cv, from_openmm(system.topology))
        if cv in slow.names:
            named.append(cv)
        elif atoms is not None and isinstance(slow, Torsions):
            same = [(row == atoms).all() or (row[::-1] == atoms).all() for row in slow.atoms]
            named += [name for name, match in zip(slow.names, same, strict=True) if match]
        if not named or len(named) < cvs.index(cv) + 1:
            raise InputError(f"{cv} is no label of {system.name} ({', '.join(slow.names)}): edit its card")
    if cvs and tuple(named) != slow.names:
        raise InputError(
            f"the labels of {system.name} are {', '.join(slow.names)}, given are {', '.join(named)}: "
            "name all of them in this order"
        )


def _positions(system: MolecularSystem, top: Path, trajectories: Sequence[Path]) -> FloatArray:
    topology = load_topology(top)
    if topology.n_atoms != system.n_atoms:
        raise InputError(
            f"the frames have {topology.n_atoms} atoms, {system.name} has {system.n_atoms}: "
            "give frames of the same molecule, without solvent"
        )
    ours = [atom.element.symbol if atom.element else "" for atom in system.topology.atoms()]
    theirs = [atom.element.symbol if atom.element else "" for atom in topology.atoms]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a and b and a != b:
            raise InputError(f"atom {i} is {b} in {top}, but {a} in {system.name}: reorder the frames' atoms")
    pieces = [chunk.xyz for path in trajectories for chunk in read_chunks(path, topology)]
    if not pieces:
        raise InputError("the trajectories hold no frame: give others")
    return np.concatenate(pieces).astype(float)


@dataclass(frozen=True, eq=False)
class HydrogenOrder:
    """The hydrogens of CH2, CH3 and NH3 groups, and which way around they are in a structure.

    Nothing physical distinguishes them, but internal coordinates do: a generator of frames with both orders has two
    modes of each such group.

    Attributes:
        centres: shape=(c,), the atoms that bear them.
        neighbours: shape=(c, 3), two of the hydrogens, and another neighbour.
        turns: shape=(c,), signed volumes of those in the structure.
    """

    centres: IntArray
    neighbours: IntArray
    turns: FloatArray

    @classmethod
    def of(cls, topology: Any, positions: FloatArray) -> "HydrogenOrder":
        """That of a structure.

        Args:
            topology: an ``openmm.app.Topology``.
            positions: shape=(n_atoms, 3), nm.
        """
        bonded: dict[int, list[int]] = {atom.index: [] for atom in topology.atoms()}
        for one, other in topology.bonds():
            bonded[one.index].append(other.index)
            bonded[other.index].append(one.index)
        symbols = [atom.element.symbol if atom.element else "" for atom in topology.atoms()]
        centres, rows = [], []
        for centre, around in bonded.items():
            hydrogens = [i for i in around if symbols[i] == "H"]
            if len(around) == 4 and len(hydrogens) in (2, 3):
                third = hydrogens[2] if len(hydrogens) == 3 else next(i for i in around if i not in hydrogens)
                centres.append(centre)
                rows.append([*hydrogens[:2], third])
        found = np.array(centres, dtype=np.int64), np.array(rows, dtype=np.int64).reshape(-1, 3)
        return cls(*found, _turns(np.asarray(positions)[None], *found)[0])

    def order(self, positions: FloatArray) -> IntArray:
        """Which atom goes where for the structure's order, shape=(n, n_atoms): two of a group change places, or none.

        Args:
            positions: shape=(n, n_atoms, 3), nm.
        """
        order = np.tile(np.arange(positions.shape[1]), (len(positions), 1))
        rows, groups = np.nonzero(_turns(positions, self.centres, self.neighbours) * self.turns < 0)
        first, second = self.neighbours[groups, 0], self.neighbours[groups, 1]
        order[rows, first], order[rows, second] = second, first
        return order


def _turns(positions: FloatArray, centres: IntArray, neighbours: IntArray) -> FloatArray:
    """Signed volumes of three bonds, shape=(n, c)."""
    return np.asarray(np.linalg.det(positions[:, neighbours] - positions[:, centres, None]))


def hydrogens_in_order(system: MolecularSystem, positions: FloatArray) -> tuple[FloatArray, int]:
    """Frames with the hydrogens of CH2, CH3 and NH3 groups turned the same way around as in the system's structure.

    Args:
        system: the system.
        positions: shape=(n, n_atoms, 3), nm.

    Returns:
        positions, shape=(n, n_atoms, 3), and how many frames were changed.
    """
    order = HydrogenOrder.of(system.topology, system.positions).order(positions)
    changed = (order != np.arange(system.n_atoms)).any(axis=1)
    return np.take_along_axis(positions, order[:, :, None], axis=1), int(changed.sum())


def read_own_frames(
    system: MolecularSystem,
    top: Path,
    trajectories: Sequence[Path],
    log_weights: Path | None,
    note: Callable[[str], None],
) -> tuple[FloatArray, FloatArray]:
    """Frames inside the declared state, shape=(n, n_atoms, 3), and their log-weights, shape=(n,).

    Args:
        system: the system.
        top: their topology.
        trajectories: files that mdtraj reads.
        log_weights: one a frame, in the order of the files; zeros by default.
        note: called with what was dropped or changed.

    Raises:
        InputError: files that cannot be read or are of another molecule.
    """
    positions = _positions(system, top, trajectories)
    values = np.zeros(len(positions)) if log_weights is None else read_log_weights(log_weights, len(positions))
    inside = system.state.inside(positions)
    if not inside.all():
        note(f"dropped {int((~inside).sum())} of {len(inside)} frames outside the declared state")
    positions, values = positions[inside], values[inside]
    if not len(positions):
        raise InputError("every frame lies outside the declared state: see the card's [state]")
    positions, changed = hydrogens_in_order(system, positions)
    if changed:
        note(f"hydrogens of {changed} frames were brought into the order that they have in the system's structure")
    return positions, values


def load_own_frames(
    system: MolecularSystem,
    top: Path,
    trajectories: Sequence[Path],
    log_weights: Path | None,
    seed: int,
    note: Callable[[str], None],
) -> FloatArray:
    """`read_own_frames`, resampled by weight if there are weights, shape=(n, n_atoms, 3).

    Args:
        system: the system.
        top: their topology.
        trajectories: files that mdtraj reads.
        log_weights: one a frame, in the order of the files.
        seed: of the resampling.
        note: called with what was dropped or changed.

    Raises:
        InputError: files that cannot be read or are of another molecule.
    """
    positions, values = read_own_frames(system, top, trajectories, log_weights, note)
    if log_weights is None:
        return positions
    weights = np.exp(values - logsumexp(values))
    return positions[named_rng(seed, "own frames").choice(len(positions), size=len(positions), p=weights)]
