"""Cubic terms of the triangular map in closed form, from what a map without them leaves of the gradients."""

import numpy as np
import torch

from ..units import FloatArray
from .fit_options import ROWS_AT_ONCE
from .triangular import MAX_SKEW, CubicTerms, NarrowCoordinates

MIN_EVIDENCE = 4.0
"""Standard errors that a cubic term must be away from zero."""

MAX_DEPTH = 3
"""Of the dependencies of numbers on others by cubic terms."""

CUBIC_OUTLIER = 6.0
"""Structures with a number beyond it say nothing of cubic terms."""


def fit_cubic(
    narrow: NarrowCoordinates,
    conditions: FloatArray,
    y: FloatArray,
    gradients: FloatArray,
    weights: FloatArray,
    least: float,
) -> CubicTerms:
    """Cubic terms of the log density in the numbers of a map without such terms.

    In these numbers e the gradient is ``-e_i + T_iab (e_a e_b - delta_ab) / 2`` and more; products are orthogonal
    under a normal density, so that each coefficient is an average, over the three coordinates that it belongs to.

    Args:
        narrow: the map.
        conditions: shape=(n, n_conditions).
        y: shape=(n, k), narrow coordinates in units of the map.
        gradients: shape=(n, k), of the log density in these units.
        weights: shape=(n,).
        least: the smallest coefficient that is kept.
    """
    k = y.shape[1]
    sums, squares, total = np.zeros((k, k * (k + 1) // 2)), np.zeros(k), 0.0
    a, b = np.triu_indices(k)
    for i in range(0, len(y), ROWS_AT_ONCE):
        rows = slice(i, i + ROWS_AT_ONCE)
        arrays = (torch.as_tensor(part[rows]) for part in (conditions, y, gradients))
        e, in_numbers = (part.numpy() for part in narrow.numbers_and_gradients(*arrays))
        share = weights[rows] * (np.abs(e).max(axis=1) < CUBIC_OUTLIER)
        residuals, of_each = in_numbers + e, np.ascontiguousarray(e.T)
        products = of_each[a] * of_each[b] - (a == b)[:, None]
        sums += (products @ (residuals * share[:, None])).T
        squares += share**2 @ residuals**2
        total += share.sum()
    means = np.zeros((k, k, k))
    means[:, a, b] = sums / total
    means[:, b, a] = sums / total
    # E[R_i (e_a e_b - delta)] is T_iab, twice that where a = b
    third = means / np.where(np.eye(k, dtype=bool), 2.0, 1.0)
    # the products have unit variance; three means are averaged
    error = np.sqrt(squares / 3) / total
    return _cubic_terms(third, np.maximum(least, MIN_EVIDENCE * error))


def _cubic_terms(third: FloatArray, least: FloatArray) -> CubicTerms:
    """The triangular map of first order in the coefficients of the gradient's products.

    Args:
        third: shape=(k, k, k), `fit_cubic`.
        least: shape=(k,), the smallest coefficient of each number that is kept.
    """
    k = len(third)
    shifts, widths = np.zeros((k, k, k)), np.zeros((k, k))
    for i in range(k):
        one = third[i, :i, :i]
        two = third[:i, i, :i]
        # e_a e_b of the shift of i is e_i e_b in the gradient of a
        shifts[i, :i, :i] = np.triu(one + two + two.T, 1) / 3
        diagonal = np.arange(i)
        # e_a^2 - 1 in the gradient of i, and 2 e_i e_a in that of a
        shifts[i, diagonal, diagonal] = (np.diag(one) + np.diag(two)) / 3
        # e_i e_a in the gradient of i, and e_i^2 - 1 in that of a
        widths[i, :i] = (third[:i, i, i] + third[i, i, :i]) / 3
    skews = np.clip(np.einsum("iii->i", third) / 3, -MAX_SKEW, MAX_SKEW)
    shifts = np.where(np.abs(shifts) > least[:, None, None], shifts, 0.0)
    widths = np.where(np.abs(widths) > least[:, None], widths, 0.0)
    depths = np.zeros(k, dtype=np.int64)
    for i in range(1, k):
        # few turns invert a shallow map
        deep = depths >= MAX_DEPTH
        shifts[i, deep], shifts[i, :, deep], widths[i, deep] = 0.0, 0.0, 0.0
        sources = shifts[i].any(axis=0) | shifts[i].any(axis=1) | (widths[i] != 0)
        depths[i] = depths[sources].max() + 1 if sources.any() else 0
    return CubicTerms(
        *(torch.as_tensor(part) for part in (shifts, widths, np.where(np.abs(skews) > least, skews, 0.0)))
    )
