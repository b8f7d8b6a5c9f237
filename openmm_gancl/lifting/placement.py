"""Where labels are drawn: below a ceiling, with a share everywhere, and a density p(s) that is known.

Over one or two labels p(s) is even. Over more, most of what lies below a ceiling is high and matters little to a
surface over some of them, where the others are averaged over: there ``p(s) = exp(-F / 2)``, as if twice as hot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import qmc

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import Axes
from ..free_energy.grid import bin_centres
from ..units import BoolArray, FloatArray
from .label_proposals import log_kernel

EVERYWHERE_SHARE = 0.1
"""Of the labels, evenly over the domain."""

SCANNED = 15
"""Places at which a density over many labels is looked at, as a power of two."""

MAX_CENTRES, MIN_CENTRES = 2000, 50
"""Of kernels."""

FLATNESS = 0.5
"""Of the free energy, that p(s) over many labels has."""

PAIRS_AT_ONCE = 2_000_000


def scattered_places(axes: Axes) -> FloatArray:
    """Places that fill the domain of any number of labels evenly, shape=(n, d)."""
    scattered = qmc.Sobol(len(axes.names), scramble=False).random_base2(SCANNED)
    return np.asarray(qmc.scale(scattered, *axes.domain.T))


class Placement(Protocol):
    """p(s), normalised over the domain."""

    def log_density(self, labels: FloatArray) -> FloatArray:
        """log p(s) of labels in the domain, shape=(n,)."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Labels, shape=(n, d)."""
        ...

    def over(self, axes: Sequence[int]) -> "Placement":
        """The marginal density over some of the labels."""
        ...

    def arrays(self) -> dict[str, FloatArray]:
        """From which `placement_of_arrays` makes it again."""
        ...


@dataclass(frozen=True)
class GridPlacement:
    """p(s): even within the cells of a grid, over one or two labels.

    Attributes:
        edges: of each label.
        probabilities: shape=(n_0, ...), of the cells.
    """

    edges: tuple[FloatArray, ...]
    probabilities: FloatArray

    @classmethod
    def below(cls, edges: tuple[FloatArray, ...], energies: FloatArray, ceiling: float) -> "GridPlacement":
        """Even over all cells below a ceiling, with a share everywhere.

        Args:
            edges: of the grid.
            energies: shape=(n_0, ...), kT.
            ceiling: above the lowest, kT.
        """
        low = energies < energies.min() + ceiling
        even = np.full(energies.shape, EVERYWHERE_SHARE / energies.size)
        return cls(edges, even + (1.0 - EVERYWHERE_SHARE) * low / low.sum())

    def log_density(self, labels: FloatArray) -> FloatArray:
        """See `Placement.log_density`."""
        cells = [
            np.clip(np.searchsorted(axis, part, side="right") - 1, 0, len(axis) - 2)
            for axis, part in zip(self.edges, labels.T, strict=True)
        ]
        area = np.prod([axis[1] - axis[0] for axis in self.edges])
        return np.asarray(np.log(self.probabilities[tuple(cells)] / area))

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """See `Placement.sample`."""
        cells = rng.choice(self.probabilities.size, n, p=self.probabilities.ravel())
        widths = np.array([axis[1] - axis[0] for axis in self.edges])
        return np.asarray(bin_centres(self.edges)[cells] + (rng.random((n, len(widths))) - 0.5) * widths)

    def over(self, axes: Sequence[int]) -> "GridPlacement":
        """See `Placement.over`."""
        others = tuple(i for i in range(len(self.edges)) if i not in axes)
        marginal = self.probabilities.sum(axis=others).transpose(np.argsort(np.argsort(axes)))
        return GridPlacement(tuple(self.edges[i] for i in axes), marginal)

    def arrays(self) -> dict[str, FloatArray]:
        """See `Placement.arrays`."""
        return {"probabilities": self.probabilities} | {f"edges_{i}": axis for i, axis in enumerate(self.edges)}


