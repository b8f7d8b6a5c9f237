"""Densities of wide torsions from draws: regressions over labels and wide torsions together.

Forces at structures say how a density rises within a mode, and nothing of how two modes compare that no structure
joins; weights do. ``E[w q(t | s) | s, t] = exp(-beta F(s, t))`` with q(t | s) what the wide torsions t were drawn from.
For the first few of them the weights average over the later ones, so that each torsion's density given the labels and
the earlier ones is the Boltzmann factor of one regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import qmc

from ..coordinates.slow_coordinates import SlowCoordinates
from ..free_energy.label_functions import LabelFunctions
from ..generator.circular import N_NODES, CircularDensity
from ..generator.fit_options import ConditionAxes
from ..generator.invertible import InvertibleGenerator
from ..generator.triangular import TriangularMap
from ..units import FloatArray
from .label_regression import LabelRegression, fit_label_regression, regression_of_mean_forces

MAX_ROWS = 30_000
"""Draws in a regression, the newest."""

DEPTH, HIGHEST = 40.0, 0.99
"""kT below the highest draws, a quantile of all, at which a density ends: a wall of thousands of kT, that a uniform
share draws as often as wells, has waves all over the circle."""

PROJECTED_ROWS = 1500
"""Conditions at which a regression's profile along a torsion becomes a circular density."""

RIDGE = 1e-3
"""Of that projection, in conditions."""

MAX_HARMONICS = 12
"""Of a circular density."""

AVERAGED_POINTS = 64
"""Of the wide torsions' domain in a marginal."""


@dataclass(frozen=True)
class WideRegressions:
    """Log densities over the labels with the first one, two, ... wide torsions.

    Attributes:
        regressions: shape=(n_wide,).
    """

    regressions: tuple[LabelRegression, ...]

    def log_density(self, conditions: FloatArray) -> FloatArray:
        """Over labels and all wide torsions, shape=(n,), for conditions of shape=(n, d + n_wide)."""
        return self.regressions[-1].log_density(conditions)

    def log_marginal(self, labels: FloatArray) -> FloatArray:
        """Over the labels alone, the wide torsions averaged over, shape=(n,), for labels of shape=(n, d)."""
        n_wide = len(self.regressions)
        scattered = qmc.Sobol(n_wide, scramble=False).random_base2(int(np.log2(AVERAGED_POINTS)))
        terms = [
            self.log_density(np.column_stack([labels, np.tile(point, (len(labels), 1))]))
            for point in 2 * np.pi * scattered - np.pi
        ]
        return np.asarray(np.logaddexp.reduce(terms, axis=0)) - np.log(len(terms))


def wide_log_densities(
    generators: Sequence[InvertibleGenerator], shares: FloatArray, coordinates: FloatArray
) -> FloatArray:
    """Log density of the first one, two, ... wide torsions given the labels, of a mixture, shape=(n, n_wide).

    Args:
        generators: of the mixture.
        shares: shape=(n_generators,).
        coordinates: shape=(n, n_coordinates).
    """
    terms = []
    for share, one in zip(shares, generators, strict=True):
        of_map = one.map
        conditions = torch.as_tensor(coordinates[:, condition_indices(of_map)])
        with torch.no_grad():
            basis = of_map.narrow.condition.basis(conditions)
            logs = [
                of_map.circular[i].inverse(conditions[:, len(of_map.label_indices) + i], basis)[1].numpy()  # type: ignore[operator]
                for i in range(of_map.n_wide)
            ]
        terms.append(np.log(share) + np.cumsum(np.stack(logs, axis=1), axis=1))
    return np.asarray(np.logaddexp.reduce(terms, axis=0))


def condition_indices(of_map: TriangularMap) -> FloatArray:
    """Coordinates that are labels, then those that are wide torsions."""
    return np.concatenate([of_map.label_indices.numpy(), of_map.circular_indices[: of_map.n_wide].numpy()])


def functions_over(slow: SlowCoordinates, n_wide: int) -> LabelFunctions:
    """The basis over labels and the first wide torsions."""
    return LabelFunctions(ConditionAxes.of(slow, n_wide))


