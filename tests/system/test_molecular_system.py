import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.coordinates.geometry import dihedral_angles, wrap
from openmm_gancl.coordinates.slow_coordinates import ParticleCoordinates, Torsions, checked_labels
from openmm_gancl.errors import InputError
from openmm_gancl.sampling.windows import sample_windows
from openmm_gancl.system.library import copy_system, list_systems, load_system, systems_root
from openmm_gancl.system.molecular_system import system_from_objects
from openmm_gancl.system.state import DeclaredState
from openmm_gancl.units import GAS_CONSTANT

ALA2 = "alanine_dipeptide_vacuum"
NAMES = {
    "ala_ala_vacuum",
    "alanine_dipeptide_gbsa",
    "alanine_dipeptide_water",
    ALA2,
    "bonded_chain",
    "double_well_oscillators",
    "forked_oscillator",
    "mueller_brown",
    "narrow_barrier",
}
EQUATIONS = {"half_moon", "quadratic"}
OMEGAS = np.array([[0, 4, 6, 8], [8, 14, 16, 18]])
RT = GAS_CONSTANT * 300.0


@pytest.fixture(scope="module")
def ala2():
    return load_system(ALA2)


def energies(system, frames):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    values = []
    for positions in frames:
        context.setPositions(positions)
        values.append(context.getState(energy=True).getPotentialEnergy()._value)
    return np.array(values)


def turned_omega(positions, angle):
    """The C-terminal cap (atoms 17 to 21) turned about the bond 14-16."""
    axis = positions[16] - positions[14]
    axis = axis / np.linalg.norm(axis)
    arms = positions[17:] - positions[16]
    turned = positions.copy()
    turned[17:] = (
        positions[16]
        + arms * np.cos(angle)
        + np.cross(axis, arms) * np.sin(angle)
        + np.outer(arms @ axis, axis) * (1 - np.cos(angle))
    )
    return turned


def double_well(x, y, z):
    ky, kz = 2000 * np.exp(0.8 * np.tanh(2 * x)), 1000 * np.exp(0.3 * np.tanh(2 * x))
    well = 10 * (x**2 - 1) ** 2
    return well + ky / 2 * (y - 0.25 * np.sin(1.5 * x)) ** 2 + kz / 2 * (z - 0.2 * np.cos(x)) ** 2


def forked(x, y, z):
    b, s = 0.3, 0.04
    p = 1 / (1 + np.exp(-(0.7 + 0.6 * np.tanh(2 * x))))
    mixture = p * np.exp(-((y - b) ** 2) / (2 * s**2)) + (1 - p) * np.exp(-((y + b) ** 2) / (2 * s**2))
    return 5 * x**2 - RT * np.log(mixture) + 300 * (z - 0.2 * np.sin(2 * x)) ** 2


def narrow(x, y, z):
    barrier = 12.5 * np.exp(-((x - 0.1) ** 2) / (2 * 0.03**2))
    return 3 * x**2 + barrier + 1500 * (y - 0.2 * np.sin(2 * x)) ** 2 + 1000 * (z - 0.1 * np.cos(3 * x)) ** 2


def mueller_brown(x, y, z):
    """Mueller and Brown's table: A, a, b, c, x0, y0."""
    terms = (
        (-200, -1, 0, -10, 1, 0),
        (-100, -1, 0, -10, 0, 0.5),
        (-170, -6.5, 11, -6.5, -0.5, 1.5),
        (15, 0.7, 0.6, 0.7, -1, 1),
    )
    surface = sum(
        height * np.exp(a * (x - x0) ** 2 + b * (x - x0) * (y - y0) + c * (y - y0) ** 2)
        for height, a, b, c, x0, y0 in terms
    )
    return 0.19 * surface + 750 * np.exp(0.5 * np.tanh(2 * x)) * (z - 0.2 * np.sin(2 * x)) ** 2


