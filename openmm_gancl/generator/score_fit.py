"""The triangular map in closed form, from structures and the forces on them.

Where ``log q(y | c)`` is normal its gradient ``h(c) - P(c) y`` is linear in the parameters of h and P, so that the
least squares of the known gradient determine them (score matching with known scores, Hyvarinen 2005). By Stein's
identity the optimum is that of moment matching, and a structure is worth as many equations as it has coordinates.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from torch import Tensor

from ..coordinates.slow_coordinates import Axes
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..reference.chart import Chart
from ..units import BoolArray, FloatArray, IntArray
from .circular import CircularDensity
from .label_basis import LabelBasis, highest_order
from .triangular import MAX_SKEW, Condition, CubicTerms, NarrowCoordinates, TriangularMap

ROBUST_SIZE = 3.0
"""Structures whose gradient is so many medians long carry less weight."""

MIN_PRECISION = 0.1
"""Least eigenvalue of a precision, in units of standard deviations of all structures."""

MIN_RELATIVE_PRECISION = 0.3
"""Least eigenvalue of a precision in units of a typical one."""

MIN_SCALE = 1e-6
"""nm or radians; a coordinate with a smaller standard deviation does not move."""

STRUCTURES_AN_ORDER = 3000
"""Effective structures that each order of a precision needs."""

HELD_OUT_BLOCK, HELD_OUT_EVERY = 25, 4
"""Structures that are held out together, and one block in how many."""

MAX_RESIDUAL = 5.0
"""Of a held-out gradient, in the map's numbers: a larger one is cut."""

MAX_COLUMNS = 4000
"""Unknowns of a precision in one equation: more take minutes to solve for."""

MIN_EVIDENCE = 4.0
"""Standard errors that a cubic term must be away from zero."""

PRECISION_EVIDENCE, LINEAR_EVIDENCE = 4.0, 0.5
"""Variances that the square of a coefficient of a precision, or of a mean, must exceed."""

MAX_DEPTH = 3
"""Of the dependencies of numbers on others by cubic terms."""

CUBIC_OUTLIER = 6.0
"""Structures with a number beyond it say nothing of cubic terms."""

MAX_PROJECTED = 2000
"""Structures at which a precision is factorised."""

TAPER_START = 2.0
"""Radians from its origin at which a narrow torsion begins to take the velocity of `transported_gradients` away."""

ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class NarrowOptions:
    """How many functions the narrow coordinates have, and how they are smoothed.

    Args:
        order: highest order of the functions of the mean.
        precision_order: the same of the precision; zero is one precision for all conditions.
        ridge: penalty of a function of order one, in structures.
    """

    order: int
    precision_order: int
    ridge: float


NARROW_OPTIONS = (
    NarrowOptions(3, 0, 2.0),
    NarrowOptions(4, 0, 0.2),
    NarrowOptions(4, 1, 0.5),
    NarrowOptions(6, 2, 0.2),
)
"""Tried in turn, and chosen by the gradients of structures that were held out."""

MAX_FUNCTIONS = 330
"""Of labels and wide torsions in a mean: with more of these the order is lower."""


@dataclass(frozen=True)
class FitOptions:
    """What is tried, and how circular densities and cubic terms are fitted.

    Args:
        narrow: the candidates.
        uniform_share: of the circular densities.
        harmonics: waves of a circular density's phase.
        circular_order: highest order of the label functions of circular densities.
        circular_ridge: penalty of such a function of order one, in structures.
        lost_gain: relative entropy that couplings may lose by being constant.
        least_cubic: the smallest cubic coefficient that is kept.
    """

    narrow: tuple[NarrowOptions, ...] = NARROW_OPTIONS
    uniform_share: float = 0.01
    harmonics: int = 2
    circular_order: int = 2
    circular_ridge: float = 0.5
    lost_gain: float = 0.02
    least_cubic: float = 0.006


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
class ConditionAxes:
    """Labels and wide torsions as axes of a basis."""

    names: tuple[str, ...]
    periods: FloatArray
    domain: FloatArray
    units: tuple[str, ...]

    @classmethod
    def of(cls, slow: Axes, n_wide: int) -> "ConditionAxes":
        """Of labels with so many wide torsions."""
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
    return deviation - np.where(periodic, 2 * np.pi * np.round(deviation / (2 * np.pi)), 0.0)


