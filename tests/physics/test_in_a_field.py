"""A molecule alone in a field that turns it: moves of its internal coordinates, in its place, against exact samples."""

import numpy as np
import openmm
import pytest
from scipy.spatial.transform import Rotation

from openmm_gancl import LiftMove
from openmm_gancl.moves import lift_move
from openmm_gancl.moves.inverted import INDEPENDENT

from ..moves.test_lift_move import places, simulate
from .exact import CHAIN, KT
from .toy_generators import generator, system_and_chart

FIELD = 0.6 * np.array([25.0, 0.0, 0.0, 15.0, -40.0])
"""kJ/mol/nm, of each atom along z: no net force, and a torque of some kT."""

N_BLOCKS = 40


def observed(slow, positions):
    """Energy in the field, kT, cosine and sine of the torsion, shape=(n, 3), of shape=(n, 5, 3)."""
    torsion = slow.transform(positions)[:, 0]
    return np.stack([positions[:, :, 2] @ FIELD / KT, np.cos(torsion), np.sin(torsion)], axis=1)


def exact_means(n=400_000):
    """Exact free samples, turned at random and weighed by the field; their own errors are below 0.01."""
    system, chart = system_and_chart(CHAIN.name)
    rng = np.random.default_rng(5)
    free = np.einsum("nij,naj->nai", Rotation.random(n, rng).as_matrix(), CHAIN.sample(n, rng, chart=chart))
    found = observed(system.slow, free)
    weights = np.exp(-found[:, 0])
    return weights @ found / weights.sum()


def sampled(n, md_steps):
    """Means and errors with a move; the field is there from the start, as a restraint of place would be."""
    system = system_and_chart(CHAIN.name)[0]
    force = openmm.CustomExternalForce("q*z")
    force.addPerParticleParameter("q")
    for atom, strength in enumerate(FIELD):
        force.addParticle(atom, [strength])
    simulation = simulate(system, forces=[force], integrator=openmm.LangevinMiddleIntegrator(300, 5, 0.002), seed=1)
    move, found = LiftMove(simulation, generator(CHAIN.name, "trained"), moves=INDEPENDENT, seed=1), []
    for _ in range(n):
        move.run(1, md_steps)
        found.append(places(simulation).copy())
    blocks = observed(system.slow, np.array(found)).reshape(N_BLOCKS, -1, 3).mean(axis=1)
    return blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / N_BLOCKS**0.5


@pytest.mark.slow
def test_the_distribution_in_a_field_is_kept():
    """Three means within 3.5 errors: by chance in 0.2 % of seeds."""
    mean, error = sampled(8000, 60)
    z = (mean - exact_means()) / error
    assert error.max() < 0.05 and np.abs(z).max() < 3.5, (mean, error, z)


@pytest.mark.slow
def test_lifts_that_are_put_anywhere_lose_the_field(monkeypatch):
    """The fault that this guards against."""
    monkeypatch.setattr(lift_move, "placed_atoms", lambda system, model, molecule: molecule)
    mean, error = sampled(2000, 20)
    z = (mean - exact_means()) / error
    assert np.abs(z).max() > 5, (mean, error, z)
