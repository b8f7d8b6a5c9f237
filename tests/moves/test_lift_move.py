"""The move with a user's own Simulation: what it leaves alone, refuses, records and goes on with."""

import csv
import io
import pickle
from unittest import mock

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gancl import InputError, LiftMove, LiftReporter, TrainingOptions, load_system, sample_windows, train
from openmm_gancl.engine.platform_rng import preserve_platform_rng
from openmm_gancl.engine.random_numbers import named_rng
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.relaxation import PathContext
from openmm_gancl.moves import exchange

NAME = "bonded_chain"


@pytest.fixture(scope="module")
def system():
    return load_system(NAME)


@pytest.fixture(scope="module")
def model(system):
    frames = sample_windows(system, n_windows=32, steps_per_window=400, seed=1, platform="Reference")
    return train(system, frames, seed=1, options=TrainingOptions(latent_size=0))


def simulate(system, seed=3, forces=(), integrator=None, topology=None, platform="Reference", change=None):
    """A script's own Simulation of a copy of the System."""
    copied = openmm.XmlSerializer.clone(system.system)
    for force in forces:
        copied.addForce(force)
    if change:
        change(copied)
    integrator = integrator or openmm.LangevinMiddleIntegrator(system.temperature, 1.0, system.time_step)
    if hasattr(integrator, "setRandomNumberSeed"):
        integrator.setRandomNumberSeed(seed)
    chosen = openmm.Platform.getPlatformByName(platform)
    simulation = app.Simulation(topology or system.topology, copied, integrator, chosen)
    n = copied.getNumParticles()
    simulation.context.setPositions(np.vstack([system.positions, np.full((n - system.n_atoms, 3), 2.0)]))
    simulation.context.setVelocitiesToTemperature(system.temperature, seed)
    return simulation


