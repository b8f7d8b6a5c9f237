"""The triangular map with random parts: scripted as eager, inverted, and with the density of its own Jacobian."""

import numpy as np
import pytest
import torch

from openmm_gancl import load_system
from openmm_gancl.generator.triangular import FEW, MAX_SKEW, CubicTerms, WiderTails
from openmm_gancl.reference.chart import chart_for
from tests.generator.random_map import random_cubic, random_map

WIDE = (42, 47)


@pytest.fixture(scope="module")
def alanine():
    system = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(system.topology, system.slow, system.positions)
    coordinates = chart.to_internal(system.positions[None])[0]
    return random_map(chart, system.slow, coordinates, WIDE)


@pytest.fixture(scope="module")
def chain():
    system = load_system("bonded_chain")
    chart = chart_for(system.topology, system.slow, system.positions)
    return random_map(chart, system.slow, chart.to_internal(system.positions[None])[0], (8,))


def drawn(map_, n, seed=0):
    """Base numbers and labels; the normal ones reach the tails."""
    rng = np.random.default_rng(seed)
    base = np.concatenate([rng.random((n, map_.n_circular)), 1.3 * rng.standard_normal((n, map_.narrow.n))], axis=1)
    return torch.as_tensor(base), torch.as_tensor(rng.uniform(-np.pi, np.pi, (n, len(map_.label_indices))))


def test_every_kind_of_coordinate_is_there(alanine):
    assert (alanine.n_wide, alanine.n_circular, alanine.narrow.n) == (2, 5, 53)
    assert alanine.narrow.cubic.depth == 2 and len(alanine.narrow.varying) > 100


@pytest.mark.parametrize("n", [1, 2048])
def test_scripted_equals_eager_and_inverts(alanine, n):
    scripted = torch.jit.script(alanine)
    base, labels = drawn(alanine, n)
    coordinates, log_density = alanine(base, labels)
    for found, expected in zip(scripted(base, labels), (coordinates, log_density), strict=True):
        assert torch.abs(found - expected).max() < 1e-10
    for found, expected in zip(scripted.inverse(coordinates), alanine.inverse(coordinates), strict=True):
        assert torch.abs(found - expected).max() < 1e-10
    inside = alanine.inside(coordinates)
    again, same_log_density = scripted.inverse(coordinates)
    assert inside.double().mean() > 0.9 and torch.equal(inside, scripted.inside(coordinates))
    assert torch.abs(again - base)[inside].max() < 1e-10
    assert torch.abs(same_log_density - log_density)[inside].max() < 1e-9
    assert torch.equal(coordinates[:, alanine.label_indices], labels)


def test_few_draws_are_those_of_many(alanine):
    """Few are solved for by matrices of their own."""
    base, labels = drawn(alanine, 2 * FEW)
    together = alanine(base, labels)
    for begin in (0, FEW + 1):
        some = slice(begin, begin + FEW - 1)
        for found, expected in zip(alanine(base[some], labels[some]), together, strict=True):
            assert torch.abs(found - expected[some]).max() < 1e-10


