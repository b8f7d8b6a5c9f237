"""Averages of observables over weighted lifts: at single labels, as functions of the label, and over all labels."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from ..coordinates.slow_coordinates import SlowCoordinates, checked_labels
from ..errors import InputError, checked
from ..free_energy.grid import bin_centres
from ..free_energy.label_functions import LabelFunctions
from ..free_energy.label_tables import LabelTables
from ..free_energy.surface import grid_edges
from ..free_energy.weight_statistics import effective_sample_size, shares_of_weight
from ..lifting.learned import MAX_GRID_LABELS
from ..units import BoolArray, FloatArray, IntArray
from .ensemble import Ensemble, shown
from .observables import Observable, observe
from .smooth_fit import SmoothFit, fit_smooth

FEWEST_EFFECTIVE = 10.0
"""Effective lifts at a label, below which the error of an average over them says little."""


NEAR, FEWEST_NEAR = 0.05, 10
"""Of the domain, along every coordinate: how far from a label so many lifts may be that tell an average there."""

MOST_FAR = 0.01
"""Of the density of labels, that may be farther from lifts than this in an average over all labels."""


@dataclass(frozen=True)
class LabelAverages:
    """Averages over the lifts of each label.

    Attributes:
        labels: shape=(k, d).
        mean: shape=(k, m).
        error: shape=(k, m), one sigma, by the delta method.
        counts: shape=(k,), lifts at each label, those without a weight included.
        effective: shape=(k,), Kish's effective number of them; below 10 the error says little.
    """

    labels: FloatArray
    mean: FloatArray
    error: FloatArray
    counts: IntArray
    effective: FloatArray

    def doubts(self) -> list[str]:
        """Sentences, where an average is not to be trusted."""
        if not (few := self.effective < FEWEST_EFFECTIVE).any():
            return []
        return [
            f"{few.sum()} of {len(self.labels)} labels have fewer than {FEWEST_EFFECTIVE:g} effective lifts, the least "
            f"{self.effective.min():.1f}: lift more there, or use the function of the label (conditional_average)"
        ]


@checked
def averages_at_labels(ensemble: Ensemble, observable: Observable, labels: FloatArray | None = None) -> LabelAverages:
    """Averages of an observable over the lifts of single labels.

    ``m = sum w A / sum w`` with the error ``sqrt(sum w^2 (A - m)^2) / sum w`` (times ``sqrt(n / (n - 1))``).

    Args:
        ensemble: lifts, several of each label.
        observable: a function of positions.
        labels: shape=(k, d); those that lifts were drawn at by default.

    Raises:
        InputError: a label has fewer than two lifts with a weight, or the observable is not one.
    """
    found, index = np.unique(ensemble.labels[ensemble.ok], axis=0, return_inverse=True)
    if labels is not None:
        found = checked_labels(labels, ensemble.slow)
        same = np.isclose(ensemble.labels[ensemble.ok][:, None], found[None], atol=1e-9).all(axis=2)
        index = np.where(np.max(same, axis=1), np.argmax(same, axis=1), -1)
    index = index.ravel()
    numbers_at: IntArray = np.bincount(index[index >= 0], minlength=len(found))
    few: BoolArray = numbers_at < 2
    if few.any():
        raise InputError(
            f"label {shown(found[few][0])} has {numbers_at[few][0]} lifts with a weight: lift at least two there, or "
            "use the function of the label (conditional_average)"
        )
    values, log_weights = (
        observe(ensemble, observable)[ensemble.ok],
        (ensemble.log_weights + np.log(ensemble.share_of_each))[ensemble.ok],
    )
    mean, error = np.empty((2, len(found), values.shape[1]))
    effective = np.empty(len(found))
    for k in range(len(found)):
        chosen = index == k
        shifted = log_weights[chosen] - log_weights[chosen].max()
        weights = np.exp(shifted) / np.exp(shifted).sum()
        mean[k] = weights @ values[chosen]
        n = len(weights)
        error[k] = np.sqrt((weights[:, None] ** 2 * (values[chosen] - mean[k]) ** 2).sum(axis=0) * n / (n - 1))
        effective[k] = effective_sample_size(shifted)
    everywhere = np.isclose(ensemble.labels[:, None], found[None], atol=1e-9, equal_nan=False).all(axis=2)
    return LabelAverages(found, mean, error, everywhere.sum(axis=0), effective)


@dataclass(frozen=True, eq=False)
class ConditionalAverage:
    """``E[A | s]`` as a function of the label.

    Attributes:
        slow: the labels.
        fits: one for each component of the observable.
        lifted: shape=(n, d), labels of the lifts with a weight.
    """

    slow: SlowCoordinates
    fits: tuple[SmoothFit, ...]
    lifted: FloatArray

    def at(self, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Averages and their errors, one sigma, at labels of shape=(k, d): shape=(k, m) each.

        Raises:
            InputError: a label outside the domain, or without ten lifts within a twentieth of it.
        """
        labels = checked_labels(labels, self.slow)
        values, errors = self._at(labels)
        unknown = np.isnan(values).max(axis=1)
        if unknown.any():
            raise InputError(
                f"label {shown(labels[unknown][0])} has no lifts about it that say what the "
                "average is there: lift there, or leave it out"
            )
        return values, errors

    def _at(self, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
        values = np.stack([fit(labels) for fit in self.fits], axis=1)
        errors = np.stack([fit.errors(labels) for fit in self.fits], axis=1)
        # an observable that is constant has no spread, and no error but rounding
        spread = np.array([fit.spread for fit in self.fits])
        unknown = _far(self.slow, self.lifted, labels) | np.max(errors > np.where(spread > 0, spread, np.inf), axis=1)
        return np.where(unknown[:, None], np.nan, values), np.where(unknown[:, None], np.inf, errors)

    def on_grid(self, bins: int | None = None) -> tuple[tuple[FloatArray, ...], FloatArray, FloatArray]:
        """On the grid of surfaces, for one or two labels.

        Args:
            bins: a label; 72 over two, 120 over one, by default.

        Returns:
            edges, one array a label; averages and errors, shape=(n_0, ..., m), NaN and ``inf`` where unknown.
        """
        edges = grid_edges(self.slow, bins)
        shape = (*(len(axis) - 1 for axis in edges), len(self.fits))
        values, errors = self._at(bin_centres(edges))
        return edges, values.reshape(shape), errors.reshape(shape)


def _far(slow: SlowCoordinates, lifted: FloatArray, labels: FloatArray) -> BoolArray:
    """Which labels have too few lifts about them: a fit goes on there by its prior alone."""
    low, high = slow.domain.T
    periodic = np.isfinite(slow.periods)
    places, others = (
        np.where(periodic, ((part - low) / (high - low)) % 1.0, (part - low) / (high - low))
        for part in (lifted, labels)
    )
    tree = cKDTree(places, boxsize=np.where(periodic, 1.0, 0.0))
    number = min(FEWEST_NEAR, len(places))
    distance, _ = tree.query(others, k=[number], p=np.inf)
    return np.asarray(distance[:, 0] > NEAR)


@checked
def conditional_average(ensemble: Ensemble, observable: Observable) -> ConditionalAverage:
    """The average of an observable given the label, as a smooth function of it, fitted to all lifts.

    Args:
        ensemble: lifts at any labels; those outside the domain are left out.
        observable: a function of positions.

    Raises:
        InputError: the observable is not one.
    """
    ensemble = ensemble.within_domain()
    values, ok = observe(ensemble, observable), ensemble.ok
    weights = (ensemble.share_of_each * ensemble.ratios)[ok]
    with threadpool_limits(1, user_api="blas"):
        tables = LabelTables(LabelFunctions(ensemble.slow), ensemble.labels[ok])
        fits = [fit_smooth(tables, column, weights) for column in values[ok].T]
        fitted = np.stack([tables.combine(fit.coefficients) for fit in fits], axis=1)
    counted = ensemble.counted_as_one(weights[:, None] * (values[ok] - fitted))
    fits = [replace(fit, covariance=n * fit.covariance) for fit, n in zip(fits, counted, strict=True)]
    return ConditionalAverage(ensemble.slow, tuple(fits), ensemble.labels[ok])


@checked
def ensemble_average(ensemble: Ensemble, observable: Observable) -> tuple[FloatArray, FloatArray]:
    """The equilibrium average of an observable over all labels, from the same lifts.

    With labels from a known density the weighted mean ``sum w A / p(s)`` over ``sum w / p(s)``. Otherwise the integral
    of ``E[A | s] exp(-beta F(s))`` over the domain, F from the weights; its error follows each lift through both fits.

    Args:
        ensemble: lifts.
        observable: a function of positions.

    Returns:
        average and error, one sigma, shape=(m,) each.

    Raises:
        InputError: the observable is not one; more than two labels whose density is not known, or labels that leave out
            a part of it; or fewer than ten effective configurations.
    """
    values = observe(ensemble, observable)
    if ensemble.log_label_density is None:
        return _integrated(ensemble, values)
    log_shares = np.log(ensemble.share_of_each)
    with np.errstate(invalid="ignore"):
        logs = np.where(ensemble.ok, ensemble.log_weights - ensemble.log_label_density, -np.inf) + log_shares
    weights = shares_of_weight(logs)
    if (effective := effective_sample_size(logs)) < FEWEST_EFFECTIVE:
        raise InputError(
            f"the weights leave {effective:.1f} effective configurations, of which no error is told: lift more, or "
            "train with more frames"
        )
    mean = weights @ values
    pulls = weights[:, None] * (values - mean)
    return mean, np.sqrt(ensemble.counted_as_one(pulls) * (pulls**2).sum(axis=0))


def _integrated(ensemble: Ensemble, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    if not ensemble.fixed:
        raise InputError("the labels' density is not known, and the weights do not hold it: give log_label_density")
    if len(ensemble.slow.names) > MAX_GRID_LABELS:
        raise InputError("an average over more than two labels needs their density: give lifts of `gancl.learn`")
    regression, ok = ensemble.weight_regression, ensemble.ok
    tables = LabelTables(regression.functions, ensemble.labels)
    shares = ensemble.share_of_each
    weights = shares * ensemble.ratios
    places = bin_centres(grid_edges(ensemble.slow))
    log_density = regression.log_density(places)
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    if (share := density[_far(ensemble.slow, ensemble.labels[ok], places)].sum()) > MOST_FAR:
        raise InputError(
            f"{share:.0%} of the density of labels lies, as far as can be told, where there are no lifts about: lift "
            "at labels all over the domain"
        )
    basis = regression.functions(places)
    of_weights = tables.gram(weights) / regression.dispersion
    of_weights += np.diag(regression.functions.prior_precision(regression.length))
    mean, error = np.empty((2, values.shape[1]))
    some = LabelTables(regression.functions, ensemble.labels[ok])
    for k, column in enumerate(values.T):
        fit = fit_smooth(some, column[ok], weights[ok])
        averages = basis @ fit.coefficients
        mean[k] = density @ averages
        through_weights = np.linalg.solve(of_weights, (density * (averages - mean[k])) @ basis) / regression.dispersion
        pull = (weights - shares) * tables.combine(through_weights)
        scale = fit.spread if fit.spread > 0 else 1.0
        through_values = fit.inverse @ (density @ basis)
        residual = (column - tables.combine(fit.coefficients)) / scale
        pull += weights * residual * tables.combine(through_values) * scale / fit.variance
        error[k] = np.sqrt((pull**2).sum())
    return mean, error