TOYS = {
    "double_well_oscillators": double_well,
    "forked_oscillator": forked,
    "mueller_brown": mueller_brown,
    "narrow_barrier": narrow,
}
SURFACES = {
    "double_well_oscillators": lambda x: 10 * (x**2 - 1) ** 2 + 0.55 * RT * np.tanh(2 * x),
    "forked_oscillator": lambda x: 5 * x**2,
    "narrow_barrier": lambda x: 3 * x**2 + 12.5 * np.exp(-((x - 0.1) ** 2) / (2 * 0.03**2)),
}


def test_list_names_every_system_with_a_description():
    listed = dict(list_systems())
    assert set(listed) == NAMES | EQUATIONS
    assert all(description and "\n" not in description for description in listed.values())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_shipped_card_loads(name):
    system = load_system(name)
    assert system.name == name
    assert np.isfinite(energies(system.system, [system.positions])).all()
    assert system.state.inside(system.positions[None]).all()
    assert system.force_constants.shape == (len(system.slow.names),)
    assert system.masses.shape == (system.n_atoms,)
    assert system.kT == pytest.approx(RT)
    assert (systems_root() / name / "README.md").is_file()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_molecular_system_pickles(name):
    system = load_system(name)
    again = pickle.loads(pickle.dumps(system))
    assert again.force_field_hash == system.force_field_hash
    assert re.fullmatch(r"[0-9a-f]{16}", again.force_field_hash)
    atoms = list(again.topology.atoms())
    assert again.topology.getNumBonds() == system.topology.getNumBonds()
    assert all(end is atoms[end.index] for bond in again.topology.bonds() for end in bond)
    assert again.card == system.card
    np.testing.assert_array_equal(again.positions, system.positions)
    np.testing.assert_array_equal(again.state.bonds, system.state.bonds)
    np.testing.assert_array_equal(
        again.slow.transform(again.positions[None]), system.slow.transform(system.positions[None])
    )


def test_ala2_energy_is_force_field_plus_flat_bottom(ala2):
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    bare = force_field.createSystem(ala2.topology, nonbondedMethod=app.NoCutoff, constraints=None)
    frames = np.array([turned_omega(ala2.positions, angle) for angle in (0.0, 1.0, 1.5, -1.7, 3.0)])
    distance = np.abs(np.angle(np.exp(1j * (dihedral_angles(frames, OMEGAS) - np.pi))))
    flat_bottom = (100.0 * np.maximum(0.0, distance - 1.2) ** 2).sum(axis=1)
    assert flat_bottom[0] == 0 and (flat_bottom[2:] > 0).all()
    np.testing.assert_allclose(energies(ala2.system, frames), energies(bare, frames) + flat_bottom, rtol=1e-9)


def test_ala2_labels_masses_and_state(ala2):
    assert ala2.slow.names == ("phi", "psi")
    np.testing.assert_array_equal(ala2.slow.atoms, [[4, 6, 8, 14], [6, 8, 14, 16]])
    np.testing.assert_array_equal(ala2.state.trans_peptides, OMEGAS)
    np.testing.assert_array_equal(ala2.state.chiral_centres[:, 0], [8])
    hydrogens = [atom.index for atom in ala2.topology.atoms() if atom.element.symbol == "H"]
    np.testing.assert_allclose(ala2.masses[hydrogens], 3.0)
    names = [type(force).__name__ for force in ala2.system.getForces()]
    assert "CMMotionRemover" not in names and "CustomTorsionForce" in names
    assert ala2.system.getNumConstraints() == 0


@pytest.mark.parametrize("name", sorted(TOYS))
def test_toy_energy_is_its_formula(name):
    points = np.random.default_rng(1).normal(0.0, [0.7, 0.3, 0.2], size=(50, 3))
    expected = TOYS[name](*points.T)
    cv_values = energies(load_system(name).system, points[:, None])
    difference = cv_values - expected
    # The forked oscillator is the mixture's up to a constant.
    np.testing.assert_allclose(difference, difference[0], atol=1e-8)
    assert name == "forked_oscillator" or abs(difference[0]) < 1e-8


@pytest.mark.parametrize("name", sorted(SURFACES))
def test_toy_surface_is_what_its_note_says(name):
    x = np.linspace(-1.0, 1.0, 21)
    fine = np.linspace(-1.0, 1.0, 801)
    energy = TOYS[name](x[:, None, None], fine[None, :, None], fine[None, None, :])
    surface = -RT * np.log(np.exp(-energy / RT).sum(axis=(1, 2)))
    difference = surface - SURFACES[name](x)
    np.testing.assert_allclose(difference, difference[0], atol=1e-6)


