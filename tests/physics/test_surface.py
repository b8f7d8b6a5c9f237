"""Coverage of the surface's bars and of the basin table, on lifts drawn from the exact model without OpenMM."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from openmm_gancl import Lifter, load_system
from openmm_gancl.lifting import basin_populations, surface
from openmm_gancl.lifting.lifts import Lifts
from openmm_gancl.lifting.surface import analyse_lifts

from .exact import DOUBLE_WELL, KT
from .statistics import FALSE_ALARM, z_limit

REPETITIONS, N_LABELS, N_LIFTS = 40, 33, 60
SCATTER = 0.5
"""Standard deviation of the log-weights."""


@pytest.fixture(scope="module")
def system():
    return load_system(DOUBLE_WELL.name)


LABELS = np.linspace(-1.6, 1.6, N_LABELS)


def ideal_lifts(system, rng, n_lifts=N_LIFTS, labels=LABELS):
    """Restrained lifts whose weights are log-normal around the window's Z, ends drawn from the window by weight."""
    force_constants = float(system.force_constants[0])
    positions, log_weights = [], []
    for label in labels:
        # a lift of weight w ends where the weighted ensemble of all lifts is the window: independent of w here
        positions.append(DOUBLE_WELL.sample(n_lifts, rng, label, force_constants))
        noise = rng.normal(-0.5 * SCATTER**2, SCATTER, n_lifts)
        log_weights.append(DOUBLE_WELL.log_z(label, force_constants) + noise)
    positions, n = np.concatenate(positions), len(labels) * n_lifts
    return Lifts(
        labels=np.repeat(labels, n_lifts)[:, None],
        cv_values=positions[:, 0, :1],
        log_weights=np.concatenate(log_weights),
        log_prior=np.zeros(n),
        log_encoder=np.zeros(n),
        log_encoder_label=np.zeros(n),
        work=np.zeros(n),
        reason=np.full(n, "ok"),
        task=np.arange(n) // 6,
        latents=np.zeros((n, 0)),
        positions=positions,
        energies=np.zeros(n),
        mean_forces=np.zeros((n, 0)),
        evaluations=np.full(n, 12),
        slow=system.slow,
        force_constants=system.force_constants,
        mode="restrained",
        temperature=system.temperature,
        relax_steps=10,
    )


@pytest.fixture(scope="module")
def analyses(system):
    rng = np.random.default_rng(1)
    return [analyse_lifts(ideal_lifts(system, rng)) for _ in range(REPETITIONS)]


