"""Exact lifts with constraints, against quadrature, and the Fixman term left out: rejected by more than 5 sigma."""

import numpy as np
import pytest

from openmm_gancl import Lifter, TrainingOptions, sample_windows, train
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.lifts import join_lifts
from openmm_gancl.system.constraints import Constraints

from .paths import run_paths
from .rigid import LABEL, rigid_chain, window_by_quadrature
from .statistics import score, z_limit

N_CASES = 10
"""z-scores of this file."""

REJECTED = 5.0
VERTEX = {0, 1, 2}


@pytest.fixture(scope="module")
def system():
    return rigid_chain()


@pytest.fixture(scope="module")
def exact():
    return window_by_quadrature()


@pytest.fixture(scope="module")
def trained(system):
    frames = sample_windows(
        system, n_windows=24, steps_per_window=2000, frames_per_window=40, seed=1, platform="Reference"
    )
    return train(system, frames, seed=1, options=TrainingOptions(latent_size=0))


def lifts_of(system, model, n, relax_steps, **options):
    lifter = Lifter(system, model, relax_steps=relax_steps, platform="Reference", **options)
    return lifter.lift(np.full((n, 1), LABEL), seed=1)


def mean_angle(lifts, model):
    """Weighted mean of the angle (0,1,2) and its standard error, rad."""
    chart = model.chart
    (column,) = [i for i, atoms in enumerate(chart.angles.tolist()) if set(atoms) == VERTEX]
    good = np.isfinite(lifts.log_weights)
    angle = chart.to_internal(lifts.positions[good])[:, chart.n_bonds + column]
    weights = np.exp(lifts.log_weights[good] - lifts.log_weights.max())
    mean = weights @ angle / weights.sum()
    return mean, np.sqrt((weights**2) @ (angle - mean) ** 2) / weights.sum()


@pytest.mark.parametrize(
    ("generator", "n", "options", "error"),
    [
        ("trained", 4000, {"relax_steps": 50}, 0.05),
        ("trained", 4000, {"relax_steps": 1}, 0.15),
        ("trained", 2000, {"relax_steps": 200}, 0.05),
        ("trained", 4000, {"relax_steps": 50, "time_step": 0.004}, 0.05),
        ("untrained", 5000, {"relax_steps": 100}, 0.15),
    ],
)
def test_free_energy_of_a_window_with_rigid_bonds(system, exact, trained, generator, n, options, error):
    model = trained
    if generator == "untrained":
        model = untrained_model(system, seed=1, strength=0.3, widths={"angle": 0.25, "torsion": 0.4})
    result = score(lifts_of(system, model, n, **options).log_weights, exact[0])
    assert result.relative_error < error, result
    assert result.effective_sample_size >= (200 if error == 0.05 else 50), result
    assert abs(result.z) < z_limit(N_CASES), result


def test_the_fixman_term_moves_an_angle(system, trained, exact, monkeypatch):
    """One step remembers where it started: the term left out there shows in an average too."""
    lifter = Lifter(system, trained, relax_steps=1, platform="Reference")
    paths = run_paths(lifter, np.full((54_000, 1), LABEL), seed=1)
    mean, error = mean_angle(join_lifts(paths.lifts()), trained)
    assert error / mean < 0.02
    assert abs(mean - exact[1]) / error < z_limit(N_CASES), (mean, exact[1], error)
    monkeypatch.setattr(Constraints, "log_fixman", lambda self, positions, masses: np.zeros(len(positions)))
    mean, error = mean_angle(join_lifts(paths.lifts()), trained)
    assert abs(mean - exact[1]) / error > REJECTED, (mean, exact[1], error)
    assert abs(score(paths.log_weights(), exact[0]).z) > REJECTED


def test_frames_of_constrained_dynamics_relaxed_in_reverse(system, exact, trained):
    frames = sample_windows(
        system,
        np.full((16, 1), LABEL),
        steps_per_window=40_000,
        frames_per_window=100,
        seed=5,
        platform="Reference",
        time_step=0.001,
    )
    lifter = Lifter(system, trained, relax_steps=50, platform="Reference")
    reverse = lifter.reverse(frames.positions, frames.labels, seed=6)
    # E[1/w] = 1/Z; frames of one window follow each other by 0.4 ps, many correlation times of the angles
    result = score(-reverse.log_weights, -exact[0])
    assert result.relative_error < 0.05, result
    assert abs(result.z) < z_limit(N_CASES), result
