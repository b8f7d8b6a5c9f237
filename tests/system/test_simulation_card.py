"""A Simulation as a card with its files: read again it is the same system, atom names and last digits included."""

import json

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import InputError, Torsions, load_system
from openmm_gancl.system.simulation_card import CARD, STATE, TOPOLOGY, card_of_simulation
from openmm_gancl.system.topology_file import read_topology, topology_text

LABELS = Torsions(("phi:2", "psi:2"), np.array([[4, 6, 8, 14], [6, 8, 14, 16]]))


def renamed(topology):
    """As other programs name atoms and number residues, which a PDB file would change."""
    for atom in topology.atoms():
        if (atom.residue.name, atom.name) == ("ACE", "CH3"):
            atom.name = "CQ3"
    for residue in topology.residues():
        residue.id, residue.insertionCode = str(int(residue.id) + 9_998), "B"
    return topology


@pytest.fixture(scope="module")
def simulation():
    found = load_system("alanine_dipeptide_vacuum")
    integrator = openmm.LangevinMiddleIntegrator(310, 1, 0.002)
    simulation = app.Simulation(
        renamed(found.topology), found.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(found.positions + 1e-13 * np.pi)
    return simulation


@pytest.fixture(scope="module")
def written(simulation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "mine"
    card = card_of_simulation(simulation, LABELS, force_constants=[100.0, 200.0])
    card.write(folder)
    return card, folder


def test_what_is_read_is_what_was_written(written):
    card, folder = written
    ours, read = card.system, load_system(folder)
    assert np.array_equal(read.positions, ours.positions) and read.force_field_hash == ours.force_field_hash
    assert topology_text(read.topology) == topology_text(ours.topology)
    assert read.card == ours.card and read.slow.describe() == ours.slow.describe()
    for name in ("temperature", "friction", "time_step", "name"):
        assert getattr(read, name) == getattr(ours, name)
    assert read.temperature == 310 and read.force_constants.tolist() == [100.0, 200.0]
    for name in ("chiral_centres", "chirality", "trans_peptides", "longest_bonds"):
        assert np.array_equal(getattr(read.state, name), getattr(ours.state, name))
    assert len(read.state.trans_peptides) == 2 and len(read.state.chiral_centres) == 1


def test_a_pdb_file_would_have_other_atoms(written, tmp_path):
    """Why the topology has a file of its own."""
    topology, positions = written[0].system.topology, written[0].system.positions
    with open(tmp_path / "x.pdb", "w") as file:
        app.PDBFile.writeFile(topology, positions * 10, file, keepIds=True)
    read = app.PDBFile(str(tmp_path / "x.pdb")).topology
    assert topology_text(read) != topology_text(topology)


def test_the_state_is_that_of_the_positions(written, simulation):
    """The mirror image, and a cis peptide bond, are other isomers than a folder was begun with."""
    card, folder = written
    positions = np.array(card.system.positions)
    simulation.context.setPositions(positions * [1, 1, -1])
    mirrored = card_of_simulation(simulation, LABELS, force_constants=[100.0, 200.0])
    assert mirrored.system.state.chirality.tolist() == [-card.system.state.chirality[0]]
    with pytest.raises(InputError, match=r"another isomer .*chiral centre is turned over"):
        mirrored.begun_in(folder)
    simulation.context.setPositions(positions)
    again = card_of_simulation(simulation, LABELS, force_constants=[100.0, 200.0]).begun_in(folder)
    assert np.array_equal(again.system.positions, positions)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / STATE).unlink(), "key 'state_xml': there is no file"),
        (lambda folder: (folder / STATE).write_text("<State/>"), "key 'state_xml'"),
        (lambda folder: (folder / STATE).write_text((folder / "system.xml").read_text()), "holds a System"),
        (lambda folder: (folder / TOPOLOGY).write_text(json.dumps({"atoms": []})), "cannot read the topology"),
        (
            lambda folder: (folder / CARD).write_text((folder / CARD).read_text().replace("state_xml", "# state_xml")),
            "has no positions: add 'state_xml'",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(written, tmp_path, change, words):
    folder = tmp_path / "changed"
    written[0].write(folder)
    change(folder)
    with pytest.raises(InputError, match=words):
        load_system(folder)


def test_a_topology_of_several_chains_without_elements(tmp_path):
    topology = app.Topology()
    for name in ("A", "B"):
        residue = topology.addResidue("BEAD", topology.addChain(name), id="7", insertionCode="Q")
        first, second = topology.addAtom("X", None, residue), topology.addAtom("C", app.element.carbon, residue)
        topology.addBond(first, second)
    (tmp_path / "t.json").write_text(topology_text(topology))
    read = read_topology(tmp_path / "t.json")
    assert topology_text(read) == topology_text(topology) and [chain.id for chain in read.chains()] == ["A", "B"]
