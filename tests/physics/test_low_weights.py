"""Surfaces of frames of which some have hardly any weight, as of a clash, or of a place that a bias alone holds.

A frame of weight zero takes nothing and gives nothing: surfaces are the known ones, and their bars cover, as if it
were not there. Eight seeds of 4,000 independent frames of a normal distribution, about 100 bins a surface, within two
standard deviations.
"""

import numpy as np
import pytest
from scipy.special import logsumexp

from openmm_gancl.free_energy import block_counts, from_trajectories
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series

from .test_density import KT, TEMPERATURE, analyse, series_of

N, SEEDS = 4000, range(8)


def z_scores(log_weights_of, seeds=SEEDS):
    """Of surfaces of normally distributed frames with these weights, and their errors, kT."""
    errors, bars = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        surface = analyse(series_of(rng.normal(size=N), False), log_weights_of(rng), discard=0).surface
        places = 0.5 * (surface.edges[0][1:] + surface.edges[0][:-1])
        inside = np.isfinite(surface.energy) & (np.abs(places) < 2.0)
        error = (surface.energy / KT - 0.5 * places**2)[inside]
        bar = surface.error[inside] / KT
        errors.append(error - np.average(error, weights=bar**-2.0))
        bars.append(bar)
    errors = np.concatenate(errors)
    return errors / np.concatenate(bars), float(np.sqrt((errors**2).mean()))


def one_frame(log_weight):
    def log_weights(rng):
        logs = np.zeros(N)
        logs[5] = log_weight
        return logs

    return log_weights


def some(share, log_weight):
    return lambda rng: np.where(rng.random(N) < share, log_weight, 0.0)


@pytest.mark.parametrize("log_weight", [-50.0, -1e4, -1e10, -1e29, -np.inf])
def test_one_frame_of_no_weight(log_weight):
    z, error = z_scores(one_frame(log_weight), range(2))
    assert np.sqrt((z**2).mean()) < 1.4 and error < 0.12, (np.sqrt((z**2).mean()), error)


@pytest.mark.parametrize(
    ("share", "log_weight"),
    [(0.5, -5.0), (0.5, -10.0), (0.5, -1e4), (0.05, -10.0), (0.05, -50.0), (0.05, -200.0), (0.9, -200.0)],
)
def test_bars_cover_where_weights_scatter(share, log_weight):
    z, error = z_scores(some(share, log_weight))
    assert np.sqrt((z**2).mean()) < 1.2, np.sqrt((z**2).mean())
    assert error < (0.2 if share == 0.9 else 0.1)


def plain_means(grid, frames, sums, squares):
    """Chance differences of the log-weights near a place stay in it."""
    means = np.full(grid.size, sums.sum() / frames.sum())
    for bandwidth in reversed(block_counts.TILT_BANDWIDTHS):
        (near, smoothed), known = block_counts._near(grid, np.stack([frames, sums]), bandwidth)
        means[known] = smoothed[known] / near[known]
    return means


def test_means_that_keep_the_scatter_do_not(monkeypatch):
    """The twin: it stays in the surface, and in no bar."""
    monkeypatch.setattr(block_counts, "_local_means", plain_means)
    z, error = z_scores(some(0.5, -10.0))
    assert np.sqrt((z**2).mean()) > 1.3 and error > 0.1


def test_one_frame_among_some_of_no_weight_does_not_decide(monkeypatch):
    """Far out, where weights of e^-200 are half of all. The twin: it weighs e^76 times what is usual there."""
    z, error = z_scores(some(0.05, -200.0), [1])
    assert np.abs(z).max() < 4.0 and error < 0.1
    monkeypatch.setattr(block_counts, "MOST_OVER_USUAL", np.inf)
    assert z_scores(some(0.05, -200.0), [1])[1] > 1.0


