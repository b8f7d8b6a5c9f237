import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openmm.app import PDBFile, Topology, element

from openmm_gancl.coordinates.slow_coordinates import ParticleCoordinates, Torsions
from openmm_gancl.errors import InputError
from openmm_gancl.reference.chart import (
    CartesianCoordinates,
    Chart,
    InternalCoordinates,
    chart_for,
    chart_from_description,
)

PHI_PSI = Torsions(("phi", "psi"), np.array([[4, 6, 8, 14], [6, 8, 14, 16]]))
SEQUENCE = ["ACE", "PHE", "ASP", "LYS", "ARG", "PRO", "GLY", "VAL", "SER", "TRP", "ASN", "NME"]
POSITION_ERROR = 1e-12
"""nm: a thousand roundings of a position of a few nm."""


def molecule(symbols, bonds):
    topology = Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [topology.addAtom(f"{s}{i}", element.get_by_symbol(s), residue) for i, s in enumerate(symbols)]
    for a, b in bonds:
        topology.addBond(atoms[a], atoms[b])
    return topology


@pytest.fixture(scope="module")
def dipeptide():
    return PDBFile(str(Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"))


@pytest.fixture(scope="module")
def peptide():
    """A capped ten-residue peptide: atoms and bonds of the force field's templates, no geometry."""
    from openmm.app import ForceField

    templates = ForceField("amber14/protein.ff14SB.xml")._templates
    topology = Topology()
    chain = topology.addChain()
    previous_carbon = None
    for name in SEQUENCE:
        residue = topology.addResidue(name, chain)
        template = templates[name]
        atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in template.atoms]
        for a, b in template.bonds:
            topology.addBond(atoms[a], atoms[b])
        named = {atom.name: atom for atom in atoms}
        if previous_carbon is not None:
            topology.addBond(previous_carbon, named["N"])
        previous_carbon = named.get("C")
    return topology


def index(topology, residue, name):
    return next(a.index for a in topology.atoms() if a.residue.name == residue and a.name == name)


def random_coordinates(chart, n, seed, theta=(0.3, np.pi - 0.3)):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.uniform(0.05, 0.3, (n, chart.n_bonds)),
            rng.uniform(*theta, (n, chart.n_angles)),
            rng.uniform(-np.pi, np.pi, (n, chart.n_torsions)),
        ],
        axis=1,
    )


def sines(positions, atoms):
    i, j, k = np.moveaxis(positions[:, atoms], 2, 0)
    area = np.linalg.norm(np.cross(i - j, k - j), axis=-1)
    return area / (np.linalg.norm(i - j, axis=-1) * np.linalg.norm(k - j, axis=-1))


def heights(positions, atoms):
    """Distance of the first atom from the line through the other two."""
    i, j, k = np.moveaxis(positions[:, atoms], 2, 0)
    return np.linalg.norm(np.cross(i - j, k - j), axis=-1) / np.linalg.norm(k - j, axis=-1)


def distances(positions):
    return np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)


def assert_round_trip(chart, coordinates):
    """An error e of a position moves r by e, theta by e / r, and a torsion by e / h at either end.

    h is the distance of that end from the axis, r sin(theta) where the two are coordinates: the error of a
    torsion grows like 1 / sin(theta). All r are at least 0.05 nm.
    """
    positions = chart.to_cartesian(coordinates)
    again = chart.to_internal(positions)
    tolerance = np.full(coordinates.shape, POSITION_ERROR)
    tolerance[:, chart.n_bonds :] /= 0.05
    rows = chart.torsions
    lever = 1 / heights(positions, rows[:, :3]) + 1 / heights(positions, rows[:, [3, 1, 2]])
    tolerance[:, chart.periodic] = POSITION_ERROR * lever
    error = again - coordinates
    error[:, chart.periodic] = np.angle(np.exp(1j * error[:, chart.periodic]))
    assert np.all(np.abs(error) < tolerance)
    assert tolerance.max() < 1e-6
    moved = chart.to_cartesian(again)
    assert np.allclose(distances(moved), distances(positions), rtol=0, atol=1e-9)