def test_bonded_chain_energy_is_its_table():
    chain = load_system("bonded_chain")
    frames = chain.positions + np.random.default_rng(2).normal(0.0, 0.01, size=(20, 5, 3))
    expected = np.zeros(20)
    for i, j, r0, k in [(0, 1, 0.15, 7700), (1, 2, 0.16, 6800), (2, 3, 0.14, 8800), (2, 4, 0.155, 7200)]:
        expected += k / 2 * (np.linalg.norm(frames[:, i] - frames[:, j], axis=1) - r0) ** 2
    for i, j, m, centre in [(0, 1, 2, 1.8), (1, 2, 3, 1.75), (1, 2, 4, 1.85)]:
        a, b = frames[:, i] - frames[:, j], frames[:, m] - frames[:, j]
        cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        expected += 20 * (np.arccos(cosine) - centre) ** 2
    phi, psi = dihedral_angles(frames, np.array([[0, 1, 2, 3], [4, 2, 1, 3]])).T
    expected += 2 * (1 + np.cos(phi - 0.6)) + 3 * (1 + np.cos(2 * phi - 2.4)) + 4 * (1 + np.cos(3 * phi))
    expected += 10 * (1 + np.cos(psi - 5.236))
    np.testing.assert_allclose(energies(chain.system, frames), expected, rtol=1e-9)


def test_state_tells_why_a_frame_is_outside(ala2):
    stretched, broken = ala2.positions.copy(), ala2.positions.copy()
    stretched[1] += 0.7 * (stretched[1] - stretched[0])
    broken[3, 1] = np.nan
    thrown = ala2.positions.copy()
    thrown[5] = 1e200
    frames = np.array(
        [
            ala2.positions,
            ala2.positions * [1, 1, -1],
            turned_omega(ala2.positions, np.pi),
            stretched,
            broken,
            thrown,
        ]
    )
    before = frames.copy()
    assert ala2.state.violations(frames).tolist() == ["", "chirality", "cis", "bond", "nan", "bond"]
    assert ala2.state.inside(frames).tolist() == [True] + 5 * [False]
    np.testing.assert_array_equal(frames, before)


def test_empty_state_holds_every_finite_frame():
    frames = np.array([[[5.0, -3.0, 1.0]], [[0.0, np.nan, 0.0]], [[np.inf, 0.0, 0.0]]])
    assert DeclaredState().inside(frames).tolist() == [True, False, False]
    assert load_system("narrow_barrier").state.inside(frames).tolist() == [True, False, False]


def test_basin_wraps_around(ala2):
    c7eq, c5, c7ax = ala2.basins
    labels = np.array([[np.pi, np.pi], [-np.pi, -np.pi], [2.8, 2.5], [0.0, 3.0], [-1.4, 1.0], [1.0, -0.8]])
    assert c5.contains(labels).tolist() == [True, True, True, False, False, False]
    assert c7eq.contains(labels).tolist() == [False, False, False, False, True, False]
    assert c7ax.contains(labels).tolist() == [False, False, False, False, False, True]
    union = Basin("both", (np.array([[0.0, 1.0]]), np.array([[2.0, 3.0]])))
    assert union.contains(np.array([[0.5], [1.5], [2.5]])).tolist() == [True, False, True]


def test_copy_then_edit_then_load(tmp_path, ala2):
    folder = copy_system(ALA2, tmp_path / "mine")
    assert load_system(folder).force_field_hash == ala2.force_field_hash
    edit(folder, "temperature = 300.0", "temperature = 350.0")
    assert load_system(folder / "card.toml").temperature == 350.0
    with pytest.raises(InputError, match="not overwritten"):
        copy_system(ALA2, folder)
    with pytest.raises(InputError, match="choose one of"):
        copy_system("nothing", tmp_path / "other")


