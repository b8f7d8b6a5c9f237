"""What a script changes in its Simulation between attempts: followed, or refused in a sentence."""

import numpy as np
import openmm
import pytest
from scipy.spatial.transform import Rotation

from openmm_gancl import InputError, LiftMove, load_system
from openmm_gancl.moves import lift_move
from openmm_gancl.moves.hints import other_isomer
from openmm_gancl.moves.inverted import INDEPENDENT
from openmm_gancl.system.one_molecule import placed_like
from openmm_gancl.units import masses_of

from ..physics.exact import CHAIN
from ..physics.toy_generators import generator, system_and_chart
from .test_lift_move import Never, places, simulate


@pytest.fixture(scope="module")
def system():
    return system_and_chart(CHAIN.name)[0]


@pytest.fixture(scope="module")
def model():
    return generator(CHAIN.name, "trained")


# a field: where the molecule is and how it is turned have an energy


def off_at_first():
    """A trap of every atom, and a field that turns the chain."""
    force = openmm.CustomExternalForce("on*(5*((x-2)^2+(y+1)^2+z^2)+q*z)")
    force.addGlobalParameter("on", 0.0)
    force.addPerParticleParameter("q")
    for atom in range(5):
        force.addParticle(atom, [20.0 * (atom == 0) - 20.0 * (atom == 4)])
    return force


def farthest_from_the_way_back(system, model, **options):
    """nm, of each accepted lift in a field that was switched on after the move was made.

    A lift from where it ended to the internal coordinates where it began must end where it began.
    """
    simulation = simulate(system, forces=[off_at_first()])
    move = LiftMove(simulation, model, seed=1, platform="Reference", **options)
    simulation.context.setParameter("on", 1.0)
    masses, found = masses_of(simulation.system), []
    for _ in range(40):
        simulation.step(2)
        before = places(simulation).copy()
        if move.attempt().accepted:
            found.append(np.abs(placed_like(before, places(simulation), masses) - before).max())
    return found


KINDS = {"inverted": {"moves": INDEPENDENT}, "latent": {"relax": "latent", "relax_steps": 3}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_is_switched_on_later(system, model, kind, monkeypatch):
    found = farthest_from_the_way_back(system, model, **KINDS[kind])
    assert len(found) >= 4 and max(found) < 1e-9
    # the twin: lifts that go wherever the model draws them
    monkeypatch.setattr(lift_move, "placed_atoms", lambda system, model, molecule: molecule)
    found = farthest_from_the_way_back(system, model, **KINDS[kind])
    assert not found or min(found) > 0.05


# masses, constraints and thermostats of another Context in the same Simulation


def heavier(system):
    for atom in range(system.getNumParticles()):
        system.setParticleMass(atom, 4.0 * system.getParticleMass(atom))


CHANGES = {
    "masses": heavier,
    "a frozen atom": lambda system: system.setParticleMass(4, 0.0),
    "a constraint": lambda system: system.addConstraint(0, 1, 0.15),
}


def changed(simulation, change):
    change(simulation.system)
    simulation.context.reinitialize(preserveState=True)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_system_of_other_masses_or_constraints(system, model, change):
    simulation = simulate(system)
    move = LiftMove(simulation, model, moves=INDEPENDENT, seed=1)
    move.run(2, 2)
    changed(simulation, change)
    before = places(simulation)
    with pytest.raises(InputError, match=r"masses or constraints have changed .* call move.refresh\(\), or make a new"):
        move.run(1)
    assert (places(simulation) == before).all() and len(move.history) == 2
    if change is heavier:
        move.refresh()
        assert 0.7 < mean_kinetic_temperature(move) < 1.3
    else:
        with pytest.raises(InputError, match=r"no mass|constrained bonds"):
            move.refresh()


def mean_kinetic_temperature(move, n=100):
    """After accepted lifts, in parts of that which is kept; the error is 0.08 for 20 of them."""
    found = []
    for _ in range(n):
        if move.attempt().accepted:
            kinetic = move.simulation.context.getState(energy=True).getKineticEnergy()._value
            found.append(kinetic / (7.5 * move.system.kT))
    assert len(found) >= 20
    return np.mean(found)


def test_velocities_of_the_masses_that_were_are_too_hot(system, model, monkeypatch):
    """The fault that is refused."""
    simulation = simulate(system)
    move = LiftMove(simulation, model, moves=INDEPENDENT, seed=1)
    changed(simulation, heavier)
    monkeypatch.setattr(LiftMove, "_check_system", lambda self: None)
    assert mean_kinetic_temperature(move) > 2.5


def test_a_force_in_a_group_that_no_step_uses(system, model):
    integrator = openmm.MTSLangevinIntegrator(300, 1, 0.001, [(0, 2)])
    simulation = simulate(system, integrator=integrator)
    move = LiftMove(simulation, model, moves=INDEPENDENT, seed=1)
    assert move.run(2, 2)
    changed(simulation, lambda system: system.getForce(1).setForceGroup(3))
    with pytest.raises(InputError, match=r"leaves force groups out \(group 3"):
        move.run(1)


# another isomer than the model's


def turned(system, angle):
    """Alanine dipeptide with everything beyond its second peptide bond turned about that."""
    positions, axis = system.positions.copy(), system.positions[16] - system.positions[14]
    around = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    positions[17:] = around.apply(positions[17:] - positions[16]) + positions[16]
    return positions


def test_another_isomer_is_named():
    alanine = load_system("alanine_dipeptide_vacuum")
    mirrored, cis = alanine.positions * [-1.0, 1.0, 1.0], turned(alanine, np.pi)
    assert other_isomer(alanine.topology, alanine.positions, turned(alanine, 0.3)) is None
    for what, changed in (("a chiral centre", mirrored), ("a peptide bond", cis)):
        for one, other in ((alanine.positions, changed), (changed, alanine.positions)):
            assert other_isomer(alanine.topology, one, other).startswith(f"{what} of the Simulation is the other way")


def test_lifts_of_a_mirror_image_say_so(system, model, monkeypatch):
    move = Never(simulate(system), model, moves=INDEPENDENT, seed=1)
    move.run(63)
    monkeypatch.setattr(lift_move, "other_isomer", lambda topology, drawn, here: "another isomer")
    with pytest.warns(UserWarning, match="0 of the last 64 lifts were accepted: another isomer"):
        move.run(1)


def test_a_thermostat_that_is_added_later(system, model):
    simulation = simulate(system)
    move = LiftMove(simulation, model, moves=INDEPENDENT, seed=1)
    changed(simulation, lambda system: system.addForce(openmm.AndersenThermostat(600.0, 20.0)))
    with pytest.raises(InputError, match="keeps 300 K and the AndersenThermostat 600 K"):
        move.run(1)
    simulation.context.setParameter(openmm.AndersenThermostat.Temperature(), 300.0)
    assert move.run(1)
