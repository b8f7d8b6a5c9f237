"""Closures over a learned label of the half-moon: averages and drift are those of the known one, transformed."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator

from openmm_gancl.closures.swarm_slopes import Displacements, Slopes
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.lifting import load_sde
from tests.physics.statistics import z_limit

pytestmark = pytest.mark.slow

LABELS = np.array([0.25, 0.4, 0.5, 0.6, 0.75])
N_RUNS, INTERVAL, LAGS = 300, 20.0, (1, 3)
"""Runs from each label, two relaxation times of the fast variable, and in units of these the two lags of a slope."""

DRIFT, NOISE, FAST_WIDTH = 1e-3, 1e-3, 0.05**0.5
"""Of u, and the equilibrium width of v, from the card."""


@pytest.fixture(scope="module")
def sde():
    return load_sde("half_moon")


@pytest.fixture(scope="module")
def label(sde):
    """One learned label of what is seen, from 1,500 frames of a trajectory along the moon."""
    states = sde.simulate(1500, 0.7, seed=4)[:, 0]
    fitted = DiffusionMap(1, alpha=1.0).fit(sde.observe(states), covariances=sde.bursts(states, 200, 1e-5, seed=5))
    sign = np.sign(np.corrcoef(fitted.coordinates_[:, 0], states[:, 0])[0, 1])
    # the metric is known at these frames alone: a smooth function of what is seen is the label
    function = RBFInterpolator(sde.observe(states), sign * fitted.coordinates_[:, 0], neighbors=50, smoothing=1e-3)
    return lambda found: function(sde.observe(found))


def in_equilibrium(u, rng):
    """States with these u, and v as it is given u."""
    return np.stack([u, 1 + FAST_WIDTH * rng.standard_normal(len(u))], axis=1)


def runs(sde, label, rng):
    """Learned labels of runs from each u at the two lags, shape=(2, n_labels, n_runs)."""
    starts = in_equilibrium(np.repeat(LABELS, N_RUNS), rng)
    frames = sde.simulate(max(LAGS), INTERVAL, seed=8, states=starts)
    return np.array([label(frames[lag - 1]) for lag in LAGS]).reshape(2, len(LABELS), N_RUNS)


def transformed(label, rng, drift):
    """The same of what is known of u, which is a normal variable at any time: the same v and noise at both lags."""
    starts, noise = np.repeat(LABELS, N_RUNS), rng.standard_normal((2, len(LABELS) * N_RUNS))
    moved = np.cumsum(np.sqrt(INTERVAL * np.array([LAGS[0], LAGS[1] - LAGS[0]]))[:, None] * noise, axis=0)
    states = in_equilibrium(starts, rng)
    found = []
    for lag, part in zip(LAGS, moved, strict=True):
        states[:, 0] = starts + drift * lag * INTERVAL + NOISE * part
        found.append(label(states))
    return np.array(found).reshape(2, len(LABELS), N_RUNS)


def drift_of(values):
    """Slopes between the two lags and their errors, shape=(n_labels,) each."""
    groups = [Displacements(part.T[..., None], np.full(N_RUNS, 1 / N_RUNS)) for part in values.transpose(1, 0, 2)]
    found = Slopes.between(groups, INTERVAL * np.array(LAGS), 0, 1)
    return found.drift[:, 0], found.drift_error[:, 0]


def test_the_learned_label_is_a_monotone_map_of_the_known_one(label):
    u = np.repeat(np.linspace(0.1, 0.9, 9), 150)
    values = label(in_equilibrium(u, np.random.default_rng(6))).reshape(9, 150)
    steps = np.diff(values.mean(axis=1))
    assert steps.min() > 4 * values.std(axis=1).max() / 150**0.5
    assert values.std(axis=1).max() < 0.1 * np.ptp(values)


def test_the_drift_is_that_of_the_known_label_transformed(sde, label):
    found, error = drift_of(runs(sde, label, np.random.default_rng(9)))

    def scores(drift):
        expected, noise = drift_of(transformed(label, np.random.default_rng(10), drift))
        return np.abs(found - expected) / np.hypot(error, noise)

    assert error.max() < 0.05 * np.abs(found).max()
    assert scores(DRIFT).max() < z_limit(len(LABELS)), scores(DRIFT)
    # the twin: u that drifts by a third more
    assert scores(4 / 3 * DRIFT).max() > z_limit(len(LABELS))


def test_averages_given_the_learned_label_are_those_given_the_known_one(sde, label):
    """x and y averaged over states whose learned label is about a value, against the closed form at these states' u."""
    rng = np.random.default_rng(10)
    states = in_equilibrium(rng.uniform(0.1, 0.9, 1500), rng)
    values, seen = label(states), sde.observe(states)
    edges = np.quantile(values, np.linspace(0.1, 0.9, 6))
    z = []
    for low, high in pairwise(edges):
        inside = (values >= low) & (values < high)
        difference = seen[inside] - sde.exact_closures(states[inside, :1])
        z.append(difference.mean(axis=0) / (difference.std(axis=0, ddof=1) / inside.sum() ** 0.5))
    assert np.abs(z).max() < z_limit(np.size(z)), z