@dataclass(frozen=True)
class KernelPlacement:
    """p(s): kernels around many places, for any number of labels, and a share evenly over the domain.

    Kernels are von Mises along coordinates with a period, normal and cut at the domain's ends along others.

    Attributes:
        centres: shape=(m, d).
        probabilities: shape=(m,), of the kernels.
        widths: shape=(d,), of a normal kernel, or ``1 / sqrt(kappa)``.
        domain: shape=(d, 2).
        periodic: shape=(d,).
    """

    centres: FloatArray
    probabilities: FloatArray
    widths: FloatArray
    domain: FloatArray
    periodic: BoolArray

    @classmethod
    def below(cls, axes: Axes, log_density: Callable[[FloatArray], FloatArray], ceiling: float) -> "KernelPlacement":
        """Around places that are spread over what lies below a ceiling.

        Args:
            axes: the labels.
            log_density: of labels, shape=(n, d), up to a constant, shape=(n,).
            ceiling: of minus its logarithm above the lowest, kT.
        """
        places, d = scattered_places(axes), len(axes.names)
        energies = -log_density(places)
        low = np.flatnonzero(energies < energies.min() + ceiling)
        if len(low) < MIN_CENTRES:
            low = np.sort(np.argsort(energies)[:MIN_CENTRES])
        widths = 0.5 * (axes.domain[:, 1] - axes.domain[:, 0]) * len(places) ** (-1.0 / d)
        # any stretch of the sequence is spread evenly
        low = low[:MAX_CENTRES]
        probabilities = np.exp(-FLATNESS * (energies[low] - energies[low].min()))
        periodic = np.isfinite(axes.periods)
        return cls(places[low], probabilities / probabilities.sum(), widths, axes.domain, periodic)

    def log_density(self, labels: FloatArray) -> FloatArray:
        """See `Placement.log_density`."""
        step = max(PAIRS_AT_ONCE // len(self.centres), 1)
        near = [
            logsumexp(self._log_kernels(labels[i : i + step]), axis=1, b=self.probabilities)
            for i in range(0, len(labels), step)
        ]
        even = np.log(EVERYWHERE_SHARE) - np.log(self.domain[:, 1] - self.domain[:, 0]).sum()
        return np.asarray(np.logaddexp(np.log(1.0 - EVERYWHERE_SHARE) + np.concatenate([*near, np.empty(0)]), even))

    def _log_kernels(self, labels: FloatArray) -> FloatArray:
        total = np.zeros((len(labels), len(self.centres)))
        for i, (width, (low, high)) in enumerate(zip(self.widths, self.domain, strict=True)):
            away = labels[:, i, None] - self.centres[:, i]
            total += log_kernel(away, width**-2.0, self.periodic[i])
            if not self.periodic[i]:
                total -= np.log(ndtr((high - self.centres[:, i]) / width) - ndtr((low - self.centres[:, i]) / width))
        return total

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """See `Placement.sample`."""
        even = rng.random(n) < EVERYWHERE_SHARE
        around = self.centres[rng.choice(len(self.centres), n, p=self.probabilities)]
        labels = np.empty((n, len(self.widths)))
        for i, (width, (low, high)) in enumerate(zip(self.widths, self.domain, strict=True)):
            if self.periodic[i]:
                labels[:, i] = wrap(around[:, i] + rng.vonmises(0.0, width**-2.0, n))
            else:
                ends = [ndtr((end - around[:, i]) / width) for end in (low, high)]
                labels[:, i] = around[:, i] + width * ndtri(rng.uniform(*ends))
        low, high = self.domain.T
        return np.where(even[:, None], rng.uniform(low, high, labels.shape), labels)

    def over(self, axes: Sequence[int]) -> "KernelPlacement":
        """See `Placement.over`."""
        kept = list(axes)
        of_kept = (self.widths[kept], self.domain[kept], self.periodic[kept])
        return KernelPlacement(self.centres[:, kept], self.probabilities, *of_kept)

    def arrays(self) -> dict[str, FloatArray]:
        """See `Placement.arrays`."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


def placement_of_arrays(arrays: Mapping[str, Any]) -> Placement:
    """Rebuild what `Placement.arrays` described."""
    if "centres" not in arrays:
        edges = [arrays[f"edges_{i}"] for i in range(arrays["probabilities"].ndim)]
        return GridPlacement(tuple(edges), arrays["probabilities"])
    return KernelPlacement(**{part.name: arrays[part.name] for part in fields(KernelPlacement)})
