"""Densities on a grid from weighted, correlated samples: histogram and kernel estimates, errors by block bootstrap.

Samples are first counted on a grid finer than the result's. A kernel is then a multiplier of its Fourier (von Mises,
periodic axes) or cosine series (Gaussian that the ends reflect), so that a bootstrap replicate costs one transform.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.fft import dct, idct, irfft, rfft
from scipy.sparse import coo_array, csr_array
from scipy.special import ive

from .errors import InputError
from .units import FloatArray, IntArray

Method = Literal["kde", "histogram"]

REFINEMENT = 4
"""Fine bins to a bin of the result, along an axis."""

FOLDS = 10
"""Of the cross-validation, each of consecutive blocks."""

BANDWIDTHS = np.geomspace(0.004, 0.2, 15)
"""Candidates, as fractions of an axis."""

UNDERSMOOTHING = 0.7
"""Of the bandwidth of least held-out loss, so that its bias, which no bootstrap shows, stays below the error bar."""


@dataclass(frozen=True)
class Density:
    """An estimated density on a grid.

    Attributes:
        probability: shape=(n_0, ...), of each bin; they sum to one.
        replicates: shape=(n_bootstrap, n_0, ...), the same of bootstrap samples.
        sampled: shape=(n_0, ...), whether a frame lies in the bin, or within about a bandwidth of it.
        bandwidths: shape=(d,), in the units of the axes; zero for the histogram.
        spread: factor by which deviations of the replicates are too small, blocks being few and short.
    """

    probability: FloatArray
    replicates: FloatArray
    sampled: np.ndarray
    bandwidths: FloatArray
    spread: float


@dataclass(frozen=True)
class _Axis:
    edges: FloatArray
    periodic: bool

    @property
    def length(self) -> float:
        return float(self.edges[-1] - self.edges[0])

    @property
    def n_fine(self) -> int:
        return REFINEMENT * (len(self.edges) - 1)

    def multiplier(self, bandwidth: float) -> FloatArray:
        """Of the series' coefficients; the bandwidth is a fraction of the axis."""
        if self.periodic:
            strength = (2 * np.pi * bandwidth) ** -2.0
            return np.asarray(ive(np.arange(self.n_fine // 2 + 1), strength) / ive(0, strength))
        return np.asarray(np.exp(-0.5 * (np.pi * np.arange(self.n_fine) * bandwidth) ** 2))

    def smooth(self, fields: FloatArray, axis: int, bandwidth: float) -> FloatArray:
        if bandwidth == 0.0:
            return fields
        shape = [1] * fields.ndim
        multiplier = self.multiplier(bandwidth)
        shape[axis] = len(multiplier)
        if self.periodic:
            return np.asarray(irfft(rfft(fields, axis=axis) * multiplier.reshape(shape), self.n_fine, axis=axis))
        return np.asarray(idct(dct(fields, axis=axis) * multiplier.reshape(shape), axis=axis))


class _Grid:
    """The fine grid: counting, smoothing, adding up to the bins of the result."""

    def __init__(self, edges: Sequence[FloatArray], periods: FloatArray):
        self.axes = [_Axis(axis, bool(np.isfinite(period))) for axis, period in zip(edges, periods, strict=True)]
        self.shape = tuple(axis.n_fine for axis in self.axes)

    def index(self, values: FloatArray) -> IntArray:
        """Flat fine bin of each row, -1 outside."""
        flat = np.zeros(len(values), dtype=np.int64)
        inside = np.ones(len(values), dtype=bool)
        for column, axis in zip(values.T, self.axes, strict=True):
            bins = np.floor((column - axis.edges[0]) / axis.length * axis.n_fine).astype(np.int64)
            if axis.periodic:
                bins %= axis.n_fine
            else:
                bins[column == axis.edges[-1]] = axis.n_fine - 1
            inside &= (bins >= 0) & (bins < axis.n_fine)
            flat = flat * axis.n_fine + bins
        return np.where(inside, flat, -1)

    def smooth(self, fields: FloatArray, bandwidths: FloatArray) -> FloatArray:
        """Fields, shape=(n, n_fine), under the kernel; never negative."""
        shaped = fields.reshape(-1, *self.shape)
        for i, (axis, bandwidth) in enumerate(zip(self.axes, bandwidths, strict=True)):
            shaped = axis.smooth(shaped, i + 1, float(bandwidth))
        return np.asarray(shaped.reshape(len(fields), -1).clip(min=0.0))

    def coarse(self, fields: FloatArray) -> FloatArray:
        """Fields, shape=(n, n_fine), added up to bins of the result, shape=(n, n_0, ...)."""
        pairs = [part for n in self.shape for part in (n // REFINEMENT, REFINEMENT)]
        return np.asarray(fields.reshape(-1, *pairs).sum(axis=tuple(range(2, 2 * len(self.shape) + 1, 2))))

    def kernel_volume(self, bandwidths: FloatArray) -> float:
        """Fine bins under a kernel of height one."""
        delta = np.zeros((1, int(np.prod(self.shape))))
        middle = np.ravel_multi_index([n // 2 for n in self.shape], self.shape)
        delta[0, middle] = 1.0
        return 1.0 / float(self.smooth(delta, bandwidths)[0, middle])


def _cross_validated(grid: _Grid, blocks: csr_array) -> FloatArray:
    """Bandwidths, as fractions of the axes, of the greatest held-out likelihood."""
    n_blocks = blocks.shape[0]
    fold = np.arange(n_blocks) * min(FOLDS, n_blocks) // n_blocks
    parts = np.stack([np.asarray(blocks[fold == f].sum(axis=0)).ravel() for f in range(fold.max() + 1)])
    rest = parts.sum(axis=0) - parts
    usable = rest.sum(axis=1) > 0.0
    parts, rest = parts[usable], rest[usable]
    # a share of the even density keeps one far frame from deciding everything
    even = 1.0 / n_blocks

    def score(bandwidths: FloatArray) -> float:
        density = grid.smooth(rest, bandwidths)
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


def estimate_density(
    values: FloatArray,
    weights: FloatArray,
    block: IntArray,
    edges: Sequence[FloatArray],
    periods: FloatArray,
    *,
    method: Method = "kde",
    correlation: float = 0.0,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Density:
    """Estimate the density of weighted samples and its bootstrap replicates.

    Args:
        values: shape=(n, d), d of 1 or 2.
        weights: shape=(n,), not negative.
        block: shape=(n,), of consecutive frames that one bootstrap draw keeps together, numbered from 0.
        edges: the bin edges of each axis; a periodic axis spans one period.
        periods: shape=(d,), ``inf`` where an axis has none.
        method: kde, its bandwidths from cross-validation over consecutive blocks and narrowed a little, or histogram.
        correlation: statistical inefficiency over the length of a block: what is lost at the blocks' ends.
        n_bootstrap: replicates.
        seed: of the bootstrap.

    Raises:
        InputError: no sample with a weight lies on the grid, or there are fewer than two blocks.
    """
    grid = _Grid(edges, periods)
    index = grid.index(values)
    used = (index >= 0) & (weights > 0.0)
    n_blocks = int(block.max(initial=-1)) + 1
    if not used.any():
        raise InputError("no frame with a weight lies inside the range of the surface: widen it")
    if n_blocks < 2:
        raise InputError("all frames make one independent block, so there is no error bar: give longer trajectories")
    n_fine = int(np.prod(grid.shape))
    entries = (weights[used] / weights[used].sum(), (block[used], index[used]))
    blocks = csr_array(coo_array(entries, shape=(n_blocks, n_fine)))
    d, lengths = len(grid.axes), np.array([axis.length for axis in grid.axes])
    fractions = np.zeros(d) if method == "histogram" else UNDERSMOOTHING * _cross_validated(grid, blocks)

    def density(fine: FloatArray) -> FloatArray:
        bins = grid.coarse(grid.smooth(fine, fractions))
        return bins / bins.reshape(len(bins), -1).sum(axis=1).reshape(-1, *[1] * d)

    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=n_bootstrap).astype(float)
    chunks = [density(np.asarray(draws[i : i + 10] @ blocks)) for i in range(0, n_bootstrap, 10)]
    frames = np.bincount(index[used], minlength=n_fine)[None].astype(float)
    near = grid.smooth(frames, fractions) * grid.kernel_volume(fractions)
    return Density(
        probability=density(np.asarray(blocks.sum(axis=0)).reshape(1, -1))[0],
        replicates=np.concatenate(chunks),
        sampled=grid.coarse(near)[0] >= (1.0 if method == "histogram" else REFINEMENT**d),
        bandwidths=fractions * lengths,
        spread=float(np.sqrt(n_blocks / (n_blocks - 1) / (1.0 - 0.5 * min(correlation, 1.0)))),
    )
