"""Where labels are drawn: below a ceiling, with a share everywhere, and a density p(s) that is known.

Over one or two labels p(s) is even. Over more, most of what lies below a ceiling is high and matters little to a
surface over some of them, where the others are averaged over: there ``p(s) = exp(-F / 2)``, as if twice as hot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any, Protocol, Self

import networkx as nx
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import rel_entr
from scipy.stats import qmc

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import Axes
from ..errors import InputError
from ..free_energy.grid import bin_centres
from ..units import FloatArray, IntArray

EVERYWHERE_SHARE = 0.1
"""Of the places, evenly over the domain."""

SCANNED = 15
"""Places at which a density over many labels is looked at, as a power of two."""

N_WALKERS, SWEEPS, NEAR = 1000, 40, 0.15
"""Of a walk over many labels: every label is moved once a sweep on average, half of the times by a normal deviate of
so much of its domain, else anywhere; the second half of the sweeps counts."""

BINS = 36
"""Along each of many labels."""

FLATNESS = 0.5
"""Of the free energy, that p(s) over many labels has."""

ALONE_SHARE = 0.1
"""Of the same, with one of the labels anywhere."""


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
class TreePlacement:
    """p(s): each label drawn given one other, on grids, for any number of labels, and a share evenly over the domain.

    Of all such densities the one along the tree with the most mutual information is nearest to a given one (Chow and
    Liu 1968, doi:10.1109/TIT.1968.1054142). Kernels around places would have to be as wide as the places are apart: a
    radian with ten labels.

    Attributes:
        order: shape=(d,), labels, each after the one that it is given.
        parents: shape=(d,), those; of the first label itself.
        conditionals: shape=(d, bins, bins), of each label's cells (columns) given its parent's (rows).
        domain: shape=(d, 2).
    """

    order: IntArray
    parents: IntArray
    conditionals: FloatArray
    domain: FloatArray

    @classmethod
    def like(cls, axes: Axes, log_density: Callable[[FloatArray], FloatArray], rng: np.random.Generator) -> Self:
        """Near a density to the power of `FLATNESS`.

        Args:
            axes: the labels.
            log_density: of labels, shape=(n, d), up to a constant, shape=(n,).
            rng: of the walk that samples it.
        """
        return cls.of_samples(axes, _walk(axes, lambda labels: FLATNESS * log_density(labels), rng))

    @classmethod
    def of_samples(cls, axes: Axes, samples: FloatArray) -> Self:
        """From labels, shape=(n, d)."""
        modes = ["wrap" if np.isfinite(period) else "reflect" for period in axes.periods]
        cells = _cells(samples, axes.domain, BINS)
        alone = [
            gaussian_filter1d(np.bincount(one, minlength=BINS) + 0.0, 1.0, mode=mode)
            for one, mode in zip(cells.T, modes, strict=True)
        ]
        graph = nx.Graph()
        for i, j in combinations(range(len(modes)), 2):
            counts = np.bincount(BINS * cells[:, i] + cells[:, j], minlength=BINS**2).reshape(BINS, BINS)
            joint = gaussian_filter(counts + 0.0, 1.0, mode=[modes[i], modes[j]])
            apart = np.outer(alone[i], alone[j]) / len(samples)
            graph.add_edge(i, j, weight=rel_entr(joint, apart).sum(), counts={i: joint, j: joint.T})
        order, parents = [0], np.zeros(len(modes), dtype=np.int64)
        conditionals = np.tile(np.array(alone)[:, None], (1, BINS, 1))
        for parent, label in nx.bfs_edges(nx.maximum_spanning_tree(graph), 0):
            order.append(label)
            parents[label] = parent
            # where the parent never was, as without it
            conditionals[label] = graph[parent][label]["counts"][parent] + alone[label] / len(samples)
        conditionals /= conditionals.sum(axis=2, keepdims=True)
        share = ALONE_SHARE / len(modes)
        return cls(np.array(order), parents, (1 - share) * conditionals + share / BINS, axes.domain)

    def log_density(self, labels: FloatArray) -> FloatArray:
        """See `Placement.log_density`."""
        spans, bins = self.domain[:, 1] - self.domain[:, 0], self.conditionals.shape[1]
        cells = _cells(labels, self.domain, bins)
        along = np.log(self.conditionals[np.arange(len(spans)), cells[:, self.parents], cells]).sum(axis=1)
        along += len(spans) * np.log(bins)
        return np.logaddexp(np.log(1 - EVERYWHERE_SHARE) + along, np.log(EVERYWHERE_SHARE)) - np.log(spans).sum()

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """See `Placement.sample`."""
        d, bins = self.conditionals.shape[:2]
        cells = np.zeros((n, d), dtype=np.int64)
        for label in self.order:
            given = cells[:, self.parents[label]]
            # the rows one after the other, each from its number to the next
            rising = (self.conditionals[label, :, :-1].cumsum(axis=1) + np.arange(bins)[:, None]).ravel()
            cells[:, label] = np.searchsorted(rising, given + rng.random(n)) - given * (bins - 1)
        cells = np.where(rng.random((n, 1)) < EVERYWHERE_SHARE, rng.integers(bins, size=(n, d)), cells)
        low, high = self.domain.T
        return np.asarray(low + (cells + rng.random((n, d))) * ((high - low) / bins))

    def over(self, axes: Sequence[int]) -> GridPlacement:
        """See `Placement.over`; one label, or two."""
        bins, paths = self.conditionals.shape[1], [self._to_first(label) for label in axes]
        common = next(label for label in paths[0] if label in paths[-1])
        probabilities = self.conditionals[self.order[0], 0]
        for label in reversed(self._to_first(common)[:-1]):
            probabilities = probabilities @ self.conditionals[label]
        tables = []
        for path in paths:
            given = np.eye(bins)
            for label in reversed(path[: path.index(common)]):
                given = given @ self.conditionals[label]
            tables.append(given)
        probabilities = (tables[0].T * probabilities) @ tables[1] if len(tables) == 2 else probabilities
        even = np.full(probabilities.shape, EVERYWHERE_SHARE / probabilities.size)
        edges = tuple(np.linspace(low, high, bins + 1) for low, high in self.domain[list(axes)])
        return GridPlacement(edges, even + (1 - EVERYWHERE_SHARE) * probabilities)

    def _to_first(self, label: int) -> list[int]:
        """A label, the one that it is given, and so on up to the first."""
        path = [label]
        while self.parents[path[-1]] != path[-1]:
            path.append(int(self.parents[path[-1]]))
        return path

    def arrays(self) -> dict[str, FloatArray]:
        """See `Placement.arrays`."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