@st.composite
def trees_and_coordinates(draw):
    n_atoms = draw(st.integers(4, 12))
    parents = [draw(st.integers(0, i - 1)) for i in range(1, n_atoms)]
    order = draw(st.permutations(range(n_atoms)))
    bonds = [(order[i], order[p]) for i, p in enumerate(parents, start=1)]

    def vector(n, low, high):
        return draw(st.lists(st.floats(low, high), min_size=n, max_size=n))

    values = (
        vector(n_atoms - 1, 0.05, 0.3) + vector(n_atoms - 2, 1e-3, np.pi - 1e-3) + vector(n_atoms - 3, -3.1415, np.pi)
    )
    return bonds, np.array([values])


@settings(deadline=None, max_examples=150)
@given(trees_and_coordinates())
def test_round_trip_on_any_tree(case):
    bonds, coordinates = case
    chart = InternalCoordinates.from_topology(molecule("C" * (len(bonds) + 1), bonds))
    assert_round_trip(chart, coordinates)


def test_round_trip_with_near_linear_angles(dipeptide):
    chart = chart_for(dipeptide.topology, PHI_PSI)
    for theta in [(1e-3, 2e-3), (np.pi - 2e-3, np.pi - 1e-3), (1e-3, np.pi - 1e-3)]:
        coordinates = random_coordinates(chart, 20, seed=3, theta=theta)
        labels_near = coordinates.copy()
        assert_round_trip(chart, coordinates)
        assert np.array_equal(coordinates, labels_near)


def test_round_trip_of_a_real_structure(dipeptide):
    x = np.array(dipeptide.getPositions(asNumpy=True)._value)[None]
    chart = chart_for(dipeptide.topology, PHI_PSI, x[0])
    back = chart.to_cartesian(chart.to_internal(x))
    assert np.allclose(distances(back), distances(x), atol=1e-12)
    chirality = [np.linalg.det(y[0, [6, 14, 10]] - y[0, 8]) for y in (x, back)]
    assert chirality[0] == pytest.approx(chirality[1], rel=1e-9)


def numerical_log_jacobian(chart, coordinates, step=1e-6):
    """log |det| of d(all Cartesians) / d(coordinates, infinitesimal rotations, translations).

    The rotations fill the 8 pi^2 of the Haar measure, so this determinant is the Jacobian, no constant left.
    """
    shifts = step * np.eye(chart.n_coordinates)
    upper, lower = chart.to_cartesian(coordinates + shifts), chart.to_cartesian(coordinates - shifts)
    internal = ((upper - lower) / (2 * step)).reshape(chart.n_coordinates, -1)
    x = chart.to_cartesian(coordinates)[0]
    rotations = np.cross(np.eye(3)[:, None], x[None]).reshape(3, -1)
    translations = np.tile(np.eye(3), chart.n_atoms)
    return np.linalg.slogdet(np.concatenate([internal, rotations, translations]))[1]


def chain(n_atoms):
    return InternalCoordinates.from_topology(molecule("C" * n_atoms, [(i, i + 1) for i in range(n_atoms - 1)]))


def jacobian_charts(dipeptide):
    neopentane = molecule("C" * 5, [(0, 1), (0, 2), (0, 3), (0, 4)])
    return [
        chart_for(dipeptide.topology, PHI_PSI),
        chain(3),
        chain(4),
        chain(6),
        InternalCoordinates.from_topology(neopentane),
    ]


def test_log_jacobian_is_the_determinant(dipeptide):
    for chart in jacobian_charts(dipeptide):
        coordinates = random_coordinates(chart, 2, seed=11)
        numerical = [numerical_log_jacobian(chart, row[None]) for row in coordinates]
        analytic = chart.log_jacobian(coordinates)
        assert np.allclose(analytic, numerical, rtol=0, atol=1e-6)
        assert analytic[0] - analytic[1] == pytest.approx(numerical[0] - numerical[1], abs=1e-6)


@pytest.mark.parametrize("twin", ["no root", "no sine"])
def test_twins_of_the_log_jacobian_fail_that_check(dipeptide, twin):
    for chart in jacobian_charts(dipeptide):
        coordinates = random_coordinates(chart, 2, seed=11)
        bonds, angles, _ = chart._split(coordinates)
        start = 1 if twin == "no root" else 0
        value = 2 * np.log(bonds[:, 2 * start :]).sum(axis=1)
        if twin == "no root":
            value += np.log(np.sin(angles[:, start:])).sum(axis=1)
        numerical = np.array([numerical_log_jacobian(chart, row[None]) for row in coordinates])
        assert np.all(np.abs(value - numerical) > 1e-2)
        assert abs(np.diff(value - numerical)[0]) > 1e-2


