"""Coverage of the error bars of densities from correlated series with a known surface.

200 series, a third each with statistical inefficiencies of 1, 20 and 200 frames, half of them periodic, through the
whole estimate: inefficiency, blocks, bandwidth, bootstrap. The shares are those that the error bars must cover, pooled
over bins with at least 50 effective counts.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import ndtr
from scipy.stats import expon, norm, uniform

from openmm_gancl import InputError
from openmm_gancl.free_energy import from_trajectories, ranges
from openmm_gancl.free_energy.grid import FineGrid
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
from openmm_gancl.trajectories.umbrella import UmbrellaWindows
from openmm_gancl.units import thermal_energy

from .analyses import counted_once

TEMPERATURE, EFFECTIVE, BINS = 300.0, 4000, 40
KT = thermal_energy(TEMPERATURE)
GRID = np.linspace(-np.pi, np.pi, 20001)
DENSITY = {
    True: np.exp(3 * np.cos(GRID + 1.3)) + 0.25 * np.exp(6 * np.cos(GRID - 1.5) - 3),
    False: np.exp(-2.0 * ((GRID / 1.5) ** 2 - 1) ** 2 + 0.6 * GRID),
}


def cumulative(periodic):
    density = DENSITY[periodic]
    total = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return total / total[-1]


def correlated_normals(n, inefficiency, rng):
    """Standard normal, of that statistical inefficiency: an autoregression of first order."""
    slope = (inefficiency - 1) / (inefficiency + 1)
    start = rng.normal()
    noise = np.sqrt(1 - slope**2) * rng.normal(size=n)
    return lfilter([1.0], [1.0, -slope], noise, zi=[slope * start])[0]


def series_of(values, periodic):
    period = 2 * np.pi if periodic else np.inf
    values = values.reshape(len(values), -1).astype(np.float32)
    d = values.shape[1]
    return Series(("x", "y")[:d], np.full(d, period), ("radians",) * d, values, np.array([0, len(values)]))


def analyse(series, log_weights=None, **options):
    return from_trajectories.analyse(Observations(series, len(series.names), TEMPERATURE, log_weights), **options)


def drawn_values(periodic, inefficiency, seed, effective=EFFECTIVE):
    """One series of the known density."""
    rng = np.random.default_rng(seed)
    normals = correlated_normals(effective * inefficiency, inefficiency, rng)
    return np.interp(ndtr(normals), cumulative(periodic), GRID)


def z_scores(values, periodic, inefficiency, method):
    """Deviations of one series' surface from the truth over its bars; where 50 effective counts lie."""
    analysis = analyse(series_of(values, periodic), method=method, bins=BINS, discard=0)
    surface, (edges,) = analysis.surface, analysis.surface.edges
    exact = -KT * np.log(np.diff(np.interp(edges, GRID, cumulative(periodic))))
    counts = np.histogram(values, edges)[0] / inefficiency
    known = np.isfinite(surface.energy)
    low = known & (surface.energy < 10 * KT)
    difference = surface.energy - exact - (surface.energy - exact)[low].mean()
    chosen = known & (counts >= 50)
    return difference[chosen] / surface.error[chosen]


CASES = [(periodic, inefficiency) for periodic in (True, False) for inefficiency in (1, 20, 200)]


@pytest.fixture(scope="module")
def scores():
    """By method, of the same 200 series."""
    found = {"kde": [], "histogram": []}
    for seed in range(200):
        case = CASES[seed % len(CASES)]
        values = drawn_values(*case, seed)
        with counted_once():
            for method, parts in found.items():
                parts.append(z_scores(values, *case, method))
    return {method: np.abs(np.concatenate(parts)) for method, parts in found.items()}


@pytest.fixture(params=["kde", "histogram"])
def pooled(request, scores):
    return scores[request.param]


def test_bars_cover(pooled):
    assert 0.60 <= (pooled < 1.0).mean() <= 0.76, (pooled < 1.0).mean()
    assert 0.90 <= (pooled < 1.96).mean() <= 0.98, (pooled < 1.96).mean()


