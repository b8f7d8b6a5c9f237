"""Regression of weights and mean forces: a known surface, its bars, and the faults that would spoil it.

Weights are log-normal with a known variance around ``exp(eta)``, mean forces the true slopes with noise of their own.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from openmm_gancl import InputError
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.free_energy.label_functions import LabelFunctions
from openmm_gancl.lifting.label_regression import (
    FINE_BINS,
    fit_label_regression,
    integrate_mean_forces,
    regression_populations,
)
from openmm_gancl.units import thermal_energy
from tests.physics.statistics import FALSE_ALARM, z_limit

SIGMA = 0.8
"""Of log w."""

KT = thermal_energy(300.0)

NOISE = 1.0
"""Of a mean force."""


def axes(d, periodic=True):
    periods, half = np.full(d, 2 * np.pi if periodic else np.inf), np.pi if periodic else 1.5
    return FirstAxes(tuple("xy"[:d]), periods, np.tile([-half, half], (d, 1)), ("",) * d)


def eta(labels):
    """Of one or two labels, and its slopes."""
    x = labels[:, 0]
    value, slopes = 3.0 * np.cos(x) + np.sin(2 * x), np.zeros(labels.shape)
    slopes[:, 0] = -3.0 * np.sin(x) + 2.0 * np.cos(2 * x)
    if labels.shape[1] > 1:
        y = labels[:, 1]
        value = value + np.cos(x - 2 * y)
        slopes[:, 0] -= np.sin(x - 2 * y)
        slopes[:, 1] = 2.0 * np.sin(x - 2 * y)
    return value, slopes


def widths(labels):
    """Standard deviation of log w; it depends on the label, so that a regression of log w has another shape."""
    return SIGMA * (1.0 + 0.5 * np.cos(labels[:, 0]))


def data(of, n, seed=0, zeros=0.0):
    """Labels, log weights and mean forces; some draws fail, more of them where cos(x) is large."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(of.domain[:, 0], of.domain[:, 1], (n, len(of.names)))
    value, slopes = eta(labels)
    width, failed = widths(labels), zeros * (1 + 0.9 * np.cos(labels[:, 0]))
    log_weights = value + width * rng.standard_normal(n) - 0.5 * width**2 - np.log1p(-failed)
    log_weights[rng.random(n) < failed] = -np.inf
    return labels, log_weights, slopes + NOISE * rng.standard_normal(slopes.shape)


def grid(of, n=24):
    lines = [low + (high - low) * (np.arange(n) + 0.5) / n for low, high in of.domain]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))


def error(fit, of):
    """Root mean square deviation from eta over a grid, with its constant."""
    places = grid(of)
    return float(np.sqrt(np.mean((fit.log_density(places) - eta(places)[0]) ** 2)))


def z_of(fit, places, weights):
    """Of a weighted sum of eta at places."""
    row = weights @ fit.functions(places)
    off = weights @ (fit.log_density(places) - eta(places)[0])
    return float(off / np.sqrt(row @ fit.covariance @ row))


def z_of_mean(fit, of):
    places = grid(of)
    return z_of(fit, places, np.full(len(places), 1 / len(places)))


@pytest.mark.parametrize(("d", "n", "periodic"), [(1, 4000, True), (2, 6000, True), (1, 4000, False)])
def test_a_known_surface_comes_back(d, n, periodic):
    """Level and shape; the bar of the level holds."""
    of = axes(d, periodic)
    fit = fit_label_regression(of, *data(of, n)[:2])
    assert error(fit, of) < 0.15
    assert abs(z_of_mean(fit, of)) < z_limit(3)
    # E[exp(width^2)] - 1 over labels
    expected = np.expm1(widths(grid(of)) ** 2).mean()
    assert fit.dispersion == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize(("d", "n"), [(1, 500), (2, 3000)])
def test_mean_forces_lower_the_error(d, n):
    of = axes(d)
    errors = []
    for seed in range(3):
        labels, log_weights, forces = data(of, n, seed)
        errors.append([error(fit_label_regression(of, labels, log_weights, use), of) for use in (None, forces)])
    without, with_forces = np.mean(errors, axis=0)
    assert with_forces < 0.75 * without


def test_wrong_mean_forces_show():
    """The twin: slopes with the other sign."""
    of = axes(1)
    labels, log_weights, forces = data(of, 2000)
    right, wrong = (error(fit_label_regression(of, labels, log_weights, use), of) for use in (None, -forces))
    assert wrong > 1.4 * right


@pytest.mark.parametrize("with_forces", [False, True])
def test_bars_cover(with_forces):
    """Of eta(1) - eta(-2) in 100 data sets, within one sigma; binomial limits of 0.683 with false alarms of 4.7e-4."""
    of, inside = axes(1), 0
    places, weights = np.array([[1.0], [-2.0]]), np.array([1.0, -1.0])
    for seed in range(100):
        labels, log_weights, forces = data(of, 600, seed)
        fit = fit_label_regression(of, labels, log_weights, forces if with_forces else None)
        inside += abs(z_of(fit, places, weights)) < 1.0
    low, high = binom.interval(1 - FALSE_ALARM, 100, 0.6827)
    assert low <= inside <= high