def wide_regressions_of_mean_forces(
    slow: SlowCoordinates, conditions: FloatArray, slopes: FloatArray
) -> WideRegressions:
    """First regressions, from mean forces on frames, shapes (n, d + n_wide)."""
    d = len(slow.names)
    found = []
    for known in range(d + 1, conditions.shape[1] + 1):
        axes, functions = ConditionAxes.of(slow, known - d), functions_over(slow, known - d)
        found.append(regression_of_mean_forces(axes, conditions[:, :known], slopes[:, :known], functions))
    return WideRegressions(tuple(found))


def fit_wide_regressions(
    slow: SlowCoordinates,
    conditions: FloatArray,
    log_weights: FloatArray,
    log_wide: FloatArray,
    slopes: FloatArray,
    shares: FloatArray,
    start: WideRegressions | None = None,
) -> WideRegressions:
    """Fit the regressions of all wide torsions to draws.

    Args:
        slow: the labels.
        conditions: shape=(n, d + n_wide), of labels and wide torsions.
        log_weights: shape=(n,), minus infinity where a draw failed.
        log_wide: shape=(n, n_wide), `wide_log_densities` of what they were drawn from.
        slopes: shape=(n, d + n_wide), mean forces.
        shares: shape=(n,), how much each draw counts.
        start: an earlier fit.
    """
    rows, d = slice(-MAX_ROWS, None), len(slow.names)
    found = []
    for i in range(log_wide.shape[1]):
        axes, known = ConditionAxes.of(slow, i + 1), d + i + 1
        logs = (log_weights + log_wide[:, i])[rows]
        finite = logs[np.isfinite(logs)]
        floor = np.quantile(finite, HIGHEST) - DEPTH if len(finite) else -np.inf
        found.append(
            fit_label_regression(
                axes,
                conditions[rows, :known],
                np.maximum(logs, floor),
                np.where(logs[:, None] > floor, slopes[rows, :known], 0.0),
                shares[rows],
                start=start.regressions[i] if start else None,
                functions=functions_over(slow, i + 1),
                with_errors=False,
            )
        )
    return WideRegressions(tuple(found))


def set_wide_densities(
    of_map: TriangularMap, regressions: WideRegressions, conditions: FloatArray, uniform_share: float
) -> None:
    """Give a map's wide torsions the densities of regressions.

    Args:
        of_map: the map.
        regressions: of its wide torsions.
        conditions: shape=(n, d + n_wide), at which the densities are wanted.
        uniform_share: of each wide torsion's density.
    """
    conditions = conditions[:: max(1, len(conditions) // PROJECTED_ROWS)]
    basis = of_map.narrow.condition.basis
    values = basis(torch.as_tensor(conditions)).numpy()
    orders, roughness = basis.orders_of_axes.numpy(), basis.roughness.numpy()
    d = len(of_map.label_indices)
    for i, regression in enumerate(regressions.regressions):
        usable = np.flatnonzero((orders[:, d + i :] == 0).all(axis=1))
        harmonics = _harmonics(regression, conditions[:, : d + i])
        matrix = values[:, usable].T @ values[:, usable]
        matrix += np.diag(RIDGE * (1 + roughness[usable]) ** 2)
        coefficients = np.linalg.solve(matrix, values[:, usable].T @ harmonics)
        of_map.circular[i] = CircularDensity(torch.as_tensor(usable), torch.as_tensor(coefficients), 1, uniform_share)


def _harmonics(regression: LabelRegression, known: FloatArray) -> FloatArray:
    """Fourier coefficients of the log density along the last coordinate, cosines first, shape=(n, 2 n_harmonics)."""
    n_harmonics = min(regression.functions.order, MAX_HARMONICS)
    nodes = np.arange(N_NODES) * (2 * np.pi / N_NODES)
    profiles = np.stack(
        [regression.log_density(np.column_stack([known, np.full(len(known), node)])) for node in nodes], axis=1
    )
    series = np.fft.rfft(profiles, axis=1)[:, 1 : n_harmonics + 1] * (2.0 / N_NODES)
    return np.concatenate([series.real, -series.imag], axis=1)
