"""Constraints: the Fixman term, fixed bonds in the chart, and a relaxation that can be run backwards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import InputError, Lifter, LiftMove, Torsions, load_system, sample_windows
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.model import load_model
from openmm_gancl.lifting.relaxation import PathContext
from openmm_gancl.reference.chart import chart_for, chart_from_description
from openmm_gancl.system.constraints import UNCONSTRAINED, constraints_of
from openmm_gancl.system.library import copy_system
from openmm_gancl.system.molecular_system import system_from_objects
from tests.physics.paths import run_paths
from tests.physics.rigid import rigid_chain

PHI_PSI = Torsions(("phi", "psi"), np.array([[4, 6, 8, 14], [6, 8, 14, 16]]))


def dipeptide(constraints):
    pdb = app.PDBFile(str(Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    system = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=constraints)
    return system_from_objects(pdb.topology, system, pdb.positions, temperature=300.0, slow=PHI_PSI)


@pytest.fixture(scope="module")
def rigid():
    return dipeptide(app.HBonds)


def test_constraints_are_read_in_order():
    system = openmm.System()
    for _ in range(4):
        system.addParticle(1.0)
    system.addConstraint(3, 1, 0.2)
    system.addConstraint(0, 1, 0.1)
    found = constraints_of(system)
    assert found.pairs.tolist() == [[0, 1], [1, 3]]
    assert found.lengths.tolist() == [0.1, 0.2]
    assert found == constraints_of(openmm.XmlSerializer.clone(system))
    assert found != UNCONSTRAINED


def test_fixman_term_of_hydrogens_on_one_atom():
    """Z of two bonds that share X: 1/m_H + 1/m_X on the diagonal, cos(theta)/m_X off it."""
    system, theta, heavy, light = openmm.System(), 1.9, 12.0, 1.0
    for mass in (heavy, light, light):
        system.addParticle(mass)
    system.addConstraint(0, 1, 0.1)
    system.addConstraint(2, 0, 0.12)
    positions = np.array([[0, 0, 0], [0.1, 0, 0], [0.12 * np.cos(theta), 0.12 * np.sin(theta), 0]])[None]
    expected = (1 / light + 1 / heavy) ** 2 - (np.cos(theta) / heavy) ** 2
    found = constraints_of(system)
    assert found.log_fixman(positions, np.array([heavy, light, light]))[0] == pytest.approx(0.5 * np.log(expected))
    assert found.violations(positions)[0] < 1e-12
    assert found.violations(1.01 * positions)[0] == pytest.approx(0.01)
    assert UNCONSTRAINED.log_fixman(positions, np.ones(3)).tolist() == [0.0]
    assert UNCONSTRAINED.violations(positions).tolist() == [0.0]


def test_tangent_velocities_keep_the_distances(rigid):
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(50, rigid.n_atoms, 3)) * np.sqrt(rigid.kT / rigid.masses)[:, None]
    x = np.repeat(rigid.positions[None], 50, axis=0)
    kept = rigid.constraints.tangent(drawn, x, rigid.masses)
    a, b = rigid.constraints.pairs.T
    assert np.abs(((kept[:, a] - kept[:, b]) * (x[:, a] - x[:, b])).sum(axis=-1)).max() < 1e-12
    kinetic = 0.5 * (rigid.masses[:, None] * kept**2).sum(axis=(1, 2))
    freedom = 3 * rigid.n_atoms - len(rigid.constraints)
    assert kinetic.mean() == pytest.approx(0.5 * freedom * rigid.kT, rel=4 * np.sqrt(2 / freedom / 50))


def test_fixed_bonds_are_no_coordinates(rigid):
    free = chart_for(rigid.topology, rigid.slow, rigid.positions)
    chart = chart_for(rigid.topology, rigid.slow, rigid.positions, rigid.constraints)
    assert len(rigid.constraints) == 12
    assert chart.n_coordinates == free.n_coordinates - 12
    assert chart.constraints == rigid.constraints
    context = openmm.Context(
        rigid.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(rigid.positions)
    context.applyConstraints(1e-12)
    x = context.getState(positions=True).getPositions(asNumpy=True)._value[None]
    coordinates = chart.to_internal(x)
    rebuilt = chart.to_cartesian(coordinates)
    assert rigid.constraints.violations(rebuilt)[0] < 1e-10
    np.testing.assert_allclose(chart.to_internal(rebuilt), coordinates, atol=1e-10)
    np.testing.assert_allclose(coordinates[:, chart.label_indices], rigid.slow.transform(x))
    again = chart_from_description(chart.describe())
    assert again.constraints == rigid.constraints
    assert "fixed_lengths" not in free.describe()


@pytest.mark.parametrize("constraints", [app.HAngles, "ring"])
def test_constraints_that_are_no_bond(rigid, constraints):
    if constraints == "ring":
        system = openmm.XmlSerializer.clone(rigid.system)
        system.addConstraint(0, 8, 0.5)
        rigid = replace(rigid, system=system)
    else:
        rigid = dipeptide(constraints)
    with pytest.raises(InputError, match="no bond that a lift draws") as caught:
        untrained_model(rigid, seed=1)
    assert "HBonds" in str(caught.value)


def test_particles_cannot_be_constrained():
    well = load_system("double_well_oscillators")
    system = openmm.XmlSerializer.clone(well.system)
    system.addParticle(1.0)
    system.addConstraint(0, 1, 0.1)
    with pytest.raises(InputError, match="label torsions"):
        chart_for(well.topology, well.slow, well.positions, constraints_of(system))


def test_a_model_knows_its_constraints(rigid, tmp_path):
    model = untrained_model(rigid, seed=1)
    model.save(tmp_path / "model.safetensors")
    load_model(tmp_path / "model.safetensors").check_system(rigid)
    with pytest.raises(InputError, match="12 constrained bonds, user has 0"):
        Lifter(dipeptide(None), model)


def test_without_friction_a_path_runs_back_to_where_it_began():
    system = rigid_chain()
    model = untrained_model(system, seed=1, strength=0.3, widths={"angle": 0.1, "torsion": 0.3})
    lifter = Lifter(system, model, relax_steps=60, friction=1e-20, platform="Reference")
    ((task, _, relaxed),) = run_paths(lifter, np.full((5, 1), 0.5), seed=2).parts
    assert relaxed.heat == pytest.approx(0, abs=1e-6)
    assert (system.constraints.violations(relaxed.positions) < 1e-7).all()
    for i in range(5):
        path = PathContext(task)
        path.run(task, i)
        velocities = -path.context.getState(velocities=True).getVelocities(asNumpy=True)._value
        back = replace(
            task,
            reverse=True,
            positions=np.repeat(relaxed.positions[i][None], 5, axis=0),
            velocities=np.repeat(velocities[None], 5, axis=0),
        )
        returned = PathContext(back).run(back, i)
        np.testing.assert_allclose(returned[0], task.positions[i], atol=1e-6)
        assert returned[4] == pytest.approx(relaxed.kinetic_start[i], abs=1e-3)


def test_a_broken_constraint_has_no_weight(rigid, monkeypatch):
    model = untrained_model(rigid, seed=1)
    monkeypatch.setattr("openmm_gancl.lifting.weights.MAX_CONSTRAINT_ERROR", -1.0)
    lifts = Lifter(rigid, model, relax_steps=2, platform="Reference").lift(np.zeros((3, 2)), seed=1)
    assert set(lifts.reason) <= {"constraint", "nan", "failed"}
    assert (lifts.log_weights == -np.inf).all()


def test_windows_keep_constraints(rigid):
    frames = sample_windows(
        rigid,
        n_windows=2,
        steps_per_window=20,
        frames_per_window=2,
        equilibration_steps=20,
        seed=1,
        platform="Reference",
    )
    assert (rigid.constraints.violations(frames.positions) < 2e-6).all()


def test_card_with_constraints(tmp_path):
    folder = copy_system("alanine_dipeptide_vacuum", tmp_path / "card")
    card = folder / "card.toml"
    card.write_text(card.read_text().replace('constraints = "none"', 'constraints = "HBonds"'))
    assert len(load_system(card).constraints) == 12


def test_move_of_a_constrained_simulation():
    system = rigid_chain()
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, system.system, integrator, platform)
    simulation.context.setPositions(system.positions)
    model = untrained_model(system, seed=1, strength=0.3, widths={"angle": 0.25, "torsion": 0.4})
    move = LiftMove(
        simulation, model, relax_steps=20, force_constants=50.0, time_step=0.002, platform="Reference", seed=3
    )
    move.run(20, md_steps=20)
    assert 0 < move.acceptance_rate < 1
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value[None]
    assert system.constraints.violations(positions)[0] < 1e-5