def exact_bins(edges):
    density = np.exp(DOUBLE_WELL.log_density() - DOUBLE_WELL.log_density().max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return -KT * np.log(np.diff(np.interp(edges, DOUBLE_WELL.grid, cumulative)))


def exact_right():
    density = np.exp(DOUBLE_WELL.log_density() - DOUBLE_WELL.log_density().max())
    return density[DOUBLE_WELL.grid > 0].sum() / density.sum()


def test_bars_of_the_surface_cover(analyses):
    """About 68 % within one sigma, 3.5 sigma of the repetitions' own scatter; and the mean is not off."""
    shares, deviations = [], []
    for analysis in analyses:
        surface = analysis.surface
        exact = exact_bins(surface.edges[0])
        low = exact - exact.min() < 10 * KT
        difference = surface.energy - exact - (surface.energy - exact)[low].mean()
        z = difference[low] / surface.error[low]
        shares.append((np.abs(z) < 1).mean())
        deviations.append(z)
    error = np.std(shares, ddof=1) / REPETITIONS**0.5
    # the bars are a posterior's, smoothing bias included, so they may be a little wide: 8 points of systematics
    assert abs(np.mean(shares) - 0.683) < 3.5 * error + 0.08, (np.mean(shares), error)
    bias = np.mean(deviations, axis=0)
    assert np.sqrt((bias**2).mean()) < 0.5


@pytest.fixture(scope="module")
def basin_scores(system, analyses):
    """(estimate - quadrature) / bar of the right well's population, one a repetition."""
    scores = []
    for analysis in analyses:
        left, right = basin_populations(analysis.ends, system.basins, system.temperature)
        assert left.population + right.population == pytest.approx(1.0, abs=0.01)
        assert left.free_energy == 0.0
        scores.append((right.population - exact_right()) / right.population_error)
        expected = -KT * np.log(exact_right() / (1 - exact_right()))
        assert abs(right.free_energy - expected) < z_limit(REPETITIONS) * right.free_energy_error
    return np.array(scores)


def test_basin_populations_are_the_quadratures(basin_scores):
    """No repetition beyond its family-wise limit, no bias, and bars neither too narrow nor too wide."""
    assert np.abs(basin_scores).max() < z_limit(REPETITIONS)
    assert abs(basin_scores.mean()) < 3.5 * basin_scores.std(ddof=1) / REPETITIONS**0.5
    least, most = binom.ppf([FALSE_ALARM, 1 - FALSE_ALARM], REPETITIONS, 0.683)
    assert least <= (np.abs(basin_scores) < 1).sum() <= most, basin_scores.std()


@pytest.mark.slow
def test_single_lifts_a_window_have_bars(system):
    """Scattered labels lifted once each: the bars are an upper bound of the scatter, and within twice of it."""
    estimates, bars = [], []
    for seed in range(REPETITIONS):
        rng = np.random.default_rng(seed)
        lifts = ideal_lifts(system, rng, labels=np.sort(rng.uniform(-1.6, 1.6, 400)), n_lifts=1)
        _, right = basin_populations(analyse_lifts(lifts, passes=1).ends, system.basins, system.temperature)
        estimates.append(right.population)
        bars.append(right.population_error)
    assert 0.7 < np.median(bars) / np.std(estimates, ddof=1) < 2.0


def test_basins_of_real_lifts(models):
    """End to end on one set of lifts, within 3.5 sigma."""
    system = models.system(DOUBLE_WELL.name)
    model = models.with_prior_encoder(DOUBLE_WELL.name, "trained", 0)
    lifter = Lifter(system, model, relax_steps=100, platform="Reference")
    lifts = lifter.lift(np.repeat(LABELS, 64)[:, None], seed=2)
    _, right = basin_populations(analyse_lifts(lifts).ends, system.basins, system.temperature)
    assert abs(right.population - exact_right()) < 3.5 * right.population_error
    assert right.population_error < 0.1


def test_zero_weights_count(system):
    """Half of the lifts of the right well fail: its population must halve its odds, for mean(w) counts them."""
    lifts = ideal_lifts(system, np.random.default_rng(3), n_lifts=400)
    dropped = (lifts.labels[:, 0] > 0) & (np.arange(len(lifts)) % 2 == 0)
    log_weights = np.where(dropped, -np.inf, lifts.log_weights)
    failing = replace(lifts, log_weights=log_weights, reason=np.where(dropped, "clash", "ok"))
    odds = []
    for each in (lifts, failing):
        left, right = basin_populations(analyse_lifts(each).ends, system.basins, system.temperature)
        odds.append(right.population / left.population)
    assert odds[1] / odds[0] == pytest.approx(0.5, rel=0.15)


def test_weights_of_any_size(system):
    """A constant of the logarithms, and a window whose lifts are all far yet, leave the surface as it is."""
    lifts = ideal_lifts(system, np.random.default_rng(4))
    usual = analyse_lifts(lifts)
    shifted = analyse_lifts(replace(lifts, log_weights=lifts.log_weights - 5000.0))
    assert shifted.surface.energy == pytest.approx(usual.surface.energy, abs=1e-6 * KT)
    one = lifts.labels[:, 0] == LABELS[N_LABELS // 4]
    far = replace(lifts, log_weights=np.where(one, lifts.log_weights - 900.0, lifts.log_weights))
    assert analyse_lifts(far).surface.energy == pytest.approx(usual.surface.energy, abs=0.5 * KT)


def test_one_outlier_alone_in_its_window_does_not_take_the_surface(system, monkeypatch):
    """A relaxation of too few steps may weigh e^-1000: elsewhere the surface is as it was. The twin has no bound."""
    lifts = ideal_lifts(system, np.random.default_rng(5), n_lifts=200, labels=np.linspace(-1.6, 1.6, 11))
    log_weights = lifts.log_weights.copy()
    log_weights[1000] = -1000.0
    kept = np.delete(np.arange(len(lifts)), np.arange(1001, 1200))
    spoilt = replace(lifts, log_weights=log_weights).select(kept)
    found = analyse_lifts(spoilt).surface
    exact, places = exact_bins(found.edges[0]), 0.5 * (found.edges[0][1:] + found.edges[0][:-1])
    elsewhere = (np.abs(places) > 0.5) & (exact - exact.min() < 6.0 * KT)
    difference = (found.energy - exact)[elsewhere]
    assert np.abs(difference - np.median(difference)).max() < 0.5 * KT
    monkeypatch.setattr(surface, "MAX_WINDOW_FREE_ENERGY", np.inf)
    with pytest.raises(ValueError, match="infs or NaNs"):
        analyse_lifts(spoilt)
