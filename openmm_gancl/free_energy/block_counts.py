"""Frames, a piece at a time, to the weighted counts of their blocks on a grid and in boxes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.sparse import csr_array, vstack

from ..coordinates.basin import Basin
from ..engine.random_numbers import named_rng
from ..trajectories.blocks import Blocks
from ..trajectories.series import Series
from ..units import BoolArray, FloatArray, IntArray
from .cox_process import edge_modes
from .grid import FineGrid

CHUNK_SIZE = 65_536
"""Frames in one batch."""

MIN_LOG_WEIGHT = -300.0
"""Logarithm of the least weight over the highest one; frames below it do not count."""

REACH_OF_ONE, MOST_OVER_USUAL = 0.02, 3.0
"""Around a cell, as a fraction of an axis, where the highest of weights over the usual ones counts; and how far its
logarithm may exceed what is found around most frames: one frame among some of no weight would decide everything."""

TILT_BANDWIDTHS = (0.02, 0.06, 0.2)
"""Bandwidths, as fractions of an axis, of the local mean of log-weights; the broader ones where no frame is near."""

PARTS_OF_SCATTER, ENOUGH_TOGETHER = (144, 72, 36, 18), 0.3
"""Along an axis, in which frames are compared for their scatter; and degrees of freedom a frame that suffice for it."""

BEYOND_CHANCE = 2.0
"""Standard deviations of mere chance, that differences of means exceed it by if they count."""

FEWEST_NEAR = 1e-3
"""Frames under a kernel of height one, below which none is near."""


@dataclass(frozen=True)
class _Piece:
    """Some frames: their cells on the fine grid, -1 where they do not count, log-weights, and values."""

    values: FloatArray
    cells: IntArray
    log_weights: FloatArray

    @property
    def counted(self) -> BoolArray:
        return np.asarray(self.cells >= 0)

    def weights(self, boxes: Sequence[Basin]) -> FloatArray:
        """Inside each box, and everywhere, shape=(n, n_boxes + 1)."""
        inside = [*(box.contains(self.values) for box in boxes), np.ones(len(self.values), dtype=bool)]
        return np.asarray(np.exp(self.log_weights)[:, None] * np.stack(inside, axis=1))

    def over_tilt(self, tilt: FloatArray) -> FloatArray:
        """Weights over what is usual in their cells; zero where they do not count."""
        return np.where(self.counted, np.exp(self.log_weights) / tilt[self.cells], 0.0)


@dataclass(frozen=True)
class _Frames:
    """The frames used, with their weights, on a grid."""

    series: Series
    blocks: Blocks
    grid: FineGrid
    log_weights: FloatArray | None
    highest: float

    def read(self, frames: IntArray, used: slice) -> _Piece:
        """Frames of the series; the same, counted from the first one used."""
        values = np.asarray(self.series.values[frames, : len(self.grid.axes)], dtype=float)
        logs = np.zeros(len(values)) if self.log_weights is None else self.log_weights[used] - self.highest
        logs = np.where(logs > MIN_LOG_WEIGHT, logs, -np.inf)
        return _Piece(values, np.where(np.isfinite(logs), self.grid.index(values), -1), logs)

    def groups(self) -> Iterator[tuple[int, int]]:
        """Consecutive blocks of about a piece together, first and after the last; at least one."""
        ends, first = np.cumsum(self.blocks.sizes), 0
        while first < len(ends):
            begun = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, begun + CHUNK_SIZE, side="right")), first + 1)
            yield first, last
            first = last

    def pieces(self, first: int, last: int) -> Iterator[tuple[_Piece, IntArray]]:
        """The frames of some blocks, and the block of each, counted from the first."""
        sizes = self.blocks.sizes[first:last]
        frames, block = self.blocks.frames(first, last), np.repeat(np.arange(last - first), sizes)
        begun = int(self.blocks.sizes[:first].sum())
        for i in range(0, len(frames), CHUNK_SIZE):
            part = slice(i, i + CHUNK_SIZE)
            yield self.read(frames[part], slice(begun + i, begun + i + len(frames[part]))), block[part]


def _near(grid: FineGrid, fields: FloatArray, bandwidth: float) -> tuple[FloatArray, FloatArray]:
    """Fields, shape=(n, size), under a kernel of height one, and where the first, of counts, is any to speak of."""
    bandwidths = np.full(len(grid.axes), bandwidth)
    sums = grid.smooth(fields, bandwidths) * grid.kernel_volume(bandwidths)
    return sums, sums[0] > FEWEST_NEAR


def _not_far_over(grid: FineGrid, frames: FloatArray, weights: FloatArray, usual: FloatArray) -> FloatArray:
    """Logarithms of usual weights, shape=(size,), raised where a frame weighs far more over them than others do.

    Args:
        grid: the fine grid.
        frames: shape=(size,), samples in each cell.
        weights: shape=(size,), their sums.
        usual: shape=(size,), log-weights.
    """
    with np.errstate(divide="ignore"):
        over = (np.log(weights / frames.clip(min=1.0)) - usual).reshape(grid.shape)
    reach = [2 * math.ceil(REACH_OF_ONE * n) + 1 for n in grid.shape]
    highest = maximum_filter(over, reach, mode=edge_modes(grid.periods)).ravel()
    order = np.argsort(highest)
    middle = order[np.searchsorted(np.cumsum(frames[order]), 0.5 * frames.sum())]
    return np.asarray(usual + (highest - highest[middle] - MOST_OVER_USUAL).clip(min=0.0))


def _inside(grid: FineGrid, frames: FloatArray, sums: FloatArray, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared deviations within parts of the grid and their degrees of freedom, spread over its cells, shape=(size,).

    Parts are cells where enough frames share one, else as much larger as that takes.
    """
    finest = max(grid.shape)
    for n_parts in (finest, *(n for n in PARTS_OF_SCATTER if n < finest)):
        axes = [np.arange(n) * n_parts // n for n in grid.shape]
        part = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), [n_parts] * len(axes)).ravel()
        n, total, squared = (np.bincount(part, field) for field in (frames, sums, squares))
        degrees = (n - 1.0).clip(min=0.0)
        if degrees.sum() > ENOUGH_TOGETHER * frames.sum():
            break
    deviations, shares = (squared - total**2 / n.clip(min=1.0)).clip(min=0.0), frames / n.clip(min=1.0)[part]
    return deviations[part] * shares, degrees[part] * shares


