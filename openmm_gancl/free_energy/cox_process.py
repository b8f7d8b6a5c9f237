"""A log-Gaussian Cox process on a grid: counts with a known exposure to a smooth log-density with error bars."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp, ndtri, xlogy
from threadpoolctl import threadpool_limits

from ..coordinates.slow_coordinates import Axes
from ..units import BoolArray, FloatArray

SMOOTHNESS = 2.5
"""nu of the Matern prior."""

PRIOR_STD = 10.0
"""Prior standard deviation of the log-density (kT)."""

CORRELATION_LENGTHS = (0.36, 0.24, 0.16, 0.08, 0.04, 0.02)
"""Correlation lengths tried, as fractions of the domain, until the evidence falls and no bin deviates."""

KERNEL_WIDTHS = (1.0, 3.0)
"""Standard deviations, in bins, of the kernels through which the fit is compared with the counts; the last also
smooths the size of one independent count. The evidence of a stationary prior is blind to one narrow feature on a
smooth surface: a fit that misses one is refused."""

FALSE_REJECTION_RATE = 0.25
"""How often a right fit is refused: the price is only a shorter length, with its wider bars."""

DOMAIN_EXTENSION = 1.5
"""A cosine series without a period spans the domain times this: its zero slope at the ends is not the surface's."""

MAX_ORDER = {1: 60, 2: 12}


@dataclass(frozen=True)
class Basis:
    """Smooth functions on the grid: products of one function of each coordinate; the first is constant.

    Attributes:
        factors: shape=(bins, functions) a coordinate, one or two.
        wave_numbers: shape=(n_functions, d), in units of 2 pi / domain.
        modes: how an axis goes on beyond its edges, in scipy.ndimage's words.
    """

    factors: tuple[FloatArray, ...]
    wave_numbers: FloatArray
    modes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Bins a coordinate."""
        return tuple(map(len, self.factors))

    @cached_property
    def values(self) -> FloatArray:
        """shape=(n_bins, n_functions)."""
        values = np.ones((1, 1))
        for axis in self.factors:
            values = np.einsum("ai,bj->abij", values, axis).reshape(len(values) * len(axis), -1)
        return values

    def sums(self, coefficients: FloatArray) -> FloatArray:
        """``values @ coefficients``, by factors; shape=(..., n_functions) to (..., n_bins)."""
        return _by_factors([axis.T for axis in self.factors], coefficients)

    def projections(self, fields: FloatArray) -> FloatArray:
        """``values^T fields``, by factors; shape=(..., n_bins) to (..., n_functions)."""
        return _by_factors(self.factors, fields)

    @cached_property
    def _products(self) -> list[FloatArray]:
        """Of any two functions of one coordinate, shape=(bins, functions^2)."""
        return [np.einsum("bi,bj->bij", axis, axis).reshape(len(axis), -1) for axis in self.factors]

    def gram(self, weights: FloatArray) -> FloatArray:
        """``values^T diag(weights) values``, by factors: of two coordinates a hundredth of the operations."""
        if len(self.shape) == 1:
            return (self.values * weights[:, None]).T @ self.values
        (i, j), n = (axis.shape[1] for axis in self.factors), len(self.wave_numbers)
        first, second = self._products
        summed = first.T @ (weights.reshape(self.shape) @ second)
        return summed.reshape(i, i, j, j).swapaxes(1, 2).reshape(n, n)


def _by_factors(factors: Sequence[FloatArray], rows: FloatArray) -> FloatArray:
    """Rows of shape=(..., n_0 n_1) times the product of matrices, shape=(n_i, m_i); shape=(..., m_0 m_1)."""
    if len(factors) == 1:
        return np.asarray(rows @ factors[0])
    first, second = factors
    tables = rows.reshape(*rows.shape[:-1], len(first), len(second))
    return np.asarray((first.T @ tables @ second).reshape(*rows.shape[:-1], -1))


@dataclass(frozen=True)
class CoxFit:
    """The fitted process.

    Attributes:
        basis: what the log-density is made of.
        coefficients: shape=(n_functions,).
        factor: shape=(n_functions, n_functions), lower Cholesky factor of their posterior precision.
        length: correlation length chosen, as a fraction of the domain.
        evidence: log marginal likelihood, up to a constant.
    """

    basis: Basis
    coefficients: FloatArray
    factor: FloatArray
    length: float
    evidence: float

    @cached_property
    def log_density(self) -> FloatArray:
        """shape=(n_bins,), up to a constant."""
        return self.basis.sums(self.coefficients)

    @cached_property
    def root(self) -> FloatArray:
        """R with R^T R the posterior covariance of the log-density, shape=(n_functions, n_bins)."""
        return np.asarray(solve_triangular(self.factor, self.basis.values.T, lower=True))

    def error(self, region: BoolArray) -> FloatArray:
        """Posterior standard deviation of each bin relative to the mean over a region; shape=(n_bins,)."""
        centred = self.root - self.root[:, region].mean(axis=1, keepdims=True)
        return np.asarray(np.sqrt((centred**2).sum(axis=0)))


def edge_modes(periods: FloatArray) -> tuple[str, ...]:
    """How a grid over each coordinate goes on beyond its edges, in scipy.ndimage's words."""
    return tuple("wrap" if np.isfinite(period) else "nearest" for period in periods)