def test_force_constants_have_the_name_of_older_cards(tmp_path, ala2):
    folder = copy_system(ALA2, tmp_path / "mine")
    edit(folder, "force_constants", "restraint")
    assert np.array_equal(load_system(folder).force_constants, ala2.force_constants)
    edit(folder, "restraint", "restraints")
    with pytest.raises(InputError, match=r"unknown key 'restraints'.*key 'force_constants' is missing: add it"):
        load_system(folder)


def test_a_name_means_the_shipped_system_even_next_to_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edit(copy_system("narrow_barrier", "narrow_barrier"), "300.0", "350.0")
    assert load_system("narrow_barrier").temperature == 300.0
    assert load_system("./narrow_barrier").temperature == 350.0


def test_torsions_may_be_named_by_residue(tmp_path, ala2):
    folder = copy_system(ALA2, tmp_path / "mine")
    edit(folder, "atoms = [4, 6, 8, 14]", 'torsion = "phi:2"')
    edit(folder, "atoms = [6, 8, 14, 16]", 'torsion = "psi:2"')
    np.testing.assert_array_equal(load_system(folder).slow.atoms, ala2.slow.atoms)


def test_user_card_with_its_own_system_xml(tmp_path, ala2):
    (tmp_path / "my.xml").write_text(openmm.XmlSerializer.serialize(ala2.system))
    with open(tmp_path / "my.pdb", "w") as file:
        app.PDBFile.writeFile(ala2.topology, ala2.positions * unit.nanometer, file)
    (tmp_path / "my.toml").write_text(
        """
        name = "mine"
        structure = "my.pdb"
        system_xml = "my.xml"
        temperature = 310
        friction = 1
        time_step = 0.002
        force_constants = [150]
        [[labels]]
        kind = "torsion"
        name = "phi"
        torsion = "phi:2"
        """
    )
    mine = load_system(str(tmp_path / "my.toml"))
    assert mine.force_field_hash == ala2.force_field_hash
    assert mine.card["labels"][0]["torsion"] == "phi:2"
    np.testing.assert_array_equal(mine.state.trans_peptides, OMEGAS)


def test_objects_are_copied_and_stripped(ala2):
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    user = force_field.createSystem(ala2.topology, constraints=None)
    user.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    user.addForce(openmm.AndersenThermostat(300.0, 1.0))
    labels = Torsions(("phi", "psi"), ala2.slow.atoms)
    mine = system_from_objects(
        ala2.topology,
        user,
        ala2.positions * 10.0 * unit.angstrom,
        temperature=300 * unit.kelvin,
        friction=1e12 / unit.second,
        time_step=2 * unit.femtosecond,
        slow=labels,
    )
    kept = {type(force).__name__ for force in mine.system.getForces()}
    assert kept == {"HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce", "NonbondedForce"}
    assert user.getNumForces() == 7
    assert (mine.temperature, mine.friction, mine.time_step) == pytest.approx((300.0, 1.0, 0.002))
    np.testing.assert_allclose(mine.positions, ala2.positions)
    np.testing.assert_array_equal(mine.force_constants, [200.0, 200.0])
    assert mine.card == {}


def test_objects_that_do_not_fit_are_refused(ala2):
    labels = Torsions(("phi",), np.array([[4, 6, 8, 14]]))
    cases = {
        "NaN": {"positions": ala2.positions * np.nan},
        "22 particles": {"positions": ala2.positions[:5]},
        "time_step": {"time_step": 0.0},
        "force_constants": {"force_constants": [1.0, 2.0]},
        "share a name": {"slow": Torsions(("phi", "phi"), np.array(2 * [[4, 6, 8, 14]]))},
        "atom -1": {"slow": ParticleCoordinates(("x",), np.array([[-1, 0]]), np.array([[0.0, 1.0]]))},
        "basin far": {"basins": [Basin("far", (np.zeros((2, 2)),))]},
    }
    for culprit, change in cases.items():
        given = {"system": ala2.system, "positions": ala2.positions, "slow": labels, "temperature": 300.0}
        with pytest.raises(InputError, match=culprit) as caught:
            system_from_objects(ala2.topology, **(given | change))
        assert_one_sentence(str(caught.value))


