"""The free-energy surface over labels from exactly weighted draws: a regression of weights and of mean forces.

``E[w | s] = exp(eta(s))``, ``eta = -beta F``: the gamma deviance ``w exp(-eta) + eta`` has its minimum there, whatever
the distribution of w (a regression of log w has not). With mean forces G that a map has freed of most of their noise,
``E[w (G - grad eta) | s] = 0`` as well (Stecher, Bernstein, Csanyi 2014, doi 10.1021/ct500438v, have derivatives in a
Gaussian process). No weight is truncated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from ..coordinates.basin import Basin
from ..coordinates.slow_coordinates import Axes
from ..errors import InputError, checked
from ..free_energy.basins import BasinPopulation, weighted_populations
from ..free_energy.cox_process import CORRELATION_LENGTHS
from ..free_energy.grid import bin_centres
from ..free_energy.label_functions import LabelFunctions
from ..free_energy.label_tables import LabelTables
from ..free_energy.surface import ALIGNMENT_CEILING, MAX_ERROR, FreeEnergySurface, grid_edges
from ..units import BoolArray, FloatArray
from .doubts import doubts_about_fit, doubts_about_ratios

LOG_RANGE = 25.0
"""kT below the largest weight at which logarithms are cut for a first guess."""

PASSES = 3
"""Of coefficients and dispersions in turn."""

FIRST_LENGTH = CORRELATION_LENGTHS[2]
"""Of the prior for a first guess."""

MAX_STEPS, KEPT_STEPS = 100, 20
"""Of the search for the best coefficients, and whose changes it remembers."""

FLAT = 0.05
"""Slope of the objective, in standard errors of the coefficients, at which that search ends."""

OUTLIER = 10.0
"""Median deviations from the fitted slope at which a mean force is cut: rare clashes have huge ones."""

FINE_BINS = 144
"""Along each coordinate, over which populations are sums."""

NEVER_CUT = 0.99
"""Of all weight: slopes that more draws have are a sharp feature, which the fit has not found yet, and no clashes."""

PARTS_OF_A_BIN = 3
"""Along each coordinate, over which a bin's mean is taken."""

SLOPE_VARIANCE, MAX_SLOPE = 30.0, 80.0
"""Of single mean forces where there is nothing else, and where they are cut; kT and the labels' units."""


@dataclass(frozen=True)
class LabelRegression:
    """A fitted log density over labels.

    Attributes:
        functions: its basis.
        coefficients: shape=(n_functions,).
        covariance: shape=(n_functions, n_functions), of the coefficients; empty where no errors were asked for.
        length: correlation length of the prior, chosen by evidence.
        dispersion: variance of ``w exp(-eta)``.
        outliers: weight of mean forces that were cut.
    """

    functions: LabelFunctions
    coefficients: FloatArray
    covariance: FloatArray
    length: float
    dispersion: float
    outliers: float

    @classmethod
    def of_arrays(cls, functions: LabelFunctions, arrays: Mapping[str, Any]) -> "LabelRegression":
        """What `arrays` gave, with the same functions."""
        numbers: dict[str, Any] = {name: part if np.ndim(part) else float(part) for name, part in arrays.items()}
        return cls(functions, **numbers)

    def arrays(self) -> list[tuple[str, Any]]:
        """Names and numbers, the functions left out, for a file."""
        return [(part.name, getattr(self, part.name)) for part in fields(self) if part.name != "functions"]

    def log_density(self, labels: FloatArray) -> FloatArray:
        """eta at labels, shape=(n,)."""
        return LabelTables(self.functions, labels).combine(self.coefficients)

    def log_ratios(
        self, labels: FloatArray, log_weights: FloatArray, ceiling: float = ALIGNMENT_CEILING
    ) -> tuple[FloatArray, BoolArray]:
        """Log-weights less eta at their labels, and which of these lie below a ceiling, kT, shape=(n,) each."""
        eta = self.log_density(labels)
        return log_weights - eta, np.asarray(eta > eta.max() - ceiling)

    def surface(
        self, axes: Axes, temperature: float, force_evaluations: int, bins: int | None = None
    ) -> FreeEnergySurface:
        """The surface on a grid: each bin the mean over it, unknown where its error bar is too large.

        Args:
            axes: the labels.
            temperature: K.
            force_evaluations: to record.
            bins: a coordinate; 72 in two dimensions and 120 in one by default.

        Raises:
            InputError: more than two labels, or no bin is known.
        """
        edges = grid_edges(axes, bins)
        places = bin_centres(edges)
        parts = [(np.arange(PARTS_OF_A_BIN) + 0.5) / PARTS_OF_A_BIN - 0.5] * len(edges)
        widths = np.array([axis[1] - axis[0] for axis in edges])
        shifts = np.stack(np.meshgrid(*parts, indexing="ij"), axis=-1).reshape(-1, len(edges)) * widths
        logs = np.logaddexp.reduce([self.log_density(places + shift) for shift in shifts], axis=0)
        energy = -(logs - logs.max())
        values = self.functions(places)
        centred = values - values[energy < ALIGNMENT_CEILING].mean(axis=0)
        error = np.sqrt(np.einsum("ij,ij->i", centred @ self.covariance, centred))
        known = error < MAX_ERROR
        if not known.any():
            raise InputError("the draws are too few to estimate the surface: raise `max_evaluations`")
        energy = np.where(known, energy - energy[known].min(), np.inf)
        error = np.where(known, error, np.inf)
        return FreeEnergySurface.of_reduced(energy, error, edges, axes, temperature, force_evaluations)