def test_a_regression_of_logarithms_is_off():
    of = axes(1)
    labels, log_weights, _ = data(of, 4000)
    right = fit_label_regression(of, labels, log_weights)
    functions = right.functions
    values = functions(labels)
    matrix = values.T @ values + np.diag(functions.prior_precision(right.length))
    wrong = replace(right, coefficients=np.linalg.solve(matrix, values.T @ log_weights))
    assert abs(z_of_mean(wrong, of)) > 5.0
    off = wrong.log_density(grid(of)) - eta(grid(of))[0]
    assert np.ptp(off) > 0.3, "its shape too"


def test_truncated_weights_are_off():
    of = axes(1)
    labels, log_weights, _ = data(of, 4000)
    truncated = np.minimum(log_weights, eta(labels)[0] + 0.7)
    assert abs(z_of_mean(fit_label_regression(of, labels, truncated), of)) > 5.0


def test_zeros_count():
    """A quarter of the draws fail, up to half of them at some labels."""
    of = axes(1)
    labels, log_weights, forces = data(of, 6000, zeros=0.25)
    failed = ~np.isfinite(log_weights)
    assert 0.2 < failed.mean() < 0.3
    forces[failed] = np.nan
    assert abs(z_of_mean(fit_label_regression(of, labels, log_weights), of)) < z_limit(2)
    assert abs(z_of_mean(fit_label_regression(of, labels, log_weights, forces), of)) < z_limit(2)
    dropped = fit_label_regression(of, labels[~failed], log_weights[~failed])
    assert z_of_mean(dropped, of) > 5.0


def test_labels_may_be_placed_anywhere():
    """E[w | s] has no p(s) in it."""
    of = axes(1)
    labels, log_weights, forces = data(of, 12_000)
    kept = np.random.default_rng(1).random(12_000) < np.exp(-1.0 - np.sin(labels[:, 0]))
    fit = fit_label_regression(of, labels[kept], log_weights[kept], forces[kept])
    assert error(fit, of) < 0.12


def test_shares_count_as_copies_in_the_surface():
    of = axes(1)
    labels, log_weights, forces = data(of, 800)
    shares = np.random.default_rng(2).integers(1, 4, 800)
    weighted = fit_label_regression(of, labels, log_weights, forces, shares.astype(float))
    copies = np.repeat(np.arange(800), shares)
    copied = fit_label_regression(of, labels[copies], log_weights[copies], forces[copies])
    places = grid(of)
    assert np.allclose(weighted.log_density(places), copied.log_density(places), rtol=0, atol=5e-3)
    assert weighted.length == copied.length
    # copies are no independent draws: the bars of shares know
    row = np.diff(weighted.functions(np.array([[1.0], [-2.0]])), axis=0)[0]
    assert row @ weighted.covariance @ row > 1.2 * row @ copied.covariance @ row


@pytest.mark.parametrize("shift", [-3000.0, 3000.0])
def test_the_level_may_be_anything(shift):
    """Weights in kT of a real molecule are far from one."""
    of = axes(1)
    labels, log_weights, forces = data(of, 1500)
    plain = fit_label_regression(of, labels, log_weights, forces)
    moved = fit_label_regression(of, labels, log_weights + shift, forces)
    places = grid(of)
    assert np.allclose(moved.log_density(places) - shift, plain.log_density(places), rtol=0, atol=2e-3)


@pytest.mark.parametrize("off", [0.0, -300.0, 300.0])
def test_the_start_does_not_matter(off):
    """Even where an earlier surface was hundreds of kT off."""
    of = axes(1)
    labels, log_weights, forces = data(of, 1500)
    first = fit_label_regression(of, labels, log_weights, forces)
    coefficients = first.coefficients.copy()
    coefficients[0] += off
    again = fit_label_regression(of, labels, log_weights, forces, start=replace(first, coefficients=coefficients))
    places = grid(of)
    assert np.allclose(again.log_density(places), first.log_density(places), rtol=0, atol=0.02)


def test_a_new_region_far_above_the_start_is_found():
    """Where the earlier draws never were the surface is 120 kT higher than it was thought."""
    of = axes(1)
    labels, log_weights, _ = data(of, 3000)
    first = fit_label_regression(of, labels, log_weights)
    log_weights = log_weights + 120.0 * np.exp(-2.0 * (labels[:, 0] - 1.0) ** 2)
    again = fit_label_regression(of, labels, log_weights, start=first)
    alone = fit_label_regression(of, labels, log_weights)
    near = np.linspace(0.6, 1.4, 9)[:, None]
    assert np.allclose(again.log_density(near), alone.log_density(near), rtol=0, atol=0.5)
    assert np.isfinite(again.covariance).all()


