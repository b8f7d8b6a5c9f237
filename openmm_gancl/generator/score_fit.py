"""The triangular map in closed form, from structures and the forces on them.

Where ``log q(y | c)`` is normal its gradient ``h(c) - P(c) y`` is linear in the parameters of h and P, so that the
least squares of the known gradient determine them (score matching with known scores, Hyvarinen 2005). By Stein's
identity the optimum is that of moment matching, and a structure is worth as many equations as it has coordinates.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve

from ..coordinates.slow_coordinates import Axes
from ..errors import InputError
from ..reference.chart import Chart
from ..units import BoolArray, FloatArray, IntArray
from .circular import CircularDensity
from .label_basis import LabelBasis
from .triangular import MAX_SKEW, Condition, CubicTerms, NarrowCoordinates, TriangularMap

ROBUST_SIZE = 3.0
"""Structures whose gradient is so many medians long carry less weight."""

MIN_PRECISION = 0.1
"""Least eigenvalue of a precision, in units of standard deviations of all structures."""

MIN_EVIDENCE = 4.0
"""Standard errors that a cubic term must be away from zero."""

MAX_DEPTH = 3
"""Of the dependencies of numbers on others by cubic terms."""

CUBIC_OUTLIER = 6.0
"""Structures with a number beyond it say nothing of cubic terms."""

MAX_PROJECTED = 4000
"""Structures at which a precision is factorised."""

ROWS_AT_ONCE = 4000


@dataclass(frozen=True)
class FitOptions:
    """How many functions a fit has, and how they are smoothed.

    Args:
        order: highest order of the label functions.
        precision_order: the same of the precision.
        ridge: penalty of a function of order one, in structures.
        uniform_share: of the circular densities.
        harmonics: waves of a circular density's phase.
        circular_order: highest order of the label functions of circular densities.
        lost_gain: relative entropy that couplings may lose by being constant.
    """

    order: int = 4
    precision_order: int = 2
    ridge: float = 0.1
    uniform_share: float = 0.01
    harmonics: int = 2
    circular_order: int = 2
    lost_gain: float = 0.005
    least_cubic: float = 0.012


@dataclass(frozen=True)
class Roles:
    """Which coordinates of a chart are labels, circular or narrow.

    Attributes:
        labels: shape=(d,), indices of coordinates.
        wide: shape=(n_wide,), wide torsions.
        rotors: shape=(n_rotors,), torsions with symmetric wells.
        narrow: the others.
    """

    labels: IntArray
    wide: IntArray
    rotors: IntArray
    narrow: IntArray

    @classmethod
    def of(cls, chart: Chart, wide: IntArray | None = None) -> "Roles":
        """Those of a chart.

        Args:
            chart: the chart.
            wide: coordinates that are wide torsions; none by default.
        """
        wide = np.empty(0, dtype=np.int64) if wide is None else np.asarray(wide, dtype=np.int64)
        rotors = np.setdiff1d(np.flatnonzero(chart.folds > 1), np.concatenate([wide, chart.label_indices]))
        taken = np.concatenate([chart.label_indices, wide, rotors])
        # torsions first: the angles next to them follow their squares
        return cls(chart.label_indices, wide, rotors, np.setdiff1d(np.arange(chart.n_coordinates), taken)[::-1])

    @property
    def circular(self) -> IntArray:
        """Wide torsions, then rotors."""
        return np.concatenate([self.wide, self.rotors])


@dataclass(frozen=True)
class _ConditionAxes:
    """Labels and wide torsions as axes of a basis."""

    names: tuple[str, ...]
    periods: FloatArray
    domain: FloatArray
    units: tuple[str, ...]

    @classmethod
    def of(cls, slow: Axes, n_wide: int) -> "_ConditionAxes":
        return cls(
            (*slow.names, *(f"wide_{i}" for i in range(n_wide))),
            np.concatenate([slow.periods, np.full(n_wide, 2 * np.pi)]),
            np.concatenate([slow.domain, np.tile([-np.pi, np.pi], (n_wide, 1))]),
            (*slow.units, *("radians",) * n_wide),
        )


def _centres_and_scales(values: FloatArray, periodic: BoolArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted (circular) means and standard deviations of coordinates, shape=(k,) each."""
    share = weights / weights.sum()
    centres = np.where(periodic, np.angle(share @ np.exp(1j * values)), share @ values)
    deviation = _deviations(values, centres, periodic)
    return centres, np.sqrt(share @ deviation**2)