def robust_weights(gradients: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights that fall with the square of a gradient's length beyond a few medians, shape=(n,)."""
    size = np.sqrt((gradients**2).mean(axis=1))
    return weights * np.minimum(1.0, (ROBUST_SIZE * np.median(size) / np.maximum(size, 1e-300)) ** 2)


@dataclass(frozen=True)
class _Expansion:
    """Products of any two features as sums of waves, products of a cosine or sine of each axis: these are fewer.

    Attributes:
        condition: of the features.
        numbers: shape=(n_waves, n_conditions), in each axis' phase; none if waves would not be fewer.
        quarters: shape=(n_waves, n_conditions), one for a sine.
        coefficients: shape=(n_pairs, n_terms).
        pairs: shape=(n_features, n_features), which pair any two features are.
    """

    condition: Condition
    numbers: IntArray
    quarters: IntArray
    coefficients: FloatArray
    pairs: IntArray

    @classmethod
    def of(cls, condition: Condition, features: IntArray) -> "_Expansion":
        """The expansion of products of some features.

        Args:
            condition: of the features.
            features: shape=(n_features,), which.
        """
        present = np.unique(condition.wave_numbers()[features], axis=0)
        signs = np.array(list(np.ndindex(*(2,) * present.shape[1]))) * 2 - 1
        both = np.unique(
            np.abs(present[:, None, None] + signs * present[:, None]).reshape(-1, present.shape[1]), axis=0
        )
        numbers = np.repeat(both, len(signs), axis=0)
        quarters = np.tile((signs + 1) // 2, (len(both), 1))
        # a sine of no wave is zero
        kept = ~((numbers == 0) & (quarters == 1)).any(axis=1)
        a, b = np.triu_indices(len(features))
        pairs = np.empty((len(features), len(features)), dtype=np.int64)
        pairs[a, b] = pairs[b, a] = np.arange(len(a))
        made = cls(condition, numbers[kept], quarters[kept], np.empty(0), pairs)
        if len(made.numbers) >= len(a):
            return replace(made, numbers=numbers[:0], quarters=quarters[:0], coefficients=np.eye(len(a)))
        # the expansion is exact: any places will do
        places = condition.places(2 * len(made.numbers), named_rng(0, "fixed", "expansion"))
        values = condition(torch.as_tensor(places)).numpy()[:, features]
        return replace(made, coefficients=_least_squares(made.terms(places, values).T, values[:, a] * values[:, b]).T)

    def terms(self, conditions: FloatArray, features: FloatArray) -> FloatArray:
        """What products are sums of, waves or, if they are no fewer, the products themselves, shape=(n_terms, n).

        Args:
            conditions: shape=(n, n_conditions).
            features: shape=(n, n_features), those of the expansion there.
        """
        if not len(self.numbers):
            a, b = np.triu_indices(features.shape[1])
            return features.T[a] * features.T[b]
        result = np.ones((len(self.numbers), len(conditions)))
        for i, phase in enumerate(self.condition.phases(torch.as_tensor(conditions)).numpy().T):
            used = np.flatnonzero(self.numbers[:, i])
            numbers, which = np.unique(self.numbers[used, i], return_inverse=True)
            angles = numbers[:, None] * phase
            table = np.concatenate([np.cos(angles), np.sin(angles)])
            result[used] *= table[which + len(numbers) * self.quarters[used, i]]
        return result


def _least_squares(columns: FloatArray, values: FloatArray) -> FloatArray:
    """The smallest solution: along an axis without a period waves are nearly dependent."""
    orthogonal, factor = np.linalg.qr(columns)
    size = np.abs(np.diag(factor))
    if size.min() > 1e-6 * size.max():
        return np.asarray(solve_triangular(factor, orthogonal.T @ values))
    return np.asarray(np.linalg.lstsq(columns, values, rcond=None)[0])


@dataclass(frozen=True)
class _Equations:
    """Normal equations of the columns [features, some of the features times -y].

    Attributes:
        matrix: shape=(n_columns, n_columns).
        right: shape=(n_columns, k).
        orders: shape=(n_features,), of the features.
        roughness: shape=(n_features,).
        of_precision: which features are multiplied by y.
        squares: shape=(k,), sums of the gradients' squares.
        total: sum of the weights.
    """

    matrix: FloatArray
    right: FloatArray
    orders: IntArray
    roughness: FloatArray
    of_precision: IntArray
    squares: FloatArray
    total: float

    @classmethod
    def of(cls, data: "_NarrowData", rows: BoolArray, precision_order: int) -> "_Equations":
        """Those of some structures.

        Args:
            data: all structures.
            rows: shape=(n,).
            precision_order: the highest.
        """
        orders, roughness = data.condition.orders.numpy(), data.condition.roughness.numpy()
        of_precision, k = np.flatnonzero(orders <= precision_order), data.y.shape[1]
        n, expansion = len(orders), _Expansion.of(data.condition, of_precision)
        a, b = np.triu_indices(k)
        matrix = np.zeros((n + len(of_precision) * k,) * 2)
        right = np.zeros((len(matrix), k))
        moments = np.zeros((expansion.coefficients.shape[1], len(a)))
        chosen = np.flatnonzero(rows)
        for i in range(0, len(chosen), ROWS_AT_ONCE):
            part = chosen[i : i + ROWS_AT_ONCE]
            features, y, weights = data.features[part], data.y[part], data.weights[part, None]
            crossed = (features[:, of_precision, None] * -y[:, None, :]).reshape(len(part), -1)
            columns = np.concatenate([features, data.gradients[part]], axis=1) * weights
            sums = columns.T @ crossed
            matrix[:n, n:] += sums[:n]
            right[n:] += sums[n:].T
            sums = columns.T @ features
            matrix[:n, :n] += sums[:n]
            right[:n] += sums[n:].T
            of_each = np.ascontiguousarray(y.T)
            moments += (
                expansion.terms(data.conditions[part], features[:, of_precision])
                @ (of_each[a] * (of_each * weights.T)[b]).T
            )
        matrix[n:, :n] = matrix[:n, n:].T
        of_pairs = np.empty((len(expansion.coefficients), k, k))
        of_pairs[:, a, b] = of_pairs[:, b, a] = expansion.coefficients @ moments
        blocks = matrix[n:, n:].reshape(len(of_precision), k, len(of_precision), k)
        blocks[:] = of_pairs[expansion.pairs].transpose(0, 2, 1, 3)
        squares = data.weights[chosen] @ data.gradients[chosen] ** 2
        return cls(matrix, right, orders, roughness, of_precision, squares, float(data.weights[chosen].sum()))

    def __add__(self, other: "_Equations") -> "_Equations":
        names = ("matrix", "right", "squares", "total")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def solve(self, options: NarrowOptions) -> "LinearGradient":
        """The least squares with a ridge, with as many functions as asked for, each shrunk by its own evidence."""
        k, n_features = self.right.shape[1], len(self.orders)
        of_mean = np.flatnonzero(self.orders <= options.order)
        chosen = np.flatnonzero(self.orders[self.of_precision] <= options.precision_order)
        crossed = n_features + (chosen[:, None] * k + np.arange(k)).ravel()
        columns = np.concatenate([of_mean, crossed])
        of_precision = self.of_precision[chosen]
        smooth = (1 + self.roughness) ** 2
        penalty = np.concatenate([(smooth * (self.roughness > 0))[of_mean], np.repeat(smooth[of_precision], k)])
        matrix = self.matrix[np.ix_(columns, columns)]
        matrix[np.diag_indices_from(matrix)] += options.ridge * penalty + 1e-6
        inverse = cho_solve(cho_factor(matrix, overwrite_a=True), np.eye(len(matrix)), overwrite_b=True)
        right, n = self.right[columns], len(of_mean)
        solution = inverse @ right
        residual = np.maximum(self.squares - (solution * right).sum(axis=0), 0.0) / self.total
        variance = np.diag(inverse)[:, None] * residual
        linear = np.zeros((n_features, k))
        linear[of_mean] = solution[:n] * _garrote(solution[:n], variance[:n], LINEAR_EVIDENCE)
        precision, of_it = (part[n:].reshape(-1, k, k) for part in (solution, variance))
        precision = 0.5 * (precision + precision.transpose(0, 2, 1))
        kept = _garrote(precision, 0.25 * (of_it + of_it.transpose(0, 2, 1)), PRECISION_EVIDENCE)
        kept[0, np.arange(k), np.arange(k)] = 1.0
        return LinearGradient(linear, kept * precision, of_precision)


def _garrote(coefficients: FloatArray, variances: FloatArray, evidence: float) -> FloatArray:
    """Factors by which coefficients within their noise vanish (Breiman 1995, doi 10.1080/00401706.1995.10484371)."""
    return np.maximum(0.0, 1.0 - evidence * variances / np.maximum(coefficients**2, 1e-300))


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

    def conditionals(self, features: FloatArray, typical: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean, log width and couplings of each coordinate given those before it, at n conditions.

        Args:
            features: shape=(n, n_features).
            typical: shape=(k, k), lower factor of a typical precision, from which P may not be too far.

        Returns:
            mean, shape=(n, k); log width, shape=(n, k); couplings below the diagonal, shape=(n, k (k - 1) / 2).
        """
        n, k = len(features), self.linear.shape[1]
        # the last coordinate first: P = U U^T with U upper, so that the first one's density is a marginal one
        of_features = torch.as_tensor(self.precision[:, ::-1, ::-1].reshape(len(self.precision), -1).copy())
        rows = torch.as_tensor(features[:, self.of_precision] if len(of_features) > 1 else np.ones((1, 1)))
        matrix = _bounded((rows @ of_features).reshape(-1, k, k), torch.as_tensor(typical))
        factor = torch.linalg.cholesky(matrix)
        linear = torch.as_tensor(features @ self.linear).flip(1)[:, :, None]
        mean = torch.cholesky_solve(linear, factor).flip(1)[:, :, 0]
        pivots = torch.diagonal(factor, dim1=1, dim2=2)
        later, earlier = np.tril_indices(k, -1)
        couplings = -factor[:, k - 1 - earlier, k - 1 - later] / pivots[:, k - 1 - later]
        log_width = -torch.log(pivots).flip(1)
        return mean.numpy(), log_width.expand(n, -1).numpy(), couplings.expand(n, -1).numpy()


def _bounded(matrices: Tensor, typical: Tensor) -> Tensor:
    """Precisions whose eigenvalues, in units of a typical one, are at least `MIN_RELATIVE_PRECISION`.

    Args:
        matrices: shape=(n, k, k), the last coordinate first.
        typical: shape=(k, k), lower factor, the first coordinate first.
    """
    least = (MIN_RELATIVE_PRECISION * typical @ typical.T).flip(0, 1)
    _, info = torch.linalg.cholesky_ex(matrices - least)
    low = info > 0
    if not low.any():
        return matrices
    inverse = torch.linalg.inv(typical.flip(0, 1))
    values, vectors = torch.linalg.eigh(inverse @ matrices[low] @ inverse.T)
    raised = typical.flip(0, 1) @ (vectors * torch.clamp(values, min=MIN_RELATIVE_PRECISION)[:, None, :])
    bounded = matrices.clone()
    bounded[low] = raised @ vectors.transpose(1, 2) @ typical.flip(0, 1).T
    return bounded


@dataclass(frozen=True)
class _NarrowData:
    """Structures in units of their standard deviations, with their gradients and features.

    Attributes:
        condition: of the features.
        conditions: shape=(n, n_conditions).
        features: shape=(n, n_features).
        y: shape=(n, k).
        gradients: shape=(n, k).
        weights: shape=(n,), of mean one, less where a gradient is absurd.
        plain_weights: shape=(n,), of mean one.
        centres: shape=(k,).
        scales: shape=(k,).
    """

    condition: Condition
    conditions: FloatArray
    features: FloatArray
    y: FloatArray
    gradients: FloatArray
    weights: FloatArray
    plain_weights: FloatArray
    centres: FloatArray
    scales: FloatArray

    @classmethod
    def of(
        cls,
        condition: Condition,
        conditions: FloatArray,
        values: FloatArray,
        gradients: FloatArray,
        weights: FloatArray,
        periodic: BoolArray,
    ) -> "_NarrowData":
        """Of coordinates in nm and radians."""
        centres, scales = _centres_and_scales(values, periodic, weights)
        if (still := np.flatnonzero(~(scales > MIN_SCALE))).size:
            raise InputError(f"{len(still)} coordinates of the training structures never move: sample real dynamics")
        gradients, plain = gradients * scales, weights / weights.mean()
        features = condition(torch.as_tensor(conditions)).numpy()
        y = _deviations(values, centres, periodic) / scales
        robust = robust_weights(gradients, plain)
        return cls(condition, conditions, features, y, gradients, robust, plain, centres, scales)

    def narrow(self, linear: LinearGradient, typical: FloatArray, options: FitOptions) -> NarrowCoordinates:
        """The map of a linear gradient, without cubic terms: its conditionals as smooth functions."""
        rows = np.arange(len(self.y))[:: max(1, len(self.y) // MAX_PROJECTED)]
        features, k = self.features[rows], self.y.shape[1]
        mean, log_width, couplings = linear.conditionals(features, typical)
        flat = np.concatenate([mean, log_width, couplings], axis=1)
        matrix = features.T @ features + np.diag(1e-3 * (1 + self.condition.roughness.numpy()) ** 2)
        found = np.linalg.solve(matrix, features.T @ flat)
        coupling = np.zeros((len(found), k, k))
        later, earlier = np.tril_indices(k, -1)
        widths = np.exp(log_width).mean(axis=0)[later]
        coupling[:, later, earlier] = _with_few_variations(found[:, 2 * k :], features, widths, options)
        return NarrowCoordinates(
            self.condition,
            mean=torch.as_tensor(found[:, :k].copy()),
            log_width=torch.as_tensor(found[:, k : 2 * k].copy()),
            coupling=torch.as_tensor(coupling),
            cubic=CubicTerms.none(k),
            origin=torch.as_tensor(self.centres),
            scale=torch.as_tensor(self.scales),
        )

    def residual(self, narrow: NarrowCoordinates, rows: BoolArray) -> float:
        """Mean square of what a map leaves of some structures' gradients, in its own numbers, absurd ones cut."""
        chosen = np.flatnonzero(rows)
        chosen = chosen[:: max(1, len(chosen) // MAX_PROJECTED)]
        arrays = (torch.as_tensor(part[chosen]) for part in (self.conditions, self.y, self.gradients))
        numbers, gradients = (part.numpy() for part in narrow.numbers_and_gradients(*arrays))
        squares = np.minimum((numbers + gradients) ** 2, MAX_RESIDUAL**2).mean(axis=1)
        return float(squares @ self.weights[chosen] / self.weights[chosen].sum())


def _fit_narrow(data: _NarrowData, options: FitOptions) -> NarrowCoordinates:
    """The narrow coordinates' map: candidates compared on held-out structures, the best one fitted to all."""
    effective = data.plain_weights.sum() ** 2 / (data.plain_weights**2).sum()
    orders, k = data.condition.orders.numpy(), data.y.shape[1]
    candidates = [
        one
        for one in options.narrow
        if effective >= STRUCTURES_AN_ORDER * one.precision_order
        and (one.precision_order == 0 or k * (orders <= one.precision_order).sum() <= MAX_COLUMNS)
    ] or [options.narrow[0]]
    held_out = np.arange(len(data.y)) // HELD_OUT_BLOCK % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    if not held_out.any():
        candidates = candidates[:1]
    best, chosen, used = np.inf, candidates[0], -1
    for order in sorted({one.precision_order for one in candidates}):
        if chosen.precision_order < used:
            # a precision of this many functions was no better: nor is one of more
            break
        training, rest = (_Equations.of(data, rows, order) for rows in (~held_out, held_out))
        typical, used = _typical_factor(training), order
        for candidate in (one for one in candidates if one.precision_order == order and len(candidates) > 1):
            narrow = data.narrow(training.solve(candidate), typical, options)
            found = data.residual(narrow, held_out)
            if found < best:
                best, chosen, whole = found, candidate, training + rest
    if len(candidates) == 1:
        whole = training + rest
    narrow = data.narrow(whole.solve(chosen), _typical_factor(whole), options)
    cubic = fit_cubic(narrow, data.conditions, data.y, data.gradients, data.weights, options.least_cubic)
    narrow.cubic = cubic
    return narrow


def _typical_factor(equations: _Equations) -> FloatArray:
    """Lower factor of the precision that is the same for all conditions, eigenvalues at least `MIN_PRECISION`."""
    values, vectors = np.linalg.eigh(equations.solve(NARROW_OPTIONS[0]).precision[0])
    return np.asarray(np.linalg.cholesky((vectors * np.maximum(values, MIN_PRECISION)) @ vectors.T))


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


def _with_few_variations(
    couplings: FloatArray, features: FloatArray, widths: FloatArray, options: FitOptions
) -> FloatArray:
    """Couplings that are constant where their dependence on the conditions gains next to nothing.

    Half the variance of ``a_ij d_j / width_i`` is what the variation of a coupling gains in relative entropy.

    Args:
        couplings: shape=(n_features, n_couplings).
        features: shape=(n, n_features).
        widths: shape=(n_couplings,), of the later one of each two.
        options: the gain that may be lost.
    """
    mean = features.mean(axis=0)
    deviation = features - mean
    covariance = deviation.T @ deviation / len(features)
    # d_j of unit variance: the conditional width would say less
    gain = 0.5 * (couplings * (covariance @ couplings)).sum(axis=0) / widths**2
    order = np.argsort(gain)
    small = np.zeros(len(gain), dtype=bool)
    small[order[np.cumsum(gain[order]) < options.lost_gain]] = True
    constant = np.zeros_like(couplings)
    constant[0] = mean @ couplings
    return np.where(small, constant, couplings)


def _taper(values: FloatArray, origins: FloatArray, periodic: BoolArray) -> tuple[FloatArray, FloatArray]:
    """A factor that falls smoothly from one to zero where a torsion comes to half a turn, and its gradient."""
    deviation = np.where(periodic, values - origins, 0.0)
    into = np.clip((np.abs(deviation) - TAPER_START) / (np.pi - TAPER_START), 0.0, 1.0)
    factors = np.cos(0.5 * np.pi * into) ** 2
    slopes = -np.pi * np.tan(0.5 * np.pi * np.minimum(into, 1.0 - 1e-9)) / (np.pi - TAPER_START) * np.sign(deviation)
    factor = factors.prod(axis=1)
    return factor, factor[:, None] * slopes


def transported_gradients(
    narrow: NarrowCoordinates,
    conditions: FloatArray,
    values: FloatArray,
    gradients: FloatArray,
    n: int,
    periodic: BoolArray,
) -> FloatArray:
    """The log density's change with the conditions, less its explicit part, while narrow coordinates move along.

    For any velocity ``v = dy/dc`` the mean of ``d_c log pi + v . grad_y log pi + div v`` at a condition is the
    derivative of the condition's own log density. With the map's velocity at fixed normals most of its noise is gone.
    That velocity jumps where a torsion comes to half a turn from its origin, which a torsion that is not narrow after
    all does: so it is tapered there, ``chi v``, with ``chi v . grad_y log pi + chi div v + v . grad chi``.

    Args:
        narrow: the map.
        conditions: shape=(n, n_conditions).
        values: shape=(n, k), narrow coordinates within half a turn of their origins.
        gradients: shape=(n, k), of the log density.
        n: how many conditions are wanted, the labels first.
        periodic: shape=(k,), which coordinates are torsions.

    Returns:
        ``v . grad_y log pi + div v``, shape=(n, that many).
    """
    result = np.empty((len(values), n))
    for i in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(i, i + ROWS_AT_ONCE)
        here, at, slopes = (torch.as_tensor(part[rows]) for part in (conditions, values, gradients))
        result[rows] = narrow.transport(here, at, slopes, n).numpy()
    factor, of_factor = _taper(values, narrow.origin.numpy(), periodic)
    far = np.flatnonzero(factor < 1.0)
    for i in range(0, len(far), ROWS_AT_ONCE):
        some = far[i : i + ROWS_AT_ONCE]
        here, at, slopes = (torch.as_tensor(part[some]) for part in (conditions, values, of_factor))
        across = narrow.transport(here, at, slopes, n) - narrow.transport(here, at, torch.zeros_like(slopes), n)
        result[some] = factor[some, None] * result[some] + across.numpy()
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
    penalty = options.circular_ridge * np.repeat((1 + roughness[functions]) ** 2, waves.shape[1])
    matrix = (columns * weights[:, None]).T @ columns + np.diag(penalty)
    found = np.linalg.solve(matrix, columns.T @ (weights * slopes)).reshape(len(functions), -1)
    return CircularDensity(torch.as_tensor(functions), torch.as_tensor(found), fold, options.uniform_share)


def effective_structures(coordinates: FloatArray, gradients: FloatArray, weights: FloatArray) -> float:
    """How many structures of equal weight they are worth.

    Args:
        coordinates: shape=(n, n_coordinates).
        gradients: shape=(n, n_coordinates).
        weights: shape=(n,).

    Raises:
        InputError: some are not finite.
    """
    if bad := int((~np.isfinite(coordinates).all(axis=1) | ~np.isfinite(gradients).all(axis=1)).sum()):
        raise InputError(f"{bad} training structures have gradients that are not finite: leave them out")
    return float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))


def _check_structures(
    chart: Chart, slow: Axes, coordinates: FloatArray, gradients: FloatArray, weights: FloatArray
) -> None:
    if len(chart.label_indices) != len(slow.names):
        raise InputError(
            f"{', '.join(slow.names)}: labels are no coordinates of the chart: use torsions or particle components"
        )
    effective = effective_structures(coordinates, gradients, weights)
    if not effective >= 20:
        raise InputError(f"only {effective:.0f} effective training structures: sample more windows or more steps")


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

    Raises:
        InputError: labels are no coordinates of the chart, or structures are too few, do not move or have no forces.
    """
    roles, folds = Roles.of(chart, wide), chart.folds
    weights = np.ones(len(coordinates)) if weights is None else np.asarray(weights, dtype=float)
    _check_structures(chart, slow, coordinates, gradients, weights)
    weights = weights / weights.mean()
    options = _with_few_functions(options, len(roles.labels) + len(roles.wide))
    condition = condition_of(slow, roles, folds, max(one.order for one in options.narrow), options)
    conditions = coordinates[:, np.concatenate([roles.labels, roles.circular])]
    periodic = chart.periodic[roles.narrow]
    fast = coordinates[:, roles.narrow], gradients[:, roles.narrow]
    narrow = _fit_narrow(_NarrowData.of(condition, conditions, *fast, weights, periodic), options)
    rows = np.arange(len(coordinates))[:: max(1, len(coordinates) // MAX_PROJECTED)]
    coordinates, gradients, weights, conditions = (part[rows] for part in (coordinates, gradients, weights, conditions))
    centres = narrow.origin.numpy()
    values = centres + _deviations(coordinates[:, roles.narrow], centres, periodic)
    slopes = transported_gradients(
        narrow, conditions, values, gradients[:, roles.narrow], conditions.shape[1], periodic
    )
    slopes += gradients[:, np.concatenate([roles.labels, roles.circular])]
    circular = _circular_densities(condition, roles, folds, conditions, slopes, weights, options)
    return assembled(chart, roles, circular, narrow)


def _circular_densities(
    condition: Condition,
    roles: Roles,
    folds: IntArray,
    conditions: FloatArray,
    slopes: FloatArray,
    weights: FloatArray,
    options: FitOptions,
) -> list[CircularDensity]:
    """Of wide torsions, each given the labels and the earlier ones, and of symmetric rotors, given all of these."""
    basis = condition.basis
    functions = basis(torch.as_tensor(conditions[:, : condition.n_axes])).numpy()
    orders, circular = basis.orders_of_axes.numpy(), []
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
    return circular


def _with_few_functions(options: FitOptions, n_axes: int) -> FitOptions:
    """The same with orders of the mean that have no more than `MAX_FUNCTIONS`."""
    highest = highest_order(n_axes, MAX_FUNCTIONS)
    return replace(options, narrow=tuple(replace(one, order=min(one.order, highest)) for one in options.narrow))


def condition_of(slow: Axes, roles: Roles, folds: IntArray, order: int, options: FitOptions) -> Condition:
    """The features of narrow coordinates, whose basis serves circular ones too.

    Args:
        slow: the labels.
        roles: of the chart's coordinates.
        folds: shape=(n_coordinates,).
        order: the highest.
        options: of circular densities.
    """
    n_wide = len(roles.wide)
    basis = LabelBasis(ConditionAxes.of(slow, n_wide), max(order, options.circular_order, 1))
    return Condition(basis, len(roles.labels) + n_wide, folds[roles.rotors].tolist(), order)


def assembled(chart: Chart, roles: Roles, circular: list[CircularDensity], narrow: NarrowCoordinates) -> TriangularMap:
    """The map of a chart's coordinates from its parts."""
    return TriangularMap(
        chart.n_coordinates,
        label_indices=torch.as_tensor(np.array(roles.labels)),
        circular_indices=torch.as_tensor(roles.circular),
        n_wide=len(roles.wide),
        narrow_indices=torch.as_tensor(np.array(roles.narrow)),
        periodic=torch.as_tensor(chart.periodic[roles.narrow]),
        circular=circular,
        narrow=narrow,
    )


def untrained_triangular(
    chart: Chart,
    slow: Axes,
    origin: FloatArray,
    scales: FloatArray,
    rng: np.random.Generator,
    strength: float = 0.3,
) -> TriangularMap:
    """A map that has seen no structure: around one, with random couplings and means; circular coordinates even.

    Args:
        chart: whose coordinates the labels belong to.
        slow: the labels.
        origin: shape=(n_coordinates,), of the structure.
        scales: shape=(n_coordinates,), standard deviations.
        rng: of the random parts.
        strength: of these, in standard deviations.
    """
    roles = Roles.of(chart)
    options = _with_few_functions(FitOptions(), len(roles.labels))
    condition = condition_of(slow, roles, chart.folds, max(one.order for one in options.narrow), options)
    k, n_features = len(roles.narrow), len(condition.orders)
    smooth = np.flatnonzero(condition.orders.numpy() <= 1)
    mean, log_width = np.zeros((n_features, k)), np.zeros((n_features, k))
    for part in (mean, log_width):
        part[smooth] = rng.normal(0.0, strength, (len(smooth), k))
    coupling = np.zeros((n_features, k, k))
    coupling[0] = np.tril(rng.normal(0.0, strength / k**0.5, (k, k)), -1)
    narrow = NarrowCoordinates(
        condition,
        mean=torch.as_tensor(mean),
        log_width=torch.as_tensor(log_width),
        coupling=torch.as_tensor(coupling),
        cubic=CubicTerms.none(k),
        origin=torch.as_tensor(origin[roles.narrow]),
        scale=torch.as_tensor(scales[roles.narrow]),
    )
    even = torch.zeros(1, 2, dtype=torch.float64)
    constant = torch.zeros(1, dtype=torch.int64)
    circular = [CircularDensity(constant, even, int(chart.folds[i]), 1.0) for i in roles.circular]
    return assembled(chart, roles, circular, narrow)