def _cells(labels: FloatArray, domain: FloatArray, bins: int) -> IntArray:
    """Of each label's grid, shape=(n, d)."""
    low, high = domain.T
    return np.clip((labels - low) / (high - low) * bins, 0, bins - 1).astype(np.int64)


def _walk(axes: Axes, log_density: Callable[[FloatArray], FloatArray], rng: np.random.Generator) -> FloatArray:
    """Labels with a density, shape=(n, d): many walkers move one label at a time (Metropolis).

    They begin all over the domain, and cool down: modes far apart have walkers, of as many as they have weight about.
    """
    low, high = axes.domain.T
    labels, walker = scattered_places(axes)[:N_WALKERS], np.arange(N_WALKERS)
    logs, found = log_density(labels), []
    for sweep in range(SWEEPS):
        steepness = min(2 * (sweep + 1) / SWEEPS, 1.0)
        for _ in low:
            moved, proposed = rng.integers(len(low), size=N_WALKERS), labels.copy()
            near = labels[walker, moved] + NEAR * (high - low)[moved] * rng.standard_normal(N_WALKERS)
            far = rng.uniform(low[moved], high[moved])
            proposed[walker, moved] = np.where(rng.random(N_WALKERS) < 0.5, near, far)
            proposed = wrap(proposed, axes.periods)
            there = np.where(((proposed >= low) & (proposed <= high)).all(axis=1), log_density(proposed), -np.inf)
            accepted = rng.random(N_WALKERS) < np.exp(np.minimum(steepness * (there - logs), 0.0))
            labels, logs = np.where(accepted[:, None], proposed, labels), np.where(accepted, there, logs)
        if 2 * sweep >= SWEEPS:
            found.append(labels)
    return np.concatenate(found)


def placement_of_arrays(arrays: Mapping[str, Any]) -> Placement:
    """Rebuild what `Placement.arrays` described."""
    if "centres" in arrays:
        raise InputError(
            "the labels of these rounds were placed as this version does not: begin a run of their card anew"
        )
    if "parents" in arrays:
        return TreePlacement(**{part.name: arrays[part.name] for part in fields(TreePlacement)})
    edges = [arrays[f"edges_{i}"] for i in range(arrays["probabilities"].ndim)]
    return GridPlacement(tuple(edges), arrays["probabilities"])
