"""Frames, a piece at a time, to the weighted counts of their blocks on a grid and in boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, vstack

from .density import BlockCounts, Response, Rows, local_weights
from .grid import FineGrid
from .system import Basin
from .trajectories import Blocks, Series
from .units import BoolArray, FloatArray, IntArray

PIECE = 65_536
"""Frames looked at together."""


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

    def look(self, frames: IntArray, used: slice) -> _Piece:
        """Frames of the series; the same, counted from the first one used."""
        values = np.asarray(self.series.values[frames, : len(self.grid.axes)], dtype=float)
        logs = np.zeros(len(values)) if self.log_weights is None else self.log_weights[used] - self.highest
        return _Piece(values, np.where(np.isfinite(logs), self.grid.index(values), -1), logs)

    def groups(self) -> Iterator[tuple[int, int]]:
        """Consecutive blocks of about a piece together, first and after the last; at least one."""
        ends, first = np.cumsum(self.blocks.sizes), 0
        while first < len(ends):
            begun = ends[first - 1] if first else 0
            last = max(int(np.searchsorted(ends, begun + PIECE, side="right")), first + 1)
            yield first, last
            first = last

    def pieces(self, first: int, last: int) -> Iterator[tuple[_Piece, IntArray]]:
        """The frames of some blocks, and the block of each, counted from the first."""
        sizes = self.blocks.sizes[first:last]
        frames, block = self.blocks.frames(first, last), np.repeat(np.arange(last - first), sizes)
        begun = int(self.blocks.sizes[:first].sum())
        for i in range(0, len(frames), PIECE):
            part = slice(i, i + PIECE)
            yield self.look(frames[part], slice(begun + i, begun + i + len(frames[part]))), block[part]


def _usual_weights(frames: _Frames) -> tuple[FloatArray, FloatArray]:
    """Number of samples and usual weight of each cell."""
    size = frames.grid.size
    number, log_sums = np.zeros(size), np.zeros(size)
    for first, last in frames.groups():
        for piece, _ in frames.pieces(first, last):
            cells = piece.cells[piece.counted]
            number += np.bincount(cells, minlength=size)
            log_sums += np.bincount(cells, piece.log_weights[piece.counted], minlength=size)
    if frames.log_weights is None or not number.any():
        return number, np.ones(size)
    return number, local_weights(frames.grid, number, log_sums)


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
            np.add.at(boxed, first + block, piece.weights(boxes))
        counts.append(group)
    cells, regions = Rows(vstack(counts, format="csr"), None, None), Rows(boxed, None, None)
    if response is not None:
        piece = frames.look(blocks.frames(), slice(None))
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
    )
