"""Training of the network: each loss is that of the density, what training gains, and what with_network refuses."""

import numpy as np
import pytest
import torch

from openmm_gancl import InputError
from openmm_gancl.coordinates.slow_coordinates import ParticleCoordinates
from openmm_gancl.generator.coupling import CouplingNetwork
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.model import load_model
from openmm_gancl.generator.network_training import (
    NetworkOptions,
    TrainingNumbers,
    likelihood_loss,
    score_loss,
    train_network,
    with_network,
)
from openmm_gancl.generator.score_fit import fit_triangular
from openmm_gancl.reference.chart import CartesianCoordinates

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


def relative_entropy(made, bent):
    """Mean of log pi - log q over structures of pi, nats."""
    chart, slow, coordinates, _ = bent
    x, y, z = coordinates.T
    log_exact = -0.5 * z**2 - 0.5 * ((y - np.sin(2 * x) - BEND * np.sin(2.5 * z)) / 0.3) ** 2 - np.log(2 * np.pi * 0.3)
    return float((log_exact - InvertibleGenerator(made, chart, slow).log_density(coordinates)).mean())


def test_training_lowers_the_relative_entropy(bent, trained):
    triangular, found, losses = trained
    before, after = (relative_entropy(made, bent) for made in (triangular, found))
    assert before > 0.2 and -0.02 < after < 0.8 * before, (before, after)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("terms", [{"likelihood": 1.0}, {"likelihood": 1.0, "adversarial": 1.0}])
def test_so_do_likelihood_and_a_critic_beside_it(bent, trained, terms):
    _, _, coordinates, gradients = bent
    options = NetworkOptions(hidden=16, n_steps=400, batch=128, rate=1e-2, scores=0.0, **terms)
    found, losses = train_network(
        trained[0], coordinates, gradients, np.ones(len(coordinates)), seed=4, options=options
    )
    before, after = (relative_entropy(made, bent) for made in (trained[0], found))
    assert after < 0.8 * before, (before, after)
    assert min(losses) < losses[0]


def test_a_critic_alone_keeps_its_last_step(bent, trained):
    _, _, coordinates, gradients = bent
    options = NetworkOptions(hidden=8, n_steps=20, batch=64, scores=0.0, adversarial=1.0)
    found, losses = train_network(
        trained[0], coordinates, gradients, np.ones(len(coordinates)), seed=4, options=options
    )
    assert np.isfinite(losses).all() and len(losses) == 2
    assert any(float(layer.network[4].weight.abs().max()) > 0 for layer in found.narrow.network.layers)


def test_a_network_that_is_there_goes_on(bent, trained):
    _, _, coordinates, gradients = bent
    options = NetworkOptions(hidden=16, n_steps=1, batch=128)
    weights = np.ones(len(coordinates))
    _, losses = train_network(trained[1], coordinates, gradients, weights, seed=4, options=options)
    assert losses[0] == pytest.approx(min(trained[2]), rel=1e-3)


def own_numbers(network, n=200):
    """Numbers of a network with the exact gradients of its log density."""
    rng = np.random.default_rng(5)
    normals, features = (torch.as_tensor(rng.normal(size=(n, size))) for size in (7, 3))
    at = network(normals, features)[0].detach().requires_grad_(True)
    base, log_volume = network.inverse(at, features)
    gradients = torch.autograd.grad((-0.5 * base**2).sum() - log_volume.sum(), at)[0]
    one = torch.ones(n, dtype=torch.float64)
    return TrainingNumbers(at.detach(), gradients, features, one, one)


class WithoutVolume(CouplingNetwork):
    """The planted fault: a log volume of zero."""

    def inverse(self, numbers, features):
        base, log_volume = super().inverse(numbers, features)
        return base, 0.0 * log_volume

    def score(self, numbers, features):
        at = numbers.detach().requires_grad_(True)
        base, _ = super().inverse(at, features)
        return torch.autograd.grad(-0.5 * (base**2).sum(), at)[0]


