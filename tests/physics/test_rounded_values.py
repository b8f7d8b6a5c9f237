"""Surfaces and populations of coordinates that files write with few digits, or that count.

They are those of the coordinate itself.

20,000 independent frames of a normal distribution of 0.2 nm, in steps of up to the width of a bin (0.01 nm); four
seeds. A distance with two decimals in nm is such a coordinate, and so is an angle in whole degrees.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.free_energy import from_trajectories

from .test_density import KT, analyse, series_of

WIDTH, N = 0.2, 20_000


def as_it_is(series, boxes, d, blocks, seed):
    return series, boxes, []


def z_scores(step, method, seeds=range(4)):
    scores = []
    for seed in seeds:
        x = WIDTH * np.random.default_rng(seed).normal(size=N)
        values = np.round(x / step) * step if step else x
        surface = analyse(series_of(values, False), method=method, discard=0, n_bootstrap=60).surface
        places = 0.5 * (surface.edges[0][1:] + surface.edges[0][:-1])
        inside = np.isfinite(surface.energy) & (np.abs(places) < 2 * WIDTH)
        error = (surface.energy / KT - 0.5 * (places / WIDTH) ** 2)[inside]
        bar = surface.error[inside] / KT
        scores.append((error - np.average(error, weights=bar**-2.0)) / bar)
    return np.concatenate(scores)


@pytest.mark.parametrize("method", ["kde", "histogram"])
@pytest.mark.parametrize("step", [0.0, 0.001, 0.003, 0.008, 0.01])
def test_rounding_does_not_show(step, method):
    z = z_scores(step, method)
    assert np.sqrt((z**2).mean()) < 1.25 and np.abs(z).max() < 4.5  # of 300 bins


@pytest.mark.parametrize("method", ["kde", "histogram"])
def test_it_shows_where_values_stay_as_they_are(monkeypatch, method):
    """The twin."""
    monkeypatch.setattr(from_trajectories, "without_rounding", as_it_is)
    assert np.abs(z_scores(0.01, method)).max() > 5.0


def populations(seeds=range(4)):
    """Of 4,000 frames with two decimals in a box that ends at two of their values: z-scores, and of the surface."""
    box, scores = Basin("middle", (((0.25, 0.35),),)), []
    exact = norm(0.3, 0.03).cdf(0.35) - norm(0.3, 0.03).cdf(0.25)
    for seed in seeds:
        values = np.round(np.random.default_rng(seed).normal(0.3, 0.03, 4000), 2)
        analysis = analyse(series_of(values, False), discard=0, basins=[box], bins=20, ranges=[(0.2, 0.4)])
        (row,), p = analysis.basins, analysis.density.probability
        integral = p[
            box.contains(0.5 * (analysis.surface.edges[0][1:] + analysis.surface.edges[0][:-1])[:, None])
        ].sum()
        scores.append([(row.population - exact) / row.population_error, row.population - integral])
    return np.transpose(scores)


def test_boxes_that_end_at_a_rounded_value():
    z, beside_the_surface = populations()
    assert np.abs(z).max() < 3.5 and np.abs(beside_the_surface).max() < 0.02


def test_they_hold_too_much_where_values_stay_as_they_are(monkeypatch):
    """The twin."""
    monkeypatch.setattr(from_trajectories, "without_rounding", as_it_is)
    assert (populations()[0] > 3.5).all()


def test_an_angle_in_steps_of_two_degrees():
    rng = np.random.default_rng(3)
    values = np.radians(2.0 * np.round(np.degrees(rng.vonmises(0.3, 1.0, N)) / 2.0))
    analysis = analyse(series_of(values, True), discard=0)
    places = 0.5 * (analysis.surface.edges[0][1:] + analysis.surface.edges[0][:-1])
    error = analysis.surface.energy / KT + np.cos(places - 0.3)
    bar = analysis.surface.error / KT
    z = (error - np.average(error, weights=bar**-2.0)) / bar
    assert np.abs(z).max() < 4.0 and any("in steps of 0.0349" in note for note in analysis.notes)


def test_what_is_counted_has_a_bin_each():
    """As many bins as the doubt about the default ones says."""
    counted = np.random.default_rng(4).binomial(8, 0.4, N)
    (doubt,) = analyse(series_of(counted, False), discard=0, n_bootstrap=4).doubts
    assert doubt.endswith("give the `ranges` -0.5:8.5 radians and at most 9 `bins`")
    analysis = analyse(series_of(counted, False), discard=0, bins=9, method="histogram", ranges=[(-0.5, 8.5)])
    assert not analysis.doubts
    exact = -binom(8, 0.4).logpmf(np.arange(9))
    error, bar = analysis.surface.energy / KT - exact, analysis.surface.error / KT
    known = np.isfinite(error)
    error -= np.average(error[known], weights=bar[known] ** -2.0)
    assert known.sum() >= 7 and np.abs(error[known] / bar[known]).max() < 4.0
    # a box of what is counted holds its ends
    few = Basin("few", (((0.0, 2.0),),))
    analysis = analyse(series_of(counted, False), discard=0, bins=9, basins=[few], ranges=[(-0.5, 8.5)])
    assert analysis.basins[0].population == pytest.approx((counted <= 2).mean(), abs=1e-9)