def _deviations(values: FloatArray, centres: FloatArray, periodic: BoolArray) -> FloatArray:
    deviation = values - centres
    return np.where(periodic, np.arctan2(np.sin(deviation), np.cos(deviation)), deviation)


def robust_weights(gradients: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights that fall with the square of a gradient's length beyond a few medians, shape=(n,)."""
    size = np.sqrt((gradients**2).mean(axis=1))
    return weights * np.minimum(1.0, (ROBUST_SIZE * np.median(size) / np.maximum(size, 1e-300)) ** 2)


def _normal_equations(
    features: FloatArray, of_precision: IntArray, y: FloatArray, gradients: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Of the columns [features, some of the features times -y], shapes (n_columns, n_columns) and (n_columns, k)."""
    n_columns = features.shape[1] + len(of_precision) * y.shape[1]
    matrix, right = np.zeros((n_columns, n_columns)), np.zeros((n_columns, y.shape[1]))
    for i in range(0, len(y), ROWS_AT_ONCE):
        rows = slice(i, i + ROWS_AT_ONCE)
        crossed = features[rows][:, of_precision, None] * -y[rows, None, :]
        columns = np.concatenate([features[rows], crossed.reshape(len(crossed), -1)], axis=1)
        columns = (columns * np.sqrt(weights[rows, None])).astype(np.float32)
        matrix += columns.T @ columns
        right += columns.T @ (np.sqrt(weights[rows, None]) * gradients[rows]).astype(np.float32)
    return matrix, right


@dataclass(frozen=True)
class LinearGradient:
    """``grad log q(y | c) = h(c) - P(c) y`` with h and P linear in features.

    Attributes:
        linear: shape=(n_features, k), of h.
        precision: shape=(n_of_precision, k, k), of P.
        of_precision: which features P has.
    """

    linear: FloatArray
    precision: FloatArray
    of_precision: IntArray

    @classmethod
    def fit(
        cls,
        condition: Condition,
        features: FloatArray,
        y: FloatArray,
        gradients: FloatArray,
        weights: FloatArray,
        options: FitOptions,
    ) -> "LinearGradient":
        """By weighted least squares with a ridge.

        Args:
            condition: of the features.
            features: shape=(n, n_features).
            y: shape=(n, k).
            gradients: shape=(n, k).
            weights: shape=(n,), of mean one.
            options: see there.
        """
        orders, roughness = condition.orders.numpy(), condition.roughness.numpy()
        of_precision = np.flatnonzero(orders <= options.precision_order)
        matrix, right = _normal_equations(features, of_precision, y, gradients, weights)
        smooth = (1 + roughness) ** 2
        penalty = options.ridge * np.concatenate(
            [smooth * (roughness > 0), np.repeat(smooth[of_precision], y.shape[1])]
        )
        matrix[np.diag_indices_from(matrix)] += penalty + 1e-6
        solution = cho_solve(cho_factor(matrix, overwrite_a=True), right)
        n_features, k = features.shape[1], y.shape[1]
        precision = solution[n_features:].reshape(-1, k, k)
        return cls(solution[:n_features], 0.5 * (precision + precision.transpose(0, 2, 1)), of_precision)

    def conditionals(self, features: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean, log width and couplings of each coordinate given those before it, at n conditions.

        Returns:
            mean, shape=(n, k); log width, shape=(n, k); couplings, shape=(n, k, k), strictly lower.
        """
        k = self.linear.shape[1]
        of_precision = features[:, self.of_precision]
        matrix = (of_precision @ self.precision.reshape(len(self.precision), -1)).reshape(-1, k, k)
        # P = U U^T with U upper: the first coordinate's density is a marginal one, the last one's fully conditional
        factor = _positive_factor(matrix[:, ::-1, ::-1])[:, ::-1, ::-1]
        half = np.linalg.solve(factor, (features @ self.linear)[:, :, None])
        mean = np.linalg.solve(factor.transpose(0, 2, 1), half)[:, :, 0]
        pivots = np.diagonal(factor, axis1=1, axis2=2)
        return mean, -np.log(pivots), -np.tril(factor.transpose(0, 2, 1) / pivots[:, :, None], -1)


def _positive_factor(matrices: FloatArray) -> FloatArray:
    """Cholesky factors, of eigenvalues raised to `MIN_PRECISION` where a matrix has smaller ones."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrices)
        raised = vectors * np.maximum(values, MIN_PRECISION)[:, None, :]
        return np.linalg.cholesky(raised @ vectors.transpose(0, 2, 1))


def fit_narrow(
    condition: Condition,
    conditions: FloatArray,
    values: FloatArray,
    gradients: FloatArray,
    weights: FloatArray,
    periodic: BoolArray,
    options: FitOptions,
) -> NarrowCoordinates:
    """The narrow coordinates' map: a linear gradient by least squares, then its conditionals as smooth functions.

    Args:
        condition: the features.
        conditions: shape=(n, n_conditions): labels, wide torsions, rotors.
        values: shape=(n, k), the narrow coordinates.
        gradients: shape=(n, k), of the log density.
        weights: shape=(n,).
        periodic: shape=(k,).
        options: see there.
    """
    centres, scales = _centres_and_scales(values, periodic, weights)
    y, gradients = _deviations(values, centres, periodic) / scales, gradients * scales
    weights = robust_weights(gradients, weights / weights.mean())
    features = condition(torch.as_tensor(conditions)).numpy()
    linear = LinearGradient.fit(condition, features, y, gradients, weights, options)
    rows = np.arange(len(features))[:: max(1, len(features) // MAX_PROJECTED)]
    mean, log_width, coupling = linear.conditionals(features[rows])
    flat = np.concatenate([mean, log_width, coupling.reshape(len(rows), -1)], axis=1)
    matrix = features[rows].T @ features[rows] + np.diag(1e-3 * (1 + condition.roughness.numpy()) ** 2)
    found = np.linalg.solve(matrix, features[rows].T @ flat)
    k = y.shape[1]
    coupling = _with_few_variations(found[:, 2 * k :].reshape(-1, k, k), features[rows], log_width, options)
    normal = [torch.as_tensor(np.ascontiguousarray(part)) for part in (found[:, :k], found[:, k : 2 * k], coupling)]
    units = [torch.as_tensor(part) for part in (centres, scales)]
    nothing = CubicTerms(*(torch.zeros(*(k,) * n, dtype=torch.float64) for n in (3, 2, 1)))
    narrow = NarrowCoordinates(condition, *normal, nothing, *units)
    cubic = fit_cubic(narrow, conditions, y, gradients, weights, options.least_cubic)
    return NarrowCoordinates(condition, *normal, cubic, *units)


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
        with torch.no_grad():
            mean, log_width, matrix = (part.numpy() for part in narrow.parts(torch.as_tensor(conditions[rows])))
        e = (matrix @ (y[rows] - mean)[:, :, None])[:, :, 0] * np.exp(-log_width)
        in_numbers = np.linalg.solve(matrix.transpose(0, 2, 1), gradients[rows, :, None])[:, :, 0] * np.exp(log_width)
        share = weights[rows] * (np.abs(e).max(axis=1) < CUBIC_OUTLIER)
        products = e[:, a] * e[:, b] - (a == b)
        residuals = in_numbers + e
        sums += (residuals * share[:, None]).T @ products
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


def _with_few_variations(
    coupling: FloatArray, features: FloatArray, log_width: FloatArray, options: FitOptions
) -> FloatArray:
    """Couplings that are constant where their dependence on the conditions gains next to nothing.

    Half the variance of ``a_ij d_j / width_i`` is what the variation of a coupling gains in relative entropy.
    """
    mean, widths = features.mean(axis=0), np.exp(log_width).mean(axis=0)
    deviation = features - mean
    covariance = deviation.T @ deviation / len(features)
    variance = np.einsum("kij,kl,lij->ij", coupling, covariance, coupling, optimize=True)
    # d_j of unit variance: the conditional width would say less
    gain = 0.5 * variance / widths[:, None] ** 2
    order = np.argsort(gain, axis=None)
    small = np.zeros(gain.size, dtype=bool)
    small[order[np.cumsum(gain.ravel()[order]) < options.lost_gain]] = True
    small = small.reshape(gain.shape)
    constant = np.zeros_like(coupling)
    constant[0] = np.tensordot(mean, coupling, axes=1)
    return np.where(small, constant, coupling)


def transported_gradients(
    narrow: NarrowCoordinates, conditions: FloatArray, values: FloatArray, gradients: FloatArray
) -> FloatArray:
    """The change of the log density with the conditions, less its explicit part, while the narrow coordinates move along.

    For any velocity ``v = dy/dc`` the mean of ``d_c log pi + v . grad_y log pi + div v`` at a condition is the
    derivative of the condition's own log density. With the map's velocity at fixed normals most of its noise is gone.

    Args:
        narrow: the map.
        conditions: shape=(n, n_conditions).
        values: shape=(n, k), narrow coordinates within half a turn of their origins.
        gradients: shape=(n, k), of the log density.

    Returns:
        ``v . grad_y log pi + div v``, shape=(n, n_conditions).
    """
    result = np.empty(conditions.shape)
    for i in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(i, i + ROWS_AT_ONCE)
        arrays = (torch.as_tensor(part[rows]) for part in (conditions, values, gradients))
        result[rows] = narrow.transport(*arrays).numpy()
    return result


def _fit_circular(
    functions: IntArray,
    basis: FloatArray,
    roughness: FloatArray,
    angles: FloatArray,
    slopes: FloatArray,
    weights: FloatArray,
    fold: int,
    options: FitOptions,
) -> CircularDensity:
    """A circular density from derivatives of its logarithm, by weighted least squares."""
    orders = np.arange(1, options.harmonics + 1) * fold
    phases = angles[:, None] * orders
    waves = np.concatenate([-orders * np.sin(phases), orders * np.cos(phases)], axis=1)
    features = basis[:, functions]
    columns = (features[:, :, None] * waves[:, None, :]).reshape(len(angles), -1)
    weights = robust_weights(slopes[:, None], weights)
    penalty = 2.5 * options.ridge * np.repeat((1 + roughness[functions]) ** 2, waves.shape[1])
    matrix = (columns * weights[:, None]).T @ columns + np.diag(penalty)
    found = np.linalg.solve(matrix, columns.T @ (weights * slopes)).reshape(len(functions), -1)
    return CircularDensity(torch.as_tensor(functions), torch.as_tensor(found), fold, options.uniform_share)


def fit_triangular(
    chart: Chart,
    slow: Axes,
    coordinates: FloatArray,
    gradients: FloatArray,
    weights: FloatArray | None = None,
    wide: IntArray | None = None,
    options: FitOptions = FitOptions(),
) -> TriangularMap:
    """Fit a triangular map to structures and the gradients of their log density.

    Args:
        chart: whose coordinates the labels belong to.
        slow: the labels.
        coordinates: shape=(n, n_coordinates), nm and radians; they need not be in equilibrium.
        gradients: shape=(n, n_coordinates), of ``log pi = -beta U + log J`` in the chart.
        weights: shape=(n,); equal by default.
        wide: coordinates that are wide torsions.
        options: see there.
    """
    roles, folds = Roles.of(chart, wide), chart.folds
    n_axes, n_rotors = len(roles.labels) + len(roles.wide), len(roles.rotors)
    weights = np.ones(len(coordinates)) if weights is None else np.asarray(weights, dtype=float)
    effective = weights.sum() ** 2 / (weights**2).sum()
    if effective < 20:
        raise InputError(f"only {effective:.0f} effective training structures: sample more windows or more steps")
    order = max(options.order, options.circular_order, 1)
    basis = LabelBasis(_ConditionAxes.of(slow, len(roles.wide)), order)
    condition = Condition(basis, n_axes, folds[roles.rotors].tolist(), options.order)
    conditions = coordinates[:, np.concatenate([roles.labels, roles.circular])]
    periodic = chart.periodic[roles.narrow]
    narrow = fit_narrow(
        condition,
        conditions,
        coordinates[:, roles.narrow],
        gradients[:, roles.narrow],
        weights,
        periodic,
        options,
    )
    rows = np.arange(len(coordinates))[:: max(1, len(coordinates) // MAX_PROJECTED)]
    coordinates, gradients, weights, conditions = (part[rows] for part in (coordinates, gradients, weights, conditions))
    centres = narrow.origin.numpy()
    values = centres + _deviations(coordinates[:, roles.narrow], centres, periodic)
    slopes = transported_gradients(narrow, conditions, values, gradients[:, roles.narrow])
    slopes += gradients[:, np.concatenate([roles.labels, roles.circular])]
    functions = basis(torch.as_tensor(conditions[:, :n_axes])).numpy()
    orders = basis.orders_of_axes.numpy()
    circular = []
    for i, index in enumerate(roles.circular):
        known = len(roles.labels) + min(i, len(roles.wide))
        usable = (basis.total_orders.numpy() <= options.circular_order) & (orders[:, known:] == 0).all(axis=1)
        circular.append(
            _fit_circular(
                np.flatnonzero(usable),
                functions,
                basis.roughness.numpy(),
                conditions[:, len(roles.labels) + i],
                slopes[:, len(roles.labels) + i],
                weights,
                int(folds[index]),
                options,
            )
        )
    return TriangularMap(
        chart.n_coordinates,
        *(torch.as_tensor(np.array(part)) for part in (roles.labels, roles.circular)),
        len(roles.wide),
        *(torch.as_tensor(np.array(part)) for part in (roles.narrow, periodic)),
        circular,
        narrow,
    )
