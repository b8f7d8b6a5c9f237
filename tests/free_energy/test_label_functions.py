"""Functions of labels: their slopes, periods and ends, and a prior of the stated variance."""

import numpy as np
import pytest

from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.free_energy.cox_process import PRIOR_STD
from openmm_gancl.free_energy.label_functions import LabelFunctions

KINDS = ("p", "o", "pp", "po", "oo", "ppo", "pppp")


def axes(kinds):
    """Periodic (p) and open (o) coordinates with domains that are not symmetric."""
    domain = np.array([[-np.pi, np.pi] if kind == "p" else [-0.3, 1.7] for kind in kinds])
    periods = np.array([2 * np.pi if kind == "p" else np.inf for kind in kinds])
    return FirstAxes(tuple(f"x{i}" for i in range(len(kinds))), periods, domain, ("",) * len(kinds))


def places(of, n=20, seed=0):
    return np.random.default_rng(seed).uniform(of.domain[:, 0], of.domain[:, 1], (n, len(of.names)))


@pytest.mark.parametrize("kinds", KINDS)
def test_slopes_equal_finite_differences(kinds):
    of = axes(kinds)
    functions, at, step = LabelFunctions(of), places(of), 1e-6
    values, *slopes = functions.with_slopes(at)
    assert values.shape == (20, len(functions)) and len(slopes) == len(kinds)
    assert np.array_equal(functions(at), values) and (values[:, 0] == 1).all()
    for axis, slope in enumerate(slopes):
        shift = step * np.eye(len(kinds))[axis]
        numerical = (functions(at + shift) - functions(at - shift)) / (2 * step)
        assert np.abs(numerical - slope).max() < 1e-5 * max(1.0, np.abs(slope).max())
        assert np.abs(slope).max() > 1.0


def test_slopes_of_another_axis_show():
    of = axes("po")
    _, first, second = LabelFunctions(of).with_slopes(places(of))
    assert np.abs(first - second).max() > 1.0


def test_periodic_axes_close_and_open_ones_do_not():
    functions = LabelFunctions(axes("po"))
    ends = np.array([[-np.pi, 0.4], [np.pi, 0.4], [0.2, -0.3], [0.2, 1.7]])
    values = functions.with_slopes(ends)
    assert np.allclose(values[:, 0], values[:, 1], rtol=0, atol=1e-9)
    assert np.abs(values[:, 2] - values[:, 3]).max() > 1.0


def test_open_axes_have_slopes_at_their_ends():
    """Cosines over the domain alone would have none."""
    of = axes("o")
    _, slopes = LabelFunctions(of).with_slopes(of.domain.T)
    assert (np.abs(slopes).max(axis=1) > 1.0).all()


@pytest.mark.parametrize("kinds", KINDS)
def test_no_function_is_there_twice(kinds):
    functions = LabelFunctions(axes(kinds))
    assert len(np.unique(functions.products, axis=0)) == len(functions)
    assert len(functions) <= (750 if len(kinds) < 3 else 200 * len(kinds))
    values = functions(places(axes(kinds), 40))
    correlated = np.corrcoef(values[:, 1:].T)
    assert (np.abs(correlated - np.eye(len(correlated))) < 1 - 1e-9).all()


@pytest.mark.parametrize("kinds", ["p", "pp", "pppp"])
def test_functions_are_orthonormal_on_circles(kinds):
    of = axes(kinds)
    functions = LabelFunctions(of)
    n = 2 * functions.order + 2
    grid = np.stack(np.meshgrid(*[2 * np.pi * np.arange(n) / n] * len(kinds), indexing="ij"), -1).reshape(
        -1, len(kinds)
    )
    values = functions(grid[:: max(1, len(grid) // 5000)]) if len(kinds) == 1 else functions(grid)
    assert np.allclose(values.T @ values / len(values), np.eye(len(functions)), atol=1e-9)


@pytest.mark.parametrize("length", [0.36, 0.04])
def test_the_prior_has_its_standard_deviation(length):
    functions = LabelFunctions(axes("pp"))
    variances = 1 / functions.prior_precision(length)
    assert variances[1:].sum() == pytest.approx(PRIOR_STD**2)
    assert variances[0] == 1e6
    rough = np.argmax((functions.wave_numbers**2).sum(axis=1))
    smooth = 1 / LabelFunctions(axes("pp")).prior_precision(2 * length)
    assert smooth[rough] < variances[rough]
