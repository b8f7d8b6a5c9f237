"""Alanine dipeptide in vacuum: generators that share nothing but the weight must agree on free energies.

    python -m pytest -m slow tests/physics/test_alanine.py -s

Seventeen minutes on two cores. False alarms: 4.7e-4 for the whole file (Bonferroni).
"""

import numpy as np
import pytest

from openmm_gancl import Lifter, TrainingOptions, load_system, sample_windows
from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.free_energy.weight_statistics import effective_sample_size, log_mean_weight
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.training import train
from openmm_gancl.lifting.reverse_check import check_lifts, pooled_z
from tests.benchmarks.accuracy import bootstrap_log_mean

from .statistics import z_limit

LABELS = np.array([[-1.4, 1.2], [-2.6, 2.7], [1.05, -0.7], [-1.3, -0.4], [-2.2, 0.6]])
"""C7eq, C5, C7ax, alpha, and the saddle between the first two; radians."""

COMMON = {"workers": available_workers(), "platform": "Reference"}
CASES = {  # relax steps, lifts a label, largest error in kT, least effective sample size
    "gan": (500, 4800, 0.05, 200),
    "baseline": (500, 4800, 0.05, 200),
    "untrained": (3000, 1800, 0.15, 50),
}
N_TESTS = 3 * len(LABELS) + 2


@pytest.fixture(scope="module")
def system():
    return load_system("alanine_dipeptide_vacuum")


@pytest.fixture(scope="module")
def models(system):
    frames = sample_windows(system, n_windows=192, steps_per_window=3000, seed=1, **COMMON)
    return {
        "gan": train(system, frames, seed=1, options=TrainingOptions(latent_size=4, generator_steps=600)),
        "baseline": train(system, frames, seed=1, options=TrainingOptions(latent_size=0)),
        "untrained": untrained_model(system, seed=3, latent_size=4, strength=0.3),
    }


@pytest.fixture(scope="module")
def lifts(system, models):
    found = {}
    for i, (name, (relax_steps, n, _, _)) in enumerate(CASES.items()):
        lifter = Lifter(system, models[name], relax_steps=relax_steps, **COMMON)
        found[name] = lifter.lift(np.repeat(LABELS, n, axis=0), seed=20 + i)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("row", range(len(LABELS)))
def test_three_generators_agree(lifts, row):
    rng = np.random.default_rng(row)
    values = {}
    for name, (_, n, largest_error, least_size) in CASES.items():
        log_weights = lifts[name].log_weights[row * n : (row + 1) * n]
        error = bootstrap_log_mean(log_weights, rng).std()
        size = effective_sample_size(log_weights)
        values[name] = log_mean_weight(log_weights), error
        print(name, LABELS[row], f"log Z {values[name][0]:.3f} +- {error:.3f}, effective sample size {size:.0f}")
        assert error <= largest_error and size >= least_size, name
    for first, second in (("gan", "baseline"), ("gan", "untrained"), ("baseline", "untrained")):
        (a, ea), (b, eb) = values[first], values[second]
        assert abs(a - b) / np.hypot(ea, eb) < z_limit(N_TESTS), (first, second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gan", "baseline"])
def test_forward_and_reverse_agree(system, models, lifts, name):
    frames = sample_windows(
        system,
        LABELS,
        steps_per_window=160000,
        frames_per_window=160,
        equilibration_steps=5000,
        time_step=0.001,
        seed=9,
        **COMMON,
    )
    reverse = Lifter(system, models[name], relax_steps=500, **COMMON).reverse(frames.positions, frames.labels, seed=3)
    checks = check_lifts(lifts[name], reverse, seed=1)
    print(name, "pooled z", round(pooled_z(checks), 2), "each", [round(check.z, 2) for check in checks])
    assert len(checks) == len(LABELS)
    assert abs(pooled_z(checks)) < z_limit(N_TESTS)