def doubts_about_regression(
    axes: Axes,
    regression: LabelRegression,
    labels: FloatArray,
    log_weights: FloatArray,
    shares: FloatArray | None = None,
) -> Iterator[str]:
    """Of what was fitted: a few weights that decide, and places where weights are larger than the fit."""
    log_ratios, low = regression.log_ratios(labels, log_weights)
    yield from doubts_about_ratios(log_ratios[low])
    counts = np.ones(len(labels)) if shares is None else shares
    yield from doubts_about_fit(axes, labels[low], np.exp(log_ratios[low]), counts[low])


class _Data:
    """Weights, mean forces and the basis at their labels."""

    def __init__(
        self,
        functions: LabelFunctions,
        labels: FloatArray,
        log_weights: FloatArray,
        forces: FloatArray | None,
        shares: FloatArray,
    ):
        finite = np.isfinite(log_weights)
        self.shift = float(log_weights[finite].max())
        self.log_weights = log_weights - self.shift
        self.shares = shares
        self.tables = LabelTables(functions, labels)
        self.forces = np.empty((0, len(labels))) if forces is None else np.ascontiguousarray(forces.T)
        self.value_matrix = self.tables.gram(shares)

    def eta(self, coefficients: FloatArray) -> FloatArray:
        return self.tables.combine(coefficients)

    def ratios(self, eta: FloatArray) -> FloatArray:
        """w exp(-eta), shape=(n,); of mean one."""
        return np.asarray(np.exp(np.minimum(self.log_weights - eta, 600.0)))


def _check_weights(log_weights: FloatArray) -> None:
    if np.isnan(log_weights).any() or np.isposinf(log_weights).any():
        raise InputError("a log-weight is NaN or infinite: give minus infinity where a draw failed")
    if not np.isfinite(log_weights).any():
        raise InputError("every draw has weight zero: see their reasons, and train with more frames")


@dataclass
class _Pass:
    """What one pass holds fixed: dispersions, and the quadratic form of the mean forces."""

    dispersion: float
    matrix: FloatArray
    right: FloatArray
    weights: FloatArray
    residuals: FloatArray
    outliers: float


def _prepare(data: _Data, coefficients: FloatArray) -> _Pass:
    ratios = data.ratios(data.eta(coefficients))
    total = data.shares.sum()
    dispersion = max(float((data.shares * (ratios - 1) ** 2).sum() / total), 0.1)
    k, n_axes = len(coefficients), len(data.forces)
    if not n_axes:
        return _Pass(dispersion, np.zeros((k, k)), np.zeros(k), np.empty(0), data.forces, 0.0)
    fitted = np.stack([data.tables.combine(coefficients, axis) for axis in range(n_axes)])
    residuals = data.forces - fitted
    carried = data.shares * ratios
    each = np.tile(carried, (n_axes, 1))
    median, most = (
        float(np.quantile(np.abs(residuals), part, weights=each, method="inverted_cdf")) for part in (0.5, NEVER_CUT)
    )
    limit = max(OUTLIER * max(median / 0.6745, 0.3), most)
    outliers = float((carried * (np.abs(residuals) > limit)).sum() / (carried.sum() * n_axes))
    residuals = np.clip(residuals, -limit, limit)
    # of the estimating function r (G - eta'): its variance, for one lift
    variance = max(float((data.shares * ratios**2 * residuals**2).sum() / (total * n_axes)), 1e-3)
    weights = carried / variance
    matrix, right = data.tables.gram(weights, range(n_axes)), np.zeros(k)
    for axis in range(n_axes):
        right += data.tables.project(weights * (fitted[axis] + residuals[axis]), axis)
    return _Pass(dispersion, matrix, right, weights, residuals, outliers)


