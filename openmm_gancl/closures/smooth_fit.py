"""Smooth functions of the label from weighted values: the basis and prior of surfaces, for any observable.

Of configurations with weights r over their mean at each label, ``E[r (A - f(s)) | s] = 0`` whatever the weights' noise:
least squares with weights r, a Matern prior whose length is chosen by its evidence, and errors from the values' own
scatter (the sandwich formula), the prior's part included.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky

from ..free_energy.cox_process import CORRELATION_LENGTHS
from ..free_energy.label_functions import LabelFunctions
from ..free_energy.label_tables import LabelTables
from ..units import FloatArray

PASSES = 2
"""Of the function and the scatter about it in turn."""

AMPLITUDES = (1.0, 0.25, 0.06)
"""Of the prior, in units of that of log densities, for values whose spread is one."""

LONG_ONES = 4
"""Of the correlation lengths."""

LEAST_VARIANCE = 1e-7
"""Of values in units of their spread: a function of the label alone has no scatter."""


@dataclass(frozen=True, eq=False)
class SmoothFit:
    """A function of the label, fitted.

    Attributes:
        functions: its basis.
        coefficients: shape=(n_functions,).
        inverse: shape=(n_functions, n_functions), of the information: what a pull on the fit does to the coefficients.
        prior: shape=(n_functions,), precisions of the prior.
        covariance: shape=(n_functions, n_functions), of the coefficients.
        variance: of a value about the function, times the weights' own.
        spread: standard deviation of the values over all labels.
    """

    functions: LabelFunctions
    coefficients: FloatArray
    inverse: FloatArray
    prior: FloatArray
    covariance: FloatArray
    variance: float
    spread: float

    def __call__(self, labels: FloatArray) -> FloatArray:
        """Values at labels, shape=(n,)."""
        return np.asarray(self.functions(labels) @ self.coefficients)

    def errors(self, labels: FloatArray) -> FloatArray:
        """One sigma at labels, shape=(n,)."""
        values = self.functions(labels)
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", values @ self.covariance, values)))


def fit_smooth(
    tables: LabelTables,
    values: FloatArray,
    ratios: FloatArray,
    errors: FloatArray | None = None,
    prior: FloatArray | None = None,
) -> SmoothFit:
    """Fit a function of the label to values.

    Args:
        tables: the basis at the labels.
        values: shape=(n,).
        ratios: shape=(n,), weights over their mean at each label.
        errors: shape=(n,), one sigma of each value, where they are known; else their scatter says.
        prior: shape=(n_functions,), of an earlier fit to about the same values; chosen by evidence by default.
    """
    functions, n = tables.functions, len(values)
    mean = float(np.average(values, weights=ratios))
    spread = float(np.sqrt(np.average((values - mean) ** 2, weights=ratios)))
    scale = spread if spread > 0 else 1.0
    scaled = (values - mean) / scale
    known = None if errors is None else np.maximum(errors / scale, 1e-9) ** -2.0
    # between few values of known error a shorter length would only follow their noise
    lengths = CORRELATION_LENGTHS if errors is None else CORRELATION_LENGTHS[:LONG_ONES]
    variance, fitted = 1.0, np.zeros(n)
    for _ in range(1 if known is not None else PASSES):
        weights = known if known is not None else _weights(ratios, scaled - fitted)
        variance = 1.0 if known is not None else float(ratios.sum() / weights.sum())
        matrix, right = tables.gram(weights), tables.project(weights * scaled)
        priors = (
            [_prior(functions, length, part) for part in AMPLITUDES for length in lengths] if prior is None else [prior]
        )
        solved = [_solved(matrix, right, one) for one in priors]
        chosen = int(np.argmax([evidence for evidence, _, _ in solved]))
        (_, coefficients, factor), used = solved[chosen], priors[chosen]
        fitted = tables.combine(coefficients)
    inverse = np.asarray(cho_solve((factor, True), np.eye(len(used))))
    pulls = (weights * (scaled - fitted)) ** 2 if known is None else known
    scatter = tables.gram(pulls)
    scatter[np.diag_indices_from(scatter)] += used
    covariance = inverse @ scatter @ inverse
    coefficients = coefficients * scale
    coefficients[0] += mean
    return SmoothFit(functions, coefficients, inverse, used, covariance * scale**2, variance, spread)


def _weights(ratios: FloatArray, residuals: FloatArray) -> FloatArray:
    """Of least squares: the ratios over the variance of ``r (A - f)``."""
    variance = float((ratios**2 * residuals**2).sum() / len(ratios))
    return ratios / max(variance, LEAST_VARIANCE)


def _prior(functions: LabelFunctions, length: float, amplitude: float) -> FloatArray:
    """Precisions; the constant stays almost free."""
    precision = functions.prior_precision(length)
    precision[1:] /= amplitude**2
    return precision


def _solved(matrix: FloatArray, right: FloatArray, prior: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Evidence, coefficients and Cholesky factor of the information."""
    factor = cholesky(matrix + np.diag(prior), lower=True)
    coefficients = cho_solve((factor, True), right)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    evidence = 0.5 * float(right @ coefficients) + 0.5 * float(np.log(prior).sum() - log_determinant)
    return evidence, np.asarray(coefficients), factor
