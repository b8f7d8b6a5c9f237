"""Densities on a grid from weighted, correlated samples: histogram and kernel estimates, errors by block bootstrap.

The weighted counts of each block on the fine grid are all that an estimate needs: a bootstrap replicate, or the first
half of the data, is another combination of the same rows. Where the weights depend on the samples themselves, through
the free energies of umbrella windows, their change enters the combination to first order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from .errors import InputError
from .grid import REFINEMENT, FineGrid
from .random_numbers import named_rng
from .units import BoolArray, FloatArray, IntArray

Method = Literal["kde", "histogram"]

FOLDS = 10
"""Of the cross-validation, each of consecutive blocks of every stratum."""

BANDWIDTHS = np.geomspace(0.004, 0.2, 15)
"""Candidates, as fractions of an axis."""

UNDERSMOOTHING = 0.7
"""Of the bandwidth of least held-out loss, so that its bias, which no bootstrap shows, stays below the error bar."""

LEAST_TILT = -600.0
"""Logarithm of the least usual weight, below which weights are no numbers any more."""

TILTS = (0.02, 0.06, 0.2)
"""Bandwidths, as fractions of an axis, of the local mean of log-weights; the broader ones where no frame is near."""


@dataclass(frozen=True)
class Response:
    """How weights follow when free energies of windows change (see `MBAR`).

    Attributes:
        influence: shape=(n_blocks, n_windows), of each block on the windows' reduced free energies.
        responsibilities: shape=(n_windows, n_samples), of each window for each sample.
    """

    influence: FloatArray
    responsibilities: csr_array


@dataclass(frozen=True)
class Rows:
    """A quantity, summed over the samples of each block, that replicates combine.

    Attributes:
        blocks: shape=(n_blocks, n), sparse or not.
        windows: shape=(n_windows, n), what a rise of a window's free energy takes away; None without windows.
        influence: shape=(n_blocks, n_windows), as in `Response`.
    """

    blocks: csr_array | FloatArray
    windows: csr_array | FloatArray | None
    influence: FloatArray | None

    def combine(self, multiplicities: FloatArray) -> FloatArray:
        """The sums with every block taken so many times, shape=(n_replicates, n)."""
        sums = np.asarray(multiplicities @ self.blocks)
        if self.windows is not None and self.influence is not None:
            sums -= np.asarray((multiplicities @ self.influence) @ self.windows)
        return sums


@dataclass(frozen=True)
class BlockCounts:
    """Weighted counts of every block on the fine grid.

    Attributes:
        grid: the fine grid.
        cells: weights of the samples over the tilt of their cell, on the fine grid.
        boxes: the last column holds the weights of all samples, the others of those inside each box.
        tilt: shape=(size,), the weight that is usual in each cell; 1 throughout for equal weights.
        frames: shape=(size,), number of samples in each cell.
        stratum: shape=(n_blocks,), blocks that the bootstrap draws among each other.
        sizes: shape=(n_blocks,), samples in each block.
        spans: shape=(n_blocks, 2), where each block begins and ends, as fractions of its trajectory.
        correlation: shape=(n_strata,), statistical inefficiency over the length of a block.
    """

    grid: FineGrid
    cells: Rows
    boxes: Rows
    tilt: FloatArray
    frames: FloatArray
    stratum: IntArray
    sizes: IntArray
    spans: FloatArray
    correlation: FloatArray

    def normalised(self, multiplicities: FloatArray) -> FloatArray:
        """Scaled so that every stratum keeps its number of samples; an empty stratum stays as it was."""
        scaled = np.array(multiplicities, dtype=float)
        for s in range(len(self.correlation)):
            mine = self.stratum == s
            held = scaled[:, mine] @ self.sizes[mine]
            scaled[:, mine] *= np.where(held > 0, self.sizes[mine].sum() / np.where(held > 0, held, 1.0), 1.0)[:, None]
        return scaled

    def slices(self, first: float, last: float) -> FloatArray:
        """Multiplicities of the part of every trajectory between two fractions of it, shape=(n_blocks,)."""
        begin, end = self.spans.T
        inside = (np.minimum(end, last) - np.maximum(begin, first)).clip(min=0.0) / (end - begin)
        return self.normalised(inside[None])[0]

    def draws(self, n: int, seed: int) -> FloatArray:
        """Multiplicities of bootstrap samples, shape=(n, n_blocks), drawn within each stratum.

        Their scatter is widened for what few and short blocks lose: the variance of m blocks by m / (m - 1), and
        what correlates across their ends.
        """
        rng, drawn = named_rng(seed, "block bootstrap"), np.empty((n, len(self.stratum)))
        spread = np.empty(len(self.stratum))
        for s, correlation in enumerate(self.correlation):
            mine = np.flatnonzero(self.stratum == s)
            m = len(mine)
            drawn[:, mine] = rng.multinomial(m, np.full(m, 1.0 / m), size=n)
            spread[mine] = np.sqrt(m / (m - 1) / (1.0 - 0.5 * min(float(correlation), 1.0)))
        return 1.0 + spread * (self.normalised(drawn) - 1.0)


@dataclass(frozen=True)
class Density:
    """An estimated density on a grid.

    Attributes:
        probability: shape=(n_0, ...), of each bin; zero where nothing was sampled; they sum to one.
        sampled: shape=(n_0, ...), whether a frame lies in the bin, or within about a bandwidth of it.
        bandwidths: shape=(d,), in the units of the axes; zero for the histogram.
        counts: what it was made of.
    """

    probability: FloatArray
    sampled: BoolArray
    bandwidths: FloatArray
    counts: BlockCounts

    def of(self, multiplicities: FloatArray, chunk: int = 10) -> FloatArray:
        """The probabilities with every block taken so many times, shape=(n_replicates, n_0, ...)."""
        parts = [multiplicities[i : i + chunk] for i in range(0, len(multiplicities), chunk)]
        fractions = self.bandwidths / self.counts.grid.lengths
        return np.concatenate([_probabilities(self.counts, part, fractions, self.sampled) for part in parts])

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
    counts: BlockCounts, multiplicities: FloatArray, fractions: FloatArray, sampled: BoolArray
) -> FloatArray:
    fine = counts.tilt * counts.grid.smooth(counts.cells.combine(multiplicities), fractions)
    bins = np.where(sampled, counts.grid.coarse(fine), 0.0)
    return bins / bins.sum(axis=tuple(range(1, bins.ndim)), keepdims=True)


def local_weights(grid: FineGrid, frames: FloatArray, log_sums: FloatArray) -> FloatArray:
    """The weight that is usual in each cell of the fine grid: a local geometric mean, shape=(size,).

    A kernel that smooths weights as they are carries those of a basin up a barrier. Divided by what is usual in their
    place, and multiplied by it afterwards, they leave little to carry.

    Args:
        grid: the fine grid.
        frames: shape=(size,), samples in each cell.
        log_sums: shape=(size,), sums of their log-weights.
    """
    means = np.full(grid.size, log_sums.sum() / frames.sum())
    for bandwidth in reversed(TILTS):
        bandwidths = np.full(len(grid.axes), bandwidth)
        near, sums = grid.smooth(np.stack([frames, log_sums]), bandwidths)
        known = near * grid.kernel_volume(bandwidths) > 1e-3
        means[known] = sums[known] / near[known]
    return np.exp(means.clip(min=LEAST_TILT))


def _folds(counts: BlockCounts) -> IntArray:
    """The fold of each block: consecutive ones of every stratum."""
    fold = np.empty(len(counts.stratum), dtype=np.int64)
    for s in range(len(counts.correlation)):
        mine = np.flatnonzero(counts.stratum == s)
        fold[mine] = np.arange(len(mine)) * min(FOLDS, len(mine)) // len(mine)
    return fold


def _cross_validated(counts: BlockCounts) -> FloatArray:
    """Bandwidths, as fractions of the axes, of the greatest held-out likelihood."""
    fold, grid = _folds(counts), counts.grid
    parts = np.stack([np.asarray(counts.cells.blocks[fold == f].sum(axis=0)).ravel() for f in range(fold.max() + 1)])
    rest = parts.sum(axis=0) - parts
    usable = rest.sum(axis=1) > 0.0
    parts, rest = parts[usable], rest[usable]
    # a share of the even density keeps one far frame from deciding everything
    even = 1.0 / len(counts.stratum)

    def score(bandwidths: FloatArray) -> float:
        density = grid.smooth(rest, bandwidths).clip(min=0.0)
        density /= density.sum(axis=1, keepdims=True)
        density = (1 - even) * density + even / density.shape[1]
        return float((parts * np.log(density)).sum())

    d = len(grid.axes)
    best = max((np.full(d, h) for h in BANDWIDTHS), key=score)
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


def estimate_density(counts: BlockCounts, method: Method = "kde") -> Density:
    """Estimate the density of weighted samples.

    Args:
        counts: of the samples, in blocks.
        method: kde, its bandwidths from cross-validation over consecutive blocks and narrowed a little, or histogram.

    Raises:
        InputError: no sample with a weight lies on the grid.
    """
    grid, d = counts.grid, len(counts.grid.axes)
    if not counts.frames.any():
        raise InputError("no frame with a weight lies inside the range of the surface: widen it")
    fractions = np.zeros(d) if method == "histogram" else UNDERSMOOTHING * _cross_validated(counts)
    near = grid.smooth(counts.frames[None], fractions) * grid.kernel_volume(fractions)
    sampled = grid.coarse(near)[0] >= (1.0 if method == "histogram" else REFINEMENT**d)
    probability = _probabilities(counts, np.ones((1, len(counts.stratum))), fractions, sampled)[0].clip(min=0.0)
    return Density(probability, sampled & (probability > 0.0), fractions * grid.lengths, counts)
