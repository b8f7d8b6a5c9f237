"""Densities on a grid from weighted, correlated samples: histogram and kernel estimates, errors by block bootstrap.

The weighted counts of each block on the fine grid are all that an estimate needs: a bootstrap replicate, or the first
half of the data, is another combination of the same rows. Where the weights depend on the samples themselves, through
the free energies of umbrella windows, their change enters the combination to first order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InputError
from ..units import BoolArray, FloatArray, IntArray
from .block_counts import BlockCounts, Rows
from .first_estimate import FirstEstimate
from .grid import REFINEMENT, FineGrid

Method = Literal["kde", "histogram"]

N_FOLDS = 10
"""Of the cross-validation, each of consecutive blocks of every stratum."""

BANDWIDTHS, BROADER = np.geomspace(0.004, 0.2, 15), (0.26, 0.35, 0.46, 0.6)
"""Candidates, as fractions of an axis; the broader ones where a first estimate is corrected."""

REACH = 0.03
"""Fraction of an axis, at most, that a frame makes bins around it sampled where a first estimate is corrected."""

UNDERSMOOTHING = 0.7
"""Of the bandwidth of least held-out loss, so that its bias, which no bootstrap shows, stays below the error bar."""


@dataclass(frozen=True)
class _Kernel:
    """Counts to densities on the fine grid, over their tilt: a kernel, which corrects a first estimate if there is one.

    Attributes:
        grid: the fine grid.
        first: where samples weigh alike. Where a bias has flattened what is sampled, a kernel is broad as it is; and
            few heavy samples at the rim of what it lets in are no ground for an estimate that goes on smoothly.
    """

    grid: FineGrid
    first: FirstEstimate | None

    def guesses(self, cells: FloatArray) -> FloatArray | None:
        """First estimates of counts, shape=(n, size)."""
        return None if self.first is None else self.first.densities(cells)

    def smooth(self, cells: FloatArray, guesses: FloatArray | None, fractions: FloatArray) -> FloatArray:
        """Of counts, with their guesses, under a bandwidth, shape=(n, size)."""
        if guesses is None:
            return self.grid.smooth(cells, fractions, sloped=True)
        found, expected = (self.grid.smooth(part, fractions) for part in (cells, guesses))
        return guesses * np.divide(found, expected, out=np.zeros_like(found), where=expected > 0.0)


@dataclass(frozen=True)
class Density:
    """An estimated density on a grid.

    Attributes:
        probability: shape=(n_0, ...), of each bin; zero where nothing was sampled; they sum to one.
        sampled: shape=(n_0, ...), whether a frame lies in the bin, or near it.
        bandwidths: shape=(d,), in the units of the axes; zero for the histogram.
        counts: what it was made of.
        kernel: that they are under.
    """

    probability: FloatArray
    sampled: BoolArray
    bandwidths: FloatArray
    counts: BlockCounts
    kernel: _Kernel

    @property
    def smoothed(self) -> str:
        """What the bandwidths are of, for people; empty for a histogram."""
        if not self.bandwidths.any():
            return ""
        return "density" if self.kernel.first is None else "ratio to a smooth first estimate"

    def of(self, multiplicities: FloatArray, chunk: int = 10) -> FloatArray:
        """The probabilities with every block taken so many times, shape=(n_replicates, n_0, ...)."""
        parts = [multiplicities[i : i + chunk] for i in range(0, len(multiplicities), chunk)]
        fractions = self.bandwidths / self.counts.grid.lengths
        return np.concatenate(
            [_probabilities(self.counts, part, self.kernel, fractions, self.sampled) for part in parts]
        )

    def masses(self, masks: BoolArray) -> Rows:
        """Weights inside unions of bins, unsmoothed; masks of shape=(n, n_0, ...); the last column holds all."""
        grid, cells, boxes = self.counts.grid, self.counts.cells, self.counts.boxes
        weights = np.stack([self.counts.tilt * grid.fine(mask) for mask in masks], axis=1)
        windows = None
        if cells.windows is not None and boxes.windows is not None:
            windows = np.concatenate([cells.windows @ weights, boxes.windows[:, -1:]], axis=1)
        blocks = np.concatenate([cells.blocks @ weights, boxes.blocks[:, -1:]], axis=1)
        return Rows(blocks, windows, cells.influence)


def _probabilities(
    counts: BlockCounts, multiplicities: FloatArray, kernel: _Kernel, fractions: FloatArray, sampled: BoolArray
) -> FloatArray:
    cells = counts.cells.combine(multiplicities)
    fine = counts.tilt * kernel.smooth(cells, kernel.guesses(cells), fractions)
    bins = np.where(sampled, counts.grid.coarse(fine), 0.0)
    return bins / bins.sum(axis=tuple(range(1, bins.ndim)), keepdims=True)


def _folds(counts: BlockCounts) -> IntArray:
    """The fold of each block: consecutive ones of every stratum."""
    fold = np.empty(len(counts.stratum), dtype=np.int64)
    for s in range(len(counts.correlation)):
        mine = np.flatnonzero(counts.stratum == s)
        fold[mine] = np.arange(len(mine)) * min(N_FOLDS, len(mine)) // len(mine)
    return fold


def _cross_validated(counts: BlockCounts, kernel: _Kernel) -> FloatArray:
    """Bandwidths, as fractions of the axes, of the greatest held-out likelihood."""
    fold, grid = _folds(counts), counts.grid
    parts = np.stack([np.asarray(counts.cells.blocks[fold == f].sum(axis=0)).ravel() for f in range(fold.max() + 1)])
    rest = parts.sum(axis=0) - parts
    usable = rest.sum(axis=1) > 0.0
    parts, rest = parts[usable], rest[usable]
    guesses = kernel.guesses(rest)
    # a share of the even density keeps one far frame from deciding everything
    even = 1.0 / len(counts.stratum)

    def score(bandwidths: FloatArray) -> float:
        density = kernel.smooth(rest, guesses, bandwidths).clip(min=0.0)
        density /= density.sum(axis=1, keepdims=True)
        density = (1 - even) * density + even / density.shape[1]
        return float((parts * np.log(density)).sum())

    d = len(grid.axes)
    candidates = [*BANDWIDTHS, *(() if kernel.first is None else BROADER)]
    best = max((np.full(d, h) for h in candidates), key=score)
    if d == 1:
        return best
    for axis in range(d):
        trials = []
        for h in best[axis] * np.array([0.5, 0.7, 1.0, 1.4, 2.0]):
            trial = best.copy()
            trial[axis] = h
            trials.append(trial)
        best = max(trials, key=score)
    return best


def estimate_density(counts: BlockCounts, method: Method = "kde", known: BoolArray | None = None) -> Density:
    """Estimate the density of weighted samples.

    Args:
        counts: of the samples, in blocks.
        method: kde, its bandwidths from cross-validation over consecutive blocks and narrowed a little, or histogram.
        known: shape=(n_0, ...), bins that enough samples reach; all by default.

    Raises:
        InputError: no sample with a weight lies on the grid.
    """
    grid, d = counts.grid, len(counts.grid.axes)
    if not counts.frames.any():
        raise InputError("no frame with a weight lies inside the range of the surface: widen it")
    kernel, fractions = _Kernel(grid, None), np.zeros(d)
    if method == "kde":
        kernel = _Kernel(grid, FirstEstimate.of(counts) if counts.alike else None)
        fractions = UNDERSMOOTHING * _cross_validated(counts, kernel)
    reach = fractions if kernel.first is None else fractions.clip(max=REACH)
    near = grid.smooth(counts.frames[None], reach) * grid.kernel_volume(reach)
    sampled = grid.coarse(near)[0] >= (1.0 if method == "histogram" else REFINEMENT**d)
    if known is not None:
        sampled &= known
    if not sampled.any():
        raise InputError("no bin of the surface is sampled: widen its range")
    ones = np.ones((1, len(counts.stratum)))
    probability = _probabilities(counts, ones, kernel, fractions, sampled)[0].clip(min=0.0)
    return Density(probability, sampled & (probability > 0.0), fractions * grid.lengths, counts, kernel)
