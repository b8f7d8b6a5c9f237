"""Stochastic differential equations: lifts against closures in closed form, bursts against their limit.

A lift has no weight here, so what is tested is the limit: the error of the generator is there after one relaxation
time and gone, within the error bars, after four. Each family keeps the false-alarm rate of 3.5 sigma.
"""

import dataclasses
from functools import lru_cache

import numpy as np
import pytest

from openmm_gancl import TrainingOptions
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting import lift_sde, load_sde

from .statistics import z_limit

NAMES = ("half_moon", "quadratic")
N_LABELS, N_LIFTS = 4, 2500
"""2500 lifts of a label: the error of an average is 2 % of the standard deviation of what is averaged."""

LIMIT = z_limit(2 * 2 * len(NAMES) * N_LABELS)  # two relaxation times, two observations
UNTRAINED_WIDTHS = {"half_moon": 0.3, "quadratic": 0.05}
"""Somewhat wider than the fast variable, 0.22 and 0.022; the random layer moves the centres by about half of it."""


@lru_cache
def model_of(name, trained):
    sde = load_sde(name)
    particle = sde.as_molecular()
    if not trained:
        return untrained_model(particle, seed=3, strength=0.5, widths={"cartesian": UNTRAINED_WIDTHS[name]})
    states = np.tile(sde.start, (1500, 1))
    states[:, 0] = np.random.default_rng(1).uniform(*sde.slow.domain[0], len(states))
    states = sde.relax_frozen(states, 8 * sde.relaxation_time, seed=2)
    options = TrainingOptions(latent_size=2, generator_steps=30)
    return train_model(particle, sde.to_positions(states), states[:, :1], seed=2, options=options)


def labels_of(sde, n_lifts):
    return np.repeat(np.linspace(*(0.8 * sde.slow.domain[0]), N_LABELS), n_lifts)[:, None]


def scores(sde, labels, observed):
    """z of each average, shape=(n_labels, n_observed), and its error in standard deviations of what is averaged."""
    groups = observed.reshape(N_LABELS, -1, observed.shape[1])
    n = groups.shape[1]
    deviation = groups.std(axis=1, ddof=1)
    z = (groups.mean(axis=1) - sde.exact_closures(labels[::n])) / (deviation / n**0.5)
    return z, n**-0.5


@lru_cache
def largest(name, relaxation_times, trained=False):
    """The largest |z| of a system's closures after so many relaxation times."""
    sde = load_sde(name)
    labels = labels_of(sde, N_LIFTS)
    lifts = lift_sde(sde, model_of(name, trained), labels, relaxation_times, seed=5)
    assert np.array_equal(lifts.states[:, :1], labels)
    z, error = scores(sde, labels, lifts.observed)
    assert error <= 0.02
    return np.abs(z).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relaxation_times", [4, 8])
def test_closures_after_several_relaxation_times(name, relaxation_times):
    assert largest(name, relaxation_times) < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_one_relaxation_time_is_too_short_for_an_untrained_generator(name):
    assert largest(name, 1) > LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_generator_starts_closer(name):
    assert largest(name, 1, trained=True) < largest(name, 1)


def test_a_slow_variable_that_moves_is_detected():
    """The twin: u of the half-moon drifts by 0.08 in eight relaxation times."""
    sde = load_sde("half_moon")
    labels = labels_of(sde, 1000)
    proposals = lift_sde(sde, model_of(sde.name, False), labels, 0, seed=6).states
    moved = sde.simulate(1, 8 * sde.relaxation_time, seed=7, states=proposals)[0]
    assert moved[:, 0] - labels[:, 0] == pytest.approx(0.08, abs=6 * 1e-3 * 80**0.5)
    assert np.abs(scores(sde, labels, sde.observe(moved))[0]).max() > LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_noise_is_detected(name):
    """The twin: a fast variable with half as much noise again."""
    sde = load_sde(name)
    fast = sde.variables[1]
    wrong = dataclasses.replace(sde, noise={**sde.noise, fast: f"1.5*{sde.noise[fast]}"})
    labels = labels_of(sde, 1000)
    lifts = lift_sde(wrong, model_of(name, False), labels, 4, seed=8)
    assert np.abs(scores(sde, labels, lifts.observed)[0]).max() > LIMIT


def derivative(name, states):
    """J, shape=(n, 2, 2), of what is seen by the variables."""
    a, b = states.T
    if name == "half_moon":
        c, s = np.cos(a + b - 1), np.sin(a + b - 1)
        return np.array([[-b * s, c - b * s], [b * c, s + b * c]]).transpose(2, 0, 1)
    return np.array([[1 + 0 * b, 2 * b / 1e-3], [0 * b, 1e-3**-0.5 + 0 * b]]).transpose(2, 0, 1)


@pytest.mark.parametrize("wrong", [1.0, 1.2])
@pytest.mark.parametrize(("name", "noise", "time"), [("half_moon", 1e-3, 1e-5), ("quadratic", 1.0, 1e-10)])
def test_bursts_have_their_limit(name, noise, time, wrong):
    """Three entries of 50 covariances, each with its own error; and the twin, a fast noise that is 20 % off."""
    sde, n_burst = load_sde(name), 2000
    rng = np.random.default_rng(9)
    states = np.column_stack([rng.uniform(*sde.slow.domain[0], 50), sde.start[1] + rng.normal(size=50) * 0.1])
    if name == "quadratic":
        states[:, 1] *= 0.2
    fast = 0.1 if name == "half_moon" else 1.0
    J = derivative(name, states)
    exact = np.einsum("nia,a,nja->nij", J, [noise**2, (wrong * fast) ** 2], J)
    found = sde.bursts(states, n_burst, time, seed=10)
    diagonal = np.einsum("nii->ni", exact)
    error = np.sqrt((diagonal[:, :, None] * diagonal[:, None] + exact**2) / (n_burst - 1))
    z = ((found - exact) / error)[:, *np.tril_indices(2)]
    assert (np.abs(z).max() < z_limit(2 * z.size)) == (wrong == 1.0)
