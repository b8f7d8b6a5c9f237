"""The committor of a reduced model of Mueller and Brown's surface against brute force of the full one, z included."""

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import Basin, closures
from openmm_gancl.sampling import grid_labels, sample_swarm
from openmm_gancl.sampling.labels import spread
from tests.system.test_molecular_system import mueller_brown

FRICTION, MASS = 5.0, 20.0
UPPER = Basin("upper", (np.array([[-1.0, -0.1], [1.2, 1.8]]),))
LOWER = Basin("lower", (np.array([[0.3, 0.95], [-0.2, 0.3]]),))
"""Around the two deepest wells."""


def force(positions, step=1e-6):
    """By central differences, shape=(n, 3)."""
    shifts = step * np.eye(3)[:, None]
    ends = [mueller_brown(*(positions + sign * shifts).transpose(2, 0, 1)) for sign in (1, -1)]
    return -(ends[0] - ends[1]).T / (2 * step)


def brute_force(labels, n_runs, kT, rng, time_step=0.002):
    """The share of runs from each label that reach the lower basin first: overdamped dynamics of all three."""
    mobility = 1 / (MASS * FRICTION)
    x, y = np.repeat(labels, n_runs, axis=0).T
    z = 0.2 * np.sin(2 * x) + np.sqrt(kT / (1500 * np.exp(0.5 * np.tanh(2 * x)))) * rng.standard_normal(len(x))
    running, places = np.arange(len(x)), np.stack([x, y, z], axis=1)
    reached = np.zeros(len(x))
    while len(running):
        noise = np.sqrt(2 * kT * mobility * time_step) * rng.standard_normal(places.shape)
        places = places + mobility * time_step * force(places) + noise
        inside = np.stack([basin.contains(places[:, :2]) for basin in (UPPER, LOWER)])
        reached[running[inside[1]]] = 1.0
        running, places = running[~inside.any(axis=0)], places[~inside.any(axis=0)]
    return reached.reshape(len(labels), n_runs).mean(axis=1)


@pytest.mark.slow
def test_the_committor_is_that_of_the_full_model():
    system = gancl.load_system("mueller_brown")
    learned = gancl.learn(system, seed=1, max_evaluations=20_000)
    candidates = grid_labels(system.slow, 30)
    log_density = learned.regression.log_density(candidates)
    low = candidates[log_density > log_density.max() - 9.0]
    chosen = low[spread(low, system.slow.periods, np.ptp(system.slow.domain, axis=1), 40)]
    starts = gancl.structures_at(system, learned.model, chosen, 200, seed=2, platform="Reference")
    options = {"dynamics": "brownian", "time_step": 0.002, "copies": 500, "platform": "Reference"}
    swarm = sample_swarm(system, starts.positions, 160, n_frames=40, seed=3, **options)
    found = closures.effective_dynamics(swarm, system.slow, starts.labels, learned.regression, system.temperature)
    assert not found.doubts()
    field = closures.committor(found.model, UPPER, LOWER)
    low = low[~(UPPER.contains(low) | LOWER.contains(low))]
    asked = low[spread(low, system.slow.periods, np.ptp(system.slow.domain, axis=1), 40)]
    n_runs = 500
    counted = brute_force(asked, n_runs, system.kT, np.random.default_rng(4))
    expected = closures.projected(found.model, field, asked)
    rms = np.sqrt(((expected - counted) ** 2).mean())
    assert ((counted > 0.1) & (counted < 0.9)).sum() >= 5 and rms < 0.05, rms
    # the twin: the other way round, and labels shuffled
    assert np.sqrt(((1 - expected - counted) ** 2).mean()) > 0.3
    assert np.sqrt(((np.roll(expected, 1) - counted) ** 2).mean()) > 0.1
    print("committor", rms, np.sqrt((expected * (1 - expected) / n_runs).mean()))
