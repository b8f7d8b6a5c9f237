"""Mean forces along labels: of a map's own draws their mean is zero, whatever else moves along, wide torsions too."""

import numpy as np
import pytest
import torch

from openmm_gancl import load_system
from openmm_gancl.generator import transport
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.lifting.mean_forces import mean_forces
from openmm_gancl.reference.chart import chart_for
from tests.generator.random_map import random_map
from tests.physics.statistics import z_limit

N = 4000


def generator_of(name, wide, seed=0):
    system = load_system(name)
    chart = chart_for(system.topology, system.slow, system.positions)
    centre = chart.to_internal(system.positions[None])[0]
    return InvertibleGenerator(random_map(chart, system.slow, centre, wide, seed), chart, system.slow)


def drawn(generator, seed=1):
    """Draws at one label, and the gradients of their own log density: that of the label given is even."""
    d = len(generator.slow.names)
    coordinates, _ = generator.sample(np.full((N, d), 0.7), np.random.default_rng(seed))
    coordinates = coordinates[generator.inside(coordinates)]
    at = torch.tensor(coordinates, requires_grad=True)
    gradients = torch.autograd.grad(generator.map.inverse(at)[1].sum(), at)[0].numpy()
    return coordinates, gradients


def worst_z(slopes):
    return np.abs(slopes.mean(axis=0) / (slopes.std(axis=0) / len(slopes) ** 0.5)).max()


@pytest.mark.parametrize(
    ("name", "wide"), [("bonded_chain", ()), ("bonded_chain", (8,)), ("alanine_dipeptide_vacuum", ())]
)
def test_mean_forces_of_an_even_label_are_zero(name, wide):
    """With the velocity of the map itself, and of another one, in which a wide torsion is a narrow coordinate."""
    generator = generator_of(name, wide)
    coordinates, gradients = drawn(generator)
    for other in (generator, generator_of(name, (), seed=5)):
        assert worst_z(mean_forces(other, coordinates, gradients)) < z_limit(8)


def test_the_velocity_of_the_map_takes_the_noise():
    generator = generator_of("bonded_chain", ())
    coordinates, gradients = drawn(generator)
    held = gradients[:, generator.chart.label_indices]
    moved = mean_forces(generator, coordinates, gradients)
    assert moved.std() < 0.2 * held.std()


def test_a_divergence_left_out_shows():
    generator = generator_of("bonded_chain", ())
    coordinates, gradients = drawn(generator)
    divergence = mean_forces(generator, coordinates, 0 * gradients)
    assert worst_z(mean_forces(generator, coordinates, gradients) - divergence) > 5.0


def test_a_velocity_that_jumps_at_half_a_turn_shows(monkeypatch):
    """The twin: a torsion all around its circle, moved along as a narrow one without a taper."""
    coordinates, gradients = drawn(generator_of("bonded_chain", (8,)))
    monkeypatch.setattr(transport, "TAPER_START", 3.1415)
    assert worst_z(mean_forces(generator_of("bonded_chain", (), seed=5), coordinates, gradients)) > 5.0
