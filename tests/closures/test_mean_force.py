"""The mean force against closed forms, and against weights; the metric term left out, weights and labels off show."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from openmm import app

import openmm_gancl as gancl
from openmm_gancl import InputError, ModuleCoordinates
from openmm_gancl.closures import Ensemble, closure_test, conditional_average, mean_force_values, projected_force
from openmm_gancl.closures.mean_force import Z_THRESHOLD
from openmm_gancl.closures.observables import inverse_gradients
from openmm_gancl.reference.chart import chart_for
from tests.physics.exact import CHAIN, KT
from tests.physics.rigid import rigid_chain
from tests.physics.statistics import z_limit

STIFFNESS = 40.0
"""kJ/mol/nm^2, of a ring of radius 0.5 nm."""


class Radius(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(positions[..., 0, 0] ** 2 + positions[..., 0, 1] ** 2).unsqueeze(-1)


@pytest.fixture(scope="module")
def ring():
    """A particle about a ring, with exact frames: F(r) = U(r) - kT log r, for a circle of r is 2 pi r long."""
    topology = app.Topology()
    topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    system = openmm.System()
    system.addParticle(20.0)
    force = openmm.CustomExternalForce(f"{STIFFNESS / 2}*((sqrt(x*x+y*y)-0.5)^2+z*z)")
    force.addParticle(0)
    system.addForce(force)
    slow = ModuleCoordinates.from_module(Radius(), names=("r",), periods=[np.inf], domain=[[0.05, 1.2]])
    made = gancl.system_from_objects(topology, system, [[0.5, 0.0, 0.0]], temperature=300.0, slow=slow)
    rng = np.random.default_rng(1)
    grid = np.linspace(1e-3, 2.0, 4001)
    density = grid * np.exp(-0.5 * STIFFNESS * (grid - 0.5) ** 2 / KT)
    r = np.interp(rng.random(4000) * density.sum(), np.cumsum(density), grid)
    angle, z = rng.uniform(-np.pi, np.pi, 4000), rng.normal(0, np.sqrt(KT / STIFFNESS), 4000)
    return made, np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)[:, None]


def test_the_metric_term_of_a_radius(ring):
    """It is kT / r at each configuration, and without it the mean force is another."""
    system, frames = ring
    directions, divergence = inverse_gradients(system.slow, frames[:10])
    r = system.slow.transform(frames)[:, 0]
    np.testing.assert_allclose(divergence[:, 0], 1 / r[:10], rtol=1e-9)
    np.testing.assert_allclose(directions[:, 0, :2], frames[:10, 0, :2] / r[:10, None], rtol=1e-9)
    ensemble = Ensemble.of_positions(frames, system)
    exact = -STIFFNESS * (r - 0.5) + KT / r
    np.testing.assert_allclose(mean_force_values(ensemble)[:, 0], exact, rtol=1e-6, atol=1e-6)
    without = mean_force_values(ensemble, with_metric_term=False)[:, 0]
    assert np.abs(without - exact).min() > 1.0


@pytest.fixture(scope="module")
def chain():
    system = gancl.load_system("bonded_chain")
    chart = chart_for(system.topology, system.slow, system.positions)
    positions = CHAIN.sample(6000, np.random.default_rng(2), chart=chart)
    return Ensemble.of_positions(positions, system)


def exact_force(phi, step=1e-5):
    return -(CHAIN.torsion_energy(phi + step) - CHAIN.torsion_energy(phi - step)) / (2 * step)


def test_the_mean_force_along_a_torsion_is_the_closed_form(chain):
    """Where the field v is not the chart's; and the twins: labels of others, and a metric term of the wrong sign."""
    places = np.linspace(-3, 3, 12)[:, None]
    forces = mean_force_values(chain)
    rows = iter([forces[chain.ok], forces[chain.ok], 2 * mean_force_values(chain, with_metric_term=False) - forces])

    def largest(ensemble):
        values, errors = conditional_average(ensemble, lambda positions: next(rows)).at(places)
        return np.abs((values[:, 0] - exact_force(places[:, 0])) / errors[:, 0]).max()

    assert largest(chain) < z_limit(12)
    assert largest(replace(chain, labels=np.roll(chain.labels, 1, axis=0))) > 2 * z_limit(12)
    assert largest(chain) > z_limit(12)


