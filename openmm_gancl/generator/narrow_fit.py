"""The narrow coordinates of a triangular map by weighted least squares of the gradient.

Where ``log q(y | c)`` is normal its gradient ``h(c) - P(c) y`` is linear in the parameters of h and P. Features,
orders and the ridge are chosen by the gradients of structures that were held out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from torch import Tensor

from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..units import BoolArray, FloatArray, IntArray
from .cubic_fit import fit_cubic
from .fit_options import NARROW_OPTIONS, ROWS_AT_ONCE, FitOptions, NarrowOptions
from .triangular import Condition, CubicTerms, NarrowCoordinates

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

PRECISION_EVIDENCE, LINEAR_EVIDENCE = 4.0, 0.5
"""Variances that the square of a coefficient of a precision, or of a mean, must exceed."""

MAX_PROJECTED = 2000
"""Structures at which a precision is factorised."""


def _centres_and_scales(values: FloatArray, periodic: BoolArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted (circular) means and standard deviations of coordinates, shape=(k,) each."""
    share = weights / weights.sum()
    centres = np.where(periodic, np.angle(share @ np.exp(1j * values)), share @ values)
    deviation = deviations(values, centres, periodic)
    return centres, np.sqrt(share @ deviation**2)


def deviations(values: FloatArray, centres: FloatArray, periodic: BoolArray) -> FloatArray:
    """Values less centres, those with a period within half a turn, shape=values.shape."""
    deviation = values - centres
    return deviation - np.where(periodic, 2 * np.pi * np.round(deviation / (2 * np.pi)), 0.0)


def robust_weights(gradients: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights that fall with the square of a gradient's length beyond a few medians, shape=(n,)."""
    if not gradients.shape[1]:
        return weights
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
    def of(cls, data: "NarrowData", rows: BoolArray, precision_order: int) -> "_Equations":
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
        inverse = _inverse(matrix)
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


def _inverse(matrix: FloatArray) -> FloatArray:
    """Of a positive definite matrix, which is overwritten: a third of the time of solving for the identity."""
    lower, info = dpotri(cholesky(matrix, lower=True, overwrite_a=True), lower=True, overwrite_c=True)
    assert info == 0
    return np.asarray(lower + np.tril(lower, -1).T)


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
class NarrowData:
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
    ) -> "NarrowData":
        """Of coordinates in nm and radians."""
        centres, scales = _centres_and_scales(values, periodic, weights)
        if (still := np.flatnonzero(~(scales > MIN_SCALE))).size:
            raise InputError(f"{len(still)} coordinates of the training structures never move: sample real dynamics")
        gradients, plain = gradients * scales, weights / weights.mean()
        features = condition(torch.as_tensor(conditions)).numpy()
        y = deviations(values, centres, periodic) / scales
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

    def without_coordinates(self) -> NarrowCoordinates:
        """The map where all coordinates are labels or wide: of none."""
        none = torch.zeros(self.features.shape[1], 0, dtype=torch.float64)
        return NarrowCoordinates(
            self.condition,
            mean=none,
            log_width=none,
            coupling=none[:, :, None],
            cubic=CubicTerms.none(0),
            origin=none[0],
            scale=none[0],
        )

    def residual(self, narrow: NarrowCoordinates, rows: BoolArray) -> float:
        """Mean square of what a map leaves of some structures' gradients, in its own numbers, absurd ones cut."""
        chosen = np.flatnonzero(rows)
        chosen = chosen[:: max(1, len(chosen) // MAX_PROJECTED)]
        arrays = (torch.as_tensor(part[chosen]) for part in (self.conditions, self.y, self.gradients))
        numbers, gradients = (part.numpy() for part in narrow.numbers_and_gradients(*arrays))
        squares = np.minimum((numbers + gradients) ** 2, MAX_RESIDUAL**2).mean(axis=1)
        return float(squares @ self.weights[chosen] / self.weights[chosen].sum())


def fit_narrow(data: NarrowData, options: FitOptions) -> NarrowCoordinates:
    """The narrow coordinates' map: candidates compared on held-out structures, the best one fitted to all."""
    effective = data.plain_weights.sum() ** 2 / (data.plain_weights**2).sum()
    orders, k = data.condition.orders.numpy(), data.y.shape[1]
    if not k:
        return data.without_coordinates()
    candidates = [
        one
        for one in options.narrow
        if effective >= STRUCTURES_AN_ORDER * one.precision_order
        and (one.precision_order == 0 or k * (orders <= one.precision_order).sum() <= MAX_COLUMNS)
    ] or [options.narrow[0]]
    held_out = np.arange(len(data.y)) // HELD_OUT_BLOCK % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    if not held_out.any():
        candidates = candidates[:1]
    # those of the highest order hold those of all others
    highest = max(one.precision_order for one in candidates)
    training, rest = (_Equations.of(data, rows, highest) for rows in (~held_out, held_out))
    best, chosen, typical = np.inf, candidates[0], _typical_factor(training)
    for candidate in candidates if len(candidates) > 1 else []:
        if candidate.precision_order > chosen.precision_order + 1:
            # a precision of fewer functions was no better than one of fewer still: nor is one of more
            break
        narrow = data.narrow(training.solve(candidate), typical, options)
        found = data.residual(narrow, held_out)
        if found < best:
            best, chosen = found, candidate
    whole = training + rest
    narrow = data.narrow(whole.solve(chosen), _typical_factor(whole), options)
    cubic = fit_cubic(narrow, data.conditions, data.y, data.gradients, data.weights, options.least_cubic)
    narrow.cubic = cubic
    return narrow


def _typical_factor(equations: _Equations) -> FloatArray:
    """Lower factor of the precision that is the same for all conditions, eigenvalues at least `MIN_PRECISION`."""
    values, vectors = np.linalg.eigh(equations.solve(NARROW_OPTIONS[0]).precision[0])
    return np.asarray(np.linalg.cholesky((vectors * np.maximum(values, MIN_PRECISION)) @ vectors.T))


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