def axis_functions(bins: int, period: float, order: int) -> tuple[FloatArray, FloatArray]:
    """Fourier (periodic) or cosine series at the middles of even bins, shape=(bins, n), and their wave numbers.

    Args:
        bins: that cover the domain.
        period: of the coordinate, ``inf`` where there is none.
        order: of the highest wave.
    """
    phase = 2 * np.pi * (np.arange(bins) + 0.5) / bins
    if np.isfinite(period):
        k = np.arange(1, order + 1)
        columns = [np.cos(np.outer(phase, k)), np.sin(np.outer(phase, k))]
        waves = np.concatenate([[0], k, k])
    else:
        half = np.arange(1, round(2 * order * DOMAIN_EXTENSION) + 1) / (2 * DOMAIN_EXTENSION)
        columns = [np.cos(np.outer(phase + np.pi * (DOMAIN_EXTENSION - 1), half))]
        waves = np.concatenate([[0], half])
    return np.sqrt(2.0) * np.concatenate([np.full((bins, 1), np.sqrt(0.5)), *columns], axis=1), waves


def basis_of_factors(factors: Sequence[FloatArray], waves: Sequence[FloatArray], periods: FloatArray) -> Basis:
    """Products of functions of each coordinate.

    Args:
        factors: shape=(bins, functions) a coordinate.
        waves: shape=(functions,) a coordinate, their wave numbers.
        periods: shape=(d,).
    """
    numbers = np.stack(np.meshgrid(*waves, indexing="ij"), axis=-1).reshape(-1, len(waves))
    return Basis(tuple(factors), numbers, edge_modes(periods))


def product_basis(slow: Axes, shape: tuple[int, ...]) -> Basis:
    """Products of Fourier (periodic) or cosine series over the bins of a grid.

    Args:
        slow: the slow coordinates; the grid covers their domain.
        shape: bins a coordinate.
    """
    order = MAX_ORDER[len(shape)]
    axes = [axis_functions(bins, float(period), order) for bins, period in zip(shape, slow.periods, strict=True)]
    factors, waves = zip(*axes, strict=True)
    return basis_of_factors(factors, waves, slow.periods)


def prior_precision(wave_numbers: FloatArray, length: float, std: float = PRIOR_STD) -> FloatArray:
    """Inverse prior variances of the coefficients of a Matern process; the constant is almost free.

    Args:
        wave_numbers: shape=(n_functions, d), in units of 2 pi / domain; the first function is constant.
        length: correlation length, as a fraction of the domain.
        std: prior standard deviation of the log-density.
    """
    d = wave_numbers.shape[1]
    squared = (wave_numbers**2).sum(axis=1)
    spectrum = (1.0 + (2 * np.pi * length) ** 2 * squared / (2 * SMOOTHNESS)) ** (-SMOOTHNESS - d / 2)
    spectrum[0] = 0.0
    variance = std**2 * spectrum / spectrum.sum()
    variance[0] = 1e6
    return np.asarray(1.0 / variance)


