"""The invertible network: identity at the start, its inverse, its volume, and what training by gradients does."""

import numpy as np
import pytest
import torch

from openmm_gancl.coordinates.slow_coordinates import ParticleCoordinates
from openmm_gancl.generator.coupling import CouplingNetwork
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.model import load_model
from openmm_gancl.generator.network_training import NetworkOptions, train_network
from openmm_gancl.generator.score_fit import fit_triangular
from openmm_gancl.reference.chart import CartesianCoordinates


@pytest.fixture
def network():
    """With weights that do something."""
    torch.manual_seed(1)
    network = CouplingNetwork(7, 3, n_layers=3, hidden=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network.requires_grad_(False)


def numbers_and_features(n, k=7):
    rng = np.random.default_rng(2)
    return (torch.as_tensor(rng.normal(size=(n, size))) for size in (k, 3))


def test_a_new_network_is_the_identity():
    numbers, features = numbers_and_features(20)
    found, log_volume = CouplingNetwork(7, 3)(numbers, features)
    assert torch.equal(found, numbers) and torch.equal(log_volume, torch.zeros(20, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2048])
def test_inverse_and_script(network, n):
    numbers, features = numbers_and_features(n)
    scripted = torch.jit.script(network)
    found, log_volume = scripted(numbers, features)
    assert (found - numbers).abs().max() > 0.1
    for one in (network, scripted):
        back, again = one.inverse(found, features)
        assert (back - numbers).abs().max() < 1e-10 and (again - log_volume).abs().max() < 1e-10
    eager, _ = network(numbers, features)
    assert (eager - found).abs().max() < 1e-10


def test_the_volume_is_that_of_the_jacobian(network):
    numbers, features = numbers_and_features(1)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, features)[0][0], numbers)[:, 0]
    _, log_volume = network(numbers, features)
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(log_volume.item(), abs=1e-12)


BEND = 0.5
"""Of y with the square of z, too much for cubic terms of small coefficients."""


@pytest.fixture(scope="module")
def bent():
    """Structures of a bent density of three components of one particle, label x, with exact gradients."""
    rng = np.random.default_rng(3)
    x, z = rng.uniform(-1, 1, 6000), rng.normal(size=6000)
    y = np.sin(2 * x) + BEND * np.sin(2.5 * z) + 0.3 * rng.normal(size=6000)
    residual = (y - np.sin(2 * x) - BEND * np.sin(2.5 * z)) / 0.09
    gradients = np.stack([2 * np.cos(2 * x) * residual, -residual, 2.5 * BEND * np.cos(2.5 * z) * residual - z], axis=1)
    slow = ParticleCoordinates(("x",), np.array([[0, 0]]), np.array([[-1.0, 1.0]]))
    chart = CartesianCoordinates(1, np.array([[0, 0]]))
    return chart, slow, np.stack([x, y, z], axis=1), gradients


@pytest.fixture(scope="module")
def trained(bent):
    chart, slow, coordinates, gradients = bent
    triangular = fit_triangular(chart, slow, coordinates, gradients)
    options = NetworkOptions(n_layers=2, hidden=16, n_steps=400, batch=128, rate=1e-2)
    found, losses = train_network(
        triangular, coordinates, gradients, np.ones(len(coordinates)), seed=4, options=options
    )
    return triangular, found, losses


def relative_entropy(made, bent, log_exact):
    """Mean of log pi - log q over structures of pi, nats."""
    chart, slow, coordinates, _ = bent
    return float((log_exact - InvertibleGenerator(made, chart, slow).log_density(coordinates)).mean())


def test_training_lowers_the_relative_entropy(bent, trained):
    triangular, found, losses = trained
    _, _, coordinates, _ = bent
    x, y, z = coordinates.T
    log_exact = -0.5 * z**2 - 0.5 * ((y - np.sin(2 * x) - BEND * np.sin(2.5 * z)) / 0.3) ** 2 - np.log(2 * np.pi * 0.3)
    before, after = (relative_entropy(made, bent, log_exact) for made in (triangular, found))
    assert before > 0.2 and -0.02 < after < 0.8 * before, (before, after)
    assert losses[-1] < 0.7 * losses[0]


def test_the_map_it_was_trained_on_stays_as_it_was(trained):
    triangular, found, _ = trained
    assert not isinstance(triangular.narrow.network, CouplingNetwork)
    assert isinstance(found.narrow.network, CouplingNetwork)


def test_the_file_keeps_the_network(bent, trained, tmp_path):
    chart, slow, coordinates, _ = bent
    generator = InvertibleGenerator(trained[1], chart, slow)
    generator.save(tmp_path / "model.safetensors")
    read = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(read.log_density(coordinates[:50]), generator.log_density(coordinates[:50]))


def test_the_same_seed_gives_the_same_network(bent, trained):
    _, _, coordinates, gradients = bent
    options = NetworkOptions(hidden=8, n_steps=5)
    weights = np.ones(len(coordinates))
    first, second, other = (
        train_network(trained[0], coordinates, gradients, weights, seed=seed, options=options)[0] for seed in (1, 1, 2)
    )
    states = [one.narrow.network.state_dict() for one in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
