"""Free-energy surfaces from lifts.

A restrained lift's weight measures the free energy of its *window*, which is the surface smeared by the restraint.
The end points, reweighted by the mixture of all windows, measure the surface itself:

    integral f exp(-beta U_A) = sum_k (c_k / n_k) sum_i w_ki f(x_ki) / sum_j c_j b_j(x_ki),

unbiased for any fixed c_k > 0, with b_k = exp(-beta U_C(x; s_k)); c_k = n_k exp(beta F_k) is the balance heuristic.
These counts are smoothed by a log-Gaussian Cox process (Moller, Syversveen, Waagepetersen 1998,
doi 10.1111/1467-9469.00115): the log-density has a Matern prior whose length is chosen by its evidence, and the
mixture is the exposure, so the smearing never has to be undone.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from ..coordinates.basin import Basin
from ..coordinates.restraint_energies import log_boltzmann_factors
from ..coordinates.slow_coordinates import Axes, ModuleCoordinates, in_domain
from ..errors import InputError, checked
from ..free_energy.basins import BasinPopulation, weighted_populations
from ..free_energy.cox_process import CORRELATION_LENGTHS, CoxFit, edge_modes, fit_cox_process, product_basis
from ..free_energy.grid import bin_centres, bin_indices
from ..free_energy.surface import ALIGNMENT_CEILING, MAX_ERROR, FreeEnergySurface, grid_edges
from ..free_energy.weight_statistics import effective_sample_size, log_mean_weight
from ..units import BoolArray, FloatArray, IntArray, thermal_energy
from .doubts import doubts_about_ratios, doubts_about_windows
from .label_regression import doubts_about_regression, fit_label_regression
from .lifts import Lifts
from .reverse_check import window_ids

MAX_RESTRAINT_ENERGY = 4.0
"""A bin is known where some label's restraint lies below this many kT."""

MAX_WINDOW_FREE_ENERGY = 40.0
"""kT above the lowest window: as far as the constants of the mixture follow the windows' free energies."""

INITIAL_GUESS_CUTOFF = 10.0
"""kT; windows further than this do not enter a window's initial guess."""

MAX_LOOKED_AT = 200
"""Low windows whose effective lifts are counted."""

CHUNK_SIZE = 2000
"""Places in one batch, for all windows."""

SMOOTHING_BINS, MIN_ENDS_PER_BIN = 1.5, 0.05
"""Of the end points' own density over other coordinates than the labels: bins; and end points to a bin,
below which it is unknown."""


Progress = Callable[[int, int], None]
"""Called with the number of finished parts and that of all parts."""