def test_cis_bond_is_restrained_only_where_the_structure_is_trans(ala2):
    cis = system_from_objects(
        ala2.topology,
        ala2.system,
        turned_omega(ala2.positions, np.pi),
        temperature=300.0,
        slow=ala2.slow,
    )
    np.testing.assert_array_equal(cis.state.trans_peptides, OMEGAS[:1])


def edit(folder: Path, old: str, new: str, file: str = "card.toml"):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def assert_one_sentence(message: str):
    assert "\n" not in message and ". " not in message and not message.endswith(".")


def assert_card_refused(load, folder: Path, words: list[str]):
    with pytest.raises(InputError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / "card.toml"))
    assert all(word in message for word in words), message
    assert_one_sentence(message)


def rewrite_structure(folder: Path, change):
    pdb = app.PDBFile(str(folder / "structure.pdb"))
    positions = change(pdb.getPositions(asNumpy=True)._value)
    with open(folder / "structure.pdb", "w") as file:
        app.PDBFile.writeFile(pdb.topology, positions * unit.nanometer, file)


TEXT_CASES = [
    # system, text in the card, its replacement, words of the message
    (ALA2, "temperature = 300.0", "temprature = 300.0", ["temprature", "did you mean 'temperature'"]),
    (ALA2, "trans_peptides", "trans_peptide", ["state.trans_peptide", "did you mean"]),
    (ALA2, "temperature = 300.0", "temperature = = 300.0", ["not valid TOML", "line 4"]),
    (ALA2, "time_step = 0.002", "", ["time_step", "missing"]),
    (ALA2, "temperature = 300.0", "temperature = -300.0", ["temperature", "greater than 0", "-300"]),
    (ALA2, "time_step = 0.002", "time_step = 0.0", ["time_step", "greater than 0"]),
    (ALA2, "friction = 1.0", "friction = nan", ["friction", "finite"]),
    (ALA2, 'structure = "structure.pdb"', 'structure = "no.pdb"', ["structure", "no.pdb"]),
    (ALA2, 'structure = "structure.pdb"', "", ["needs a 'structure'"]),
    (ALA2, 'structure = "structure.pdb"', 'structure = "card.toml"', ["structure", "cannot read"]),
    (ALA2, "[force_field]", 'system_xml = "x.xml"\n[force_field]', ["force_field and system_xml given"]),
    (ALA2, "amber14/protein.ff14SB.xml", "nothing.xml", ["force_field.files", "nothing.xml"]),
    (ALA2, "amber14/protein.ff14SB.xml", "amber14/tip3p.xml", ["residue ACE 1", "hydrogens"]),
    (ALA2, 'nonbonded = "NoCutoff"', 'nonbonded = "PME"', ["force_field", "periodic"]),
    (ALA2, 'nonbonded = "NoCutoff"', 'nonbonded = "Magic"', ["force_field.nonbonded", "Magic"]),
    (ALA2, 'constraints = "none"', 'constraints = "Hbonds"', ["force_field.constraints", "HBonds"]),
    (ALA2, "[4, 6, 8, 14]", "[4, 6, 8, 99]", ["label phi", "99", "21"]),
    (ALA2, "[4, 6, 8, 14]", "[4, 6, 8, -1]", ["labels[0].atoms[3]", "-1"]),
    (ALA2, "[4, 6, 8, 14]", "[4, 6, 8, 8]", ["labels[0]", "four different atoms"]),
    (ALA2, "atoms = [4, 6, 8, 14]", "", ["labels[0]", "either 'atoms' or 'torsion'"]),
    (ALA2, "atoms = [4, 6, 8, 14]", 'torsion = "phi:1"', ["phi:1"]),
    (ALA2, 'name = "psi"', 'name = "phi"', ["share a name"]),
    (ALA2, "[200.0, 200.0]", "[200.0]", ["force_constants", "phi, psi"]),
    (ALA2, "[200.0, 200.0]", "[200.0, 0.0]", ["force_constants[1]", "greater than 0"]),
    (ALA2, "[[[0.4, 1.9], [-2.1, 0.6]]]", "[[[0.4, 1.9]]]", ["basin C7ax", "phi, psi"]),
    (ALA2, "atoms = [0, 4, 6, 8]", "atoms = [0, 4, 6, 77]", ["state.flat_bottom[0].atoms", "77"]),
    (ALA2, "centre = 3.14", "centre = 180.0 #", ["state.flat_bottom[0]", "give radians"]),
    (ALA2, "width = 1.2", "width = 30.0 #", ["state.flat_bottom[0]", "give radians"]),
    ("bonded_chain", '"system.xml"', '"no.xml"', ["system_xml", "no.xml"]),
    ("bonded_chain", '"system.xml"', '"topology.pdb"', ["system_xml", "topology.pdb"]),
    ("narrow_barrier", "exp(", "expp(", ["toy.energy", "expp"]),
    ("narrow_barrier", "0.5*kx*x^2", "kx*log(x)", ["toy.energy", "finite"]),
    ("narrow_barrier", "[[[-1.0, 0.1]]]", "[[[0.1, -1.0]]]", ["basin left", "not periodic"]),
    ("narrow_barrier", "domain = [-1.0, 1.0]", "domain = [1.0, -1.0]", ["labels[0]", "domain"]),
    ("narrow_barrier", 'kind = "coordinate"', 'kind = "distance"', ["labels[0]", "distance"]),
    ("narrow_barrier", "particle = 0", "particle = 3", ["label x", "atom 3"]),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), TEXT_CASES)
