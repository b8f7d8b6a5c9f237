"""The smooth diffusion whose reduced model has the slopes that runs have between two lags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import Axes
from ..errors import InputError
from ..free_energy.label_functions import LabelFunctions
from ..free_energy.label_tables import LabelTables
from ..free_energy.surface import FreeEnergySurface
from ..lifting.label_regression import LabelRegression
from ..units import FloatArray
from .backward_equation import GridGenerator
from .ensemble import shown
from .reduced_model import ReducedModel
from .smooth_fit import SmoothFit, fit_smooth
from .swarm_slopes import Displacements, Slopes

UPDATES, FREE_PRIORS, MOST_STEP = 10, 3, 0.5
"""Of the model's diffusion at most, how many of them choose its prior, and the largest step of a logarithm."""

LEAST_GAIN, LEAST_SHARE = 0.02, 0.1
"""Of chi-squared in a step, and of a whole step, below which updates end."""

PROBED, LEAST_RESPONSE = 0.05, 0.1
"""Relative change of the diffusion, to see how slopes answer, and the least answer that is reckoned with."""


@dataclass(frozen=True, eq=False)
class DiffusionFitter:
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
    groups: list[Displacements]
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

    def expected(self, model: ReducedModel, ranges: list[tuple[int, int]]) -> list[Slopes]:
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
            found.append(Slopes(drift, np.zeros_like(drift), diffusion, np.zeros_like(diffusion), []))
        return found

    def fit(self, measured: Slopes, pair: tuple[int, int], updates: int = UPDATES) -> "FittedDiffusion":
        """The model whose slopes between two lags are the measured ones, as far as it is smooth.

        By Gauss and Newton's steps, shortened where they lead farther away: how much a slope answers to its diffusion,
        one for short lags, falls along the way to the bottom of a well, where a label says little any more.
        """
        wanted, errors = _logarithms(measured.diffusion, measured.diffusion_error, self.labels)
        best = self._tried(wanted, wanted, errors, np.ones((len(wanted), 1, 1)), None, pair)
        early = Slopes.between(self.groups, self.times, -1, max(len(self.times) // 8, 1))
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
    ) -> "FittedDiffusion":
        """The model of about these logarithms, and what its slopes lack of those wanted."""
        fit = SmoothTensors.of(self.slow, self.labels, logs, errors / response, priors)
        model = self.model(fit)
        expected = self.expected(model, [pair])[0]
        return FittedDiffusion(
            model=model,
            diffusion_fit=fit,
            expected=expected,
            logs=of_eigenvalues(model.interpolated(model.diffusion, self.labels), np.log),
            residual=wanted - of_eigenvalues(expected.diffusion, np.log),
            response=self._response(model, expected, pair),
        )

    def _response(self, model: ReducedModel, expected: Slopes, pair: tuple[int, int]) -> FloatArray:
        """Relative change of the slopes to that of the diffusion everywhere, shape=(k, 1, 1)."""
        faster = replace(model, diffusion=(1 + PROBED) * model.diffusion)
        traces = [np.einsum("kii->k", one.diffusion) for one in (self.expected(faster, [pair])[0], expected)]
        response = np.log(traces[0] / traces[1]) / np.log1p(PROBED)
        return np.asarray(np.maximum(response, LEAST_RESPONSE)[:, None, None])


@dataclass(frozen=True, eq=False)
class FittedDiffusion:
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
    expected: Slopes
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