def scores_in_two_dimensions(seeds, n=N):
    """Of surfaces of frames whose weights undo a bias along x, and another one along what is not looked at."""
    scores = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(-2.6, 2.6, n), rng.normal(size=n)
        hidden = rng.uniform(0.0, 6.0, n) if n == N else np.where(rng.random(n) < 0.5, -10.0, 0.0)
        log_weights = hidden - 0.5 * x**2
        values = np.stack([x, y], axis=1)
        surface = analyse(series_of(values, False), log_weights, bins=40, discard=0, n_bootstrap=60).surface
        px, py = (0.5 * (edges[1:] + edges[:-1]) for edges in surface.edges)
        exact = 0.5 * px[:, None] ** 2 + 0.5 * py**2
        low = np.isfinite(surface.energy) & (exact < 3.0)
        error, bar = (surface.energy / KT - exact)[low], surface.error[low] / KT
        scores.append((error - np.average(error, weights=bar**-2.0)) / bar)
    return np.concatenate(scores)


def test_bars_cover_in_two_dimensions():
    z = scores_in_two_dimensions(range(3))
    assert np.sqrt((z**2).mean()) < 1.25 and np.abs(z).max() < 6.0  # of 3,000 bins


def test_bars_of_few_frames():
    """300, of which hardly two share a cell of the fine grid, half of them of no weight."""
    z = scores_in_two_dimensions(range(8), 300)
    assert np.sqrt((z**2).mean()) < 1.6 and (np.abs(z) > 3.5).mean() < 0.03


def test_bars_of_few_frames_do_not_cover_where_chance_counts(monkeypatch):
    """The twin: differences of means count that chance makes."""
    monkeypatch.setattr(block_counts, "BEYOND_CHANCE", 0.0)
    monkeypatch.setattr(block_counts, "PARTS_OF_SCATTER", ())
    assert (np.abs(scores_in_two_dimensions(range(8), 300)) > 3.5).mean() > 0.06


def test_bars_do_not_cover_in_two_dimensions_where_scatter_stays(monkeypatch):
    """The twin."""
    monkeypatch.setattr(block_counts, "_local_means", plain_means)
    assert np.sqrt((scores_in_two_dimensions(range(1)) ** 2).mean()) > 1.6


def step_error(seed):
    """The largest of a surface that rises by 120 kT within a tenth of its width, kT; all of it sampled alike."""
    x = np.random.default_rng(seed).uniform(-1.6, 1.6, 6000)
    surface = analyse(series_of(x, False), -60.0 * np.tanh(x / 0.15), discard=0, n_bootstrap=20).surface
    (edges,) = surface.edges
    places = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(40) + 0.5) / 40
    exact = -logsumexp(-60.0 * np.tanh(places / 0.15), axis=1)
    error = surface.energy / KT - exact
    return np.abs(error - error[0]).max()


def test_surfaces_may_be_steep_and_high():
    """Weights that a bias alone makes have no scatter, however much they differ nearby."""
    assert max(step_error(seed) for seed in range(3)) < 0.8


def test_weights_that_are_smoothed_as_they_are_make_no_steep_surface(monkeypatch):
    """The twin: nothing is taken to be usual in a place."""
    monkeypatch.setattr(block_counts, "_local_means", lambda grid, frames, sums, squares: np.zeros(grid.size))
    assert step_error(0) > 5.0


@pytest.mark.parametrize(("highest", "doubted"), [(8.0, True), (0.5, False)])
def test_one_run_that_has_all_the_weight_is_a_doubt(highest, doubted):
    """Eight runs whose means scatter: 1 of 8 decides, and its own bars are too small by far. The twin: nearly alike."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(8, 500)) + 0.15 * rng.normal(size=(8, 1))).reshape(-1, 1).astype(np.float32)
    series = Series(("x",), np.array([np.inf]), ("nm",), values, 500 * np.arange(9))
    log_weights = np.repeat(np.where(np.arange(8) == 3, highest, 0.0), 500)
    doubts = from_trajectories.analyse(
        Observations(series, 1, TEMPERATURE, log_weights), discard=0, n_bootstrap=10
    ).doubts
    assert any("trajectory 4 of 8 has 99.8 % of the weight" in doubt for doubt in doubts) == doubted
    assert doubted or not doubts