def _newton(
    basis: Basis,
    seen: BoolArray,
    counts: FloatArray,
    log_exposure: FloatArray,
    dispersion: FloatArray,
    precision: FloatArray,
    start: FloatArray,
) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients, Cholesky factor of the Hessian and evidence of the penalised quasi-Poisson fit to the bins seen."""
    coefficients, weights, residuals = start, np.zeros(len(seen)), np.zeros(len(seen))

    def objective(trial: FloatArray) -> float:
        log_rate = log_exposure + basis.sums(trial)[seen]
        likelihood = (np.exp(np.minimum(log_rate, 700.0)) - counts * log_rate) / dispersion
        return float(likelihood.sum() + 0.5 * (precision * trial**2).sum())

    current = objective(coefficients)
    for _ in range(50):
        rate = np.exp(log_exposure + basis.sums(coefficients)[seen])
        weights[seen], residuals[seen] = rate / dispersion, (counts - rate) / dispersion
        gradient = basis.projections(residuals) - precision * coefficients
        hessian = basis.gram(weights)
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


def _volume(radius: float, basis: Basis) -> float:
    """Bins under a Gaussian kernel of height one."""
    return float((2 * np.pi * radius**2) ** (len(basis.shape) / 2))


def _summed(field: FloatArray, radius: float, basis: Basis) -> FloatArray:
    """A field on the grid summed under a Gaussian kernel of height one around each bin, shape=(n_bins,)."""
    return np.asarray(
        _volume(radius, basis) * gaussian_filter(field.reshape(basis.shape), radius, mode=basis.modes).ravel()
    )


def worst_place(
    counts: FloatArray, squares: FloatArray, rate: FloatArray, dispersion: FloatArray, basis: Basis
) -> float:
    """Largest deviation of counts around a bin from their expectation, sigma (root of a Poisson deviance).

    Args:
        counts: shape=(n_bins,), sums of weights.
        squares: shape=(n_bins,), sums of squared weights: one heavy count is not many.
        rate: shape=(n_bins,), expected counts.
        dispersion: shape=(n_bins,), size of one independent count.
        basis: that of the fit; it has the grid.
    """
    worst = 0.0
    for radius in KERNEL_WIDTHS:
        found, found_squares, expected, expected_squares = (
            _summed(field, radius, basis) for field in (counts, squares, rate, rate * dispersion)
        )
        there = expected > 0.0
        found, found_squares, expected, expected_squares = (
            field[there] for field in (found, found_squares, expected, expected_squares)
        )
        size = (found_squares + expected_squares) / (found + expected)
        deviance = 2.0 * (xlogy(found, found / expected) - found + expected) / size
        worst = max(worst, float(np.sqrt(deviance.clip(min=0.0)).max()))
    return worst


def fit_cox_process(
    basis: Basis,
    counts: FloatArray,
    squares: FloatArray,
    log_exposure: FloatArray,
    *,
    lengths: Sequence[float] = CORRELATION_LENGTHS,
    prior_std: float = PRIOR_STD,
    progress: Callable[[], None] | None = None,
) -> CoxFit:
    """Fit counts ~ exposure * density, with the prior's length chosen by evidence and by the worst place.

    Args:
        basis: what the log-density is made of.
        counts: shape=(n_bins,), sums of weights; need not be whole numbers.
        squares: shape=(n_bins,), sums of squared weights.
        log_exposure: shape=(n_bins,).
        lengths: correlation lengths to try, as fractions of the domain, the longest first.
        prior_std: prior standard deviation of the log-density.
        progress: called once for each length tried.
    """
    smooth_counts, smooth_squares = (_summed(field, KERNEL_WIDTHS[-1], basis) + 1e-12 for field in (counts, squares))
    dispersion = smooth_squares / smooth_counts
    seen = log_exposure > log_exposure.max() - 40.0
    data = seen, counts[seen], log_exposure[seen], dispersion[seen]
    start = np.zeros(len(basis.wave_numbers))
    start[0] = np.log(max(counts.sum(), 1e-300)) - logsumexp(log_exposure)
    limit = -ndtri(FALSE_REJECTION_RATE / sum(len(counts) / _volume(radius, basis) for radius in KERNEL_WIDTHS))
    best: tuple[float, float, FloatArray, FloatArray] | None = None
    stands_out = False
    for candidate in lengths:
        # on a busy machine, threads of such short steps wait for one another: a factor of 200 was measured
        with threadpool_limits(1, user_api="blas"):
            precision = prior_precision(basis.wave_numbers, candidate, prior_std)
            start, factor, evidence = _newton(basis, *data, precision, start)
        if progress is not None:
            progress()
        if best is not None and evidence < best[0] and not stands_out:
            break
        best = evidence, candidate, start, factor
        rate = np.where(seen, np.exp(np.minimum(log_exposure + basis.sums(start), 700.0)), 0.0)
        stands_out = worst_place(counts, squares, rate, dispersion, basis) > limit
    assert best is not None
    evidence, chosen, coefficients, factor = best
    return CoxFit(basis, coefficients, factor, chosen, evidence)