def places(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


class Never(LiftMove):
    def attempt(self):
        with mock.patch.object(exchange, "accepts", lambda after, before, rng: False):
            return super().attempt()


class Always(LiftMove):
    def attempt(self):
        with mock.patch.object(exchange, "accepts", lambda after, before, rng: True):
            return super().attempt()


def test_nothing_of_the_simulation_changes_but_where_it_is(system, model):
    simulation = simulate(system)
    before = openmm.XmlSerializer.serialize(simulation.system), openmm.XmlSerializer.serialize(simulation.integrator)
    groups, reporters = simulation.integrator.getIntegrationForceGroups(), list(simulation.reporters)
    move = LiftMove(simulation, model, relax_steps=20, seed=1, platform="Reference")
    records = move.run(40, 5)
    assert simulation.currentStep == 200 and [record.step for record in records] == list(range(5, 205, 5))
    after = openmm.XmlSerializer.serialize(simulation.system), openmm.XmlSerializer.serialize(simulation.integrator)
    assert before == after and simulation.integrator.getIntegrationForceGroups() == groups
    assert simulation.reporters == reporters
    assert 0 < sum(record.accepted for record in records) < 40
    assert all(record.force_evaluations == 46 + 2 * record.accepted for record in records)


def test_attempts_that_are_rejected_leave_a_seeded_trajectory_alone(system, model):
    """The Reference platform has one random generator for all Contexts of a process."""
    plain, moved = simulate(system), None
    plain.step(100)
    expected = places(plain)
    moved = simulate(system)
    move = Never(moved, model, relax_steps=20, seed=1, platform="Reference")
    move.run(4, 25)
    assert (places(moved) == expected).all()


def test_counts_are_whole_numbers(system, model):
    move = LiftMove(simulate(system), model, relax_steps=20, seed=1, platform="Reference")
    for wrong in ({"n": 1.5}, {"n": -1}, {"n": 1, "md_steps": 2.5}):
        with pytest.raises(InputError, match="give a whole number from 0 up"):
            move.run(**wrong)
    assert len(move.run(1.0, md_steps=np.int64(2))) == 1


def test_the_same_seed_gives_the_same_chain_and_a_checkpoint_goes_on(system, model, tmp_path):
    def chain():
        simulation = simulate(system)
        return simulation, LiftMove(simulation, model, relax_steps=20, seed=5, platform="Reference")

    simulation, move = chain()
    move.run(34, 3)  # lifts are made 32 ahead
    move.save_checkpoint(tmp_path / "move.json")
    simulation.saveCheckpoint(str(tmp_path / "simulation.chk"))
    move.run(7, 10)
    again, other = chain()
    again.loadCheckpoint(str(tmp_path / "simulation.chk"))
    other.load_checkpoint(tmp_path / "move.json")
    other.run(7, 10)
    assert (places(again) == places(simulation)).all()
    assert repr(other.history) == repr(move.history) and len(other.history) == 41


def test_a_checkpoint_of_another_move_is_refused(system, model, tmp_path):
    move = LiftMove(simulate(system), model, relax_steps=20, seed=5, platform="Reference")
    move.save_checkpoint(tmp_path / "move.json")
    other = LiftMove(simulate(system), model, relax_steps=10, seed=5, platform="Reference")
    with pytest.raises(InputError, match="relax_steps 20, this one has 10"):
        other.load_checkpoint(tmp_path / "move.json")
    untrained = untrained_model(system, seed=1)
    other = LiftMove(simulate(system), untrained, relax_steps=20, seed=5, platform="Reference")
    with pytest.raises(InputError, match="move with model"):
        other.load_checkpoint(tmp_path / "move.json")
    for text in ("[]", '{"identity": {}}'):
        (tmp_path / "no.json").write_text(text)
        with pytest.raises(InputError, match="is not a checkpoint"):
            other.load_checkpoint(tmp_path / "no.json")
    with pytest.raises(InputError, match="there is no folder"):
        other.save_checkpoint(tmp_path / "nowhere" / "move.json")
    with pytest.raises(InputError, match="there is no folder"):
        LiftReporter(tmp_path / "nowhere" / "moves.csv")


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_every_relaxation_has_noise_of_its_own(system, model, platform, monkeypatch):
    """Both platforms draw from one generator of the process, which an attempt gives back as it was."""
    run, tasks = PathContext.run, []
    monkeypatch.setattr(PathContext, "run", lambda path, task, index: tasks.append(task) or run(path, task, index))
    move, heats = LiftMove(simulate(system), model, relax_steps=20, seed=2, platform=platform), []
    paths = move._exchange.source.paths
    for number in (7, 7, 8, 9):
        with preserve_platform_rng():
            heats.append(paths.back(system.positions, named_rng(2, "test", number)).log_weights[0])
    assert heats[0] == heats[1] and len(set(heats)) == 3
    with preserve_platform_rng():
        one = [paths._relaxer.path.run(tasks[-1], 0)[1] for _ in range(2)]
    with preserve_platform_rng():
        assert paths._relaxer.path.run(tasks[-1], 0)[1] == one[0] != one[1]  # what the seeds prevent


def test_moves_of_one_simulation_and_seed_propose_different_lifts(system, model):
    simulation = simulate(system)
    moves = [LiftMove(simulation, model, relax_steps=5, seed=1, platform="Reference") for _ in range(2)]
    labels = [move.attempt().label for move in moves]
    assert labels[0] != labels[1]


def test_a_target_that_has_changed_is_noticed(system, model):
    simulation = simulate(system, forces=[a_bias()])
    move = LiftMove(simulation, model, relax_steps=20, seed=1, platform="Reference")
    move.run(1)
    simulation.integrator.setTemperature(600)
    for another in (lambda: move.run(1), move.attempt):
        with pytest.raises(InputError, match="keeps 600 K now, and the lifts are for 300 K"):
            another()
    simulation.integrator.setTemperature(300)
    simulation.integrator.setIntegrationForceGroups({1})
    with pytest.raises(InputError, match="leaves force groups out"):
        move.run(1)
    simulation.integrator.setIntegrationForceGroups(set(range(32)))
    before = places(simulation)
    simulation.context.setPositions(np.full_like(before, np.nan))
    with pytest.raises(InputError, match="it has blown up"):
        move.run(1)
    simulation.context.setPositions(before)
    move.run(1)


@pytest.mark.parametrize(
    ("platform", "message"),
    [("CPU", r"own dynamics failed \(.*NaN\): give a shorter"), ("Reference", "it has blown up")],
)
def test_dynamics_that_blow_up_between_attempts_are_named(platform, message, system, model):
    """OpenMM raises on the CPU platform, and goes on with NaN on the Reference platform."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.5)
    simulation = simulate(system, integrator=integrator, platform=platform)
    move = LiftMove(simulation, model, relax_steps=20, seed=1, platform="Reference")
    with pytest.raises(InputError, match=message):
        move.run(3, md_steps=500)


def test_positions_that_were_never_set_are_reported(system, model):
    simulation = simulate(system)
    simulation.context.setPositions(np.zeros_like(system.positions))
    with pytest.raises(InputError, match="positions that were never set"):
        LiftMove(simulation, model, platform="Reference")


def test_a_strained_start_does_not_cut_the_target(system, model):
    simulation = simulate(system)
    squeezed = system.positions.copy()
    squeezed[0] = squeezed[1] + 0.5 * (squeezed[0] - squeezed[1])
    simulation.context.setPositions(squeezed)
    move = LiftMove(simulation, model, relax_steps=20, seed=2, platform="Reference")
    simulation.context.setPositions(system.positions)
    assert any(record.accepted for record in move.run(40, 2))


def test_reporters_are_called_and_a_table_is_written(system, model):
    reported, stream = [], io.StringIO()
    move = LiftMove(simulate(system), model, relax_steps=10, seed=2, platform="Reference")
    move.reporters += [reported.append, LiftReporter(stream)]
    move.run(3, 2)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert reported == move.history and [int(row["step"]) for row in rows] == [2, 4, 6]
    assert [float(row["log_weight"]) for row in rows] == [record.log_weight for record in reported]


def test_a_metropolis_chain_bears_nothing_in_between(system, model):
    move = LiftMove(simulate(system), model, relax_steps=10, seed=2, acceptance="metropolis", platform="Reference")
    assert np.isnan(move.acceptance_rate)
    records = move.run(6)
    assert records[0].accepted and np.isnan(records[0].log_weight_before)
    move.simulation.step(5)
    with pytest.raises(InputError, match="run nothing in between"):
        move.attempt()


def test_two_moves_on_one_simulation(system, model):
    simulation = simulate(system)
    moves = [LiftMove(simulation, model, relax_steps=n, seed=n, platform="Reference") for n in (10, 20)]
    for _ in range(5):
        for move in moves:
            move.run(1, 3)
    assert simulation.currentStep == 30 and all(len(move.history) == 5 for move in moves)


def test_a_lift_that_fails_is_rejected(system, model):
    """With steps far too long every path ends in a clash or NaN."""
    move = LiftMove(simulate(system), model, relax_steps=20, seed=2, time_step=0.1, platform="Reference")
    before = places(move.simulation)
    records = move.run(4)
    assert not any(record.accepted for record in records) and (places(move.simulation) == before).all()
    assert all(record.reason != "ok" for record in records)


def heavier_hydrogens(system):
    system.setParticleMass(0, system.getParticleMass(0) + 4.0 * unit.amu)


def a_bias(height=4.0):
    force = openmm.CustomTorsionForce(f"{height}*cos(theta)")
    force.addTorsion(0, 1, 2, 3, [])
    return force


@pytest.mark.parametrize(
    ("forces", "change"),
    [
        ([openmm.CMMotionRemover()], None),
        ([], heavier_hydrogens),
        ([a_bias(1.0)], None),
        ([openmm.AndersenThermostat(300, 1)], None),
    ],
)
def test_what_scripts_add_is_no_obstacle(system, model, forces, change):
    move = LiftMove(simulate(system, forces=forces, change=change), model, relax_steps=20, seed=2, platform="Reference")
    records = move.run(40, 2)
    assert any(record.accepted for record in records)
    lifted = move.system.system
    names = {type(force).__name__ for force in lifted.getForces()}
    assert ("CustomTorsionForce" in names) == (forces != [] and isinstance(forces[0], openmm.CustomTorsionForce))
    assert lifted.getParticleMass(0) == move.simulation.system.getParticleMass(0)


def virtual_site(system):
    system.addParticle(0.0)
    system.setVirtualSite(system.getNumParticles() - 1, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


def with_another_atom(topology, n):
    topology = pickle.loads(pickle.dumps(topology))
    residue = topology.addResidue("X", topology.addChain())
    for _ in range(n):
        topology.addAtom("X", app.Element.getBySymbol("C"), residue)
    return topology


def periodic(system):
    force = openmm.NonbondedForce()
    for _ in range(system.getNumParticles()):
        force.addParticle(0.0, 0.1, 0.0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.5)
    system.addForce(force)


def of_two_in_a_box(system):
    system.addParticle(12.0)
    periodic(system)


def place_restraint():
    force = openmm.CustomExternalForce("100*(x*x+y*y+z*z)")
    force.addParticle(0, [])
    return force


def droplet():
    force = openmm.CustomExternalForce("100*max(0,sqrt(x^2+y^2+z^2)-1.5)^2")
    for atom in range(5):
        force.addParticle(atom, [])
    return force


def other_group():
    force = a_bias()
    force.setForceGroup(3)
    return force


@pytest.mark.parametrize(
    ("forces", "change", "extra", "message"),
    [
        ([], periodic, 0, "the System is periodic"),
        ([openmm.MonteCarloBarostat(1.0, 300.0)], periodic, 0, "needs a fixed volume: use umbrella windows"),
        ([openmm.DrudeForce()], None, 0, "Drude particles"),
        ([], virtual_site, 1, "1 virtual sites"),
        ([], of_two_in_a_box, 1, "holds 2 molecules"),
        ([], lambda system: system.addConstraint(0, 1, 0.15), 0, "model has 0 constrained bonds"),
        ([place_restraint()], None, 0, "moved or turned"),
        ([droplet()], None, 0, "moved or turned"),
    ],
)
def test_what_cannot_be_lifted_names_what_can(system, model, forces, change, extra, message):
    topology = with_another_atom(system.topology, extra) if extra else None
    simulation = simulate(system, forces=forces, change=change, topology=topology)
    with pytest.raises(InputError, match=message):
        LiftMove(simulation, model, platform="Reference")


def test_integrators_that_sample_something_else(system, model):
    with pytest.raises(InputError, match="VerletIntegrator keeps the energy, not a temperature: add an"):
        LiftMove(simulate(system, integrator=openmm.VerletIntegrator(0.001)), model, platform="Reference")
    for quantum in (openmm.QTBIntegrator(300.0, 1.0, 0.001), openmm.RPMDIntegrator(2, 300.0, 1.0, 0.001)):
        with pytest.raises(InputError, match="as quantum particles"):
            LiftMove(simulate(system, integrator=quantum), model, platform="Reference")
    hot = openmm.LangevinMiddleIntegrator(400.0, 1.0, 0.001)
    with pytest.raises(InputError, match="the simulation is at 400 K"):
        LiftMove(simulate(system, integrator=hot), model, platform="Reference")
    some = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    some.setIntegrationForceGroups({0})
    with pytest.raises(InputError, match="leaves force groups out"):
        LiftMove(simulate(system, integrator=some, forces=[other_group()]), model, platform="Reference")
    with pytest.raises(InputError, match="choose exchange or metropolis"):
        LiftMove(simulate(system), model, acceptance="always", platform="Reference")