def _score(data: _Data, one: _Pass, precision: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Penalised quasi-likelihood at its best: coefficients, the information, and the evidence of the prior.

    Coefficients are moved in units of the information's Cholesky factor, in which the curvature is near one.
    """
    information = data.value_matrix / one.dispersion + one.matrix
    information[np.diag_indices_from(information)] += precision
    factor, shares = cholesky(information, lower=True), data.shares

    def coefficients_at(moved: FloatArray) -> FloatArray:
        return np.asarray(start + solve_triangular(factor, moved, trans="T", lower=True))

    def objective(moved: FloatArray) -> tuple[float, FloatArray]:
        coefficients = coefficients_at(moved)
        eta = data.eta(coefficients)
        ratios, pulled = data.ratios(eta), one.matrix @ coefficients
        value = shares @ (ratios + eta) / one.dispersion + (0.5 * pulled - one.right) @ coefficients
        gradient = data.tables.project(shares * (1 - ratios)) / one.dispersion + pulled - one.right
        value += 0.5 * (precision * coefficients**2).sum()
        return float(value), solve_triangular(factor, gradient + precision * coefficients, lower=True)

    options = {"maxiter": MAX_STEPS, "maxcor": KEPT_STEPS, "ftol": 0.0, "gtol": FLAT}
    found = minimize(objective, np.zeros_like(start), jac=True, method="L-BFGS-B", options=options)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    evidence = -float(found.fun) + 0.5 * np.log(precision).sum() - 0.5 * log_determinant
    return coefficients_at(found.x), information, evidence


def _covariance(data: _Data, one: _Pass, coefficients: FloatArray, information: FloatArray) -> FloatArray:
    """Of the coefficients: what the draws' own scatter makes of them, and what the prior leaves open."""
    pulls = [data.shares * (data.ratios(data.eta(coefficients)) - 1) / one.dispersion]
    pulls += [one.weights * residuals for residuals in one.residuals]
    # of a draw's value, and of its mean force along each axis
    scatter = data.tables.scatter(np.stack(pulls), [None, *range(len(one.residuals))])
    prior = information - data.value_matrix / one.dispersion - one.matrix
    factor = cho_factor(information, lower=True)
    half = cho_solve(factor, scatter + prior)
    return np.asarray(cho_solve(factor, half.T))


@checked
def fit_label_regression(
    axes: Axes,
    labels: FloatArray,
    log_weights: FloatArray,
    mean_forces: FloatArray | None = None,
    shares: FloatArray | None = None,
    start: "LabelRegression | None" = None,
    progress: Callable[[], None] | None = None,
    functions: LabelFunctions | None = None,
    with_errors: bool = True,
) -> LabelRegression:
    """Fit ``E[w | s]`` over labels.

    Args:
        axes: the labels.
        labels: shape=(n, d).
        log_weights: shape=(n,), minus infinity where a draw failed: it counts.
        mean_forces: shape=(n, d), of the log density; NaN is not allowed where a weight is finite.
        shares: shape=(n,), fixed beforehand: how much each draw counts; equal by default.
        start: an earlier fit over the same labels.
        progress: called once for each correlation length tried.
        functions: the basis, where there is no earlier fit.
        with_errors: whether the covariance of the coefficients is wanted: with four coordinates half of the time.

    Raises:
        InputError: no draw has a weight, or one is NaN or infinite.
    """
    _check_weights(log_weights)
    functions = start.functions if start else functions or LabelFunctions(axes)
    shares = np.ones(len(labels)) if shares is None else np.asarray(shares, dtype=float)
    if mean_forces is not None:
        mean_forces = np.where(np.isfinite(log_weights)[:, None], mean_forces, 0.0)
    with threadpool_limits(1, user_api="blas"):
        data = _Data(functions, labels, log_weights, mean_forces, shares)
        length = start.length if start else CORRELATION_LENGTHS[0]
        guesses = [_first_guess(data, functions)]
        if start is not None:
            guesses.append(start.coefficients - data.shift * (np.arange(len(functions)) == 0))
        # an earlier fit may be far off where draws are new
        coefficients = min((_levelled(data, guess) for guess in guesses), key=lambda one: shares @ data.eta(one))
        best: tuple[float, float, FloatArray, FloatArray] | None = None
        for _ in range(PASSES):
            one = _prepare(data, coefficients)
            best = None
            one_longer = max(CORRELATION_LENGTHS.index(length) - 1, 0)
            for length in CORRELATION_LENGTHS[one_longer:]:
                found = _score(data, one, functions.prior_precision(length), coefficients)
                if best is not None and found[2] < best[0]:
                    break
                best = found[2], length, found[0], found[1]
                coefficients = found[0]
            assert best is not None
            _, length, coefficients, information = best
            if progress is not None:
                progress()
        covariance = _covariance(data, one, coefficients, information) if with_errors else np.empty((0, 0))
    coefficients = coefficients.copy()
    coefficients[0] += data.shift
    return LabelRegression(functions, coefficients, covariance, length, one.dispersion, one.outliers)


def _first_guess(data: _Data, functions: LabelFunctions) -> FloatArray:
    """By least squares of the logarithms: off by the work lost, and good enough to start from."""
    matrix = data.value_matrix.copy()
    matrix[np.diag_indices_from(matrix)] += functions.prior_precision(CORRELATION_LENGTHS[1])
    logs = np.maximum(data.log_weights, -LOG_RANGE)
    return np.asarray(np.linalg.solve(matrix, data.tables.project(data.shares * logs)))


def _levelled(data: _Data, coefficients: FloatArray) -> FloatArray:
    """The same shape at the level of the least deviance: the mean of ``w exp(-eta)`` is one."""
    levelled = coefficients.copy()
    levelled[0] += logsumexp(data.log_weights - data.eta(coefficients), b=data.shares) - np.log(data.shares.sum())
    return levelled


def regression_of_mean_forces(
    axes: Axes, labels: FloatArray, slopes: FloatArray, functions: LabelFunctions | None = None
) -> LabelRegression:
    """A first log density from mean forces alone, up to a constant; least squares with the covariance of the prior.

    Args:
        axes: the labels.
        labels: shape=(n, d).
        slopes: shape=(n, d), noisy, of the log density.
        functions: the basis.
    """
    functions = functions or LabelFunctions(axes)
    tables = LabelTables(functions, labels)
    matrix = np.diag(functions.prior_precision(FIRST_LENGTH))
    matrix += tables.gram(np.full(len(labels), 1 / SLOPE_VARIANCE), range(slopes.shape[1]))
    right = np.zeros(len(functions))
    for axis, slope in enumerate(slopes.T):
        right += tables.project(np.clip(slope, -MAX_SLOPE, MAX_SLOPE) / SLOPE_VARIANCE, axis)
    covariance = np.linalg.inv(matrix)
    return LabelRegression(functions, np.asarray(covariance @ right), np.asarray(covariance), FIRST_LENGTH, 1.0, 0.0)


def integrate_mean_forces(axes: Axes, labels: FloatArray, slopes: FloatArray, places: FloatArray) -> FloatArray:
    """`regression_of_mean_forces` at places, shape=(n_places,)."""
    return regression_of_mean_forces(axes, labels, slopes).log_density(places)


def regression_populations(
    regression: LabelRegression, axes: Axes, basins: Sequence[Basin], temperature: float
) -> list[BasinPopulation]:
    """Populations and free-energy differences of basins: integrals of the fitted density, errors linearised.

    Args:
        regression: the fit.
        axes: the labels, one or two.
        basins: boxes in them.
        temperature: K.
    """
    edges = [
        # so that no cell lies on both sides of a bound
        np.union1d(axis, [x for basin in basins for box in basin.boxes for x in box[i].clip(axis[0], axis[-1])])
        for i, axis in enumerate(grid_edges(axes, FINE_BINS))
    ]
    places, volumes = bin_centres(tuple(edges)), np.ones(1)
    for axis in edges:
        volumes = np.outer(volumes, np.diff(axis)).ravel()
    values = regression.functions(places)
    log_density = values @ regression.coefficients

    def error_of_sum(terms: FloatArray) -> float:
        slope = terms @ values
        return float(np.sqrt(slope @ regression.covariance @ slope))

    weights = volumes * np.exp(log_density - log_density.max())
    return weighted_populations(basins, weights, places, temperature, error_of_sum)
