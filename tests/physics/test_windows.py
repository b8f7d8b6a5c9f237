"""Windows with exchange against exact answers, and what exchange or a wrong restraint would spoil."""

from dataclasses import replace

import numpy as np
import pytest

from openmm_gancl import Lifter, TrainingOptions, analyse_windows, sample_windows
from openmm_gancl.free_energy import window_weights
from openmm_gancl.free_energy.mbar import solve_mbar
from openmm_gancl.free_energy.surface import ALIGNMENT_CEILING as ALIGNED_BELOW
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting.surface import window_free_energies
from openmm_gancl.sampling import windows as windows_module

from .exact import DOUBLE_WELL, KT, draw_from_density
from .statistics import z_limit

LABELS = np.linspace(-0.7, 0.7, 12)[:, None]
"""Over the barrier and no farther, so that the error bars below are narrow."""

N_CASES = 4
REJECTED = 5.0
PLACES = (-0.5, -0.25, 0.0, 0.25, 0.5)
"""nm, where the surface is compared."""


@pytest.fixture(scope="module")
def system(models):
    return models.system(DOUBLE_WELL.name)


@pytest.fixture(scope="module")
def frames(system):
    return sample_windows(
        system,
        LABELS,
        steps_per_window=180_000,
        frames_per_window=6000,
        equilibration_steps=500,
        exchange_steps=800,
        seed=3,
        platform="Reference",
    )


def worst_z(surface):
    """Largest |z| at the places, and the largest error there, kT; both surfaces with the mean below 10 kT as zero."""
    centres = surface.centres[0]
    low = surface.energy < ALIGNED_BELOW * KT
    bins = [int(np.abs(centres - place).argmin()) for place in PLACES]
    assert low[bins].all()
    difference = surface.energy - DOUBLE_WELL.surface(centres)
    z = (difference[bins] - difference[low].mean()) / surface.error[bins]
    return float(np.abs(z).max()), float(surface.error[bins].max() / KT)


@pytest.mark.slow
def test_surface_of_exchanged_windows(system, frames):
    assert 0.2 < frames.exchange_rate < 0.9
    analysis = analyse_windows(system, frames, bins=60)
    assert not analysis.doubts
    worst, error = worst_z(analysis.surface)
    assert error < 0.05
    assert worst < z_limit(N_CASES * len(PLACES))


@pytest.mark.slow
def test_windows_of_another_restraint_are_rejected(system, frames):
    wrong = replace(frames, force_constants=0.6 * frames.force_constants)
    assert worst_z(analyse_windows(system, wrong, bins=60).surface)[0] > REJECTED


@pytest.mark.slow
def test_mbar_starts_from_lifts(system, frames, models, monkeypatch):
    positions, labels = models.frames(DOUBLE_WELL.name)
    model = train_model(system, positions, labels, seed=2, options=TrainingOptions(latent_size=0))
    lifts = Lifter(system, model, relax_steps=30, platform="Reference").lift(np.repeat(LABELS, 32, axis=0), seed=5)
    given = []

    def of_lifts(lifts):
        return window_free_energies(lifts, frames.window_labels())

    def watched(biases, counts, start=None):
        given.append(start)
        return solve_mbar(biases, counts, start)

    monkeypatch.setattr(window_weights, "solve_mbar", watched)
    plain = analyse_windows(system, frames).windows.mbar.free_energies
    started = analyse_windows(system, frames, free_energies=of_lifts(lifts)).windows.mbar.free_energies
    assert given[0] is None
    exact = -np.array([DOUBLE_WELL.log_z(float(label), float(system.force_constants[0])) for label in LABELS[:, 0]])
    assert np.abs(given[2] - exact).max() < 1.0  # those of the lifts
    np.testing.assert_allclose(started, plain, atol=1e-6)
    # one label's lifts gone wrong do not spoil it
    log_weights = lifts.log_weights + np.where(np.isclose(lifts.labels[:, 0], LABELS[9, 0]), 30.0, 0.0)
    wrong = analyse_windows(system, frames, free_energies=of_lifts(replace(lifts, log_weights=log_weights)))
    np.testing.assert_allclose(wrong.windows.mbar.free_energies, plain, atol=1e-6)


def means_after_exchanges(system, n_rounds=400):
    """Means over windows of exact, independent draws after one round of exchanges, in standard errors of each."""
    rng, kappa = np.random.default_rng(8), system.force_constants
    densities = [DOUBLE_WELL.log_density(float(label), float(kappa[0])) for label in LABELS[:, 0]]
    pairs = windows_module.neighbouring_windows(system.slow, LABELS)
    after, before = [], []
    for _ in range(n_rounds):
        x = np.array([draw_from_density(density, DOUBLE_WELL.grid, 1, rng) for density in densities])
        order, *_ = windows_module.exchanges(system.slow, kappa, LABELS, x, pairs, system.kT, rng)
        after.append(x[order, 0])
        before.append(x[:, 0])
    exact = np.array([np.average(DOUBLE_WELL.grid, weights=np.exp(d - d.max())) for d in densities])
    return (np.mean(after, axis=0) - exact) / (np.std(before, axis=0) / np.sqrt(n_rounds))


def test_exchanges_leave_every_window_as_it_is(system, monkeypatch):
    limit = z_limit(len(LABELS))
    assert np.abs(means_after_exchanges(system)).max() < limit
    monkeypatch.setattr(windows_module, "restraint_energies", lambda *_: np.zeros((len(LABELS), len(LABELS))))
    assert np.abs(means_after_exchanges(system)).max() > REJECTED
