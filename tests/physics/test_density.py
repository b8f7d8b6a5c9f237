"""Coverage of the error bars of densities from correlated series with a known surface.

200 series, a third each with statistical inefficiencies of 1, 20 and 200 frames, half of them periodic, through the
whole estimate: inefficiency, blocks, bandwidth, bootstrap. The shares are those that the error bars must cover, pooled
over bins with at least 50 effective counts.
"""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import ndtr

from openmm_gancl.free_energy import from_trajectories
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
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
