"""Displacements of runs from the labels that they began at, and slopes of their moments between two lags."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates, in_domain
from ..errors import InputError
from ..sampling.swarms import Swarm
from ..units import FloatArray
from .ensemble import shown

FEWEST_RUNS = 20
"""Of a label."""


@dataclass(frozen=True)
class Displacements:
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
class Slopes:
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
    def between(cls, groups: list[Displacements], times: FloatArray, first: int, last: int) -> "Slopes":
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


def p_value_of(differences: FloatArray, errors: FloatArray) -> float:
    """Of differences: of chi-squared of all, or of the worst, which all the others may hide; each for two."""
    z = (differences / errors).ravel()
    of_worst = len(z) * 2 * float(norm.sf(np.abs(z).max()))
    return min(1.0, 2 * min(float(chi2.sf((z**2).sum(), len(z))), of_worst))


def same_slopes(groups: list[Displacements], one: tuple[Slopes, Slopes], other: tuple[Slopes, Slopes]) -> float:
    """p-value of the differences between slopes of two ranges of lags, each measured and expected of a model."""
    differences, errors = list[FloatArray](), list[FloatArray]()
    (some, of_some), (others, of_others) = one, other
    for k, runs in enumerate(groups):
        for part, expected in ((0, of_some.drift - of_others.drift), (1, of_some.diffusion - of_others.diffusion)):
            mean, error = runs.mean(some.of_runs[k][part] - others.of_runs[k][part])
            chosen = np.tril_indices(len(mean)) if part else slice(None)
            differences.append((mean - expected[k])[chosen].ravel())
            errors.append(error[chosen].ravel())
    return p_value_of(np.concatenate(differences), np.concatenate(errors))


def displacements_by_label(
    swarm: Swarm, slow: SlowCoordinates, labels: FloatArray, log_weights: FloatArray | None
) -> tuple[FloatArray, list[Displacements], float]:
    """Labels, the runs of each that can be used, and the share of those that left the domain."""
    if np.shape(labels) != (len(swarm), len(slow.names)):
        raise InputError(f"labels have shape {np.shape(labels)}: give ({len(swarm)}, {len(slow.names)}), one a run")
    inside = in_domain(swarm.labels.reshape(-1, len(slow.names)), slow).reshape(swarm.labels.shape[:2])
    left = ~inside.all(axis=1) & ~swarm.failed
    weights = np.zeros(len(swarm)) if log_weights is None else np.asarray(log_weights, dtype=float)
    used = ~swarm.failed & ~left & np.isfinite(weights)
    if not used.any():
        raise InputError("every run failed or left the domain: use shorter runs, or a shorter time step")
    found, index = np.unique(labels, axis=0, return_inverse=True)
    displacements = np.cumsum(wrap(np.diff(swarm.labels, axis=1), slow.periods), axis=1)
    groups = list[Displacements]()
    for k in range(len(found)):
        chosen = used & (index.ravel() == k)
        if chosen.sum() < FEWEST_RUNS:
            raise InputError(
                f"label {shown(found[k])} has {chosen.sum()} runs that stayed in the domain: give at "
                f"least {FEWEST_RUNS}, or leave it out"
            )
        relative = np.exp(weights[chosen] - weights[chosen].max())
        groups.append(Displacements(displacements[chosen], relative / relative.sum()))
    return found, groups, float(left.mean())