def test_outside_the_chart():
    chart = chain(5)
    good = random_coordinates(chart, 1, seed=0)[0]
    rows = np.tile(good, (7, 1))
    rows[1, 0], rows[2, 3], rows[3, 4], rows[4, 5], rows[5, 6] = -0.1, 0.0, -0.2, np.pi, 3.5
    rows[6, 8] = np.nan
    assert chart.inside(rows).tolist() == [True] + 6 * [False]
    assert np.isfinite(chart.log_jacobian(rows)).tolist() == [True] + 6 * [False]
    assert np.all(chart.log_jacobian(rows)[1:] == -np.inf)


@pytest.mark.filterwarnings("error")
def test_nan_flows_through():
    chart = chain(5)
    coordinates = random_coordinates(chart, 3, seed=0)
    coordinates[0, :4], coordinates[1], coordinates[2, :4] = 0.0, np.nan, np.inf
    positions = chart.to_cartesian(coordinates)
    assert np.isnan(positions[1]).any()
    assert not np.isfinite(chart.to_internal(positions)[1]).all()
    assert not np.isfinite(chart.to_internal(np.full((2, 5, 3), np.inf))).all()
    chart.log_jacobian(coordinates)


def test_torsions_lie_in_the_half_open_interval():
    chart = chain(4)
    flat = np.array([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 1, 0]]], dtype=float)
    for x in (flat, flat[:, ::-1], -flat, flat * [1, -1, 1], flat * [1, 1, -1]):
        assert chart.to_internal(x)[0, -1] == np.pi


def assert_labels_are_primary(chart, torsions, seed=5):
    x = np.random.default_rng(seed).normal(size=(20, chart.n_atoms, 3))
    columns = chart.to_internal(x)[:, chart.label_indices]
    assert np.allclose(columns, Torsions(tuple("abcdefghijkl"[: len(torsions)]), torsions).transform(x), atol=1e-10)
    partner = dict(chart.z_matrix[:, :2].tolist())
    for _, p, _, d in chart.z_matrix[chart.label_indices - chart.n_bonds - chart.n_angles + 3]:
        assert partner[d] != p, "a sibling's torsion does not turn the branch"
    assert np.all(chart.folds[chart.label_indices] == 1)


def assert_well_formed(chart):
    placed = set()
    for n, (atom, *partners) in enumerate(chart.z_matrix.tolist()):
        known = [p for p in partners if p >= 0]
        assert len(known) == min(n, 3) and len(set(known)) == len(known) and placed.issuperset(known)
        placed.add(atom)
    assert placed == set(range(chart.n_atoms))
    primaries = {}
    partner = dict(chart.z_matrix[:, :2].tolist())
    for _, p, q, d in chart.torsions.tolist():
        if partner[d] != p:
            primaries[frozenset((p, q))] = primaries.get(frozenset((p, q)), 0) + 1
    assert set(primaries.values()) <= {1}


def test_alanine_dipeptide(dipeptide):
    chart = chart_for(dipeptide.topology, PHI_PSI)
    assert_well_formed(chart)
    assert_labels_are_primary(chart, PHI_PSI.atoms)
    assert chart.torsions[chart.label_indices - 41].tolist() == [[14, 8, 6, 4], [16, 14, 8, 6]]
    assert (chart.n_bonds, chart.n_angles, chart.n_torsions, chart.n_coordinates) == (21, 20, 19, 60)
    rotors = chart.torsions[chart.torsion_folds == 3]
    assert sorted(rotors[:, 1]) == [0, 10, 18]
    assert set(chart.torsion_folds) == {1, 3}
    assert chart.folds.shape == chart.periodic.shape == (60,)
    assert chart.periodic.sum() == 19 and np.all(chart.folds[~chart.periodic] == 1)


@pytest.mark.parametrize("swap", [False, True])
def test_label_torsions_either_way_round_and_branched(dipeptide, swap):
    """H-N-CA-CB, CB-CA-C-O, a methyl rotor, omega: ends that are children of the near atom."""
    torsions = np.array([[7, 6, 8, 10], [10, 8, 14, 15], [11, 10, 8, 9], [0, 4, 6, 7], [1, 0, 4, 5]])
    torsions = torsions[:, ::-1] if swap else torsions
    for shift in range(len(torsions)):
        labels = np.roll(torsions, shift, axis=0)
        chart = InternalCoordinates.from_topology(dipeptide.topology, labels)
        assert_well_formed(chart)
        assert_labels_are_primary(chart, labels)
        assert_round_trip(chart, random_coordinates(chart, 3, seed=1))