@pytest.mark.parametrize("kind", [CouplingNetwork, WithoutVolume])
def test_the_losses_are_those_of_the_density(kind):
    """None of the score loss is left at the network's own gradients; a dropped volume shows in both losses."""
    torch.manual_seed(1)
    network = CouplingNetwork(7, 3, hidden=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    data = own_numbers(network)
    tried = kind(7, 3, hidden=16)
    tried.load_state_dict(network.state_dict())
    wrong = kind is WithoutVolume
    assert (score_loss(tried, data, data.weights).item() > 1e-3) == wrong
    base, log_volume = network.inverse(data.numbers, data.features)
    exact = (0.5 * (base**2).sum(dim=1) + log_volume).mean().item()
    assert (abs(likelihood_loss(tried, data, data.weights).item() - exact) > 1e-2) == wrong


@pytest.fixture(scope="module")
def generator(bent, trained):
    chart, slow, coordinates, gradients = bent
    plain = InvertibleGenerator(trained[0], chart, slow, {"kept": 1})
    options = NetworkOptions(hidden=16, n_steps=60, batch=128, rate=1e-2)
    return with_network(plain, coordinates, gradients, np.ones(len(coordinates)), seed=4, options=options)


@pytest.mark.parametrize("n", [1, 2048])
def test_draws_come_back(generator, n):
    """Through the scripted module, in batches of any size."""
    rng = np.random.default_rng(6)
    base, labels = generator.sample_base(n, rng), rng.uniform(-1, 1, (n, 1))
    coordinates, log_density = generator.transform(base, labels)
    found, again = generator.invert(coordinates)
    assert np.abs(found - base).max() < 1e-10 and np.abs(again - log_density).max() < 1e-10
    with torch.no_grad():
        eager = generator.map(torch.as_tensor(base), torch.as_tensor(labels))
    assert np.abs(eager[0].numpy() - coordinates).max() < 1e-10 and np.abs(eager[1].numpy() - log_density).max() < 1e-10


def test_the_density_is_that_of_the_jacobian(generator):
    rng = np.random.default_rng(7)
    base, labels = (torch.as_tensor(part) for part in (generator.sample_base(1, rng), rng.uniform(-1, 1, (1, 1))))
    jacobian = torch.autograd.functional.jacobian(lambda at: generator.map(at, labels)[0][0, 1:], base)[:, 0]
    expected = -0.5 * (base**2).sum() - np.log(2 * np.pi) - torch.linalg.slogdet(jacobian)[1]
    assert generator.map(base, labels)[1].item() == pytest.approx(expected.item(), abs=1e-10)


def test_metadata_say_what_was_trained(generator):
    found = generator.metadata["network"]
    assert generator.metadata["kept"] == 1 and found["steps"] == 60
    assert len(found["held_out_losses"]) == 2 and found["held_out_losses"][1] < found["held_out_losses"][0]


def test_too_few_structures_are_refused(bent, trained):
    chart, slow, coordinates, gradients = bent
    plain = InvertibleGenerator(trained[0], chart, slow)
    with pytest.raises(
        InputError, match="a network needs 1000 effective training structures, and there are 300: raise"
    ):
        with_network(plain, coordinates[:300], gradients[:300], np.ones(300), seed=1)
    gradients = gradients.copy()
    gradients[5] = np.nan
    with pytest.raises(InputError, match="1 training structures have gradients that are not finite: leave them out"):
        with_network(plain, coordinates, gradients, np.ones(len(coordinates)), seed=1)
    nothing = NetworkOptions(scores=0.0)
    with pytest.raises(InputError, match="by scores, by likelihood or against a critic: give one a weight"):
        train_network(trained[0], *bent[2:], np.ones(len(coordinates)), seed=1, options=nothing)


@pytest.mark.parametrize(
    "wrong",
    [
        {"held_out": 0.0},
        {"held_out": 1.0},
        {"n_layers": 0},
        {"hidden": 0},
        {"batch": 0},
        {"n_steps": 1.5},
        {"rate": 0.0},
        {"critic_rate": -1.0},
        {"scores": -1.0},
        {"likelihood": np.nan},
    ],
)
def test_numbers_that_a_training_cannot_have(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*: give a"):
        NetworkOptions(**wrong)


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
