"""Learned labels beside draws at torsions: what they are learned from, and surfaces over them.

A draw's weight is of its whole configuration, so that ``sum_i w_i / p(s_i) f(u(x_i))`` estimates the equilibrium's
``integral f(u(x)) exp(-beta U)`` for any map u that does not depend on these draws. A map is learned in an early round
and then frozen; the draws of later rounds have its surface.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from ..coordinates.slow_coordinates import Axes, FirstAxes, SlowCoordinates
from ..engine.random_numbers import named_rng
from ..errors import InputError, checked
from ..free_energy.cox_process import edge_modes
from ..free_energy.grid import bin_indices
from ..free_energy.surface import ALIGNMENT_CEILING, FreeEnergySurface, grid_edges
from ..reference.chart import InternalCoordinates
from ..units import FloatArray
from .draws import Draws
from .label_regression import LabelRegression
from .learned import Learned
from .requirements import check_invariant
from .rounds import pooled_log_weights

N_BINS = {1: 60, 2: 36}
"""Along each coordinate of a surface over so many."""

MIN_EFFECTIVE = 4.0
"""Effective draws in a bin that is known."""

NEIGHBOURHOOD = 0.7
"""Bins: standard deviation of the kernel over which weights have one size."""

LEARNING_CEILING = 10.0
"""kT, up to which draws are structures to learn from."""


@checked
def structures_to_learn(draws: Draws, regression: LabelRegression, seed: int) -> FloatArray:
    """Coordinates of draws as dynamics would have them at their labels, shape=(n_kept, n_coordinates).

    Each is kept with the probability of its weight over the local mean, at most one: what is learned from them need not
    be in equilibrium.

    Args:
        draws: at labels below a ceiling.
        regression: of their weights.
        seed: of what is kept.

    Raises:
        InputError: none is left.
    """
    eta = regression.log_density(draws.labels)
    low = eta > eta.max() - LEARNING_CEILING
    uniform = named_rng(seed, "structures to learn").random(len(draws))
    kept = low & (np.log(uniform) < draws.log_weights - eta)
    if not kept.any():
        raise InputError("no draw is a structure to learn labels from: raise `max_evaluations`")
    return draws.coordinates[kept]


def values_of(learned: Learned, slow: SlowCoordinates) -> FloatArray:
    """Any coordinates of all draws, shape=(n, d); NaN where a draw has no weight.

    Args:
        learned: with the draws.
        slow: the coordinates.

    Raises:
        InputError: they are not of this molecule, or not finite.
    """
    ok = np.isfinite(learned.lifts.log_weights)
    values = np.full((len(ok), len(slow.names)), np.nan)
    positions = learned.model.chart.to_cartesian(learned.lifts.coordinates[ok])
    if len(positions) and isinstance(learned.model.chart, InternalCoordinates):
        check_invariant(slow, positions[0])
    values[ok] = slow.transform(positions)
    if not np.isfinite(values[ok]).all():
        raise InputError(f"{', '.join(slow.names)} are NaN or infinite of some lifts: correct the module")
    return values


def _sizes(sums: FloatArray, squares: FloatArray, edges: tuple[FloatArray, ...], axes: Axes) -> FloatArray:
    """Of one independent weight in each bin, shape=(n_bins,): the larger one of its own and its neighbourhood's.

    A bin that should have a few heavy weights among many light ones may have none of them, and a bar far too small.
    """
    shape = tuple(len(axis) - 1 for axis in edges)
    near = [
        gaussian_filter(part.reshape(shape), NEIGHBOURHOOD, mode=edge_modes(axes.periods)).ravel()
        for part in (sums, squares)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.fmax(squares / sums, near[1] / near[0])


@checked
def weighted_histogram(
    axes: Axes, values: FloatArray, log_weights: FloatArray, temperature: float, force_evaluations: int
) -> FreeEnergySurface:
    """The surface over one or two coordinates of weighted draws.

    Learned labels fill a part of their domain with sharp edges, which smoothing blurs: nothing is smoothed. Error bars
    are those of sums of independent weights; a bin in which few of them decide is unknown.

    Args:
        axes: the coordinates.
        values: shape=(n, d), of each draw.
        log_weights: shape=(n,), to the equilibrium; minus infinity where a draw failed.
        temperature: K.
        force_evaluations: to record.

    Raises:
        InputError: the draws are too few, or a weight is NaN.
    """
    if np.isnan(log_weights).any() or (log_weights == np.inf).any():
        raise InputError("`log_weights` holds NaN or plus infinity: give minus infinity where a draw failed")
    ok = np.isfinite(log_weights)
    edges = grid_edges(axes, N_BINS[len(axes.names)])
    index, logs = bin_indices(values[ok], edges, axes.periods), log_weights[ok]
    weights, inside = np.exp(logs - logs.max(initial=-np.inf)), index >= 0
    n_bins = int(np.prod([len(axis) - 1 for axis in edges]))
    sums, squares = (np.bincount(index[inside], weights[inside] ** p, n_bins).astype(float) for p in (1, 2))
    sizes = _sizes(sums, squares, edges, axes)
    known = sums > MIN_EFFECTIVE * sizes
    if not known.any():
        raise InputError(
            f"the lifts are too few for a surface over {', '.join(axes.names)}: lift more, or raise `max_evaluations`"
        )
    log_sums, variance = np.log(sums[known]), sizes[known] / sums[known]
    low = log_sums > log_sums.max() - ALIGNMENT_CEILING
    # of each bin less the mean of those below the ceiling
    own = variance * np.where(low, 1 - 2 / low.sum(), 1.0) + variance[low].sum() / low.sum() ** 2
    energy, error = np.full(n_bins, np.inf), np.full(n_bins, np.inf)
    energy[known], error[known] = log_sums.max() - log_sums, np.sqrt(own.clip(min=0.0))
    return FreeEnergySurface.of_reduced(energy, error, edges, axes, temperature, force_evaluations)


@checked
def projected_surface(
    learned: Learned, slow: SlowCoordinates, values: FloatArray | None = None, after_round: int = -1
) -> FreeEnergySurface:
    """The surface over the first one or two of any coordinates, from the weights of draws at other labels.

    Args:
        learned: with the draws.
        slow: the coordinates.
        values: `values_of` them, where they are known.
        after_round: rounds up to this one are left out where there are later ones: the coordinates depend on them.

    Raises:
        InputError: the draws are too few.
    """
    axes, of_run = FirstAxes.of(slow, max(N_BINS)), learned.surface
    values = values_of(learned, slow) if values is None else values
    used = learned.lifts.round > after_round
    if not used.any():
        used = ~used
    return weighted_histogram(
        axes,
        values[used, : len(axes.names)],
        pooled_log_weights(learned.lifts)[used],
        of_run.temperature,
        of_run.force_evaluations,
    )
