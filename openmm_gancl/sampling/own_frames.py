"""The user's own frames as training data: read, checked against the system, resampled by weight."""

from collections.abc import Callable, Sequence
from pathlib import Path

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
from ..units import FloatArray


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


def hydrogens_in_order(system: MolecularSystem, positions: FloatArray) -> tuple[FloatArray, int]:
    """Frames with the hydrogens of CH2, CH3 and NH3 groups turned the same way around as in the system's structure.

    Nothing physical distinguishes them, but internal coordinates do: a generator of frames with both orders has two
    modes of each such group.

    Args:
        system: the system.
        positions: shape=(n, n_atoms, 3), nm.

    Returns:
        positions, shape=(n, n_atoms, 3), and how many frames were changed.
    """
    bonded: dict[int, list[int]] = {atom.index: [] for atom in system.topology.atoms()}
    for one, other in system.topology.bonds():
        bonded[one.index].append(other.index)
        bonded[other.index].append(one.index)
    symbols = [atom.element.symbol if atom.element else "" for atom in system.topology.atoms()]
    ordered, changed = positions.copy(), np.zeros(len(positions), dtype=bool)
    for centre, neighbours in bonded.items():
        hydrogens = [i for i in neighbours if symbols[i] == "H"]
        if len(neighbours) != 4 or len(hydrogens) not in (2, 3):
            continue
        first, second = hydrogens[:2]
        third = hydrogens[2] if len(hydrogens) == 3 else next(i for i in neighbours if i not in hydrogens)

        def turn(frames: FloatArray, atoms: tuple[int, ...] = (first, second, third), at: int = centre) -> FloatArray:
            return np.asarray(np.linalg.det(frames[:, atoms] - frames[:, [at]]))

        wrong = turn(positions) * turn(np.asarray(system.positions)[None]) < 0
        ordered[wrong, first], ordered[wrong, second] = positions[wrong, second], positions[wrong, first]
        changed |= wrong
    return ordered, int(changed.sum())


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