@dataclass(frozen=True)
class WeightedEnds:
    """End points with unbiased weights for the unrestrained equilibrium, up to one constant.

    Attributes:
        cv_values: shape=(n, d), xi(x).
        log_weights: shape=(n,), log W: ``sum W f(x)`` estimates the average of f in the labels' domain, beyond which
            they are minus infinity.
        window: shape=(n,), the window that each lift was drawn in: the strata of the error.
        counts: shape=(n_windows,), lifts of each window, those of weight zero included.
    """

    cv_values: FloatArray
    log_weights: FloatArray
    window: IntArray
    counts: IntArray

    def error_of_sum(self, terms: FloatArray) -> float:
        """One sigma of a sum of independent terms, shape=(n,), whose number in each window was fixed beforehand.

        Windows of a single lift, which have no variance, are paired in order of their labels: an upper
        bound (collapsed strata, Cochran 1977, Sampling Techniques, section 5A.12).
        """
        alone, strata = self.counts == 1, np.arange(len(self.counts))
        pairs = np.minimum(np.arange(alone.sum()) // 2, max(alone.sum() // 2 - 1, 0))
        strata[alone] = len(self.counts) + pairs
        sizes = np.bincount(strata, self.counts)
        sums, squares = (np.bincount(strata[self.window], terms**p, minlength=len(sizes)) for p in (1, 2))
        several = sizes > 1
        n = sizes[several]
        return float(np.sqrt((n / (n - 1) * (squares[several] - sums[several] ** 2 / n)).clip(min=0.0).sum()))


def in_turn(progress: Progress, number: int, n: int) -> Progress:
    """Progress of one of n computations that follow one another.

    Args:
        progress: of all.
        number: of the computation, from 0.
        n: computations.
    """
    return lambda finished, parts: progress(number * parts + finished, n * parts)


def _n_chunks(n: int) -> int:
    return -(-n // CHUNK_SIZE)


class _Parts:
    """Counts finished parts of a computation for whoever wants to know.

    Args:
        progress: called with finished parts, if given.
    """

    def __init__(self, progress: Progress | None):
        self.progress, self.n, self.finished = progress, 0, 0

    def __call__(self) -> None:
        """One more is finished."""
        self.reach(self.finished + 1)

    def reach(self, finished: int) -> None:
        """So many are finished, or were not needed."""
        self.finished = finished
        if self.progress is not None:
            self.progress(finished, self.n)


def bounded(free_energies: FloatArray) -> FloatArray:
    """Windows' reduced free energies, none of them too far above the lowest.

    The mixture's constants may be any fixed numbers. Without a bound one lift that weighs e^-1000, alone in its window,
    would take them all.
    """
    return np.minimum(free_energies, free_energies.min() + MAX_WINDOW_FREE_ENERGY)


class _Mixture:
    """The windows of restrained lifts as one mixture; a single flat window for unrestrained ones."""

    def __init__(self, lifts: Lifts, tick: Callable[[], None]):
        if lifts.mode == "fixed":
            raise InputError(
                "lifts at fixed labels say nothing of how much each label weighs by themselves: use surface_from_lifts"
            )
        self.tick = tick
        self.lifts, self.kT = lifts, thermal_energy(lifts.temperature)
        self.restrained = lifts.mode == "restrained"
        if self.restrained:
            self.labels, self.window = np.unique(lifts.labels, axis=0, return_inverse=True)
            self.window = self.window.ravel()
        else:
            self.labels, self.window = lifts.labels[:1], np.zeros(len(lifts), dtype=np.int64)
        self.counts = np.bincount(self.window, minlength=len(self.labels))
        heaviest = lifts.log_weights.max()
        if not np.isfinite(heaviest):
            raise InputError("every lift has weight zero: see their reasons, and lift with more relax steps")
        # weights are known up to a constant, which a large molecule's make larger than an exponential holds
        self.log_weights = lifts.log_weights - heaviest
        log_sum = np.full(len(self.labels), -np.inf)
        np.logaddexp.at(log_sum, self.window, self.log_weights)
        self.log_means = log_sum - np.log(self.counts)

    def log_window(self, places: FloatArray) -> FloatArray:
        """log b_k at places, shape=(n, n_windows)."""
        if not self.restrained:
            return np.zeros((len(places), 1))
        lifts = self.lifts
        return log_boltzmann_factors(lifts.slow, lifts.force_constants / self.kT, places, self.labels)

    def smoothed_free_energies(self) -> FloatArray:
        """A first guess of the windows' reduced free energies: local medians of the logarithms, shape=(n_windows,).

        Biased by the dissipated work, which the mixture's constants may be. A median, since one lift that is far yet
        after too few relax steps may weigh e^-1000; windows of weight zero have their neighbours' value.
        """
        known = np.isfinite(self.log_means)
        log_means, guesses = self.log_means[known], []
        for begin in range(0, len(self.labels), CHUNK_SIZE):
            for near in 0.5 * self.log_window(self.labels[begin : begin + CHUNK_SIZE])[:, known]:
                close = near > near.max() - INITIAL_GUESS_CUTOFF
                weights = np.exp(near[close] - near.max())
                guesses.append(np.quantile(log_means[close], 0.5, weights=weights, method="inverted_cdf"))
            self.tick()
        return bounded(-np.array(guesses))

    def log_exposure(self, places: FloatArray, free_energies: FloatArray) -> FloatArray:
        """log sum_j c_j b_j at places, c_j = n_j exp(F_j) of reduced window free energies F_j; shape=(n,)."""
        log_c = np.log(self.counts) + free_energies
        parts = []
        for begin in range(0, len(places), CHUNK_SIZE):
            parts.append(logsumexp(self.log_window(places[begin : begin + CHUNK_SIZE]) + log_c, axis=1))
            self.tick()
        return np.concatenate(parts)

    def doubts(self, ends: WeightedEnds, free_energies: FloatArray) -> tuple[str, ...]:
        """About the effective ends that tell the free energies of the low windows."""
        if not self.restrained:
            return tuple(doubts_about_ratios(self.lifts.log_weights))
        low = np.flatnonzero(free_energies < free_energies.min() + ALIGNMENT_CEILING)
        low = low[:: max(len(low) // MAX_LOOKED_AT, 1)]
        terms = ends.log_weights[:, None] + self.log_window(ends.cv_values)[:, low]
        effective = np.array([effective_sample_size(column) for column in terms.T])
        return tuple(doubts_about_windows(self.labels[low], effective))

    def ends(self, free_energies: FloatArray) -> WeightedEnds:
        ok = self.lifts.ok
        cv_values = self.lifts.cv_values[ok]
        numerator = free_energies[self.window[ok]] + self.log_weights[ok]
        log_weights = numerator - self.log_exposure(cv_values, free_energies)
        slow = self.lifts.slow
        if not isinstance(slow, ModuleCoordinates):  # whose domain is no border
            log_weights[~in_domain(cv_values, slow)] = -np.inf
        return WeightedEnds(cv_values, log_weights, self.window[ok], self.counts)


@dataclass(frozen=True)
class LiftAnalysis:
    """The unrestrained equilibrium, estimated from lifts.

    Attributes:
        surface: the smoothed surface.
        ends: the end points with unbiased weights, unsmoothed but for the mixture's constants.
        doubts: why neither is to be trusted, a sentence each.
    """

    surface: FreeEnergySurface
    ends: WeightedEnds
    doubts: tuple[str, ...] = ()


def _sums(index: IntArray, counts: FloatArray, n_bins: int) -> tuple[FloatArray, FloatArray]:
    """Sums of counts and of their squares in each bin, shape=(n_bins,) each."""
    total, squares = (np.bincount(index, terms, n_bins).astype(float) for terms in (counts, counts**2))
    return total, squares


def _counts(
    mixture: _Mixture, free_energies: FloatArray, places: FloatArray, edges: tuple[FloatArray, ...]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted counts of each bin, their sums of squares and log-exposure for given window free energies."""
    ends, log_exposure = mixture.ends(free_energies), mixture.log_exposure(places, free_energies)
    index = bin_indices(ends.cv_values, edges, mixture.lifts.slow.periods)
    inside = index >= 0
    counts = np.exp(ends.log_weights[inside] + log_exposure[index[inside]])
    return *_sums(index[inside], counts, len(places)), log_exposure


def _surface(
    fit: CoxFit,
    reached: BoolArray,
    edges: tuple[FloatArray, ...],
    slow: Axes,
    temperature: float,
    force_evaluations: int,
) -> FreeEnergySurface:
    """The fit as a surface, unknown where nothing reached or the error is too large."""
    known = reached & (fit.error(reached) < MAX_ERROR)
    if not known.any():
        raise InputError("the lifts are too few to estimate the surface: lift more, or with more relax steps")
    energy = np.where(known, -fit.log_density - (-fit.log_density[known]).min(), np.inf)
    error = np.where(known, fit.error(energy < ALIGNMENT_CEILING), np.inf)
    return FreeEnergySurface.of_reduced(energy, error, edges, slow, temperature, force_evaluations)


def weighted_ends(lifts: Lifts, progress: Progress | None = None) -> WeightedEnds:
    """End points with unbiased weights, whatever the labels and however many; see the module's text.

    The constants of restrained windows are local averages over windows; a single window of unrestrained lifts needs
    none.

    Args:
        lifts: of one run.
        progress: called with finished parts.

    Raises:
        InputError: if no lift has a weight.
    """
    mixture = _Mixture(lifts, parts := _Parts(progress))
    parts.n = _n_chunks(len(mixture.labels)) + _n_chunks(int(lifts.ok.sum()))
    return mixture.ends(mixture.smoothed_free_energies())


def surface_from_ends(
    ends: WeightedEnds,
    values: FloatArray,
    slow: Axes,
    *,
    temperature: float,
    force_evaluations: int,
    bins: int | None = None,
    progress: Progress | None = None,
) -> FreeEnergySurface:
    """A surface over any one or two coordinates of weighted end points, masked where none lie.

    The exposure is the end points' own density, so that a bin's count is of the size of the number of points in it.

    Args:
        ends: weighted end points.
        values: shape=(n, d), of those coordinates.
        slow: the coordinates: names, periods and domain.
        temperature: K.
        force_evaluations: to record.
        bins: a coordinate; as for `surface_from_lifts`.
        progress: called with finished parts.

    Raises:
        InputError: the end points are too few.
    """
    edges = grid_edges(slow, bins)
    shape = tuple(len(axis) - 1 for axis in edges)
    index = bin_indices(values, edges, slow.periods)
    inside, n_bins = index >= 0, int(np.prod(shape))
    found = np.bincount(index[inside], minlength=n_bins).astype(float).reshape(shape)
    exposure = gaussian_filter(found, SMOOTHING_BINS, mode=edge_modes(slow.periods)).ravel()
    reached = exposure > MIN_ENDS_PER_BIN
    weights = np.exp(ends.log_weights - logsumexp(ends.log_weights)) * len(values)
    counts = weights[inside] * exposure[index[inside]]
    with np.errstate(divide="ignore"):
        log_exposure = np.log(exposure)
    parts = _Parts(progress)
    parts.n = len(CORRELATION_LENGTHS)
    fit = fit_cox_process(
        product_basis(slow, shape), *_sums(index[inside], counts, n_bins), log_exposure, progress=parts
    )
    parts.reach(parts.n)
    return _surface(fit, reached, edges, slow, temperature, force_evaluations)


@checked
def analyse_lifts(
    lifts: Lifts,
    *,
    bins: int | None = None,
    force_evaluations: int | None = None,
    passes: int = 3,
    progress: Progress | None = None,
) -> LiftAnalysis:
    """Surface and weighted end points; see `surface_from_lifts`, which takes the same arguments.

    Surface and window free energies are fitted in turn, because constants c_k taken from the raw, noisy weights
    of single windows would correlate with them; a smooth c_k is as good as a fixed one.

    Args:
        lifts: of one run.
        bins: bins a label; 72 over two labels, 120 over one, by default.
        force_evaluations: what they cost in all; their own by default.
        passes: of surface and window free energies in turn.
        progress: called with finished parts.
    """
    edges, mixture = grid_edges(lifts.slow, bins), _Mixture(lifts, parts := _Parts(progress))
    shape = tuple(len(axis) - 1 for axis in edges)
    places = bin_centres(edges)
    before, of_ends = _n_chunks(len(mixture.labels)), _n_chunks(int(lifts.ok.sum()))
    in_a_pass = of_ends + _n_chunks(len(places)) + len(CORRELATION_LENGTHS) + 1
    parts.n = before + passes * in_a_pass + of_ends
    basis, log_windows = product_basis(lifts.slow, shape), mixture.log_window(places)
    free_energies = mixture.smoothed_free_energies()
    for number in range(passes):
        counts = _counts(mixture, free_energies, places, edges)
        fit = fit_cox_process(basis, *counts, progress=parts)
        # lengths that were not tried count too
        parts.reach(before + (number + 1) * in_a_pass - 1)
        free_energies = bounded(-logsumexp(log_windows + fit.log_density[:, None], axis=0))
        parts()
    reached = log_windows.max(axis=1) > -MAX_RESTRAINT_ENERGY
    cost = lifts.force_evaluations if force_evaluations is None else force_evaluations
    surface = _surface(fit, reached, edges, lifts.slow, lifts.temperature, cost)
    ends = mixture.ends(free_energies)
    return LiftAnalysis(surface, ends, mixture.doubts(ends, free_energies))


@checked
def surface_from_lifts(
    lifts: Lifts, *, bins: int | None = None, force_evaluations: int | None = None, passes: int = 3
) -> FreeEnergySurface:
    """The free-energy surface over the labels: from the end points of lifts, or a regression of weights at fixed ones.

    Why it is not to be trusted, if so, is a warning.

    Args:
        lifts: of one Lifter; failed ones included, since they count in the mean.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        force_evaluations: to record; those of the lifts by default.
        passes: how often surface and window free energies are fitted in turn.

    Raises:
        InputError: if no lift has a weight, or there are more than two labels.
    """
    if lifts.mode != "fixed":
        analysis = analyse_lifts(lifts, bins=bins, force_evaluations=force_evaluations, passes=passes)
        _warn(analysis.doubts)
        return analysis.surface
    slopes = lifts.mean_forces if lifts.mean_forces.shape[1] else None
    regression = fit_label_regression(lifts.slow, lifts.labels, lifts.log_weights, slopes)
    _warn(tuple(doubts_about_regression(lifts.slow, regression, lifts.labels, lifts.log_weights)))
    cost = lifts.force_evaluations if force_evaluations is None else force_evaluations
    return regression.surface(lifts.slow, lifts.temperature, cost, bins)


def _warn(doubts: tuple[str, ...]) -> None:
    for doubt in doubts:
        warnings.warn(f"not to be trusted: {doubt}", stacklevel=4)


@checked
def basin_populations(ends: WeightedEnds, basins: tuple[Basin, ...], temperature: float) -> list[BasinPopulation]:
    """Populations and free-energy differences of basins, errors linearised in the weights.

    Args:
        ends: weighted end points.
        basins: boxes in the labels.
        temperature: K.

    Returns:
        One row a basin; infinite errors where no end point lies in it.
    """
    weights = np.exp(ends.log_weights - ends.log_weights.max())
    return weighted_populations(basins, weights, ends.cv_values, temperature, ends.error_of_sum)


@checked
def window_free_energies(lifts: Lifts, labels: FloatArray) -> FloatArray:
    """Free energy of each window from restrained lifts at its label, kT, shape=(n,); NaN where there are none.

    Args:
        lifts: restrained.
        labels: shape=(n, d).

    Raises:
        InputError: lifts that nothing restrains, whose mean weight is of no window.
    """
    if lifts.mode != "restrained":
        raise InputError(f"the lifts are {lifts.mode}: give restrained ones, with force constants of the windows")
    windows, found = window_ids(lifts), np.full(len(labels), np.nan)
    for window in range(int(windows.max()) + 1):
        members = windows == window
        same = np.isclose(labels, lifts.labels[members][0], atol=1e-9).all(axis=1)
        found[same] = -log_mean_weight(lifts.log_weights[members])
    return found