def test_bad_card_is_refused_in_one_sentence(tmp_path, name, old, new, words):
    folder = copy_system(name, tmp_path / "card")
    edit(folder, old, new)
    assert_card_refused(load_system, folder, words)


def nan_position(folder):
    edit(folder, "   3.419", "     nan", "structure.pdb")


def fewer_particles(folder):
    edit(folder, '<Particle mass="12"/>', "", "system.xml")
    edit(folder, '<Bond d=".155" k="7200" p1="2" p2="4"/>', "", "system.xml")


FILE_CASES = [
    (ALA2, nan_position, ["atom 4", "NaN"]),
    (ALA2, lambda folder: (folder / "structure.pdb").write_text(""), ["structure.pdb", "cannot read"]),
    (ALA2, lambda folder: rewrite_structure(folder, lambda x: x * [1, 1, -1]), ["residue ALA 2", "D form"]),
    (ALA2, lambda folder: rewrite_structure(folder, lambda x: turned_omega(x, np.pi)), ["NME 3", "cis"]),
    ("bonded_chain", fewer_particles, ["4 particles", "5 atoms"]),
    ("narrow_barrier", lambda folder: (folder / "card.toml").unlink(), ["cannot read the card"]),
    ("narrow_barrier", lambda folder: (folder / "card.toml").write_bytes(b"\xff\xfe"), ["UTF-8"]),
]