def test_mean_force_and_weights_agree(toy, learned, ensemble, wide):
    for lifts in (ensemble, wide):
        found = closure_test(lifts)
        assert found.z < Z_THRESHOLD and not found.doubts()
        assert np.abs(found.differences / found.errors).max() < z_limit(len(found.errors))
        assert found.surface.energy.shape == found.surface_of_weights.energy.shape == (120,)
    assert closure_test(ensemble).rms < 0.2


def disagrees(ensemble, **changed):
    try:
        found = closure_test(replace(ensemble, **changed))
    except InputError as error:
        return "too noisy" in str(error)
    return found.z > Z_THRESHOLD and "different surfaces" in found.doubts()[0]


def test_wrong_weights_and_labels_show(ensemble, wide):
    """The twins: weights dropped, of another temperature, and labels of a stretched scale."""
    assert disagrees(wide, log_weights=np.zeros(len(wide)))
    assert disagrees(ensemble, log_weights=0.5 * ensemble.log_weights)
    assert disagrees(ensemble, labels=0.9 * ensemble.labels)


def test_shares_of_rounds_are_no_weights(wide):
    """Lifts on one side count a tenth: the surface is the same; multiplied into the weights they would tilt it."""
    shares = np.where(wide.labels[:, 0] < 0, 0.1, 1.0)
    counted, whole = replace(wide, shares=shares), closure_test(wide)
    found = closure_test(counted)
    assert found.z < Z_THRESHOLD
    low = whole.surface_of_weights.energy < 25
    difference = (found.surface_of_weights.energy - whole.surface_of_weights.energy)[low]
    assert np.ptp(difference) < 0.5 * KT
    assert disagrees(wide, log_weights=wide.log_weights + np.log(shares))


def test_a_metric_term_left_out_shows(ring):
    """Lifts on a grid of radii, drawn exactly: weights say F, the mean force without the term another."""
    system, _ = ring
    rng, r = np.random.default_rng(3), np.repeat(np.linspace(0.1, 1.1, 40), 50)
    angle, z = rng.uniform(-np.pi, np.pi, len(r)), rng.normal(0, 1.2 * np.sqrt(KT / STIFFNESS), len(r))
    positions = np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)[:, None]
    # of the ring at r, whose length is 2 pi r, and of a normal z that is too wide
    energy = 0.5 * STIFFNESS * ((r - 0.5) ** 2 + z**2)
    log_weights = -energy / KT + np.log(r) + 0.5 * z**2 / (1.44 * KT / STIFFNESS)
    lifts = Ensemble(positions, r[:, None], log_weights, None, system.slow, system, fixed=True)
    assert closure_test(lifts).z < Z_THRESHOLD
    without = closure_test(lifts, mean_force_values(lifts, with_metric_term=False))
    assert without.z > Z_THRESHOLD and without.doubts()


def test_what_a_closure_test_refuses(chain):
    with pytest.raises(InputError, match="give lifts at fixed labels"):
        closure_test(chain)
    rigid = rigid_chain()
    with pytest.raises(InputError, match="the System has constraints"):
        mean_force_values(Ensemble.of_positions(np.repeat(rigid.positions[None], 3, axis=0), rigid))
    with pytest.raises(InputError, match="the System has constraints"):
        projected_force(rigid)


@pytest.mark.slow
def test_mean_force_and_weights_agree_on_alanine_dipeptide():
    """By the map's slopes, and by forces projected on the torsions, whose errors are larger; and the twin."""
    system = gancl.load_system("alanine_dipeptide_vacuum")
    lifts = Ensemble.of_learned(gancl.learn(system, seed=1, max_evaluations=30_000), system)
    found, projected = closure_test(lifts), closure_test(lifts, mean_force_values(lifts))
    assert found.z < Z_THRESHOLD and projected.z < Z_THRESHOLD
    assert np.abs(found.differences / found.errors).max() < z_limit(len(found.errors))
    assert disagrees(lifts, log_weights=0.5 * lifts.log_weights)
