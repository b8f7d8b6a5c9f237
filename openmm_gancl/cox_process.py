"""A log-Gaussian Cox process on a grid: counts with a known exposure to a smooth log-density with error bars."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from .slow import SlowCoordinates
from .units import BoolArray, FloatArray

SMOOTHNESS = 2.5
"""nu of the Matern prior."""

AMPLITUDE = 10.0
"""Prior standard deviation of the log-density (kT)."""

LENGTHS = {1: (0.08, 0.04, 0.02), 2: (0.36, 0.24, 0.16, 0.08, 0.04, 0.02)}
"""Correlation lengths tried, as fractions of the domain, until the evidence falls.

The evidence of a stationary prior is blind to one narrow feature on a smooth surface; in one dimension, where counts
are cheap, long lengths are therefore not offered.
"""

HIGHEST_ORDER = {1: 60, 2: 12}


@dataclass(frozen=True)
class Basis:
    """Smooth functions on the grid.

    Attributes:
        values: shape=(n_bins, n_functions); the first is constant.
        wave_numbers: shape=(n_functions, d), in units of 2 pi / domain.
    """

    values: FloatArray
    wave_numbers: FloatArray


@dataclass(frozen=True)
class CoxFit:
    """The fitted process.

    Attributes:
        log_density: shape=(n_bins,), up to a constant.
        length: correlation length chosen, as a fraction of the domain.
        evidence: log marginal likelihood, up to a constant.
        root: shape=(n_functions, n_bins), R with R^T R the posterior covariance of the log-density.
    """

    log_density: FloatArray
    length: float
    evidence: float
    root: FloatArray

    def error(self, region: BoolArray) -> FloatArray:
        """Posterior standard deviation of each bin relative to the mean over a region; shape=(n_bins,)."""
        centred = self.root - self.root[:, region].mean(axis=1, keepdims=True)
        return np.asarray(np.sqrt((centred**2).sum(axis=0)))


def product_basis(slow: SlowCoordinates, shape: tuple[int, ...]) -> Basis:
    """Products of Fourier (periodic) or cosine series over the bins of a grid.

    Args:
        slow: the slow coordinates; the grid covers their domain.
        shape: bins a coordinate.
    """
    order = HIGHEST_ORDER[len(shape)]
    values, numbers = np.ones((1, 1)), np.zeros((1, 0))
    for bins, period in zip(shape, slow.periods, strict=True):
        phase = 2 * np.pi * (np.arange(bins) + 0.5) / bins
        k = np.arange(1, order + 1)
        if np.isfinite(period):
            columns = [np.cos(np.outer(phase, k)), np.sin(np.outer(phase, k))]
            wave = np.concatenate([[0], k, k])
        else:
            half = np.arange(1, 2 * order + 1) / 2
            columns = [np.cos(np.outer(phase, half))]
            wave = np.concatenate([[0], half])
        axis = np.sqrt(2.0) * np.concatenate([np.full((bins, 1), np.sqrt(0.5)), *columns], axis=1)
        values = np.einsum("ai,bj->abij", values, axis).reshape(len(values) * bins, -1)
        pairs = [np.repeat(numbers, len(wave), axis=0), np.tile(wave, len(numbers))[:, None]]
        numbers = np.concatenate(pairs, axis=1)
    return Basis(values, numbers)


def prior_precision(basis: Basis, length: float) -> FloatArray:
    """Inverse prior variances of the coefficients of a Matern process; the constant is almost free."""
    d = basis.wave_numbers.shape[1]
    squared = (basis.wave_numbers**2).sum(axis=1)
    spectrum = (1.0 + (2 * np.pi * length) ** 2 * squared / (2 * SMOOTHNESS)) ** (-SMOOTHNESS - d / 2)
    spectrum[0] = 0.0
    variance = AMPLITUDE**2 * spectrum / spectrum.sum()
    variance[0] = 1e6
    return 1.0 / variance


def _newton(
    basis: Basis,
    counts: FloatArray,
    log_exposure: FloatArray,
    dispersion: FloatArray,
    precision: FloatArray,
    start: FloatArray,
) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients, Cholesky factor of the Hessian and evidence of the penalised quasi-Poisson fit."""
    values, coefficients = basis.values, start

    def objective(trial: FloatArray) -> float:
        log_rate = log_exposure + values @ trial
        likelihood = (np.exp(np.minimum(log_rate, 700.0)) - counts * log_rate) / dispersion
        return float(likelihood.sum() + 0.5 * (precision * trial**2).sum())

    current = objective(coefficients)
    for _ in range(50):
        rate = np.exp(log_exposure + values @ coefficients)
        gradient = values.T @ ((counts - rate) / dispersion) - precision * coefficients
        hessian = (values * (rate / dispersion)[:, None]).T @ values
        hessian[np.diag_indices_from(hessian)] += precision
        factor, _ = cho_factor(hessian, lower=True)
        step = cho_solve((factor, True), gradient)
        size = 1.0
        while (trial := objective(coefficients + size * step)) > current + 1e-9 and size > 1e-6:
            size *= 0.5
        coefficients, change = coefficients + size * step, current - trial
        current = trial
        if change < 1e-4:
            break
    evidence = -current + 0.5 * np.log(precision).sum() - np.log(np.diag(factor)).sum()
    return coefficients, factor, evidence


def fit_cox_process(
    basis: Basis,
    counts: FloatArray,
    log_exposure: FloatArray,
    dispersion: FloatArray,
) -> CoxFit:
    """Fit counts ~ exposure * density, with the prior's length chosen by evidence.

    Args:
        basis: what the log-density is made of.
        counts: shape=(n_bins,), sums of weights; need not be whole numbers.
        log_exposure: shape=(n_bins,).
        dispersion: shape=(n_bins,), mean squared over mean weight: the size of one independent count.
    """
    seen = log_exposure > log_exposure.max() - 40.0
    active = Basis(basis.values[seen], basis.wave_numbers)
    data = counts[seen], log_exposure[seen], dispersion[seen]
    start = np.zeros(active.values.shape[1])
    start[0] = np.log(max(counts.sum(), 1e-300)) - np.log(np.exp(log_exposure).sum())
    best: tuple[float, float, FloatArray, FloatArray] | None = None
    for candidate in LENGTHS[basis.wave_numbers.shape[1]]:
        start, factor, evidence = _newton(active, *data, prior_precision(basis, candidate), start)
        if best is not None and evidence < best[0]:
            break
        best = evidence, candidate, start, factor
    assert best is not None
    evidence, chosen, coefficients, factor = best
    root = solve_triangular(factor, basis.values.T, lower=True)
    return CoxFit(basis.values @ coefficients, chosen, evidence, root)
