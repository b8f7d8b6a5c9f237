"""Effective drift and diffusion of slow coordinates, from swarms of short runs, and the reduced model they make.

Of runs that begin at a label with the fast degrees of freedom in equilibrium there (Hummer & Kevrekidis 2003, doi
10.1063/1.1574777), mean and half the covariance of the displacement grow at the rates a and D, once the fast ones have
followed and for as long as the way is short. Neither limit is taken by hand: slopes between a first lag and the end of
the runs are compared with what a reduced model gives for the same two lags, the model's diffusion is moved until they
are the same (indirect inference, Gourieroux, Monfort, Renault 1993, doi 10.1002/jae.3950080507), and the first lag
from which on one model explains every range of lags is the plateau. The model's drift is no fit: it follows from the
lifts' free energy and this diffusion, and the runs' own drift tests it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2, norm
from threadpoolctl import threadpool_limits

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import Axes, SlowCoordinates
from ..errors import InputError
from ..free_energy.label_functions import LabelFunctions
from ..free_energy.label_tables import LabelTables
from ..free_energy.surface import FreeEnergySurface
from ..lifting.label_regression import LabelRegression
from ..sampling.swarms import Swarm
from ..units import FloatArray, IntArray
from .backward_equation import GridGenerator
from .ensemble import shown
from .reduced_model import ReducedModel
from .smooth_fit import SmoothFit, fit_smooth

FIRST_LAGS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Tried as the first lag, as fractions of a run."""

LEAST_P_VALUE = 0.01
"""Of the differences between slopes of two ranges of lags, less the model's: above it one model explains both."""

LEAST_P_OF_DRIFT = 1e-4
"""Of the runs' drift about that of surface and diffusion."""

MOST_LEFT = 0.05
"""Share of the runs that may leave the domain, or fail."""

FEWEST_RUNS, FEWEST_FRAMES = 20, 8
"""Of a label, and of a run."""

GRID = {1: 240, 2: 48}
"""Cells a coordinate of a reduced model."""

UPDATES, FREE_PRIORS, MOST_STEP = 8, 3, 0.5
"""Of the model's diffusion at most, how many of them choose its prior, and the largest step of a logarithm."""

LEAST_GAIN, LEAST_SHARE = 0.03, 0.2
"""Of chi-squared in a step, and of a whole step, below which updates end."""

PROBED, GOOD_RESPONSE, LEAST_RESPONSE = 0.05, 0.6, 0.1
"""Relative change of the diffusion, to see how slopes answer; the least answer up to a last lag that is used, where
runs have frames before; and the least that is reckoned with."""

LAST_LAGS = (1.0, 1 / 2, 1 / 4, 1 / 8)
"""Tried as the last lag, as fractions of a run."""


@dataclass(frozen=True)
class LagScan:
    """What each first lag says: the evidence of a plateau.

    Attributes:
        lags: shape=(m,), ps, tried as the first.
        last: ps, the last lag: the end of the runs, or before, where displacements do not remember by then.
        diffusion: shape=(m, k, d, d), slopes of half the covariance from each lag to the last, as they were measured.
        drift: shape=(m, k, d), of the mean displacement.
        p_values: shape=(m,), that the model of this lag explains the slopes from every later one; NaN where it was not
            tried, and of the last.
        chosen: index of the lag in use.
        has_plateau: whether it is the beginning of a plateau, and not only the longest.
    """

    lags: FloatArray
    last: float
    diffusion: FloatArray
    drift: FloatArray
    p_values: FloatArray
    chosen: int
    has_plateau: bool