def fold_about(chart, a, b):
    return {
        int(fold)
        for (_, p, q, _), fold in zip(chart.torsions, chart.torsion_folds, strict=True)
        if {p, q} == {a, b} and fold > 1
    }


def test_peptide_with_many_side_chains(peptide):
    def at(residue, *names):
        return [index(peptide, residue, name) for name in names]

    torsions = [at("PHE", "N", "CA", "C")[:3], at("LYS", "N", "CA", "CB", "CG")]
    torsions[0] = [index(peptide, "ACE", "C"), *torsions[0]]
    torsions += [
        at("PRO", "N", "CA", "C", "O"),
        at("VAL", "N", "CA", "CB", "CG1"),
        at("ARG", "N", "CA", "C", "O"),
    ]
    chart = InternalCoordinates.from_topology(peptide, torsions)
    assert_well_formed(chart)
    assert_labels_are_primary(chart, np.array(torsions))
    assert_round_trip(chart, random_coordinates(chart, 2, seed=4, theta=(1.0, 2.2)))
    rotors = {
        3: [
            ("LYS", "CE", "NZ"),
            ("VAL", "CB", "CG1"),
            ("VAL", "CB", "CG2"),
            ("ACE", "C", "CH3"),
            ("NME", "N", "CH3"),
        ],
        2: [("PHE", "CB", "CG"), ("ASP", "CB", "CG"), ("ARG", "CZ", "NH1"), ("ARG", "CZ", "NH2")],
    }
    rotors[2] += [("ARG", "NE", "CZ"), ("ASN", "CG", "ND2")]
    for fold, bonds in rotors.items():
        for bond in bonds:
            assert fold_about(chart, *at(*bond)) == {fold}, bond
    for bond in [("TRP", "CB", "CG"), ("ASN", "CB", "CG"), ("SER", "CB", "OG"), ("PRO", "CB", "CG")]:
        assert fold_about(chart, *at(*bond)) == set(), bond
    assert sum(chart.torsion_folds > 1) == sum(map(len, rotors.values()))


def test_a_label_on_a_rotor_keeps_fold_one(peptide):
    label = [index(peptide, "PHE", name) for name in ("CA", "CB", "CG", "CD2")]
    chart = InternalCoordinates.from_topology(peptide, [label])
    assert_labels_are_primary(chart, np.array([label]))
    assert fold_about(chart, label[1], label[2]) == set()


@pytest.mark.parametrize(
    ("symbols", "bonds", "folds"),
    [
        ("CHHHCHHH", [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (4, 6), (4, 7)], [3]),  # ethane
        ("CHHHNHH", [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (4, 6)], [3]),  # methylamine: pyramidal NH2
        ("CHHHNOO", [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (4, 6)], [3]),  # nitromethane
        ("CHHHOH", [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5)], [3]),  # methanol
        ("CCCCCC", [(i, (i + 1) % 6) for i in range(6)], []),  # a bare ring
        ("HCCHHHHH", [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (2, 7)], [3]),
    ],
)
def test_folds_of_small_molecules(symbols, bonds, folds):
    chart = InternalCoordinates.from_topology(molecule(symbols, bonds))
    assert_well_formed(chart)
    assert sorted(chart.torsion_folds[chart.torsion_folds > 1]) == folds


def test_bridged_rings_round_trip():
    cubane = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
    chart = InternalCoordinates.from_topology(molecule("C" * 8, cubane), [(0, 1, 2, 3), (4, 5, 6, 7)])
    assert_well_formed(chart)
    assert_labels_are_primary(chart, np.array([(0, 1, 2, 3), (4, 5, 6, 7)]))
    assert_round_trip(chart, random_coordinates(chart, 5, seed=2))


