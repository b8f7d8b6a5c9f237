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


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("kinds", KINDS)
def test_sums_of_products_of_two(kinds, written_out, monkeypatch):
    """From waves, and from functions written out; the twin leaves one axis' slopes out."""
    monkeypatch.setattr(LabelTables, "_writes_out", lambda *_, **__: written_out)
    made, written = tables(kinds)
    rng, n_kinds = np.random.default_rng(2), len(written)
    weights, pulls = rng.normal(size=written.shape[1]), rng.normal(size=written.shape[:2])
    exact = [(columns * weights[:, None]).T @ columns for columns in written]
    assert relative(made.gram(weights), exact[0]) < 1e-12
    assert relative(made.gram(weights, range(len(kinds))), sum(exact[1:])) < 1e-12
    assert relative(made.gram(weights, [0]), exact[-1]) > 0.1 or n_kinds == 2
    every, vectors = [None, *range(len(kinds))], np.einsum("kn,kni->ni", pulls, written)
    assert relative(made.scatter(pulls, every), vectors.T @ vectors) < 1e-12
    assert relative(made.scatter(pulls[:-1], every[:-1]), vectors.T @ vectors) > 0.01


def test_functions_of_many_axes_are_written_out():
    """Of ten axes products have a thousand combinations of signs each; of two axes waves are fewer."""
    for kinds, n, written_out in (("pp", 10_000, False), ("p" * 10, 500, True)):
        made = LabelTables(LabelFunctions(axes(kinds)), places(axes(kinds), n))
        assert made._writes_out(n_sums=1, n_products=2, n_columns=2, n_grams=2) == written_out


def test_slopes_of_another_axis_show():
    made, written = tables("po")
    weights = np.ones(written.shape[1])
    assert relative(made.project(weights, 1), weights @ written[1]) > 0.1


def test_more_places_than_are_summed_at_once():
    made, written = tables("pp", 2 * ROWS_AT_ONCE + 7)
    weights = np.random.default_rng(3).normal(size=written.shape[1])
    exact = (written[0] * weights[:, None]).T @ written[0]
    assert relative(made.gram(weights), exact) < 1e-12
    assert relative(made.combine(weights[: written.shape[2]]), written[0] @ weights[: written.shape[2]]) < 1e-12