@pytest.mark.parametrize(("name", "spoil", "words"), FILE_CASES)
def test_bad_file_is_refused_in_one_sentence(tmp_path, name, spoil, words):
    folder = copy_system(name, tmp_path / "card")
    spoil(folder)
    with pytest.raises(InputError) as caught:
        load_system(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert_one_sentence(str(caught.value))


def test_unknown_system_names_the_known_ones():
    with pytest.raises(InputError, match="alanine_dipeptide_vacuum"):
        load_system("alanine")
    with pytest.raises(InputError, match="cannot read the card"):
        load_system("no/such/card.toml")


def test_basins_may_reach_beyond_half_a_turn(ala2):
    """Labels lie in [-pi, pi]: a bound beyond is the same place one turn back."""
    labels = np.radians(np.mgrid[-180:180:7, -180:180:7].reshape(2, -1).T)
    inside = np.abs(wrap(labels[:, 0] - np.radians(180))) < np.radians(40)
    whole = [-4.0, 4.0]
    for interval in ([np.radians(140), np.radians(220)], [np.radians(-220), np.radians(-140)]):
        basin = Basin("beta", (np.array([interval, whole]),))
        system = system_from_objects(
            ala2.topology, ala2.system, ala2.positions, temperature=300.0, slow=ala2.slow, basins=[basin]
        )
        assert (system.basins[0].contains(labels) == inside).all()


def test_degrees_and_femtoseconds_are_noticed(tmp_path, ala2):
    with pytest.raises(InputError, match=r"label -80 is beyond 2 pi: give radians"):
        checked_labels([[-80.0, 2.5]], ala2.slow)
    box = Basin("C7ax", (np.array([[23.0, 109.0], [-1.0, 1.0]]),))
    arguments = {"temperature": 300.0, "slow": ala2.slow}
    with pytest.raises(InputError, match=r"an end of basin C7ax, 23 is beyond 2 pi"):
        system_from_objects(ala2.topology, ala2.system, ala2.positions, **arguments, basins=[box])
    with pytest.raises(InputError, match=r"time_step is 2 ps, too long for any bond"):
        system_from_objects(ala2.topology, ala2.system, ala2.positions, **arguments, time_step=2.0)


def test_drude_particles_are_refused_everywhere(ala2):
    system = openmm.XmlSerializer.clone(ala2.system)
    system.addForce(openmm.DrudeForce())
    with pytest.raises(InputError, match="DrudeLangevinIntegrator, and join its umbrella windows with gancl fes"):
        system_from_objects(ala2.topology, system, ala2.positions, temperature=300.0, slow=ala2.slow)


def test_molecules_that_the_box_cuts_have_no_torsions():
    """Bonded forces that know the box have the same energy, and labels would be of nothing."""
    pdb = app.PDBFile(str(Path(__file__).parents[2] / "examples" / "alanine_dipeptide_c7eq.pdb"))
    pdb.topology.setPeriodicBoxVectors(2.4 * np.eye(3) * unit.nanometer)
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    system = force_field.createSystem(pdb.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.9)
    for force in system.getForces():
        if hasattr(force, "setUsesPeriodicBoundaryConditions"):
            force.setUsesPeriodicBoundaryConditions(True)
        if isinstance(force, openmm.NonbondedForce):
            force.setExceptionsUsePeriodicBoundaryConditions(True)
    slow = Torsions(("psi",), np.array([[6, 8, 14, 16]]))
    given = {"temperature": 300.0, "slow": slow}
    whole = system_from_objects(pdb.topology, system, pdb.positions, **given)
    cut = whole.positions.copy()
    cut[16:, 0] += 2.4
    assert energies(system, [cut]) == pytest.approx(energies(system, [whole.positions]), abs=1e-3)
    with pytest.raises(InputError, match=r"atoms 14 and 16 are bonded and 2\.. nm apart"):
        system_from_objects(pdb.topology, system, cut, **given)
    with pytest.raises(InputError, match="atoms 14 and 16 are bonded"):
        sample_windows(whole, np.array([[1.0]]), starts=cut[None], steps_per_window=10, frames_per_window=1)


def test_soft_bonds_are_whole_however_short_they_are_in_the_structure():
    """Of k = 200 kJ/mol/nm^2 and 0.5 nm: a snapshot with 0.3 nm would cut the target at 0.48 nm."""
    topology = app.Topology()
    residue = topology.addResidue("BEA", topology.addChain())
    beads = [topology.addAtom("B", None, residue) for _ in range(4)]
    system, bonds = openmm.System(), openmm.HarmonicBondForce()
    for i, (one, other) in enumerate(itertools.pairwise(beads)):
        topology.addBond(one, other)
        bonds.addBond(i, i + 1, 0.5, 200.0 if i else 2e5)
    for _ in beads:
        system.addParticle(50.0)
    system.addForce(bonds)
    positions = np.array([[0.0, 0.2, 0.0], [0.3, 0.0, 0.0], [0.6, 0.0, 0.0], [0.8, 0.1, 0.2]])
    slow = Torsions(("t",), np.array([[0, 1, 2, 3]]))
    longest = system_from_objects(topology, system, positions, temperature=300.0, slow=slow).state.longest_bonds
    lengths = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = 0.5 + 6 * np.sqrt(RT / 200.0)
    assert longest == pytest.approx([1.6 * lengths[0], usual, usual], rel=1e-6)