def _local_means(grid: FineGrid, frames: FloatArray, sums: FloatArray, squares: FloatArray) -> FloatArray:
    """The local mean of log-weights, shape=(size,): a narrower one counts by how far it differs beyond scatter.

    What samples in one cell differ by is scatter; as large as the differences of means that it makes, it would be
    kept as if it were a feature of the weights, and no error bar would show it (shrinkage as by Efron and Morris 1973,
    doi 10.2307/2284155).
    """
    means, scatter = np.full(grid.size, sums.sum() / frames.sum()), np.zeros(grid.size)
    fields = np.stack([frames, sums, *_inside(grid, frames, sums, squares)])
    broader = 1.0
    for bandwidth in reversed(TILT_BANDWIDTHS):
        (near, smoothed, within, freedom), known = _near(grid, fields, bandwidth)
        scatter = np.where(freedom > 1.0, within / freedom.clip(min=1.0), scatter)
        difference = np.where(known, smoothed / near.clip(min=FEWEST_NEAR) - means, 0.0)
        noise = np.where(known, scatter / near.clip(min=FEWEST_NEAR), 0.0)
        (around, moved, expected), _ = _near(
            grid, frames * np.stack([np.ones(grid.size), difference**2, noise]), broader
        )
        places = (around / near.clip(min=1.0)).clip(min=1.0)  # that are independent, and tell what was moved
        expected *= 1.0 + BEYOND_CHANCE * np.sqrt(2.0 / places)
        share = (1.0 - expected / moved.clip(min=np.finfo(float).tiny)).clip(min=0.0, max=1.0)
        means, broader = means + share * difference, bandwidth
    return means