def test_positions_avoid_linear_frames():
    """Acetonitrile: without a structure N-C-C would be the root triple and the methyl's frame."""
    topology = molecule("NCCHHH", [(0, 1), (1, 2), (2, 3), (2, 4), (2, 5)])
    x = np.array([[0, 0, 0.262], [0, 0, 0.146], [0, 0, 0]] + 3 * [[0, 0, -0.037]])
    x[3:, :2] = 0.102 * np.array([[1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    chart = InternalCoordinates.from_topology(topology, positions=x)
    blind = InternalCoordinates.from_topology(topology)
    assert sines(x[None], chart.torsions[:, 1:]).min() > 0.4
    assert sines(x[None], blind.torsions[:, 1:]).min() < 1e-6


def test_small_molecules():
    for n in (2, 3):
        chart = chain(n)
        coordinates = random_coordinates(chart, 4, seed=n)
        assert (chart.n_coordinates, chart.n_torsions) == (2 * n - 3, 0)
        assert np.allclose(chart.to_internal(chart.to_cartesian(coordinates)), coordinates, atol=1e-12)
        assert chart.folds.tolist() == [1] * (2 * n - 3)
        assert chart.log_jacobian(coordinates).shape == (4,)


def test_inputs_are_not_changed_and_rows_are_independent():
    chart = chain(7)
    coordinates = random_coordinates(chart, 5, seed=8)
    kept = coordinates.copy()
    positions = chart.to_cartesian(coordinates)
    assert np.array_equal(coordinates, kept)
    for i in range(5):
        assert np.array_equal(chart.to_cartesian(coordinates[i : i + 1])[0], positions[i])
    assert chart.to_cartesian(coordinates[:0]).shape == (0, 7, 3)
    assert chart.to_internal(positions[:0]).shape == (0, chart.n_coordinates)


def test_cartesian_coordinates():
    slow = ParticleCoordinates(("x", "z"), np.array([[0, 0], [1, 2]]), np.array([[-1, 1], [-1, 1]]))
    topology = Topology()
    residue = topology.addResidue("P", topology.addChain())
    for name in "AB":
        topology.addAtom(name, element.argon, residue)
    chart = chart_for(topology, slow)
    assert isinstance(chart, CartesianCoordinates)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    coordinates = chart.to_internal(x)
    assert np.array_equal(chart.to_cartesian(coordinates), x)
    assert np.array_equal(coordinates[:, chart.label_indices], slow.transform(x))
    assert np.all(chart.log_jacobian(coordinates) == 0) and np.all(chart.inside(coordinates))
    assert not chart.periodic.any() and chart.folds.tolist() == [1] * 6
    with pytest.raises(InputError, match="axes"):
        CartesianCoordinates(1, [[0, 3]])


def test_charts_survive_json(dipeptide):
    charts = [chart_for(dipeptide.topology, PHI_PSI), CartesianCoordinates(2, np.array([[1, 0]])), chain(2)]
    for chart in charts:
        again = chart_from_description(json.loads(json.dumps(chart.describe())))
        assert isinstance(chart, Chart) and isinstance(again, type(chart))
        assert again.describe() == chart.describe()
        assert again.n_atoms == chart.n_atoms
        assert np.array_equal(again.folds, chart.folds) and np.array_equal(again.label_indices, chart.label_indices)


BUTANE = [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("symbols", "bonds", "labels", "message"),
    [
        ("CCCCAr", BUTANE, [], "2 molecules.*need one"),
        ("CCCC", [], [], "createStandardBonds"),
        ("C", [], [], "no internal coordinates"),
        ("CCC", BUTANE[:2], [(0, 1, 2, 2)], "no torsion"),
        ("CCCC", BUTANE, [(0, 1, 2, 3), (3, 2, 1, 0)], "same bond"),
        ("CCCC", BUTANE, [(0, 2, 1, 3)], "does not follow bonds"),
        ("CCCC", BUTANE, [(0, 1, 0, 1)], "does not follow bonds"),
        ("CCCC", BUTANE, [(1, 2, 3, 4)], "outside 0 to 3"),
        ("CCCC", BUTANE, [(-1, 0, 1, 2)], "outside 0 to 3"),
        ("CCCC", [*BUTANE, (3, 0)], [(0, 1, 2, 3), (1, 2, 3, 0)], "close a ring"),
    ],
)
def test_bad_topologies_and_labels(symbols, bonds, labels, message):
    symbols = ["C", "C", "C", "C", "Ar"] if symbols.endswith("Ar") else list(symbols)
    with pytest.raises(InputError, match=message):
        InternalCoordinates.from_topology(molecule(symbols, bonds), labels)


def test_bad_positions_and_unknown_labels(dipeptide):
    with pytest.raises(InputError, match="shape"):
        InternalCoordinates.from_topology(dipeptide.topology, positions=np.zeros((3, 3)))

    class Learned:
        pass

    with pytest.raises(InputError, match="Learned"):
        chart_for(dipeptide.topology, Learned())
