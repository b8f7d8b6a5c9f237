"""Sums over places of label functions, slopes and their products: those of the functions written out."""

import numpy as np
import pytest

from openmm_gancl.free_energy.label_functions import LabelFunctions
from openmm_gancl.free_energy.label_tables import ROWS_AT_ONCE, LabelTables
from tests.free_energy.test_label_functions import axes, places

KINDS = ("p", "o", "pp", "po", "ppo", "pppp")


def tables(kinds, n=50):
    """Tables at n places, and the functions and their slopes written out."""
    of = axes(kinds)
    functions, at = LabelFunctions(of), places(of, n)
    return LabelTables(functions, at), functions.with_slopes(at)


def relative(found, exact):
    return np.abs(found - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("kinds", KINDS)
def test_sums_over_functions_and_over_places(kinds):
    made, written = tables(kinds)
    rng = np.random.default_rng(1)
    coefficients, weights = rng.normal(size=written.shape[2]), rng.normal(size=written.shape[1])
    for axis, columns in zip([None, *range(len(kinds))], written, strict=True):
        assert relative(made.combine(coefficients, axis), columns @ coefficients) < 1e-12
        assert relative(made.project(weights, axis), weights @ columns) < 1e-12


@pytest.mark.parametrize("kinds", KINDS)
def test_sums_of_products_of_two(kinds):
    made, written = tables(kinds)
    weights = np.random.default_rng(2).normal(size=written.shape[1])
    sums = made.wave_sums(weights)
    for first in (None, 0, len(kinds) - 1):
        for second in (None, 0):
            one, other = (written[0 if axis is None else axis + 1] for axis in (first, second))
            exact = (one * weights[:, None]).T @ other
            assert relative(made.products(sums, first, second), exact) < 1e-12


def test_slopes_of_another_axis_show():
    made, written = tables("po")
    weights = np.ones(written.shape[1])
    assert relative(made.project(weights, 1), weights @ written[1]) > 0.1


def test_more_places_than_are_summed_at_once():
    made, written = tables("pp", 2 * ROWS_AT_ONCE + 7)
    weights = np.random.default_rng(3).normal(size=written.shape[1])
    exact = (written[0] * weights[:, None]).T @ written[0]
    assert relative(made.products(made.wave_sums(weights)), exact) < 1e-12
    assert relative(made.combine(weights[: written.shape[2]]), written[0] @ weights[: written.shape[2]]) < 1e-12
