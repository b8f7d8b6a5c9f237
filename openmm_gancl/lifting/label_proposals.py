"""The distribution of labels of unrestrained lifts, and the encoder that reads a label back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from scipy.special import ive, logsumexp

from ..coordinates.geometry import wrap
from ..coordinates.restraint_energies import restraint_terms
from ..coordinates.slow_coordinates import SlowCoordinates, in_domain
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..free_energy.grid import bin_centres, bin_indices
from ..learning.learned_labels import LearnedLabels
from ..units import BoolArray, FloatArray

MAX_PAIRS = 4_000_000
"""Labels times centres in one batch."""

ENCODER_SCALES, MIN_LOG_RATIO = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0), -50.0
"""Widths of r(s | x) tried, in root mean square deviations of pilot lifts from their labels; least log r/p of one
pilot lift."""


class LabelProposal(Protocol):
    """p(s), and a normalised r(s | x) in the same measure: any pair keeps the weights of unrestrained lifts exact."""

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Labels, shape=(n, d)."""
        ...

    def log_prior(self, labels: FloatArray) -> FloatArray:
        """log p(s), shape=(n,)."""
        ...

    def sample_encoder(self, cv_values: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Labels drawn from r(s | x), shape=(n, d), for xi(x) of shape=(n, d)."""
        ...

    def log_encoder(self, labels: FloatArray, cv_values: FloatArray) -> FloatArray:
        """log r(s | x), shape=(n,), in the measure of ``log_prior``."""
        ...

    def log_ratio(self, labels: FloatArray, cv_values: FloatArray) -> FloatArray:
        """log r(s | x) - log p(s), shape=(n,): what enters a weight."""
        ...


@dataclass(frozen=True)
class UniformProposal:
    """Labels drawn uniformly over the domain, and r(s | x) that goes with them.

    ``r(s | x)`` is the restraint's Boltzmann factor normalised over the labels in the domain, so that an
    unrestrained lift that has stayed near its label keeps a flat weight.

    Args:
        slow: the slow coordinates.
        force_constants: shape=(d,), the constants of the lift's restraint.
        kT: kJ/mol.
    """

    slow: SlowCoordinates
    force_constants: FloatArray
    kT: float

    def check_normalisable(self) -> None:
        """Raise an `InputError` where a label without a period has no restraint, and ``r(s | x)`` no width."""
        for name, k, period in zip(self.slow.names, self.force_constants, self.slow.periods, strict=True):
            if k == 0 and not np.isfinite(period):
                raise InputError(
                    f"nothing restrains {name}, so its ends determine no label: give a constant above zero"
                )

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """See `LabelProposal.sample`."""
        low, high = self.slow.domain.T
        return rng.uniform(low, high, size=(n, len(low)))

    def log_prior(self, labels: FloatArray) -> FloatArray:
        """See `LabelProposal.log_prior`."""
        low, high = self.slow.domain.T
        return np.where(in_domain(labels, self.slow), -np.log(high - low).sum(), -np.inf)

    def sample_encoder(self, cv_values: FloatArray, rng: np.random.Generator) -> FloatArray:
        """See `LabelProposal.sample_encoder`."""
        from scipy.stats import truncnorm  # takes a second

        columns = []
        for xi, strength, domain in self._columns(cv_values):
            if domain is None:
                columns.append(wrap(xi + rng.vonmises(0.0, strength, size=len(xi))))
            else:
                columns.append(truncnorm.rvs(**domain, size=len(xi), random_state=rng))
        return np.stack(columns, axis=1)

    def log_encoder(self, labels: FloatArray, cv_values: FloatArray) -> FloatArray:
        """See `LabelProposal.log_encoder`."""
        from scipy.stats import truncnorm

        total = np.zeros(len(labels))
        for column, (xi, strength, domain) in zip(labels.T, self._columns(cv_values), strict=True):
            total += log_kernel(column - xi, strength, True) if domain is None else truncnorm.logpdf(column, **domain)
        return total

    def log_ratio(self, labels: FloatArray, cv_values: FloatArray) -> FloatArray:
        """See `LabelProposal.log_ratio`."""
        return self.log_encoder(labels, cv_values) - self.log_prior(labels)

    def _columns(self, cv_values: FloatArray) -> Iterator[tuple[FloatArray, float, dict[str, Any] | None]]:
        """xi, 1 / width^2, and the normal truncated to the domain where the coordinate has no period."""
        for i, strength in enumerate(self.force_constants / self.kT):
            xi, domain = cv_values[:, i], None
            if not np.isfinite(self.slow.periods[i]):
                width = strength**-0.5
                low, high = self.slow.domain[i]
                # no frozen distribution, which scipy takes as long to make as a relaxation of a hundred steps takes
                domain = {"a": (low - xi) / width, "b": (high - xi) / width, "loc": xi, "scale": width}
            yield xi, float(strength), domain


UNIFORM_FRACTION = 0.05
"""Share of labels drawn uniformly where a surface says which are likely: it may be wrong, or incomplete."""


@dataclass(frozen=True)
class TabulatedProposal(UniformProposal):
    """Labels drawn as a known surface has them, so that unrestrained lifts have nearly even weights.

    p(s) is constant in each bin: the Boltzmann factor of the surface, smeared by the restraint, and a floor.
    ``r(s | x)`` is that of `UniformProposal`. The surface need not be right for the weights to be.

    Args:
        slow: the slow coordinates.
        force_constants: shape=(d,), the constants of the lift's restraint.
        kT: kJ/mol.
        edges: of even bins, for each coordinate, over its whole domain.
        probabilities: of the bins, shape=(n_0, ...), sum one.
    """

    edges: tuple[FloatArray, ...]
    probabilities: FloatArray

    @classmethod
    def from_energies(
        cls,
        slow: SlowCoordinates,
        force_constants: FloatArray,
        kT: float,
        edges: tuple[FloatArray, ...],
        energy: FloatArray,
        *,
        smeared: bool = True,
    ) -> "TabulatedProposal":
        """From a surface, kJ/mol, ``inf`` where unknown; where it does not reach the domain's ends, the floor does.

        Args:
            slow: the slow coordinates.
            force_constants: shape=(d,), the constants of the lift's restraint.
            kT: kJ/mol.
            edges: of the surface's bins.
            energy: kJ/mol, shape=(n_0, ...).
            smeared: by the restraint; lifts that keep their labels have none.
        """
        domain = tuple(np.linspace(low, high, n + 1) for (low, high), n in zip(slow.domain, energy.shape, strict=True))
        flat = bin_indices(bin_centres(domain), edges, slow.periods)
        energy = np.where(flat < 0, np.inf, energy.ravel()[flat]).reshape(energy.shape)
        edges, mass = domain, np.exp(-(energy - energy.min()) / kT)
        for axis, grid in enumerate(edges if smeared else ()):
            centres = 0.5 * (grid[1:] + grid[:-1])
            difference = centres[:, None] - centres
            periodic = np.isfinite(slow.periods[axis])
            bias = force_constants[axis] * restraint_terms(difference, bool(periodic))
            mass = np.moveaxis(np.tensordot(np.exp(-bias / kT), mass, axes=(1, axis)), 0, axis)
        probabilities = (1.0 - UNIFORM_FRACTION) * mass / mass.sum() + UNIFORM_FRACTION / mass.size
        return cls(slow, np.asarray(force_constants, dtype=float), kT, edges, probabilities)

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """See `LabelProposal.sample`."""
        flat = rng.choice(self.probabilities.size, size=n, p=self.probabilities.ravel())
        bins = np.unravel_index(flat, self.probabilities.shape)
        columns = [rng.uniform(grid[i], grid[i + 1]) for grid, i in zip(self.edges, bins, strict=True)]
        return np.stack(columns, axis=1)

    def log_prior(self, labels: FloatArray) -> FloatArray:
        """See `LabelProposal.log_prior`."""
        flat = bin_indices(labels, self.edges, self.slow.periods)
        log_volume = sum(float(np.log(grid[1] - grid[0])) for grid in self.edges)
        return np.where(flat < 0, -np.inf, np.log(self.probabilities.ravel()[flat]) - log_volume)


@dataclass(frozen=True)
class KernelProposal:
    """Labels near those of training frames: a mixture of kernels, normal or von Mises by the coordinate's period.

    Learned labels fill a thin part of their domain; this density stays on it. ``r(s | x)`` is p(s) times a kernel
    around xi(x), normalised in closed form, since products of such kernels are such kernels.

    Args:
        centres: shape=(m, d).
        widths: shape=(d,), of the kernels of p(s).
        encoder_widths: shape=(d,), how far xi(x_end) deviates from the label.
        periodic: shape=(d,).
    """

    centres: FloatArray
    widths: FloatArray
    encoder_widths: FloatArray
    periodic: BoolArray

    @classmethod
    def around_frames(
        cls, learned: LearnedLabels, encoder_widths: FloatArray, which: BoolArray | None = None
    ) -> "KernelProposal":
        """p(s) around learned labels, or some of them, with an encoder of these widths, shape=(d,)."""
        centres = learned.centres if which is None else learned.centres[which]
        return cls(centres, learned.widths, encoder_widths, np.isfinite(learned.slow.periods))

    def blur(self, seed: int) -> FloatArray:
        """One draw from the kernel of each centre, shape=(n, d): with its frame, what p(s) is a marginal of."""
        return self.around(self.centres, named_rng(seed, "label kernels"))

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """See `LabelProposal.sample`."""
        return self.around(self.centres[rng.integers(len(self.centres), size=n)], rng)

    def around(self, centres: FloatArray, rng: np.random.Generator) -> FloatArray:
        """One draw from the kernel at each of some centres, shape=(n, d)."""
        return self._draw(centres, np.broadcast_to(self.widths**-2.0, centres.shape), rng)

    def log_prior(self, labels: FloatArray) -> FloatArray:
        """See `LabelProposal.log_prior`."""
        return self._mean_over_centres(self._log_kernel, labels)

    def sample_encoder(self, cv_values: FloatArray, rng: np.random.Generator) -> FloatArray:
        """See `LabelProposal.sample_encoder`."""
        around = np.empty_like(cv_values)
        for rows in self._parts(len(cv_values)):
            scores = self._scores(self._log_overlap, cv_values[rows])
            # Gumbel's trick draws by unnormalised logarithms
            around[rows] = self.centres[(scores + rng.gumbel(size=scores.shape)).argmax(axis=1)]
        precisions, near = self.widths**-2.0, self.encoder_widths**-2.0
        pull = precisions * np.exp(1j * around) + near * np.exp(1j * cv_values)
        between = (precisions * around + near * cv_values) / (precisions + near)
        middle = np.where(self.periodic, np.angle(pull), between)
        return self._draw(middle, np.where(self.periodic, np.abs(pull), precisions + near), rng)

    def log_encoder(self, labels: FloatArray, cv_values: FloatArray) -> FloatArray:
        """See `LabelProposal.log_encoder`."""
        return self.log_prior(labels) + self.log_ratio(labels, cv_values)

    def log_ratio(self, labels: FloatArray, cv_values: FloatArray) -> FloatArray:
        """See `LabelProposal.log_ratio`; p(s) itself drops out."""
        kernels = [
            log_kernel(labels[:, i] - cv_values[:, i], width**-2.0, self.periodic[i])
            for i, width in enumerate(self.encoder_widths)
        ]
        return np.sum(kernels, axis=0) - self._mean_over_centres(self._log_overlap, cv_values)

    def _log_kernel(self, i: int, difference: FloatArray) -> FloatArray:
        return log_kernel(difference, self.widths[i] ** -2.0, self.periodic[i])

    def _log_overlap(self, i: int, difference: FloatArray) -> FloatArray:
        return _log_overlap(difference, self.widths[i] ** -2.0, self.encoder_widths[i] ** -2.0, self.periodic[i])

    def _parts(self, n: int) -> list[slice]:
        step = max(MAX_PAIRS // len(self.centres), 1)
        return [slice(i, i + step) for i in range(0, n, step)]

    def _scores(self, log_term: Callable[..., FloatArray], places: FloatArray) -> FloatArray:
        """Sums of a term over the coordinates, shape=(n, m)."""
        scores = np.zeros((len(places), len(self.centres)))
        for i in range(len(self.widths)):
            scores += log_term(i, places[:, i, None] - self.centres[:, i])
        return scores

    def _mean_over_centres(self, log_term: Callable[..., FloatArray], places: FloatArray) -> FloatArray:
        parts = [logsumexp(self._scores(log_term, places[rows]), axis=1) for rows in self._parts(len(places))]
        return np.concatenate([*parts, np.empty(0)]) - np.log(len(self.centres))

    def _draw(self, middle: FloatArray, precisions: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Around the middle of each coordinate, shape=(n, d), by 1 / width^2."""
        normal = middle + rng.standard_normal(middle.shape) * precisions**-0.5
        turned = wrap(middle + rng.vonmises(0.0, np.where(self.periodic, precisions, 1.0)))
        return np.where(self.periodic, turned, normal)


def log_kernel(difference: FloatArray, precision: float, periodic: bool) -> FloatArray:
    """Log density of a kernel of 1 / width^2 = precision."""
    if periodic:
        return np.asarray(precision * (np.cos(difference) - 1.0) - np.log(2 * np.pi * ive(0, precision)))
    return np.asarray(0.5 * (np.log(precision / (2 * np.pi)) - precision * difference**2))


def _log_overlap(difference: FloatArray, one: float, other: float, periodic: bool) -> FloatArray:
    """Log integral of the product of two kernels of these precisions that lie so far apart."""
    if not periodic:
        return log_kernel(difference, 1.0 / (1.0 / one + 1.0 / other), False)
    size = np.sqrt(one**2 + other**2 + 2.0 * one * other * np.cos(difference))
    norms = 2 * np.pi * ive(0, one) * ive(0, other)
    return np.asarray(np.log(ive(0, size) / norms) + size - one - other)


def fit_label_encoder(labels: LearnedLabels, requested: FloatArray, cv_values: FloatArray) -> FloatArray:
    """Widths of r(s | x) for lifts that deviate from their labels, shape=(d,): likeliest multiples of deviations.

    Each coordinate has a multiple of its own. A torsion is reached within its restraint, a learned label only as well
    as the generator knows it: one multiple for both leaves weights with a heavy tail.

    Args:
        labels: the labels.
        requested: shape=(n, d), labels of pilot lifts.
        cv_values: shape=(n, d), of their ends.
    """
    deviations = np.sqrt(np.mean(np.square(wrap(requested - cv_values, labels.slow.periods)), axis=0))

    def widths(scales: tuple[float, ...]) -> FloatArray:
        return np.maximum(np.array(scales) * deviations, labels.widths)

    @cache
    def gain(scales: tuple[float, ...]) -> float:
        log_ratio = KernelProposal.around_frames(labels, widths(scales)).log_ratio(requested, cv_values)
        # one pilot with a large deviation must not decide alone
        return float(np.maximum(log_ratio, MIN_LOG_RATIO).mean())

    best, before = (1.0,) * len(deviations), None
    while best != before:
        before = best
        for i in range(len(best)):
            best = max((best, *((*best[:i], scale, *best[i + 1 :]) for scale in ENCODER_SCALES)), key=gain)
    return widths(best)
