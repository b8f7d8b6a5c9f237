"""Charts in torch, and gradients of the log target in a chart against central differences of OpenMM's energies."""

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from scipy.spatial.transform import Rotation

from openmm_gancl import load_system
from openmm_gancl.lifting.evaluation import evaluate
from openmm_gancl.reference import gradients as gradients_module
from openmm_gancl.reference.chart import InternalCoordinates, chart_for
from openmm_gancl.reference.gradients import in_chart_frame, log_density_gradients
from openmm_gancl.reference.torch_chart import ChartPositions, LogFixman
from openmm_gancl.system.molecular_system import system_from_objects

NAMES = ("alanine", "constrained alanine", "chain", "toy")
STEP = 1e-5
"""nm or radians of central differences; rounding of energies and third derivatives are then both below 1e-5."""


def constrained_alanine():
    vacuum = load_system("alanine_dipeptide_vacuum")
    pdb = app.PDBFile(str(Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    rigid = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    return system_from_objects(pdb.topology, rigid, pdb.positions, temperature=300.0, slow=vacuum.slow)


@pytest.fixture(scope="module")
def systems():
    loaded = (
        load_system("alanine_dipeptide_vacuum"),
        constrained_alanine(),
        load_system("bonded_chain"),
        load_system("double_well_oscillators"),
    )
    return dict(zip(NAMES, loaded, strict=True))


def chart_of(system):
    return chart_for(system.topology, system.slow, system.positions, system.constraints)


def structures(system, chart, n=3, seed=0):
    """Coordinates about the system's own, shape=(n, n_coordinates)."""
    noise = np.random.default_rng(seed).standard_normal((n, chart.n_coordinates))
    return chart.to_internal(system.positions[None]) + np.where(chart.periodic, 0.2, 0.004) * noise


@pytest.mark.parametrize("name", NAMES)
def test_positions_and_volume_equal_those_of_numpy(systems, name):
    system = systems[name]
    chart = chart_of(system)
    coordinates = structures(system, chart)
    module, at = ChartPositions(chart), torch.as_tensor(coordinates)
    expected = chart.to_cartesian(coordinates)
    assert np.allclose(module(at).numpy(), expected, rtol=0, atol=1e-13)
    assert np.allclose(module.log_jacobian(at).numpy(), chart.log_jacobian(coordinates), rtol=0, atol=1e-11)
    if len(system.constraints):
        fixman = LogFixman(system.constraints, system.masses)(module(at)).numpy()
        assert np.allclose(fixman, system.constraints.log_fixman(expected, system.masses), rtol=0, atol=1e-11)


def test_volume_has_no_value_outside_the_chart(systems):
    chart = chart_of(systems["chain"])
    coordinates = np.repeat(structures(systems["chain"], chart, 1), 3, axis=0)
    coordinates[0, 0], coordinates[1, chart.n_bonds] = -0.1, -0.2
    found = ChartPositions(chart).log_jacobian(torch.as_tensor(coordinates)).numpy()
    assert np.isfinite(found).tolist() == [False, False, True]


def log_target(system, chart, coordinates):
    positions = chart.to_cartesian(coordinates)
    energies, _ = evaluate(openmm.XmlSerializer.serialize(system.system), positions, "Reference", with_forces=False)
    return (
        -energies / system.kT
        + chart.log_jacobian(coordinates)
        + system.constraints.log_fixman(positions, system.masses)
    )


def differences(system, chart, coordinates):
    """Central differences of the log target of one structure, shape=(n_coordinates,)."""
    steps = STEP * np.eye(chart.n_coordinates)
    up, down = (log_target(system, chart, coordinates + sign * steps) for sign in (1.0, -1.0))
    return (up - down) / (2 * STEP)


def pulled_back(system, chart, coordinates):
    xml = openmm.XmlSerializer.serialize(system.system)
    _, forces = evaluate(xml, chart.to_cartesian(coordinates), "Reference")
    return log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)


def agree(found, expected):
    return np.allclose(found, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_central_differences(systems, name):
    system = systems[name]
    chart = chart_of(system)
    coordinates = structures(system, chart)
    found = pulled_back(system, chart, coordinates)
    expected = np.array([differences(system, chart, row) for row in coordinates])
    assert agree(found, expected)


@pytest.mark.parametrize(("name", "term"), [("alanine", "volume"), ("constrained alanine", "fixman")])
def test_a_term_left_out_shows(systems, name, term, monkeypatch):
    system = systems[name]
    chart = chart_of(system)
    coordinates = structures(system, chart, 1)
    expected = differences(system, chart, coordinates[0])
    if term == "volume":
        monkeypatch.setattr(ChartPositions, "log_jacobian", lambda _, at: 0.0 * at[:, 0])
    else:
        monkeypatch.setattr(gradients_module, "LogFixman", lambda *_: lambda positions: 0.0 * positions[:, 0, 0])
    assert not agree(pulled_back(system, chart, coordinates)[0], expected)


def test_gradients_in_parts_are_the_same(systems, monkeypatch):
    system = systems["chain"]
    chart = chart_of(system)
    coordinates = structures(system, chart, 7)
    whole = pulled_back(system, chart, coordinates)
    monkeypatch.setattr(gradients_module, "ROWS_AT_ONCE", 3)
    assert np.array_equal(pulled_back(system, chart, coordinates), whole)


def moved(positions, vectors, seed=0):
    """Structures turned and shifted at random, and their vectors turned along."""
    turns = Rotation.random(len(positions), rng=np.random.default_rng(seed)).as_matrix()
    shifts = np.random.default_rng(seed).standard_normal((len(positions), 1, 3))
    return np.einsum("nij,naj->nai", turns, positions) + shifts, np.einsum("nij,naj->nai", turns, vectors)


@pytest.mark.parametrize("name", NAMES[:3])
def test_vectors_are_turned_into_the_frame_of_the_chart(systems, name):
    system = systems[name]
    chart = chart_of(system)
    positions = chart.to_cartesian(structures(system, chart, 4))
    vectors = np.random.default_rng(1).standard_normal(positions.shape)
    turned_positions, turned = moved(positions, vectors)
    assert np.allclose(in_chart_frame(chart, turned_positions, turned), vectors, rtol=0, atol=1e-10)
    assert not np.allclose(turned, vectors, atol=0.1)


def test_cartesian_vectors_stay(systems):
    chart = chart_of(systems["toy"])
    vectors = np.ones((2, 1, 3))
    assert np.array_equal(in_chart_frame(chart, vectors, vectors), vectors)


def test_a_third_atom_on_the_first_has_the_same_frame():
    """There `to_cartesian` places it below the first axis."""
    z_matrix = np.array([[0, -1, -1, -1], [1, 0, -1, -1], [2, 0, 1, -1], [3, 0, 1, 2]])
    chart = InternalCoordinates(z_matrix, np.ones(1, dtype=np.int64), np.array([5]))
    positions = chart.to_cartesian(np.array([[0.1, 0.11, 0.12, 1.8, 1.9, 2.0]]))
    vectors = np.random.default_rng(2).standard_normal(positions.shape)
    assert np.allclose(in_chart_frame(chart, *moved(positions, vectors)), vectors, rtol=0, atol=1e-12)
