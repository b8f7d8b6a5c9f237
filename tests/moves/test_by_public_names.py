"""The six faults that scripts met (F1 to F6), by public names alone, so that any version of the package can be asked.

All of them failed on commit 66a3e51.
"""

import inspect

import numpy as np
import openmm
import pytest
from openmm import app

import openmm_gancl as gancl


@pytest.fixture(scope="module")
def system():
    return gancl.load_system("bonded_chain")


@pytest.fixture(scope="module")
def model(system):
    frames = gancl.sample_windows(system, n_windows=32, steps_per_window=400, seed=1, platform="Reference")
    return gancl.train(system, frames, seed=1, options=gancl.TrainingOptions(latent_size=0))


def simulate(system, integrator=None, forces=(), seed=3):
    copied = openmm.XmlSerializer.clone(system.system)
    for force in forces:
        copied.addForce(force)
    integrator = integrator or openmm.LangevinMiddleIntegrator(300, 1, 0.005)
    if hasattr(integrator, "setRandomNumberSeed"):
        integrator.setRandomNumberSeed(seed)
    reference = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, copied, integrator, reference)
    simulation.context.setPositions(system.positions)
    simulation.context.setVelocitiesToTemperature(300, seed)
    return simulation


def torsion(expression):
    force = openmm.CustomTorsionForce(expression)
    force.addTorsion(0, 1, 2, 3, [])
    return force


def move_of(simulation, model, **options):
    return gancl.LiftMove(simulation, model, relax_steps=60, platform="Reference", **options)


def test_f1_two_replicas_have_different_lifts(system, model):
    records = [move_of(simulate(system, seed=seed), model).run(3) for seed in (1, 2)]
    labels = [{record.label for record in some} for some in records]
    assert labels[0].isdisjoint(labels[1])


def test_f2_a_system_ahead_of_its_context(system, model):
    simulation = simulate(system)
    simulation.system.addForce(torsion("9*cos(theta)"))
    with pytest.raises(gancl.InputError, match="CustomTorsionForce"):
        gancl.structures_at(simulation, model, [0.5])


def test_f3_a_torch_bias_whose_centre_is_a_parameter(system, model):
    named = inspect.signature(gancl.torch_force).parameters  # of which one had another name
    restraint = {"force_constants" if "force_constants" in named else "restraint": 20.0}
    simulation = simulate(system, forces=[gancl.torch_force(model, "slow_bias", **restraint)])
    simulation.context.setParameter("slow_centre_0", -1.4)
    assert len(move_of(simulation, model).run(2)) == 2


def test_f4_a_bias_that_grows(system, model):
    simulation, cv = simulate(system), app.BiasVariable(torsion("theta"), -np.pi, np.pi, 0.35, True)
    bias = app.Metadynamics(simulation.system, [cv], 300, 10, 1.0, 10)
    simulation.context.reinitialize(preserveState=True)
    move = move_of(simulation, model)
    for _ in range(3):
        bias.step(simulation, 20)
        move.attempt()
    assert len(move.history) == 3


@pytest.mark.parametrize("integrator", [openmm.MTSLangevinIntegrator, openmm.CustomIntegrator])
def test_f5_integrators_that_do_not_state_their_temperature(system, model, integrator):
    if integrator is openmm.CustomIntegrator:
        simulation, options = simulate(system, integrator(0.005)), {"temperature": 300}
    else:
        simulation, options = simulate(system, integrator(300, 1, 0.005, [(0, 1)])), {}
    assert len(move_of(simulation, model, **options).run(1)) == 1


def test_f6_the_surface_of_a_run_over_learned_labels(system, model, tmp_path):
    """It has another one beside its own, over the torsions that a move draws by."""
    edges, period = (np.linspace(-np.pi, np.pi, 37),), np.array([2 * np.pi])
    for name, file in (("dm1", "fes.npz"), ("phi", "fes_phi.npz")):
        gancl.FreeEnergySurface(np.zeros(36), np.zeros(36), edges, (name,), period, 300.0, 0, ("rad",)).save(
            tmp_path / file
        )
    assert len(move_of(simulate(system), model, surface=tmp_path / "fes.npz").run(1)) == 1
