"""Circular densities: normalised, inverted exactly, with equally probable wells, and drawn as they say."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from openmm_gancl.generator.circular import CircularDensity
from tests.physics.statistics import FALSE_ALARM

FOLDS = (1, 2, 3)


def density_of(fold, seed=0, uniform_share=0.02, size=1.0):
    coefficients = torch.as_tensor(size * np.random.default_rng(seed).standard_normal((3, 6)))
    return CircularDensity(torch.arange(3), coefficients, fold, uniform_share)


def basis_of(n, seed=1, same=True):
    rows = torch.as_tensor(np.random.default_rng(seed).standard_normal((1 if same else n, 3)))
    return rows.expand(n, 3).contiguous()


@pytest.mark.parametrize("fold", FOLDS)
def test_density_is_normalised(fold):
    n = 48 * 60 * fold
    angles = torch.arange(n, dtype=torch.float64) * (2 * np.pi / n) - np.pi
    _, log_density = density_of(fold).inverse(angles, basis_of(n))
    # the trapezoid rule is exact for what is linear between its points
    assert torch.exp(log_density).mean().item() * 2 * np.pi == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("fold", FOLDS)
def test_inverse_is_exact(fold):
    uniform = torch.as_tensor(np.random.default_rng(2).random(5000))
    basis = basis_of(5000, same=False)
    density = density_of(fold)
    angles, log_density = density(uniform, basis)
    again, same_log_density = density.inverse(angles, basis)
    assert (angles >= -np.pi).all() and (angles < np.pi).all()
    # an angle of a few radians has an error of 1e-15, which the density multiplies
    assert torch.abs(again - uniform).max() < 1e-12
    assert torch.abs(log_density - same_log_density).max() < 1e-10


@pytest.mark.parametrize("fold", FOLDS)
def test_ends_of_the_uniform_numbers(fold):
    uniform = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    angles, log_density = density_of(fold)(uniform, basis_of(2))
    assert torch.isfinite(angles).all() and torch.isfinite(log_density).all()
    turned = density_of(fold).inverse(angles + 2 * np.pi, basis_of(2))[1]
    assert torch.allclose(turned, log_density, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fold", FOLDS)
def test_log_density_is_the_derivative_of_the_inverse(fold):
    angles = torch.as_tensor(np.random.default_rng(3).uniform(-3.1, 3.1, 200))
    density, basis, step = density_of(fold), basis_of(200), 1e-6
    up, down = (density.inverse(angles + sign * step, basis)[0] for sign in (0.5, -0.5))
    log_density = density.inverse(angles, basis)[1]
    numerical = torch.log(torch.remainder(up - down, 1.0) / step)
    assert torch.abs(numerical - log_density).max() < 1e-4
    if fold > 1:
        # a density of the phase per radian of the phase times the fold would be off by its logarithm
        assert torch.abs(numerical - (log_density + np.log(fold))).min() > 0.5


@pytest.mark.parametrize("fold", FOLDS[1:])
def test_wells_are_equally_probable(fold):
    edges = torch.arange(fold, dtype=torch.float64) * (2 * np.pi / fold)
    below, _ = density_of(fold).inverse(edges, basis_of(fold))
    assert torch.allclose(below, torch.arange(fold, dtype=torch.float64) / fold, atol=1e-12)
    at = torch.full((fold,), 0.3, dtype=torch.float64)
    logs = density_of(fold).inverse(at + edges, basis_of(fold))[1]
    assert torch.allclose(logs, logs[:1].expand(fold), atol=1e-11)


def distribution(density, angles, basis_row):
    """The distribution function from -pi on, by quadrature of the density."""
    grid = torch.linspace(-np.pi, np.pi, 48 * 200 + 1, dtype=torch.float64)
    values = torch.exp(density.inverse(grid, basis_row.expand(len(grid), 3))[1]).numpy()
    steps = 0.5 * (values[1:] + values[:-1]) * (grid[1] - grid[0]).item()
    return np.interp(angles, grid.numpy(), np.concatenate([[0.0], np.cumsum(steps)]))


@pytest.mark.parametrize("fold", FOLDS)
def test_draws_follow_the_density(fold):
    """False alarms of the whole family: 4.7e-4."""
    n, basis = 20_000, basis_of(1)
    density = density_of(fold)
    uniform = torch.as_tensor(np.random.default_rng(4).random(n))
    angles = density(uniform, basis.expand(n, 3))[0].numpy()
    found = kstest(angles, lambda at: distribution(density, at, basis))
    assert found.pvalue > FALSE_ALARM / len(FOLDS)
    wrong = kstest(angles, lambda at: distribution(density_of(fold, seed=5), at, basis))
    assert wrong.pvalue < 1e-6


def test_uniform_share_bounds_the_density_from_below():
    angles = torch.linspace(-np.pi, np.pi, 500, dtype=torch.float64)
    steep = density_of(1, uniform_share=0.05, size=50.0)
    logs = steep.inverse(angles, basis_of(500))[1]
    assert logs.min().item() >= np.log(0.05 / (2 * np.pi)) - 1e-12
    assert logs.min().item() == pytest.approx(np.log(0.05 / (2 * np.pi)), abs=1e-3)
