"""Which coordinates are wide: torsions by chemistry, components of particles by the frames that were seen."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openmm import app

from openmm_gancl import load_system
from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.errors import InputError
from openmm_gancl.reference.chart import CartesianCoordinates, chart_for
from openmm_gancl.reference.gradients import log_density_gradients
from openmm_gancl.reference.wide_components import chosen_components, other_components, separate_modes, with_angles
from openmm_gancl.reference.wide_torsions import (
    inverting_indices,
    rings_with_forms,
    torsions_of,
    turning_indices,
    wide_indices,
    wide_names,
    with_more_labels,
)
from openmm_gancl.system.molecular_system import system_from_objects

VALINE = Path(__file__).parents[1] / "data" / "valine_dipeptide.pdb"


def names_of(topology, positions, slow, state):
    chart = chart_for(topology, slow, positions)
    return torsions_of(topology, chart, turning_indices(topology, chart, state)).names


def test_side_chains_turn_and_methyls_and_peptide_bonds_do_not():
    pdb = app.PDBFile(str(VALINE))
    dipeptide = load_system("alanine_dipeptide_vacuum")
    declared = replace(dipeptide.state, trans_peptides=np.array([[0, 4, 6, 8], [8, 20, 22, 24]]))
    positions = np.array(pdb.getPositions(asNumpy=True)._value)
    slow = Torsions(("phi", "psi"), np.array([[4, 6, 8, 20], [6, 8, 20, 22]]))
    assert names_of(pdb.topology, positions, slow, declared) == ("VAL2:CG1-CB-CA-N",)
    free = replace(declared, trans_peptides=declared.trans_peptides[:0])
    assert len(names_of(pdb.topology, positions, slow, free)) == 3


def growing_molecule():
    """An empty topology, and what adds an atom of an element to it, bonded to others."""
    topology = app.Topology()
    residue = topology.addResidue("LIG", topology.addChain())

    def add(symbol, *bonded):
        atom = topology.addAtom(f"{symbol}{topology.getNumAtoms()}", app.Element.getBySymbol(symbol), residue)
        for other in bonded:
            topology.addBond(other, atom)
        return atom

    return topology, add


AMINES = {
    "NC3": True,  # three saturated carbons
    "NC2H": True,
    "NCH2": False,  # to exchange its hydrogens is a turn
    "NC3H": False,  # charged
    "NC2K": False,  # an amide
    "NC2O": True,  # a hydroxylamine
    "NC2S": False,  # flat
    "NC2Q": False,  # beside a nitro group's oxygen, of one neighbour
    "PC3": False,  # keeps its form
}


@pytest.mark.parametrize("kind", AMINES)
def test_amines_invert(kind):
    """A centre and its neighbours: saturated carbons, K with a flat one's three neighbours, hydrogens."""
    topology, add = growing_molecule()
    centre, near = add(kind[0]), re.findall(r"([A-Z])(\d?)", kind[1:])
    for symbol in (symbol for symbol, n in near for _ in range(int(n or 1))):
        first = add({"K": "C", "Q": "O"}.get(symbol, symbol), centre)
        for _ in range({"C": 3, "K": 2, "O": 1, "Q": 0, "S": 1, "H": 0}[symbol]):
            add("H", first)
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(topology.getNumAtoms(), 3))
    # the first carbon, behind it a hydrogen, and the second neighbour
    label = Torsions(("label",), np.array([[2, 1, 0, 5]]))
    chart = chart_for(topology, label, positions)
    found = inverting_indices(topology, chart)
    assert len(found) == AMINES[kind]
    if AMINES[kind]:
        assert set(found.tolist()) <= set(turning_indices(topology, chart, load_system("bonded_chain").state).tolist())
        assert chart.torsions[found[0] - chart.n_bonds - chart.n_angles, 1] == centre.index


def ring_with_nitrogen(n, places):
    """A ring of n carbons, some of them nitrogens that carry a hydrogen, and beside it CH2-OH, its first torsion."""
    topology, add = growing_molecule()
    ring = [add("N" if i in places else "C") for i in range(n)]
    for i, atom in enumerate(ring):
        topology.addBond(ring[i - 1], atom)
        for _ in range(1 if i in places or i == 0 else 2):
            add("H", atom)
    arm = add("C", ring[0])
    oxygen = add("O", arm)
    for bonded in (arm, arm, oxygen):
        add("H", bonded)
    label = Torsions(("label",), np.array([[ring[1].index, ring[0].index, arm.index, oxygen.index]]))
    return topology, label, [ring[i].index for i in places]


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_amines_in_rings_invert_wherever_the_ring_is_cut(n):
    for place in range(1, n):
        topology, label, nitrogens = ring_with_nitrogen(n, [place])
        positions = np.random.default_rng(1).normal(size=(topology.getNumAtoms(), 3))
        chart = chart_for(topology, label, positions)
        found = inverting_indices(topology, chart)
        assert chart.torsions[found - chart.n_bonds - chart.n_angles, 1].tolist() == nitrogens, place


def test_labels_are_not_wide_and_what_they_leave_out_is():
    system = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(system.topology, system.slow, system.positions)
    assert not len(turning_indices(system.topology, chart, system.state))
    psi = Torsions(("psi",), system.slow.atoms[1:])
    assert names_of(system.topology, system.positions, psi, system.state) == ("ALA2:C-N-CA-C",)


def test_more_labels_come_after_those_there_are():
    system = load_system("bonded_chain")
    more = with_more_labels(system, Torsions(("other",), np.array([[4, 2, 1, 0]])), 77.0)
    assert more.slow.names == (*system.slow.names, "other") and more.force_constants[-1] == 77.0
    assert len(system.slow.names) == 1