def test_blocks_shorter_than_the_correlation_do_not_cover(monkeypatch):
    """The twin: every frame counts as independent, blocks are of 3 frames."""
    monkeypatch.setattr("openmm_gancl.trajectories.blocks._inefficiency", lambda values, periods: 1.0)
    monkeypatch.setattr("openmm_gancl.trajectories.blocks.MAX_BLOCKS", 10**7)
    parts = [z_scores(drawn_values(True, 200, seed, 1500), True, 200, "histogram") for seed in range(2)]
    scores = np.abs(np.concatenate(parts))
    assert (scores < 1.0).mean() < 0.5


def tail_errors(density, n, seeds, method="kde"):
    """Of the outermost bins of surfaces without a period: errors, kT, and these over their bars, shape=(seeds, 4)."""
    errors, scores = [], []
    for seed in seeds:
        values = density.rvs(n, random_state=seed)
        surface = analyse(series_of(values, False), method=method, bins=BINS, discard=0).surface
        (edges,) = surface.edges
        exact = -np.log(np.diff(density.cdf(edges)))
        known = np.isfinite(surface.energy)
        difference = surface.energy / KT - exact
        difference -= difference[known & (surface.energy < 10 * KT)].mean()
        at = [np.flatnonzero(known)[i] for i in (0, 1, -2, -1)]
        errors.append(difference[at])
        scores.append(difference[at] / (surface.error[at] / KT))
    return np.array(errors), np.abs(scores)


@pytest.mark.parametrize("method", ["kde", "histogram"])
def test_open_ends_do_not_turn_down_and_their_bars_cover(method):
    """Of a normal distribution: its outermost samples lie far out by chance."""
    errors, scores = tail_errors(norm(), 4000, range(60), method)
    standard = errors.std(axis=0) / np.sqrt(len(errors))
    assert (np.abs(errors.mean(axis=0)) < 0.1 + 3.5 * standard).all(), errors.mean(axis=0)
    assert 0.55 <= (scores < 1.0).mean() <= 0.80 and (scores < 1.96).mean() >= 0.88, (scores < 1.0).mean()
    assert errors.min() > -1.0


def test_bins_that_end_with_the_outermost_sample_turn_down(monkeypatch):
    """The twin."""
    monkeypatch.setattr(ranges, "END_SAMPLES", 0.0)
    errors, _ = tail_errors(norm(), 4000, range(12))
    assert errors[:, [0, -1]].mean() < -0.6


def test_a_wall_is_no_tail():
    """An even density between walls: the kernel is reflected where the samples end."""
    errors, _ = tail_errors(uniform(-1.0, 2.0), 4000, range(20))
    assert np.abs(errors.mean(axis=0)).max() < 0.1 and np.abs(errors).max() < 0.4


def test_bars_cover_at_a_wall_with_a_slope():
    """Of an exponential distribution, which ends at its highest density."""
    errors, scores = tail_errors(expon(), 4000, range(40))
    errors, scores = errors[:, :2], scores[:, :2]
    assert np.abs(errors.mean(axis=0)).max() < 0.05
    assert 0.52 <= (scores < 1.0).mean() <= 0.80 and (scores < 1.96).mean() >= 0.88


@pytest.mark.parametrize("bandwidth", [0.01, 0.03])
def test_a_density_keeps_its_slope_at_a_wall(bandwidth):
    """Exact counts of exp(-x) between walls; the twin is the kernel that is only reflected."""
    grid = FineGrid([np.linspace(0.0, 3.0, 41)], np.array([np.inf]))
    counts = -np.diff(np.exp(-grid.edges[0]))
    kept, lost = (grid.smooth(counts[None], np.array([bandwidth]), sloped)[0] / counts - 1 for sloped in (True, False))
    assert np.abs(kept).max() < 0.35 * np.abs(lost[[0, -1]]).min()
    assert lost[0] < -1.4 * bandwidth and lost[-1] > 1.4 * bandwidth


