"""Frames from somebody else's trajectory: what is of another molecule or state is refused or told of."""

import mdtraj
import numpy as np
import pytest

from openmm_gancl import InputError, load_system
from openmm_gancl.sampling.own_frames import hydrogens_in_order, load_own_frames, read_own_frames


@pytest.fixture(scope="module")
def peptide():
    return load_system("alanine_dipeptide_vacuum")


@pytest.fixture
def save(peptide, tmp_path):
    """Writes frames, and the topology with some atoms of another element; what `read_own_frames` takes of them."""

    def saved(positions, elements=()):
        topology = mdtraj.Topology.from_openmm(peptide.topology)
        for index, element in elements:
            topology.atom(index).element = element
            topology.atom(index).name = element.symbol
        frames = mdtraj.Trajectory(positions, topology)
        frames[0].save(str(tmp_path / "top.pdb"))
        frames.save(str(tmp_path / "t.dcd"))
        return peptide, tmp_path / "top.pdb", [tmp_path / "t.dcd"], None

    return saved


def near(peptide, n):
    return peptide.positions + 0.001 * np.random.default_rng(1).standard_normal((n, *peptide.positions.shape))


def test_frames_are_taken_as_they_are(peptide, save):
    positions, said = near(peptide, 4), []
    found, log_weights = read_own_frames(*save(positions), said.append)
    assert found == pytest.approx(positions, abs=1e-5) and np.array_equal(log_weights, np.zeros(4)) and not said


def test_atoms_in_another_order_are_refused(peptide, save):
    """Of as many atoms, which fit no less well into an array."""
    given = save(near(peptide, 2), [(4, mdtraj.element.nitrogen), (6, mdtraj.element.carbon)])
    with pytest.raises(InputError, match=r"atom 4 is N in .*top.pdb, but C in .*: reorder the frames' atoms"):
        read_own_frames(*given, print)


def test_frames_outside_the_declared_state_are_told_of_and_left_out(peptide, save):
    positions, said = near(peptide, 3), []
    positions[1] *= [1.0, 1.0, -1.0]  # of the other chirality
    found, _ = read_own_frames(*save(positions), said.append)
    assert found == pytest.approx(positions[[0, 2]], abs=1e-5)
    assert said == ["dropped 1 of 3 frames outside the declared state"]
    with pytest.raises(InputError, match="every frame lies outside the declared state"):
        read_own_frames(*save(positions[[1, 1]]), print)


def test_hydrogens_that_change_places_are_brought_back(peptide, save):
    """The force field tells them apart by nothing; a chart does, and would have the group beyond its bounds."""
    positions, said = near(peptide, 3), []
    names = [atom.name for atom in peptide.topology.atoms()]
    residue = [atom.residue.name for atom in peptide.topology.atoms()]
    pair = [i for i, name in enumerate(names) if name in ("HB1", "HB2") and residue[i] == "ALA"]
    assert len(pair) == 2
    changed = positions.copy()
    changed[1][pair] = positions[1][pair[::-1]]
    found, _ = read_own_frames(*save(changed), said.append)
    assert found == pytest.approx(positions, abs=1e-5)
    assert said == ["hydrogens of 1 frames were brought into the order that they have in the system's structure"]
    assert hydrogens_in_order(peptide, positions)[1] == 0


def test_weights_decide_which_frames_are_learned_from(peptide, save, tmp_path):
    positions = near(peptide, 4)
    np.save(tmp_path / "weights.npy", [0.0, -np.inf, -np.inf, -np.inf])
    system, top, files, _ = save(positions)
    found = load_own_frames(system, top, files, tmp_path / "weights.npy", 1, print)
    assert found == pytest.approx(np.tile(positions[0], (4, 1, 1)), abs=1e-5)
