"""The invertible network: identity at the start, its inverse and its volume."""

import numpy as np
import pytest
import torch

from openmm_gancl.generator.coupling import CouplingNetwork


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


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_the_score_is_the_gradient_of_the_log_density(n_layers):
    torch.manual_seed(3)
    network = CouplingNetwork(7, 3, n_layers, hidden=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    numbers, features = numbers_and_features(20)
    numbers.requires_grad_(True)
    base, log_volume = network.inverse(numbers, features)
    (exact,) = torch.autograd.grad((-0.5 * (base**2).sum(dim=1) - log_volume).sum(), numbers)
    assert torch.abs(network.score(numbers, features) - exact).max() < 1e-10 * torch.abs(exact).max()