@dataclass(frozen=True)
class EffectiveDynamics:
    """Drift and diffusion of slow coordinates at labels, and the reduced model of them.

    Attributes:
        labels: shape=(k, d).
        drift: shape=(k, d), a, labels' units over ps: the runs' own, with the model's change along the way taken off.
        drift_error: shape=(k, d), one sigma.
        diffusion: shape=(k, d, d), D, symmetric, squared units over ps; in the same way.
        diffusion_error: shape=(k, d, d), one sigma.
        model: with the free energy of lifts and a smooth diffusion, and the drift that follows from both.
        p_value: that the runs' drift is the model's.
        counts: shape=(k,), runs of each label that were used.
        left: share of the runs that left the domain, and are not used.
        failed: share of the runs that blew up.
        scan: of lags.
    """

    labels: FloatArray
    drift: FloatArray
    drift_error: FloatArray
    diffusion: FloatArray
    diffusion_error: FloatArray
    model: ReducedModel
    p_value: float
    counts: IntArray
    left: float
    failed: float
    scan: LagScan

    def doubts(self) -> list[str]:
        """Sentences, where drift, diffusion and model are not to be trusted."""
        doubts, scan = [], self.scan
        if not scan.has_plateau:
            p_value = float(np.max(scan.p_values, initial=0.0, where=np.isfinite(scan.p_values)))
            doubts.append(
                f"drift and diffusion have no plateau: from none of the lags tried up to {scan.lags[scan.chosen]:.3g} "
                f"ps does one model explain the later ones up to {scan.last:.3g} ps (p = {p_value:.1g} at best, below "
                f"{LEAST_P_VALUE:g}): use longer runs; or the coordinates are not slow alone, or have inertia, which "
                "no overdamped model has"
            )
        if self.p_value < LEAST_P_OF_DRIFT:
            doubts.append(
                f"the drift of the runs is not that of free energy and diffusion (p = {self.p_value:.1g}, below "
                f"{LEAST_P_OF_DRIFT:g}): the surface is wrong, or the coordinates are not slow alone"
            )
        if self.left > MOST_LEFT:
            doubts.append(
                f"{self.left:.0%} of the runs left the domain: use shorter runs, or labels farther from its ends"
            )
        if self.failed > MOST_LEFT:
            doubts.append(f"{self.failed:.0%} of the runs blew up: use a shorter time step")
        return doubts