@pytest.mark.parametrize(("centres", "found"), [((0.0,), None), ((-0.3, 0.3), 2), ((-1.0, 0.0, 1.2), 3)])
def test_modes_of_frames(centres, found):
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(centre, 0.04, 200) for centre in centres])
    modes = separate_modes(values)
    assert modes is None if found is None else np.allclose(modes, centres, atol=0.02)


def test_even_values_are_one_mode():
    assert separate_modes(np.random.default_rng(1).uniform(size=500)) is None


def test_components_with_modes_become_angles_and_back():
    system = load_system("forked_oscillator")
    components = other_components(system.slow, system.positions)
    assert components.components.tolist() == [[0, 1], [0, 2]]
    rng = np.random.default_rng(2)
    positions = rng.normal(0.0, 0.05, (400, 1, 3))
    positions[:, 0, 1] += np.where(rng.random(400) < 0.5, 0.3, -0.3)
    chart = with_angles(CartesianCoordinates(1, system.slow.components), positions, components)
    assert chart.turned.tolist() == [1] and chart.periodic.tolist() == [False, True, False]
    angles = chart.to_internal(positions)
    assert np.allclose(chart.to_cartesian(angles), positions, atol=1e-12)
    assert np.allclose(np.abs(angles[:, 1]), np.pi / 2, atol=0.8)
    step = 1e-6 * np.array([0.0, 1.0, 0.0])
    stretched = chart.to_cartesian(angles + step)[:, 0, 1] - chart.to_cartesian(angles - step)[:, 0, 1]
    assert np.allclose(np.log(stretched / 2e-6), chart.log_jacobian(angles), atol=1e-6)
    forces = rng.normal(size=positions.shape)
    found = log_density_gradients(chart, angles, forces, 2.5, system.constraints, system.masses)
    difference = (chart.log_jacobian(angles + step) - chart.log_jacobian(angles - step)) / 2e-6
    assert np.allclose(found[:, 1], forces[:, 0, 1] / 2.5 * stretched / 2e-6 + difference, rtol=1e-5, atol=1e-5)


def serine(**choice):
    pdb = app.PDBFile(str(VALINE.with_name("serine_dipeptide.pdb")))
    slow = Torsions(("phi", "psi"), np.array([[4, 6, 8, 15], [6, 8, 15, 17]]))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    made = force_field.createSystem(pdb.topology)
    system = system_from_objects(pdb.topology, made, pdb.positions, temperature=300.0, slow=slow, **choice)
    return system, chart_for(system.topology, system.slow, system.positions)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, ("SER2:OG-CB-CA-N", "SER2:HG-OG-CB-CA")),
        ({"not_wide": ["chi1:2"]}, ("SER2:HG-OG-CB-CA",)),
        ({"not_wide": ["SER2:HG-OG-CB-CA"]}, ("SER2:OG-CB-CA-N",)),
        ({"wide": ["chi1:2"]}, ("SER2:OG-CB-CA-N",)),
        ({"wide": []}, ()),
        ({"trans_peptides": False, "wide": ["NME3:C-N-C-CA"]}, ("NME3:C-N-C-CA",)),
    ],
)
def test_a_system_names_its_wide_torsions_or_leaves_some_out(choice, expected):
    system, chart = serine(**choice)
    assert wide_names(system.topology, chart, wide_indices(system, chart)) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"wide": ["phi:2"]},
            "names phi:2, which is no torsion that turns and is not a label: those are SER2",
        ),
        ({"not_wide": ["NME3:C-N-C-CA"]}, "key 'not_wide' names NME3:C-N-C-CA"),
        ({"wide": ["chi1:7"]}, "chi1:7 matches nothing"),
        ({"wide": ["SER2:OG"]}, "names SER2:OG"),
        ({"wide": [], "not_wide": ["chi1:2"]}, "give one of them"),
    ],
)
def test_names_that_are_none_are_refused(choice, message):
    with pytest.raises(InputError, match=message):
        wide_indices(*serine(**choice))


def test_components_are_named_or_left_out():
    system = load_system("forked_oscillator")
    names = {
        name: chosen_components(replace(system, **{name: ("particle 0, z",)})).names for name in ("wide", "not_wide")
    }
    assert names == {"wide": ("particle 0, z",), "not_wide": ("particle 0, y",)}
    assert chosen_components(replace(system, wide=())) is None
    with pytest.raises(InputError, match="names particle 1, x: components without a label are particle 0, y"):
        chosen_components(replace(system, wide=("particle 1, x",)))


RINGS = {
    "benzene": ("C6 H6", [(i, (i + 1) % 6) for i in range(6)] + [(i, 6 + i) for i in range(6)], []),
    "cyclohexane": ("C6 H12", [(i, (i + 1) % 6) for i in range(6)] + [(i // 2, 6 + i) for i in range(12)], [6]),
    "sulfur": ("S8", [(i, (i + 1) % 8) for i in range(8)], [8]),
    "cyclooctatetraene": ("C8 H8", [(i, (i + 1) % 8) for i in range(8)] + [(i, 8 + i) for i in range(8)], [8]),
    "naphthalene": ("C10", [(i, (i + 1) % 10) for i in range(10)] + [(0, 5)], []),
}


@pytest.mark.parametrize("name", RINGS)
def test_rings_that_are_not_flat(name):
    """Fused rings are not taken for the one around them."""
    atoms, bonds, sizes = RINGS[name]
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    elements = [app.Element.getBySymbol(part[0]) for part in atoms.split() for _ in range(int(part[1:]))]
    added = [topology.addAtom(f"A{i}", element, residue) for i, element in enumerate(elements)]
    for one, other in bonds:
        topology.addBond(added[one], added[other])
    assert [len(ring) for ring in rings_with_forms(topology)] == sizes
