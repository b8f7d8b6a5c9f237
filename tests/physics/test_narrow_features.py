"""A well narrower than the waves that surfaces are made of: the surface is wrong by many errors; a doubt says so."""

import re
import warnings

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl.lifting.label_regression import regression_populations
from openmm_gancl.system.library import load_system

CARD = """name = "pit"
temperature = 300.0
friction = 5.0
time_step = 0.005
force_constants = [250.0]
[toy]
mass = 20.0
start = [0.0, 0.0, 0.0]
energy = "0.5*6*x^2 - {depth}*exp(-0.5*((x-0.5)/{width})^2) + 0.5*1000*(y^2 + z^2)"
[[labels]]
kind = "coordinate"
name = "x"
particle = 0
axis = "x"
domain = [-1.0, 1.0]
[[basins]]
name = "pit"
boxes = [[[0.35, 0.65]]]
"""


@pytest.fixture
def learned(tmp_path):
    """What a default run learns of a well, its population with the error, and that by quadrature."""

    def run(depth, width, seed):
        path = tmp_path / "card.toml"
        path.write_text(CARD.format(depth=depth, width=width))
        system = load_system(path)
        found = gancl.learn(system, seed=seed)
        (row,) = regression_populations(found.regression, system.slow, system.basins, system.temperature)
        x = np.linspace(-1.0, 1.0, 200_001)
        density = np.exp(-(3.0 * x**2 - depth * np.exp(-0.5 * ((x - 0.5) / width) ** 2)) / system.kT)
        exact = density[(x > 0.35) & (x < 0.65)].sum() / density.sum()
        return found, (row.population - exact) / row.population_error, system

    return run


def evenly(system, found, seed):
    """Lifts at labels of one's own."""
    labels = np.random.default_rng(seed).uniform(-1.0, 1.0, (20_000, 1))
    return gancl.Lifter(system, found.model).lift(labels, seed=seed)


@pytest.mark.parametrize("seed", [1, 3])
def test_a_well_too_narrow_for_the_surface_is_a_doubt(learned, seed):
    """0.01 nm wide in a domain of 2 nm: nine errors off. No other check says anything."""
    found, z, system = learned(17.0, 0.01, seed)
    assert abs(z) > 5.0
    with pytest.warns(UserWarning, match=r"not to be trusted: weights near x = 0\.[45]"):
        gancl.surface_from_lifts(evenly(system, found, seed))
    (doubt,) = (one for one in found.doubts if "no modes were looked for" not in one)
    assert re.search(r"weights near x = 0\.[45]", doubt) and "too narrow" in doubt


@pytest.mark.parametrize("seed", [1, 3])
def test_a_well_that_the_surface_follows_is_none(learned, seed):
    """The twin: four times as wide."""
    found, z, system = learned(12.5, 0.04, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gancl.surface_from_lifts(evenly(system, found, seed))
    assert abs(z) < 3.5 and not any("too narrow" in one for one in found.doubts)