@dataclass(frozen=True)
class _Runs:
    """Displacements of the runs of one label, shape=(n, n_times, d), and their normalised weights, shape=(n,)."""

    displacements: FloatArray
    weights: FloatArray

    def mean(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weighted mean and its error of values, shape=(n, ...)."""
        mean = np.tensordot(self.weights, values, axes=1)
        squares = np.tensordot(self.weights**2, (values - mean) ** 2, axes=1)
        n = len(self.weights)
        return mean, np.sqrt(squares * n / (n - 1))

    def squares(self, time: int) -> tuple[FloatArray, FloatArray]:
        """Displacements until a time, -1 for the start, and half their squares about the mean, (n, d) and (n, d, d)."""
        if time < 0:
            n, _, d = self.displacements.shape
            return np.zeros((n, d)), np.zeros((n, d, d))
        moved = self.displacements[:, time]
        about = moved - self.weights @ moved
        # a mean over the same runs takes its share from the scatter
        unbiased = 0.5 / (1.0 - (self.weights**2).sum())
        return moved, unbiased * np.einsum("ni,nj->nij", about, about)


@dataclass(frozen=True)
class _Slopes:
    """Mean slopes between two lags at each label, with what each run says of them.

    Attributes:
        drift: shape=(k, d).
        drift_error: shape=(k, d).
        diffusion: shape=(k, d, d).
        diffusion_error: shape=(k, d, d).
        of_runs: for each label, arrays of shape=(n, d) and (n, d, d).
    """

    drift: FloatArray
    drift_error: FloatArray
    diffusion: FloatArray
    diffusion_error: FloatArray
    of_runs: list[tuple[FloatArray, FloatArray]]

    @classmethod
    def between(cls, groups: list[_Runs], times: FloatArray, first: int, last: int) -> "_Slopes":
        """From one time to a later one, by their indices; -1 is the start."""
        length = times[last] - (times[first] if first >= 0 else 0.0)
        of_runs = []
        for runs in groups:
            begin, end = runs.squares(first), runs.squares(last)
            of_runs.append(((end[0] - begin[0]) / length, (end[1] - begin[1]) / length))
        drift, diffusion = (
            [runs.mean(values[part]) for runs, values in zip(groups, of_runs, strict=True)] for part in (0, 1)
        )
        (drifts, drift_errors), (tensors, tensor_errors) = (
            tuple(np.array([pair[i] for pair in pairs]) for i in (0, 1)) for pairs in (drift, diffusion)
        )
        return cls(drifts, drift_errors, tensors, tensor_errors, of_runs)


def _p_value(differences: FloatArray, errors: FloatArray) -> float:
    """Of differences: of chi-squared of all, or of the worst, which all the others may hide; each for two."""
    z = (differences / errors).ravel()
    of_worst = len(z) * 2 * float(norm.sf(np.abs(z).max()))
    return min(1.0, 2 * min(float(chi2.sf((z**2).sum(), len(z))), of_worst))


def _same(groups: list[_Runs], one: tuple[_Slopes, _Slopes], other: tuple[_Slopes, _Slopes]) -> float:
    """p-value of the differences between slopes of two ranges of lags, each measured and expected of a model."""
    differences, errors = list[FloatArray](), list[FloatArray]()
    (some, of_some), (others, of_others) = one, other
    for k, runs in enumerate(groups):
        for part, expected in ((0, of_some.drift - of_others.drift), (1, of_some.diffusion - of_others.diffusion)):
            mean, error = runs.mean(some.of_runs[k][part] - others.of_runs[k][part])
            chosen = np.tril_indices(len(mean)) if part else slice(None)
            differences.append((mean - expected[k])[chosen].ravel())
            errors.append(error[chosen].ravel())
    return _p_value(np.concatenate(differences), np.concatenate(errors))


@dataclass(frozen=True, eq=False)
class _Fitter:
    """Fits models to the slopes between two lags.

    Attributes:
        slow: the slow coordinates.
        labels: shape=(k, d).
        groups: the runs of each label.
        times: shape=(n_times,), without zero.
        free_energy: a surface, or a regression of weights.
        temperature: K.
        bins: of a grid for a regression.
    """

    slow: Axes
    labels: FloatArray
    groups: list[_Runs]
    times: FloatArray
    free_energy: FreeEnergySurface | LabelRegression
    temperature: float
    bins: int

    def model(self, diffusion: Callable[[FloatArray], FloatArray]) -> ReducedModel:
        """That of a diffusion."""
        energy = self.free_energy
        if isinstance(energy, FreeEnergySurface):
            d = len(self.slow.names)
            places = ReducedModel.of_surface(energy, np.eye(d)).centres
            return ReducedModel.of_surface(energy, diffusion(places).reshape(*energy.energy.shape, d, d))
        density = energy.log_density
        return ReducedModel.of_functions(self.slow, lambda at: -density(at), diffusion, self.temperature, self.bins)

    def expected(self, model: ReducedModel, ranges: list[tuple[int, int]]) -> list[_Slopes]:
        """Slopes of a model between the same lags, from the cells that the labels lie in."""
        generator = GridGenerator.of(model)
        used = sorted({i for pair in ranges for i in pair if i >= 0})
        probabilities = dict(zip(used, generator.propagated(self.labels, self.times[used]), strict=True))
        starts = model.centres[model.cells_of(self.labels)]
        away = wrap(model.centres[generator.cells][:, None] - starts, model.periods)

        def moments(i: int) -> tuple[FloatArray, FloatArray]:
            if i < 0:
                return np.zeros(starts.shape), np.zeros((*starts.shape, starts.shape[1]))
            mean = np.einsum("ck,cki->ki", probabilities[i], away)
            square = np.einsum("ck,cki,ckj->kij", probabilities[i], away, away, optimize=True)
            return mean, 0.5 * (square - np.einsum("ki,kj->kij", mean, mean))

        found = []
        for first, last in ranges:
            length = self.times[last] - (self.times[first] if first >= 0 else 0.0)
            begin, end = moments(first), moments(last)
            drift, diffusion = (end[0] - begin[0]) / length, (end[1] - begin[1]) / length
            found.append(_Slopes(drift, np.zeros_like(drift), diffusion, np.zeros_like(diffusion), []))
        return found

    def fit(self, measured: _Slopes, pair: tuple[int, int], updates: int = UPDATES) -> "_Fitted":
        """The model whose slopes between two lags are the measured ones, as far as it is smooth.

        By Gauss and Newton's steps, shortened where they lead farther away: how much a slope answers to its diffusion,
        one for short lags, falls along the way to the bottom of a well, where a label says little any more.
        """
        wanted, errors = _logarithms(measured.diffusion, measured.diffusion_error, self.labels)
        best = self._tried(wanted, wanted, errors, np.ones((len(wanted), 1, 1)), None, pair)
        early = _Slopes.between(self.groups, self.times, -1, max(len(self.times) // 8, 1))
        if (np.linalg.eigvalsh(early.diffusion) > 0).all():
            # too early for fast degrees of freedom perhaps, but nothing is forgotten yet
            logs, noise = _logarithms(early.diffusion, early.diffusion_error, self.labels)
            tried = self._tried(logs, wanted, noise, np.ones((len(wanted), 1, 1)), None, pair)
            best = min(best, tried, key=lambda one: one.misfit(errors))
        share = 1.0
        for number in range(updates):
            step = (best.residual / best.response).clip(-MOST_STEP, MOST_STEP)
            # the prior is chosen again as long as the values are far off
            priors = None if number < FREE_PRIORS else best.diffusion_fit.priors
            tried = self._tried(best.logs + share * step, wanted, errors, best.response, priors, pair)
            gain = 1 - tried.misfit(errors) / best.misfit(errors)
            if gain > 0:
                best = tried
            else:
                share *= 0.5
            if 0 < gain < LEAST_GAIN or share < LEAST_SHARE:
                break
        return best

    def _tried(
        self,
        logs: FloatArray,
        wanted: FloatArray,
        errors: FloatArray,
        response: FloatArray,
        priors: Sequence[FloatArray] | None,
        pair: tuple[int, int],
    ) -> "_Fitted":
        """The model of about these logarithms, and what its slopes lack of those wanted."""
        fit = SmoothTensors.of(self.slow, self.labels, logs, errors / response, priors)
        model = self.model(fit)
        expected = self.expected(model, [pair])[0]
        return _Fitted(
            model=model,
            diffusion_fit=fit,
            expected=expected,
            logs=of_eigenvalues(model.interpolated(model.diffusion, self.labels), np.log),
            residual=wanted - of_eigenvalues(expected.diffusion, np.log),
            response=self._response(model, expected, pair),
        )

    def _response(self, model: ReducedModel, expected: _Slopes, pair: tuple[int, int]) -> FloatArray:
        """Relative change of the slopes to that of the diffusion everywhere, shape=(k, 1, 1)."""
        faster = replace(model, diffusion=(1 + PROBED) * model.diffusion)
        traces = [np.einsum("kii->k", one.diffusion) for one in (self.expected(faster, [pair])[0], expected)]
        response = np.log(traces[0] / traces[1]) / np.log1p(PROBED)
        return np.asarray(np.maximum(response, LEAST_RESPONSE)[:, None, None])


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A model, its slopes, and what the measured ones say beyond it; logarithms have shape=(k, d, d).

    Attributes:
        model: the model.
        diffusion_fit: its diffusion.
        expected: its slopes.
        logs: of its diffusion at the labels.
        residual: of the logarithms of measured slopes.
        response: shape=(k, 1, 1), of the slopes to the diffusion.
    """

    model: ReducedModel
    diffusion_fit: "SmoothTensors"
    expected: _Slopes
    logs: FloatArray
    residual: FloatArray
    response: FloatArray

    def misfit(self, errors: FloatArray) -> float:
        """Chi-squared of the residuals."""
        return float(((self.residual / errors) ** 2).sum())

    @property
    def diffusion(self) -> FloatArray:
        """Of each label alone."""
        return of_eigenvalues(self.logs + self.residual / self.response, np.exp)


def _logarithms(tensors: FloatArray, errors: FloatArray, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Matrix logarithms of noisy tensors and their errors, shape=(k, d, d) each.

    Raises:
        InputError: a tensor is not positive definite.
    """
    if (bad := np.linalg.eigvalsh(tensors).min(axis=1) <= 0).any():
        raise InputError(
            f"the diffusion tensor is not positive definite at {bad.sum()} of {len(labels)} labels, the first "
            f"{shown(labels[bad][0])}: use more or longer runs, or leave these labels out"
        )
    diagonal = np.sqrt(np.einsum("kii->ki", tensors))
    relative = errors / (diagonal[:, :, None] * diagonal[:, None])
    logs, d = of_eigenvalues(tensors, np.log), range(tensors.shape[1])
    # the logarithm of a noisy number is too low by half its relative variance
    logs[:, d, d] += 0.5 * relative[:, d, d] ** 2
    return logs, relative


@dataclass(frozen=True, eq=False)
class SmoothTensors:
    """Positive definite tensors as a smooth function of the label, by their matrix logarithms.

    Attributes:
        fits: of the lower triangle, row by row.
    """

    fits: tuple[SmoothFit, ...]

    @classmethod
    def of(
        cls,
        axes: Axes,
        labels: FloatArray,
        logs: FloatArray,
        errors: FloatArray,
        priors: Sequence[FloatArray] | None = None,
    ) -> "SmoothTensors":
        """Fit them.

        Args:
            axes: the slow coordinates.
            labels: shape=(k, d).
            logs: shape=(k, d, d), matrix logarithms there.
            errors: shape=(k, d, d), one sigma.
            priors: of an earlier fit.
        """
        entries = list(zip(*np.tril_indices(len(axes.names)), strict=True))
        with threadpool_limits(1, user_api="blas"):
            tables, every = LabelTables(LabelFunctions(axes), labels), np.ones(len(labels))
            return cls(
                tuple(
                    fit_smooth(
                        tables, logs[:, i, j], every, errors[:, i, j], None if priors is None else priors[number]
                    )
                    for number, (i, j) in enumerate(entries)
                )
            )

    @property
    def priors(self) -> list[FloatArray]:
        """Of the fits."""
        return [fit.prior for fit in self.fits]

    def __call__(self, labels: FloatArray) -> FloatArray:
        """Tensors at labels, shape=(n, d): shape=(n, d, d)."""
        d = labels.shape[1]
        found = np.zeros((len(labels), d, d))
        for fit, i, j in zip(self.fits, *np.tril_indices(d), strict=True):
            found[:, i, j] = found[:, j, i] = fit(labels)
        return of_eigenvalues(found, np.exp)


def of_eigenvalues(tensors: FloatArray, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """A function of symmetric tensors, shape=(n, d, d)."""
    values, vectors = np.linalg.eigh(tensors)
    return np.asarray(np.einsum("nia,na,nja->nij", vectors, function(values), vectors))


def effective_dynamics(
    swarm: Swarm,
    slow: SlowCoordinates,
    labels: FloatArray,
    free_energy: FreeEnergySurface | LabelRegression,
    temperature: float,
    *,
    log_weights: FloatArray | None = None,
    lag: float | None = None,
    bins: int | None = None,
) -> EffectiveDynamics:
    """Drift, diffusion and a reduced model from runs that began at labels; see the module's text.

    Args:
        swarm: several runs of each label, from weighted lifts there.
        slow: one or two slow coordinates.
        labels: shape=(n, d), of the lifts that the runs began at.
        free_energy: a surface, or the regression of the lifts' weights (`Ensemble.weight_regression`).
        temperature: K.
        log_weights: shape=(n,), of these lifts; equal by default, as of lifts kept by weight.
        lag: ps, the first lag, in place of the plateau's beginning.
        bins: cells a coordinate, 240 over one, 48 over two, by default; those of a surface, where one is given.

    Raises:
        InputError: more than two coordinates, too few runs of a label or frames of a run, runs of which all left the
            domain, or a diffusion tensor that is not positive definite.
    """
    d, times = len(slow.names), swarm.times[1:]
    if d not in GRID:
        raise InputError(f"a reduced model over {d} coordinates is not supported: choose one or two labels")
    if len(times) < FEWEST_FRAMES:
        raise InputError(f"runs of {len(times)} frames have too few lags: give at least {FEWEST_FRAMES}")
    if lag is not None and not 0 <= lag <= 0.75 * times[-1]:
        raise InputError(
            f"a lag of {lag:g} ps for runs of {times[-1]:g} ps: give one from zero to three quarters of them"
        )
    found, groups, left = _groups(swarm, slow, labels, log_weights)
    fitter = _Fitter(slow, found, groups, times, free_energy, temperature, bins or GRID[d])
    wanted = None if lag is None else int(np.rint(lag / times[0])) - 1
    scan, fitted, measured = _scan(_until_forgotten(fitter, wanted), wanted)
    model, expected = fitted.model, fitted.expected
    residual = measured.drift - expected.drift
    # a displacement is forgotten along the way, half as fast as its square
    kept = np.sqrt(fitted.response[:, :, 0])
    relative = np.einsum("kii->ki", fitted.diffusion) / np.einsum("kii->ki", measured.diffusion)
    return EffectiveDynamics(
        labels=found,
        drift=model.interpolated(model.drift, found) + residual / kept,
        drift_error=measured.drift_error / kept,
        diffusion=fitted.diffusion,
        diffusion_error=measured.diffusion_error * np.sqrt(relative[:, :, None] * relative[:, None]) / fitted.response,
        model=model,
        p_value=_p_value(residual, measured.drift_error),
        counts=np.array([len(runs.weights) for runs in groups]),
        left=left,
        failed=float(swarm.failed.mean()),
        scan=scan,
    )


def _until_forgotten(fitter: _Fitter, wanted: int | None) -> _Fitter:
    """Up to the longest last lag at which the slopes of every label answer to its diffusion, beyond a wanted one."""
    counts = [round(part * len(fitter.times)) for part in LAST_LAGS]
    shorter, least = fitter, FEWEST_FRAMES if wanted is None else max(FEWEST_FRAMES, int(np.ceil((wanted + 1) / 0.75)))
    for n in (n for n in counts if n >= least):
        groups = [_Runs(runs.displacements[:, :n], runs.weights) for runs in fitter.groups]
        shorter = replace(fitter, times=fitter.times[:n], groups=groups)
        fitted = shorter.fit(_Slopes.between(groups, shorter.times, -1, n - 1), (-1, n - 1), updates=2)
        if fitted.response.min() >= GOOD_RESPONSE:
            break
    return shorter


def _scan(fitter: _Fitter, wanted: int | None) -> tuple[LagScan, _Fitted, _Slopes]:
    """The first lag from which on one model explains all, what was fitted there, and the slopes measured."""
    times, groups = fitter.times, fitter.groups
    last = len(times) - 1
    firsts = sorted({round(part * len(times)) - 1 for part in FIRST_LAGS} | ({wanted} if wanted is not None else set()))
    halves = [(first, last // 2) for first in firsts if first < last // 4]
    ranges = [(first, last) for first in firsts] + halves
    measured = [_Slopes.between(groups, times, *pair) for pair in ranges]
    p_values, fits = np.full(len(firsts), np.nan), list[_Fitted]()
    tried = range(len(firsts)) if wanted is None else [firsts.index(wanted)]
    chosen = 0
    for i in tried:
        try:
            fits.append(fitter.fit(measured[i], ranges[i]))
        except InputError:
            if not fits:
                raise
            # displacements that grow no more: no later lag says anything
            break
        chosen = i
        expected = fitter.expected(fits[-1].model, ranges)
        later = [j for j, pair in enumerate(ranges) if j != i and pair[0] >= firsts[i]]
        found = [_same(groups, (measured[i], expected[i]), (measured[j], expected[j])) for j in later]
        p_values[i] = min(1.0, min(found) * len(found)) if found else np.nan
        if p_values[i] > LEAST_P_VALUE:
            break
    scan = LagScan(
        lags=np.array([0.0 if first < 0 else times[first] for first in firsts]),
        last=float(times[-1]),
        diffusion=np.array([one.diffusion for one in measured[: len(firsts)]]),
        drift=np.array([one.drift for one in measured[: len(firsts)]]),
        p_values=p_values,
        chosen=chosen,
        has_plateau=bool(p_values[chosen] > LEAST_P_VALUE),
    )
    return scan, fits[-1], measured[chosen]


def _groups(
    swarm: Swarm, slow: SlowCoordinates, labels: FloatArray, log_weights: FloatArray | None
) -> tuple[FloatArray, list[_Runs], float]:
    """Labels, the runs of each that can be used, and the share of those that left the domain."""
    if np.shape(labels) != (len(swarm), len(slow.names)):
        raise InputError(f"labels have shape {np.shape(labels)}: give ({len(swarm)}, {len(slow.names)}), one a run")
    outside = ((swarm.labels < slow.domain[:, 0]) | (swarm.labels > slow.domain[:, 1])) & ~np.isfinite(slow.periods)
    left = outside.any(axis=(1, 2)) & ~swarm.failed
    weights = np.zeros(len(swarm)) if log_weights is None else np.asarray(log_weights, dtype=float)
    used = ~swarm.failed & ~left & np.isfinite(weights)
    if not used.any():
        raise InputError("every run failed or left the domain: use shorter runs, or a shorter time step")
    found, index = np.unique(labels, axis=0, return_inverse=True)
    displacements = np.cumsum(wrap(np.diff(swarm.labels, axis=1), slow.periods), axis=1)
    groups = list[_Runs]()
    for k in range(len(found)):
        chosen = used & (index.ravel() == k)
        if chosen.sum() < FEWEST_RUNS:
            raise InputError(
                f"label {shown(found[k])} has {chosen.sum()} runs that stayed in the domain: give at "
                f"least {FEWEST_RUNS}, or leave it out"
            )
        relative = np.exp(weights[chosen] - weights[chosen].max())
        groups.append(_Runs(displacements[chosen], relative / relative.sum()))
    return found, groups, float(left.mean())
