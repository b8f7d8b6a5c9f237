"""Surfaces over some of the labels: a regression with the others averaged over.

Labels s = (a, b) drawn from p(a, b): ``E[w p(a) / p(a, b) | a] = integral exp(-F(a, b)) db``, with p(a) the marginal
density that a was drawn from.
"""

from collections.abc import Sequence

import numpy as np

from ..coordinates.slow_coordinates import Axes, FirstAxes
from ..units import FloatArray
from .draws import Draws
from .label_regression import LabelRegression, fit_label_regression
from .placement import Placement


def some_axes(axes: Axes, indices: Sequence[int]) -> FirstAxes:
    """Some of the coordinates."""
    kept = list(indices)
    names, units = (tuple(part[i] for i in kept) for part in (axes.names, axes.units))
    return FirstAxes(names, axes.periods[kept], axes.domain[kept], units)


def fit_marginal_regression(
    axes: Axes,
    indices: Sequence[int],
    draws: Draws,
    placements: Sequence[Placement],
    mean_forces: FloatArray,
    shares: FloatArray,
) -> LabelRegression:
    """Fit the log density over some of the labels.

    Args:
        axes: all labels.
        indices: of those that are wanted.
        draws: of all rounds.
        placements: of each round.
        mean_forces: shape=(n, d), of the log density over all labels.
        shares: shape=(n,), how much each draw counts.
    """
    kept = list(indices)
    ratios = -draws.log_label_density.copy()
    for number in np.unique(draws.round):
        rows = draws.round == number
        ratios[rows] += placements[number].over(kept).log_density(draws.labels[rows][:, kept])
    log_weights = draws.log_weights + ratios
    return fit_label_regression(some_axes(axes, kept), draws.labels[:, kept], log_weights, mean_forces[:, kept], shares)