def test_one_enormous_weight_does_not_break_the_fit():
    of = axes(1)
    labels, log_weights, forces = data(of, 2000)
    log_weights[3] += 200.0
    fit = fit_label_regression(of, labels, log_weights, forces)
    assert np.isfinite(fit.coefficients).all() and np.isfinite(fit.covariance).all()


def test_absurd_mean_forces_are_cut_and_counted():
    of = axes(1)
    labels, log_weights, forces = data(of, 3000)
    forces[::100] *= 1e5
    fit = fit_label_regression(of, labels, log_weights, forces)
    assert error(fit, of) < 0.3
    assert 0.002 < fit.outliers < 0.05


@pytest.mark.parametrize(("d", "n"), [(1, 60_000), (2, 20_000)])
def test_many_draws_of_open_labels(d, n):
    """Their functions are nearly dependent within the domain, and sums are of single precision."""
    of = axes(d, periodic=False)
    labels, log_weights, forces = data(of, n)
    fit = fit_label_regression(of, labels, log_weights, forces)
    assert error(fit, of) < 0.06
    assert np.isfinite(fit.covariance).all() and (np.diag(fit.covariance) >= 0).all()


def test_the_same_data_give_the_same_bytes():
    of = axes(1)
    one, other = (fit_label_regression(of, *data(of, 500)) for _ in range(2))
    assert one.coefficients.tobytes() == other.coefficients.tobytes()


def test_no_weight_at_all_is_refused():
    of = axes(1)
    with pytest.raises(InputError, match="every draw has weight zero: see their reasons"):
        fit_label_regression(of, np.zeros((9, 1)), np.full(9, -np.inf))


def test_mean_forces_alone_give_the_shape():
    of = axes(2)
    labels, _, forces = data(of, 3000)
    places = grid(of)
    off = integrate_mean_forces(of, labels, forces, places) - eta(places)[0]
    assert off.std() < 0.25
    assert len(LabelFunctions(of)) > 300


def sharp(n, seed, efficiency):
    """Weights of a generator so poor that few draws decide, around eta of one label."""
    rng, width = np.random.default_rng(seed), np.sqrt(-np.log(efficiency))
    labels = rng.uniform(-np.pi, np.pi, (n, 1))
    return labels, eta(labels)[0] + width * rng.standard_normal(n) - 0.5 * width**2


def test_few_effective_draws_are_not_followed_one_by_one():
    """Bars of all bins hold; a dispersion held at five, as it once was, fits single weights: off by tens of kT."""
    for seed in range(6):
        labels, log_weights = sharp(1000, seed, 0.03)
        fit = fit_label_regression(axes(1), labels, log_weights)
        surface = fit.surface(axes(1), 300.0, 0)
        energy, bar = surface.energy / KT, surface.error / KT
        difference = energy + eta(surface.centres[0][:, None])[0]
        low = energy < 10.0
        difference -= difference[low].mean()
        assert np.sqrt((difference[low] ** 2).mean()) < 1.2
        assert (np.abs(difference[low]) < 3.5 * bar[low]).mean() > 0.9


def test_bounds_of_basins_are_where_they_are_said():
    """Of a normal density, just beyond the centre of a cell; the twin: whole cells, as once, are off by 0.008."""
    of, width = axes(1, periodic=False), 0.3
    labels = np.random.default_rng(0).uniform(-1.5, 1.5, (4000, 1))
    fit = fit_label_regression(of, labels, -0.5 * (labels[:, 0] / width) ** 2)
    cells = np.linspace(-1.5, 1.5, FINE_BINS + 1)
    bound = 0.5 * (cells[82] + cells[83]) + 1e-4
    boxes = [("left", -1.5, bound), ("thin", 0.30, 0.304), ("right", bound, np.inf)]
    basins = [Basin(name, (np.array([[low, high]]),)) for name, low, high in boxes]
    for row, (_, low, high) in zip(regression_populations(fit, of, basins, 300.0), boxes, strict=True):
        exact = (
            np.diff(ndtr(np.clip([low, high], -1.5, 1.5) / width))[0] / np.diff(ndtr([-1.5 / width, 1.5 / width]))[0]
        )
        assert row.population == pytest.approx(exact, abs=2e-4), row
    whole = ndtr(cells[83] / width)
    assert abs(whole - ndtr(bound / width)) > 0.005
    around = FirstAxes(("x",), np.array([2 * np.pi]), np.array([[-np.pi, np.pi]]), ("",))
    flat = fit_label_regression(around, np.linspace(-np.pi, np.pi, 500)[:, None], np.zeros(500))
    (row,) = regression_populations(flat, around, [Basin("wrapped", (np.array([[3.1, -3.1]]),))], 300.0)
    assert row.population == pytest.approx((2 * np.pi - 6.2) / (2 * np.pi), rel=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    labels, log_weights = sharp(100, 0, 0.5)
    log_weights[3] = value
    with pytest.raises(InputError, match="a log-weight is NaN or infinite"):
        fit_label_regression(axes(1), labels, log_weights)
