import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl.closures import Ensemble
from tests.physics.exact import DOUBLE_WELL, KT


@pytest.fixture(scope="session")
def toy():
    return gancl.load_system("double_well_oscillators")


@pytest.fixture(scope="session")
def learned(toy):
    return gancl.learn(toy, seed=1, max_evaluations=10_000)


@pytest.fixture(scope="session")
def ensemble(toy, learned):
    """Of all rounds, whose labels have a known density."""
    return Ensemble.of_learned(learned, toy)


LABELS = np.linspace(-1.4, 1.4, 15)[:, None]


@pytest.fixture(scope="session")
def at_labels(toy, learned):
    """Several lifts of each of 15 labels."""
    return Ensemble.of_lifts(gancl.Lifter(toy, learned.model).lift(np.repeat(LABELS, 300, axis=0), seed=3))


@pytest.fixture(scope="session")
def wide(toy):
    """Lifts of a poor generator: fast coordinates half as wide again as they are, and beside their centres."""
    rng, labels = np.random.default_rng(4), np.repeat(LABELS, 300, axis=0)
    wells, mz, sz = DOUBLE_WELL.fast(labels[:, 0])
    _, my, sy = wells[0]
    noise = rng.normal(size=(len(labels), 2))
    y, z = my + sy * (0.5 + 1.5 * noise[:, 0]), mz + 1.5 * sz * noise[:, 1]
    positions = np.stack([labels[:, 0], y, z], axis=1)[:, None]
    log_density = -0.5 * (noise**2).sum(axis=1) - np.log(2 * np.pi * 1.5**2 * sy * sz)
    log_weights = -DOUBLE_WELL.energy(positions[:, 0]) / KT - log_density
    return Ensemble(positions, labels, log_weights, None, toy.slow, toy, fixed=True)
