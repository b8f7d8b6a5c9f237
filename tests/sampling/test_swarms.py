"""Swarms: shapes, the scheme, copies that fail alone, and what is refused."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import unit

from openmm_gancl import InputError, load_system
from openmm_gancl.sampling import sample_swarm
from openmm_gancl.sampling.langevin import langevin_integrator
from tests.physics.rigid import rigid_chain


@pytest.fixture(scope="module")
def chain():
    return load_system("bonded_chain")


def starts_of(system, n):
    return system.positions + 0.001 * np.random.default_rng(1).normal(size=(n, system.n_atoms, 3))


@pytest.mark.parametrize("copies", [1, 3, "auto"])
def test_frames_times_and_labels(chain, copies):
    starts = starts_of(chain, 7)
    swarm = sample_swarm(chain, starts, 12, n_frames=3, copies=copies, seed=1, platform="Reference")
    assert len(swarm) == 7 and swarm.positions.shape == (7, 3, 5, 3) and not swarm.failed.any()
    np.testing.assert_allclose(swarm.times, np.arange(4) * 4 * chain.time_step)
    np.testing.assert_allclose(swarm.labels[:, 0], chain.slow.transform(starts))
    np.testing.assert_allclose(swarm.labels[:, 3], chain.slow.transform(swarm.positions[:, 2]))
    again = sample_swarm(chain, starts, 12, n_frames=3, copies=copies, seed=1, platform="Reference")
    np.testing.assert_array_equal(again.positions, swarm.positions)
    other = sample_swarm(chain, starts, 12, n_frames=3, copies=copies, seed=2, platform="Reference")
    assert (other.positions[:, 2] != swarm.positions[:, 2]).all()


def test_the_scheme_is_openmms_own(chain):
    """At friction zero, packed or not, it makes the steps of LangevinMiddleIntegrator."""
    frictionless = replace(chain, friction=0.0)
    starts = starts_of(chain, 4)
    velocities = np.random.default_rng(2).normal(size=starts.shape)
    swarms = [
        sample_swarm(frictionless, starts, 50, velocities=velocities, copies=copies, platform="Reference")
        for copies in (1, 4)
    ]
    platform = openmm.Platform.getPlatformByName("Reference")
    for i in range(4):
        context = openmm.Context(chain.system, langevin_integrator(300, 0.0, chain.time_step), platform)
        context.setPositions(starts[i])
        context.setVelocities(velocities[i])
        context.getIntegrator().step(50)
        end = context.getState(positions=True).getPositions(asNumpy=True)._value
        for swarm in swarms:
            np.testing.assert_allclose(swarm.positions[i, 0], end, atol=1e-9)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_a_run_that_fails_changes_no_byte_of_the_others(chain, platform):
    starts = starts_of(chain, 5)
    options = {"n_frames": 2, "copies": 5, "seed": 1, "platform": platform}
    whole = sample_swarm(chain, starts, 20, **options)
    starts[1, 1], starts[3] = starts[1, 0], np.nan
    broken = sample_swarm(chain, starts, 20, **options)
    assert broken.failed.tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(broken.positions[::2], whole.positions[::2])


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_constrained_runs_go_one_after_the_other_and_fail_alone(platform):
    system = rigid_chain()
    starts = np.repeat(system.positions[None], 3, axis=0)
    starts[1, 1] = starts[1, 0]
    swarm = sample_swarm(system, starts, 20, seed=1, platform=platform)
    assert not swarm.failed[[0, 2]].any()
    assert system.constraints.violations(swarm.positions[[0, 2], 0]).max() < 1e-5
    with pytest.raises(InputError, match=r"constraints.*use copies=1"):
        sample_swarm(system, starts, 20, copies=3, platform=platform)


def test_units_of_starts_are_read(chain):
    starts = starts_of(chain, 2)
    plain, converted = (
        sample_swarm(chain, which, 4, time_step=step, platform="Reference")
        for which, step in ((starts, 0.001), (10.0 * starts * unit.angstrom, 1.0 * unit.femtosecond))
    )
    np.testing.assert_allclose(plain.positions, converted.positions, atol=1e-9)


def test_what_a_swarm_refuses(chain):
    starts = starts_of(chain, 2)
    with pytest.raises(InputError, match="whole number of steps"):
        sample_swarm(chain, starts, 10, n_frames=3, platform="Reference")
    with pytest.raises(InputError, match="there are no starts"):
        sample_swarm(chain, starts[:0], 10, platform="Reference")
    with pytest.raises(InputError, match="give a positive number of ps"):
        sample_swarm(chain, starts, 10, time_step=-0.001, platform="Reference")
    with pytest.raises(InputError, match="starts have shape"):
        sample_swarm(chain, starts[0], 10, platform="Reference")
    with pytest.raises(InputError, match="velocities have shape"):
        sample_swarm(chain, starts, 10, velocities=starts[:1], platform="Reference")
    cut = starts.copy()
    cut[1, 3:] += [3.0, 0.0, 0.0]
    with pytest.raises(InputError, match=r"(cut|box)"):
        sample_swarm(chain, cut, 10, platform="Reference")
    born = load_system("alanine_dipeptide_gbsa")
    with pytest.raises(InputError, match=r"GBSAOBCForce.*use copies=1"):
        sample_swarm(born, starts_of(born, 2), 10, copies=2, platform="Reference")


def test_a_step_of_brownian_dynamics():
    """Its mean is the force over m friction, its variance 2 kT dt / (m friction); without a time step it is refused."""
    toy, step, n = load_system("double_well_oscillators"), 0.002, 20_000
    starts = np.tile(toy.positions, (n, 1, 1))
    context = openmm.Context(toy.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(toy.positions)
    force = context.getState(forces=True).getForces(asNumpy=True)._value[0]
    options = {"platform": "Reference", "copies": 2000, "dynamics": "brownian"}
    swarm = sample_swarm(toy, starts, 1, time_step=step, seed=1, **options)
    moved = swarm.positions[:, 0, 0] - toy.positions[0]
    mobility = step / (toy.masses[0] * toy.friction)
    variance = 2 * toy.kT * mobility
    assert np.abs((moved.mean(axis=0) - mobility * force) / np.sqrt(variance / n)).max() < 4
    assert np.abs((moved.var(axis=0) / variance - 1) / np.sqrt(2 / n)).max() < 4
    with pytest.raises(InputError, match="overdamped dynamics needs a time step of its own"):
        sample_swarm(toy, starts[:1], 1, **options)
    with pytest.raises(InputError, match="choose langevin or brownian"):
        sample_swarm(toy, starts[:1], 1, dynamics="newton", platform="Reference")
    with pytest.raises(InputError, match="overdamped dynamics needs a positive one"):
        sample_swarm(replace(toy, friction=0.0), starts[:1], 1, time_step=step, **options)


def test_a_brownian_run_that_fails_changes_no_byte_of_the_others(chain):
    starts = starts_of(chain, 4)
    options = {"copies": 4, "time_step": 1e-5, "dynamics": "brownian", "seed": 1, "platform": "Reference"}
    whole = sample_swarm(chain, starts, 20, **options)
    starts[1, 1], starts[3] = starts[1, 0], np.nan
    broken = sample_swarm(chain, starts, 20, **options)
    assert broken.failed.tolist() == [False, True, False, True] and not whole.failed.any()
    np.testing.assert_array_equal(broken.positions[::2], whole.positions[::2])
