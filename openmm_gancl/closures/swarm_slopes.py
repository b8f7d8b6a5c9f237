"""Displacements of runs from the labels that they began at, and slopes of their moments between two lags."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates, in_domain
from ..errors import InputError
from ..free_energy.surface import FreeEnergySurface
from ..free_energy.weight_statistics import checked_log_weights, effective_sample_size, shares_of_weight
from ..sampling.swarms import Swarm
from ..units import BoolArray, FloatArray
from .ensemble import shown

FEWEST_RUNS, FEWEST_EFFECTIVE = 20, 10.0
"""Of a label, and as many effective ones by the weights of its lifts."""

MOST_LEFT = 0.05
"""Share of a label's runs that may leave the domain, or fail: of those that stay drift and spread are others."""

FARTHEST_START = 0.05
"""Of the domain: root mean square distance of a label's runs from it at their start, at most."""


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


@dataclass(frozen=True)
class RunsByLabel:
    """The runs of each label that can be used.

    Attributes:
        labels: shape=(k, d).
        groups: one a label.
        left: share of the runs that left the domain, of the label with most, less one standard error.
        failed: share of the runs that blew up, likewise.
    """

    labels: FloatArray
    groups: list[Displacements]
    left: float
    failed: float

    @classmethod
    def of(
        cls, swarm: Swarm, slow: SlowCoordinates, labels: FloatArray, log_weights: FloatArray | None
    ) -> "RunsByLabel":
        """Grouped.

        Args:
            swarm: the runs.
            slow: the slow coordinates.
            labels: shape=(n, d), that the runs began at.
            log_weights: shape=(n,), equal by default.

        Raises:
            InputError: arrays that do not fit, labels that are not those of the starts, or too few runs of a label.
        """
        n, d = len(swarm), len(slow.names)
        if np.shape(labels) != (n, d):
            raise InputError(f"labels have shape {np.shape(labels)}: give ({n}, {d}), one a run")
        weights = np.zeros(n) if log_weights is None else checked_log_weights(log_weights)
        if weights.shape != (n,):
            raise InputError(f"`log_weights` have shape {weights.shape}: give ({n},), one a run")
        inside = in_domain(swarm.labels.reshape(-1, d), slow).reshape(swarm.labels.shape[:2])
        left = ~inside.all(axis=1) & ~swarm.failed
        used = ~swarm.failed & ~left & np.isfinite(weights)
        if not used.any():
            raise InputError("every run failed or left the domain: use shorter runs, or a shorter time step")
        found, index = np.unique(labels, axis=0, return_inverse=True)
        # from the start, as the probabilities of a model on a circle have it, and not all the way around
        moved = wrap(swarm.labels[:, 1:] - swarm.labels[:, :1], slow.periods)
        groups, of_label = list[Displacements](), [index.ravel() == k for k in range(len(found))]
        for label, mine in zip(found, of_label, strict=True):
            _check_runs(label, swarm.labels[mine & used, 0], weights[mine & used], slow)
            groups.append(Displacements(moved[mine & used], shares_of_weight(weights[mine & used])))
        return cls(found, groups, _largest_share(left, of_label), _largest_share(swarm.failed, of_label))


def _largest_share(bad: BoolArray, of_label: list[BoolArray]) -> float:
    """Of bad runs among those of a label, less one standard error: a few are chance."""
    counts = [(int(bad[mine].sum()), int(mine.sum())) for mine in of_label]
    return max((n - np.sqrt(n)) / total for n, total in counts)


def doubts_of_runs(left: float, failed: float) -> list[str]:
    """Sentences, where no model of runs is to be trusted.

    Args:
        left: share of a label's runs that left the domain.
        failed: share of a label's runs that blew up.
    """
    doubts = []
    if left > MOST_LEFT:
        doubts.append(
            f"{left:.0%} of the runs of a label left the domain, at least, and those that stayed are others: use "
            "shorter runs, or labels farther from its ends"
        )
    if failed > MOST_LEFT:
        doubts.append(f"{failed:.0%} of the runs of a label blew up, at least: use a shorter time step")
    return doubts


def _check_runs(label: FloatArray, starts: FloatArray, log_weights: FloatArray, slow: SlowCoordinates) -> None:
    """Whether the runs of a label, shape=(n, d) at their starts, are enough, and its own."""
    if len(starts) < FEWEST_RUNS:
        raise InputError(
            f"label {shown(label)} has {len(starts)} runs that stayed in the domain: give at least {FEWEST_RUNS}, or "
            "leave it out"
        )
    if (effective := effective_sample_size(log_weights)) < FEWEST_EFFECTIVE:
        raise InputError(
            f"the weights leave {effective:.1f} effective runs of label {shown(label)}: lift more there, at least for "
            f"{FEWEST_EFFECTIVE:g}, or leave it out"
        )
    off = np.sqrt((wrap(starts - label, slow.periods) ** 2).mean(axis=0)) / np.ptp(slow.domain, axis=1)
    if off.max() > FARTHEST_START:
        raise InputError(
            f"the runs said to be of label {shown(label)} begin elsewhere, the first at {shown(starts[0])}: give the "
            "labels in the order of the runs, in radians or nm"
        )


def check_surface_axes(surface: FreeEnergySurface, slow: SlowCoordinates) -> None:
    """Refuse a surface over the slow coordinates in another order, or in other units.

    Args:
        surface: of the runs' free energy.
        slow: the slow coordinates.

    Raises:
        InputError: it is.
    """
    same = len(surface.names) == len(slow.names) and np.allclose(surface.periods, slow.periods)
    same &= all(a == b or not (a and b) for a, b in zip(surface.units, slow.units, strict=False))
    swapped = sorted(surface.names) == sorted(slow.names) and tuple(surface.names) != tuple(slow.names)
    if swapped or not same:
        given, wanted = (
            ", ".join(f"{name} {unit}".strip() for name, unit in zip(one.names, one.units, strict=True))
            for one in (surface, slow)
        )
        raise InputError(f"the surface is over {given}, the runs over {wanted}: give one over theirs, in their order")
