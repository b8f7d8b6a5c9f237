"""Velocities after a lift: with them the integrator's own steps keep positions and velocities as they were."""

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import ParticleCoordinates, Torsions, load_system, system_from_objects
from openmm_gancl.engine.random_numbers import named_rng
from openmm_gancl.moves.velocities import velocities_after
from openmm_gancl.sampling.langevin import maxwell_boltzmann

KT, N, TIME_STEP = 8.31446261815324e-3 * 300, 2000, 0.002
STIFFNESS = np.array([1e3, 3e5, 6e5])  # kJ/mol/nm^2 of 3 amu: (omega dt)^2 is 0.0013, 0.4 and 0.8
INTEGRATORS = {
    "middle": lambda: openmm.LangevinMiddleIntegrator(300, 0.1, TIME_STEP),
    "pairs": lambda: openmm.DPDIntegrator(300, 0.1, 1e-4, TIME_STEP),
    "Verlet": lambda: openmm.VerletIntegrator(TIME_STEP),
}


@pytest.fixture(scope="module")
def oscillators():
    """Particles that do not know of each other, one mode along each axis, and a Simulation of any integrator."""
    force, system, topology = openmm.CustomExternalForce("kx*x^2/2+ky*y^2/2+kz*z^2/2"), openmm.System(), app.Topology()
    for name, value in zip(("kx", "ky", "kz"), STIFFNESS, strict=True):
        force.addGlobalParameter(name, value)
    residue = topology.addResidue("TOY", topology.addChain())
    for _ in range(N):
        force.addParticle(system.addParticle(3.0))
        topology.addAtom("X", None, residue)
    system.addForce(force)
    slow = ParticleCoordinates(("x",), [[0, 0]], [[-1.0, 1.0]])
    return system_from_objects(topology, system, np.zeros((N, 3)), temperature=300, slow=slow, chirality="none")


def simulation_of(system, integrator):
    if hasattr(integrator, "setRandomNumberSeed"):
        integrator.setRandomNumberSeed(1)
    return app.Simulation(system.topology, system.system, integrator, openmm.Platform.getPlatformByName("Reference"))


def ratios_of_energies(simulation, system, made, seed=2, steps=(1, 1, 3, 15)):
    """Of potential and kinetic energies of the modes to kT / 2, shape=(n, 2, 3), after so many steps each."""
    rng = named_rng(seed, "test", "oscillators")
    positions = rng.standard_normal((N, 3)) * np.sqrt(KT / STIFFNESS)
    drawn = maxwell_boltzmann(system.masses, 1, system.kT, rng)[0]
    simulation.context.setPositions(positions)
    simulation.context.setVelocities(made(simulation, system, positions, drawn))
    found = []
    for n in steps:
        simulation.step(n)
        state = simulation.context.getState(positions=True, velocities=True)
        x, v = (np.array(one._value) for one in (state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)))
        found.append([(STIFFNESS * x**2).mean(axis=0) / KT, (3.0 * v**2).mean(axis=0) / KT])
    return np.array(found)


def with_their_own(simulation, system, positions, drawn):
    found, cost = velocities_after(simulation, system, positions, drawn)
    assert cost == 2
    return found


ERROR = np.sqrt(2 / N)
"""Of a mean of squares of N normal numbers, to their variance."""


@pytest.mark.parametrize("kind", ["middle", "pairs"])
def test_modes_stay_at_their_temperature(oscillators, kind):
    """Within four errors, and what the expansion leaves of the stiffest: an eighth of (omega dt / 2)^4."""
    simulation = simulation_of(oscillators, INTEGRATORS[kind]())
    ratios = ratios_of_energies(simulation, oscillators, with_their_own)
    assert np.abs(ratios - 1).max() < 4 * ERROR + 0.01


@pytest.mark.parametrize("kind", ["middle", "pairs"])
def test_velocities_drawn_freely_heat_the_modes(oscillators, kind):
    """The fault that this guards against."""
    simulation = simulation_of(oscillators, INTEGRATORS[kind]())
    ratios = ratios_of_energies(simulation, oscillators, lambda simulation, system, positions, drawn: drawn)
    kicked = 1 + (STIFFNESS / 3.0) * TIME_STEP**2  # by a whole step of the force
    assert np.abs(ratios[0, 1] / kicked - 1).max() < 4 * ERROR + 0.01
    assert ratios[:, :, 2].mean() > 1.3  # and swings between positions and velocities


def test_of_leapfrog_velocities_stay_and_positions_are_its_own(oscillators):
    """Verlet has no thermostat: what it is given is what it keeps."""
    simulation = simulation_of(oscillators, INTEGRATORS["Verlet"]())
    ratios = ratios_of_energies(simulation, oscillators, with_their_own)
    assert np.abs(ratios - 1).max() < 5 * ERROR + 0.02


def test_an_integrator_of_the_users_own_gets_velocities_as_they_are_drawn(oscillators):
    integrator = openmm.CustomIntegrator(TIME_STEP)
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    simulation, drawn = simulation_of(oscillators, integrator), np.ones((N, 3))
    found, cost = velocities_after(simulation, oscillators, np.zeros((N, 3)), drawn)
    assert found is drawn and cost == 0


def test_constraints_and_positions_are_kept():
    system = load_system("alanine_dipeptide_vacuum")
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    constrained = force_field.createSystem(system.topology, constraints=app.HBonds, hydrogenMass=3)
    slow = Torsions(("phi",), system.slow.atoms[:1])
    simulation = app.Simulation(
        system.topology,
        constrained,
        openmm.LangevinMiddleIntegrator(300, 1, 0.004),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(system.positions)
    simulation.context.applyConstraints(1e-8)
    positions = np.array(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)
    whole = system_from_objects(system.topology, constrained, positions, temperature=300, slow=slow)
    drawn = maxwell_boltzmann(whole.masses, 1, whole.kT, named_rng(1, "test"))
    drawn = whole.constraints.tangent(drawn, positions[None], whole.masses)[0]
    found, _ = velocities_after(simulation, whole, positions, drawn)
    assert np.array_equal(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value, positions)
    along = positions[whole.constraints.pairs[:, 1]] - positions[whole.constraints.pairs[:, 0]]
    relative = found[whole.constraints.pairs[:, 1]] - found[whole.constraints.pairs[:, 0]]
    assert np.abs((along * relative).sum(axis=1)).max() < 1e-9
    assert np.abs(found - drawn).max() > 0.05