def _usual_weights(frames: _Frames) -> tuple[FloatArray, FloatArray]:
    """Number of samples, and the weight that is usual, in each cell of the fine grid: a local geometric mean.

    A kernel that smooths weights as they are carries those of a basin up a barrier. Divided by what is usual in their
    place, and multiplied by it afterwards, they leave little to carry.
    """
    size = frames.grid.size
    number, weights, sums, squares = np.zeros((4, size))
    for first, last in frames.groups():
        for piece, _ in frames.pieces(first, last):
            cells, logs = piece.cells[piece.counted], piece.log_weights[piece.counted]
            number += np.bincount(cells, minlength=size)
            if frames.log_weights is not None:
                for total, part in ((weights, np.exp(logs)), (sums, logs), (squares, logs**2)):
                    total += np.bincount(cells, part, minlength=size)
    if frames.log_weights is None or not number.any():
        return number, np.ones(size)
    usual = _not_far_over(frames.grid, number, weights, _local_means(frames.grid, number, sums, squares))
    return number, np.exp(usual.clip(min=MIN_LOG_WEIGHT))


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
        alike: whether all samples weigh the same.
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
    alike: bool

    def normalised(self, multiplicities: FloatArray) -> FloatArray:
        """Scaled so that every stratum keeps its number of samples; an empty stratum stays as it was."""
        scaled = np.array(multiplicities, dtype=float)
        alone = len(self.correlation) == 1
        for s in range(len(self.correlation)):
            mine = slice(None) if alone else self.stratum == s  # a slice copies nothing
            present = scaled[:, mine] @ self.sizes[mine]
            factors = np.where(present > 0, self.sizes[mine].sum() / np.where(present > 0, present, 1.0), 1.0)
            scaled[:, mine] *= factors[:, None]
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
class Response:
    """How weights follow when free energies of windows change (see `MBAR`).

    Attributes:
        influence: shape=(n_blocks, n_windows), of each block on the windows' reduced free energies.
        responsibilities: shape=(n_windows, n_samples), of each window for each sample.
    """

    influence: FloatArray
    responsibilities: csr_array


def count_blocks(
    series: Series,
    blocks: Blocks,
    grid: FineGrid,
    *,
    log_weights: FloatArray | None = None,
    response: Response | None = None,
    boxes: Sequence[Basin] = (),
) -> BlockCounts:
    """Weighted counts of every block on the fine grid and in boxes.

    Args:
        series: its first columns are the coordinates of the grid.
        blocks: the frames used.
        grid: the fine grid.
        log_weights: shape=(n_used,), of the frames used, in order; None if all are alike.
        response: of the weights to the free energies of windows.
        boxes: regions in the coordinates.
    """
    highest = 0.0 if log_weights is None else float(log_weights.max())
    frames = _Frames(series, blocks, grid, log_weights, highest)
    number, tilt = _usual_weights(frames)
    counts, boxed = [], np.zeros((len(blocks.start), len(boxes) + 1))
    for first, last in frames.groups():
        shape, group = (last - first, grid.size), csr_array((last - first, grid.size))
        for piece, block in frames.pieces(first, last):
            group = group + csr_array((piece.over_tilt(tilt), (block, piece.cells.clip(min=0))), shape=shape)
            for box, weights in enumerate(piece.weights(boxes).T):
                boxed[first:last, box] += np.bincount(block, weights, minlength=last - first)
        counts.append(group)
    cells, regions = Rows(vstack(counts, format="csr"), None, None), Rows(boxed, None, None)
    if response is not None:
        piece = frames.read(blocks.frames(), slice(None))
        pointer = np.arange(len(piece.cells) + 1)
        places = csr_array(
            (piece.over_tilt(tilt), piece.cells.clip(min=0), pointer), shape=(len(pointer) - 1, grid.size)
        )
        cells = Rows(cells.blocks, response.responsibilities @ places, response.influence)
        regions = Rows(boxed, response.responsibilities @ piece.weights(boxes), response.influence)
    return BlockCounts(
        grid=grid,
        cells=cells,
        boxes=regions,
        tilt=tilt,
        frames=number,
        stratum=blocks.stratum,
        sizes=blocks.sizes,
        spans=blocks.spans,
        correlation=blocks.correlation,
        alike=log_weights is None or float(np.ptp(log_weights)) == 0.0,
    )