def test_narrow_torsions_are_the_same_after_a_turn(alanine):
    coordinates, _ = alanine(*drawn(alanine, 50))
    turned = coordinates.clone()
    turned[:, alanine.narrow_indices[alanine.periodic]] += 2 * np.pi
    for found, expected in zip(alanine.inverse(turned), alanine.inverse(coordinates), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    assert not alanine.inside(turned).any()


def jacobian_log_density(map_, base, labels):
    """The log density of one draw from the determinant of its Jacobian with the base numbers."""
    rest = torch.cat([map_.circular_indices, map_.narrow_indices])
    jacobian = torch.autograd.functional.jacobian(lambda at: map_(at[None], labels[None])[0][0, rest], base)
    normals = base[map_.n_circular :]
    log_base = -0.5 * (normals**2).sum() - 0.5 * np.log(2 * np.pi) * len(normals)
    return log_base - torch.linalg.slogdet(jacobian)[1]


@pytest.mark.parametrize("name", ["alanine", "chain"])
def test_log_density_is_that_of_the_jacobian(name, request):
    map_ = request.getfixturevalue(name)
    base, labels = drawn(map_, 2, seed=3)
    _, log_density = map_(base, labels)
    expected = torch.stack([jacobian_log_density(map_, *row) for row in zip(base, labels, strict=True)])
    assert torch.abs(log_density - expected).max() < 1e-9


def test_the_slope_of_the_tails_left_out_shows(chain, monkeypatch):
    base, labels = drawn(chain, 8, seed=3)
    base[:, -1] = 3.0
    expected = jacobian_log_density(chain, base[0], labels[0])
    forward = WiderTails.forward
    monkeypatch.setattr(WiderTails, "forward", lambda self, at: (forward(self, at)[0], torch.zeros_like(at)))
    assert torch.abs(chain(base, labels)[1][0] - expected) > 0.1


def test_wider_tails_rise_and_know_their_slope():
    tails, at = WiderTails(), torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    widened, log_slopes = tails(at)
    step = at[1] - at[0]
    assert (torch.diff(widened) >= step - 1e-12).all()
    bulk = torch.abs(at) < tails.start
    assert torch.equal(widened[bulk], at[bulk]) and (log_slopes[bulk] == 0).all()
    numerical = torch.log((widened[2:] - widened[:-2]) / (2 * step))
    # the slope has a kink, where the difference is off by half a step's change
    assert torch.abs(numerical - log_slopes[1:-1]).max() < 1e-3
    assert log_slopes[-1].item() == pytest.approx(np.log(tails.slope))
    again, same = tails.inverse(widened)
    assert torch.abs(again - at).max() < 1e-12 and torch.abs(same - log_slopes).max() < 1e-12


def test_gradients_in_the_normal_numbers_are_those_of_the_whole_map(alanine):
    """Written out for the linear part; here by differentiation of everything."""
    narrow, rng = alanine.narrow, np.random.default_rng(2)
    conditions = torch.as_tensor(narrow.condition.places(40, rng))
    normals = torch.as_tensor(1.3 * rng.standard_normal((40, narrow.n))).requires_grad_(True)
    gradients = torch.as_tensor(rng.standard_normal((40, narrow.n)))
    coordinates, log_volume = narrow(normals, conditions)
    (exact,) = torch.autograd.grad((coordinates * gradients).sum() + log_volume.sum(), normals)
    again, found = narrow.normals_and_gradients(conditions, coordinates.detach(), gradients)
    assert torch.abs(again - normals).max() < 1e-9 and torch.abs(found - exact).max() < 1e-9


def numbers(n, k, seed=0):
    return torch.as_tensor(2.0 * np.random.default_rng(seed).standard_normal((n, k)))


def test_cubic_inverse_is_exact_at_its_depth():
    cubic, at = random_cubic(6, np.random.default_rng(1), size=0.2), numbers(4000, 6)
    assert cubic.depth == 2
    mapped, log_volume = cubic(at)
    again, same = cubic.inverse(mapped)
    assert torch.abs(at).max() > cubic.reach
    assert torch.abs(again - at).max() < 1e-12 and torch.abs(same - log_volume).max() < 1e-12
    cubic.depth = 1
    assert torch.abs(cubic.inverse(mapped)[0] - at).max() > 1e-3


def test_cubic_volume_is_that_of_its_jacobian():
    cubic, at = random_cubic(5, np.random.default_rng(2), size=0.2), numbers(40, 5)
    _, log_volume = cubic(at)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda x: cubic(x[None])[0][0], row) for row in at])
    assert torch.abs(torch.linalg.slogdet(jacobians)[1] - log_volume).max() < 1e-12


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_skew_rises_everywhere(sign):
    nothing = torch.zeros(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    cubic = CubicTerms(*nothing, torch.full((1,), sign * MAX_SKEW, dtype=torch.float64))
    at = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    mapped, _ = cubic(at)
    assert (torch.diff(mapped[:, 0]) > 0).all()
    assert torch.abs(cubic.inverse(mapped)[0] - at).max() < 1e-12


def autograd_transport(narrow, conditions, coordinates, gradients, n):
    """``v . g + div v`` by automatic differentiation at fixed normals, of one structure."""

    def velocity(at):
        held = narrow.inverse(at[None], conditions[None])[0]
        moving = torch.autograd.functional.jacobian(
            lambda c: narrow(held, c[None])[0][0], conditions, create_graph=True
        )
        return moving[:, :n]

    slopes = velocity(coordinates).T @ gradients
    divergence = torch.autograd.functional.jacobian(velocity, coordinates)
    return slopes + torch.einsum("ini->n", divergence)


def test_transport_equals_automatic_differentiation_at_fixed_normals(chain):
    narrow = chain.narrow
    coordinates, _ = chain(*drawn(chain, 3, seed=7))
    conditions = coordinates[:, torch.cat([chain.label_indices, chain.circular_indices])]
    values = coordinates[:, chain.narrow_indices]
    gradients = numbers(3, narrow.n, seed=8) * 30
    found = narrow.transport(conditions, values, gradients, 2)
    rows = zip(conditions, values, gradients, strict=True)
    expected = torch.stack([autograd_transport(narrow, *row, 2) for row in rows])
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    divergence = narrow.transport(conditions, values, 0 * gradients, 2)
    assert torch.abs(divergence).max() > 1e-2
