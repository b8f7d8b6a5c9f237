"""Time steps and restraints against the fastest vibration, whose frequency is known."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl.coordinates.slow_coordinates import ParticleCoordinates
from openmm_gancl.errors import InputError
from openmm_gancl.sampling import short_windows, stability
from openmm_gancl.sampling.short_windows import sample_short_windows
from openmm_gancl.system.library import list_systems, load_system
from openmm_gancl.system.molecular_system import system_from_objects

ALA2 = "alanine_dipeptide_vacuum"
K, MASSES = 200_000.0, (12.0, 1.0)
FREQUENCY = float(np.sqrt(K * (1 / MASSES[0] + 1 / MASSES[1])))


def diatomic(constrained=False, third=None):
    """Two atoms on a spring, and one that is held by nothing much; a constraint or no mass for the third."""
    system, topology, masses = openmm.System(), app.Topology(), (*MASSES, 20.0 if third is None else third)
    residue = topology.addResidue("A", topology.addChain())
    for mass in masses:
        system.addParticle(mass)
        topology.addAtom("C", app.element.carbon, residue)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.11, K)
    system.addForce(bond)
    well = openmm.CustomExternalForce("50*(x^2+y^2+z^2)")
    well.addParticle(2)
    system.addForce(well)
    if constrained:
        system.addConstraint(0, 1, 0.11)
    slow = ParticleCoordinates(names=("x",), components=[[2, 0]], domain=[[-0.3, 0.3]])
    positions = np.array([[0.0, 0.0, 0.0], [0.11, 0.0, 0.0], [0.05, 0.0, 0.0]])
    return system_from_objects(
        topology, system, positions, temperature=300.0, slow=slow, force_constants=1000.0, time_step=0.001
    )


def fastest(system, with_restraint=False):
    return stability._Curvature(system, with_restraint).fastest(np.asarray(system.positions))


def test_the_frequency_of_a_spring_is_the_exact_one():
    found = fastest(diatomic())
    assert found.frequency == pytest.approx(FREQUENCY, rel=0.01) and found.atoms == (0, 1)
    assert found.period == pytest.approx(2 * np.pi / FREQUENCY, rel=0.01)


@pytest.mark.parametrize("constrained", [True, False])
def test_a_constrained_bond_does_not_vibrate(constrained):
    slow = np.sqrt(100.0 / 20.0)
    assert fastest(diatomic(constrained)).frequency == pytest.approx(slow if constrained else FREQUENCY, rel=0.01)


def test_a_restraint_is_part_of_what_vibrates():
    system = replace(diatomic(constrained=True), force_constants=np.array([4000.0]))
    assert fastest(system, with_restraint=True).frequency == pytest.approx(np.sqrt(4100.0 / 20.0), rel=0.01)


def test_a_massless_particle_does_not_move():
    assert fastest(diatomic(third=0.0)).frequency == pytest.approx(FREQUENCY, rel=0.01)


@pytest.mark.parametrize(("part", "blows_up"), [(0.9, False), (1.1, True)])
def test_dynamics_is_stable_below_the_longest_step_and_not_beyond(part, blows_up):
    """What the limit claims, of the integrator itself."""
    system = diatomic()
    integrator = openmm.VerletIntegrator(part * stability.STABLE / FREQUENCY)
    context = openmm.Context(system.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    stretched = np.array(system.positions)
    stretched[0, 0] += 0.001
    context.setPositions(stretched)
    integrator.step(200)
    energy = context.getState(energy=True).getPotentialEnergy()._value
    assert (not energy < 1e4) == blows_up


def test_a_time_step_is_refused_where_it_is_too_long_and_nowhere_else():
    system, longest = diatomic(), stability.STABLE / FREQUENCY
    stability.check_dynamics(replace(system, time_step=0.9 * longest))
    with pytest.raises(
        InputError, match=r"the time step of 0\.0047.* ps is too long: .*of atom 0 and atom 1.*set it to 0.002"
    ):
        stability.check_dynamics(replace(system, time_step=1.1 * longest))


@pytest.mark.parametrize("name", [name for name, _ in list_systems() if name not in ("half_moon", "quadratic")])
def test_shipped_cards_are_stable(name):
    if "water" not in name:
        stability.check_dynamics(load_system(name))


def test_flexible_bonds_of_hydrogen_take_no_five_femtoseconds():
    with pytest.raises(InputError, match=r"the time step of 0\.005 ps is too long"):
        stability.check_dynamics(replace(load_system(ALA2), time_step=0.005))


@pytest.mark.parametrize(("constant", "how"), [(20_000.0, "too stiff"), (0.5, "too soft")])
def test_restraints_that_no_window_can_have(constant, how):
    system = replace(load_system(ALA2), force_constants=np.array([200.0, constant]))
    with pytest.raises(InputError, match=f"the restraint of psi is {how}: .*rad wide: give 'force_constants' between"):
        stability.check_dynamics(system)


def test_two_atoms_too_close_are_no_fast_vibration():
    """A structure that was never minimised: its clash has a steep wall, which dynamics leaves at once."""
    system = load_system(ALA2)
    close = np.array(system.positions)
    close[21] = close[3] + [0.0, 0.0, 0.06]
    clash = replace(system, positions=close)
    assert fastest(clash).longest_step < system.time_step < fastest(system).longest_step
    stability.check_dynamics(clash)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"time_step": 0.16}, r"a training window failed.*the time step of 0.16 ps is too long, it holds with 0.04"),
        ({"force_constants": np.array([8e5])}, r"the restraint is too stiff, it holds with force constants of 764"),
    ],
)
def test_a_window_that_fails_says_by_what(changes, cause):
    system = replace(load_system("double_well_oscillators"), **changes)
    with pytest.raises(InputError, match=cause):
        sample_short_windows(system, np.random.default_rng(0))


def test_a_potential_that_is_nowhere_finite_is_neither(monkeypatch):
    system = load_system("double_well_oscillators")
    bad = openmm.CustomExternalForce("sqrt(x-100)")
    bad.addParticle(0)
    copy = openmm.XmlSerializer.clone(system.system)
    copy.addForce(bad)
    with pytest.raises(InputError, match="neither a shorter time step nor softer restraints help"):
        sample_short_windows(replace(system, system=copy), np.random.default_rng(0))
    assert short_windows.SHORTER > 1
