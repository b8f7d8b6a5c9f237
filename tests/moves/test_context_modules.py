"""What a Context is proposed: the labels' density, and that of whole configurations, forward and back."""

import numpy as np
import pytest
import torch

from openmm_gancl import load_system
from openmm_gancl.lifting.draws import weigh_coordinates
from openmm_gancl.lifting.placement import GridPlacement
from openmm_gancl.moves.context_modules import NO_DENSITY, LabelGrid, Proposals, even_placement
from tests.physics.exact import CHAIN, DOUBLE_WELL
from tests.physics.test_invertible_lifter import rigid_generator
from tests.physics.toy_generators import generator


def grid(shape=(5, 3), seed=0):
    """p(s) over a periodic label and one that is not, with cells that are never drawn."""
    probabilities = np.random.default_rng(seed).random(shape)
    probabilities[1], probabilities[2, 0] = 0.0, 0.0
    edges = (np.linspace(-np.pi, np.pi, shape[0] + 1), np.linspace(-1.0, 2.0, shape[1] + 1))
    return GridPlacement(edges, probabilities / probabilities.sum())


def test_labels_have_the_density_of_the_grid():
    placement = grid()
    module = torch.jit.script(LabelGrid(placement, np.array([True, False])))
    labels, log_density = module(torch.as_tensor(np.random.default_rng(1).random((20_000, 2))))
    found, _, _ = np.histogram2d(*labels.numpy().T, bins=placement.edges)
    expected = placement.probabilities * len(labels)
    assert (found[expected == 0] == 0).all()
    z = (found - expected)[expected > 0] / np.sqrt(expected[expected > 0])
    assert np.abs(z).max() < 4.0 and np.abs(z).std() > 0.2
    assert np.allclose(log_density, placement.log_density(labels.numpy()), rtol=0, atol=1e-12)
    assert torch.equal(module.inverse(labels), log_density)


def test_labels_outside_have_no_density():
    module = LabelGrid(grid(), np.array([True, False]))
    places = torch.tensor([[0.5, 2.1], [0.5, -1.01], [0.5, 1.5], [0.5 + 2 * np.pi, 1.5], [-1.5, 0.0]])
    outside = torch.isneginf(module.inverse(places.double()))
    assert outside.tolist() == [True, True, False, False, True]


def test_the_ends_of_the_numbers_are_labels_too():
    module = LabelGrid(grid(), np.array([True, False]))
    labels, log_density = module(torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    assert torch.isfinite(labels).all() and torch.isfinite(log_density).all()


def case(name):
    if name == "rigid":
        return rigid_generator()
    name, kind = name.split(":")
    return load_system(name), generator(name, kind)


@pytest.mark.parametrize("name", [f"{CHAIN.name}:trained", f"{CHAIN.name}:gan", f"{DOUBLE_WELL.name}:gan", "rigid"])
def test_log_densities_are_those_of_draws(name):
    """Forward, and back wherever the molecule lies; log w is that of `openmm_gancl.lifting.draws`."""
    system, made = case(name)
    d = len(system.slow.names)
    placement = GridPlacement(
        tuple(np.linspace(low, high, 9) for low, high in system.slow.domain), np.full((8,) * d, 8.0**-d)
    )
    proposals = torch.jit.script(Proposals(made, placement, system).requires_grad_(False))
    normals = np.random.default_rng(0).standard_normal((200, made.chart.n_coordinates))
    positions, log_density = (part.numpy() for part in proposals(torch.as_tensor(normals)))
    ok = log_density > NO_DENSITY
    assert ok.sum() > 150
    positions, log_density = positions[ok], log_density[ok]
    coordinates, labels = made.chart.to_internal(positions), system.slow.transform(positions)
    inside = system.state.inside(positions)
    assert inside.all()
    draws = weigh_coordinates(
        system, made.chart, coordinates, labels, made.log_density(coordinates), inside, platform="Reference"
    )
    log_volume = made.chart.log_jacobian(coordinates) + system.constraints.log_fixman(positions, system.masses)
    log_label = placement.log_density(labels)
    assert np.allclose(log_density, log_label + draws.log_density - log_volume, rtol=0, atol=1e-8)
    moved = positions
    if made.chart.kind == "internal":
        turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
        moved = positions @ (turn * np.linalg.det(turn)) + 3.0
    again = proposals.log_density(torch.as_tensor(moved)).numpy()
    assert np.allclose(again, log_density, rtol=0, atol=1e-8)


def test_what_is_outside_has_no_density():
    system, made = case(f"{DOUBLE_WELL.name}:trained")
    proposals = Proposals(made, even_placement(system.slow), system)
    places = np.repeat(system.positions[None], 3, axis=0)
    places[1, 0, 0] = system.slow.domain[0, 1] + 0.01
    places[2, 0, 1] = np.nan
    found = proposals.log_density(torch.as_tensor(places)) > NO_DENSITY
    assert found.tolist() == [True, False, False]


def test_a_draw_outside_the_chart_has_no_density():
    """An angle of three and a half turns looks like another one, once it is read back."""
    system, made = case(f"{CHAIN.name}:trained")
    proposals, chart = Proposals(made, even_placement(system.slow), system), made.chart
    coordinates = torch.as_tensor(chart.to_internal(np.repeat(system.positions[None], 4, axis=0)))
    coordinates[1, chart.n_bonds] += 2 * np.pi
    coordinates[2, 0] *= -1.0
    coordinates[3, 0] = np.nan
    found = proposals.positions.inside(coordinates)
    assert found.tolist() == chart.inside(coordinates.numpy()).tolist() == [True, False, False, False]