def test_windows_reach_as_far_as_enough_of_their_samples():
    """Harmonic windows on r^4 / 4 - r^2, kT, whose weights rise fast beyond the last ones."""
    centres, kappa, n, rng = np.linspace(-1.6, 1.6, 9), 25.0, 800, np.random.default_rng(5)
    grid = np.linspace(-4, 4, 8001)
    energy = grid**4 / 4 - grid**2
    parts = []
    for centre in centres:
        weights = np.exp(-energy - kappa / 2 * (grid - centre) ** 2).cumsum()
        parts.append(np.interp(rng.random(n), weights / weights[-1], grid))
    series = series_of(np.concatenate(parts), False)
    series = replace(series, starts=np.arange(len(centres) + 1) * n)
    force_constants = np.full((len(centres), 1), kappa * KT)
    windows = UmbrellaWindows(tuple(map(str, range(len(centres)))), centres[:, None], force_constants)
    observations = Observations(series, 1, TEMPERATURE, windows=windows, restrained=(0,))
    surface = from_trajectories.analyse(observations, discard=0, bins=60).surface
    (edges,) = surface.edges
    cumulative_ = np.exp(-energy).cumsum()
    exact = -np.log(np.diff(np.interp(edges, grid, cumulative_ / cumulative_[-1])))
    known = np.isfinite(surface.energy)
    difference = surface.energy / KT - exact
    difference -= difference[known].mean()
    assert known.all() and (np.abs(difference) < 4.0 * surface.error / KT).all()  # 60 bins, 3.5 sigma family-wise
    assert np.sqrt((difference**2).mean()) < 0.15
    assert surface.energy[0] > surface.energy[3] and surface.energy[-1] > surface.energy[-4]


def test_a_range_that_is_asked_for():
    values = norm().rvs(4000, random_state=0)
    surface = analyse(series_of(values, False), bins=BINS, discard=0, ranges=[(-10.0, 10.0)]).surface
    assert surface.edges[0][[0, -1]].tolist() == [-10.0, 10.0]
    known = np.isfinite(surface.energy)
    assert known[18:22].all() and not known[[0, 10, -10, -1]].any()
    inner = analyse(series_of(values, False), bins=BINS, discard=0, ranges=(-1.0, 1.0)).surface
    exact = -np.log(np.diff(norm().cdf(inner.edges[0])))
    assert np.isfinite(inner.energy).all()
    assert np.abs(inner.energy / KT - exact - (inner.energy / KT - exact).mean()).max() < 0.2  # no end within the data
    for wrong in ([(1.0, -1.0)], [(5.0, 9.0)], [(-1, 1), (0, 1)], ["low"]):
        with pytest.raises(InputError):
            analyse(series_of(values, False), discard=0, ranges=wrong)


def test_two_dimensions_and_weights_give_the_known_surface():
    """Samples of a tilted density, reweighted to the even one; von Mises in x, a reflected Gaussian in y."""
    rng = np.random.default_rng(0)
    x, y = rng.vonmises(0.5, 2.0, 200000), rng.uniform(-1.0, 1.0, 200000)
    series = series_of(np.stack([x, y], axis=1), True)
    series = Series(("x", "y"), np.array([2 * np.pi, np.inf]), ("radians", "nm"), series.values, series.starts)
    analysis = analyse(series, -2.0 * np.cos(x - 0.5), bins=24, discard=0)
    surface = analysis.surface
    assert np.isfinite(surface.energy).all()
    z = (surface.energy - surface.energy.mean()) / surface.error
    assert np.sqrt((z**2).mean()) < 1.25
    assert np.median(surface.error) < 0.1 * KT
    assert analysis.effective_samples < 150000


def test_unsampled_bins_are_unknown_and_edges_are_joined():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.vonmises(np.pi, 20.0, 4000), rng.vonmises(0.0, 20.0, 40)])
    rng.shuffle(values)
    for method in ("kde", "histogram"):
        surface = analyse(series_of(values, True), method=method, bins=36, discard=0).surface
        assert np.isinf(surface.energy[8]) and np.isinf(surface.error[8])
        assert surface.energy[0] == pytest.approx(surface.energy[-1], abs=KT)
        assert surface.energy.min() == 0.0
