"""Grids over one or two coordinates: which bin a value lies in, and kernels as multipliers of a series on a finer grid.

A kernel is a multiplier of the Fourier series (von Mises, periodic axes) or of the cosine series (Gaussian that the
ends of the samples reflect), so that smoothing costs one transform, whatever the number of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import dct, idct, irfft, rfft
from scipy.special import ive, ndtr

from ..units import FloatArray, IntArray

REFINEMENT = 4
"""Fine bins to a bin of the result, along an axis."""


def bin_indices(values: FloatArray, edges: Sequence[FloatArray], periods: FloatArray) -> IntArray:
    """Flat index of the even bin that each row lies in, -1 outside.

    Args:
        values: shape=(n, d).
        edges: of each axis; a periodic axis spans one period.
        periods: shape=(d,), ``inf`` where there is none; such an axis includes its upper end.
    """
    flat = np.zeros(len(values), dtype=np.int64)
    inside = np.ones(len(values), dtype=bool)
    for column, axis, period in zip(values.T, edges, periods, strict=True):
        n = len(axis) - 1
        finite = np.isfinite(column)
        bins = np.floor((np.where(finite, column, axis[0]) - axis[0]) / (axis[-1] - axis[0]) * n).astype(np.int64)
        inside &= finite
        if np.isfinite(period):
            bins %= n
        else:
            bins[column == axis[-1]] = n - 1
        inside &= (bins >= 0) & (bins < n)
        flat = flat * n + bins
    return np.where(inside, flat, -1)


def bin_centres(edges: Sequence[FloatArray]) -> FloatArray:
    """The centre of every bin, shape=(n_bins, d), in the order of the flat index."""
    centres = np.meshgrid(*(0.5 * (axis[1:] + axis[:-1]) for axis in edges), indexing="ij")
    return np.stack([axis.ravel() for axis in centres], axis=1)


@dataclass(frozen=True)
class _Axis:
    """Fine cells along a coordinate: those of the bins, and where samples lie beyond an open end, some more.

    Attributes:
        edges: of the bins.
        periodic: whether the ends are joined.
        before: cells below the lowest bin.
        after: cells above the highest.
        reach: first of the cells that samples lie in, and the one after the last: the ends that reflect.
    """

    edges: FloatArray
    periodic: bool
    before: int = 0
    after: int = 0
    reach: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, edges: FloatArray, periodic: bool, span: FloatArray) -> "_Axis":
        """The axis of samples that span this interval."""
        n = REFINEMENT * (len(edges) - 1)
        if periodic:
            return cls(edges, True, reach=(0, n))
        cell, most = (edges[-1] - edges[0]) / n, n // 4
        beyond = np.array([edges[0] - span[0], span[1] - edges[-1]]) / cell
        before, after = np.where(beyond < 0.99, 0, np.ceil(beyond - 1e-6)).astype(int).clip(0, most).tolist()
        empty, spare = np.floor(-beyond + 1e-6).astype(int).clip(0, n - 1).tolist()
        return cls(edges, False, before, after, (empty, max(before + n + after - spare, empty + 1)))

    @property
    def cell(self) -> float:
        return float(self.edges[-1] - self.edges[0]) / (REFINEMENT * (len(self.edges) - 1))

    @property
    def length(self) -> float:
        """Of what samples lie in."""
        return self.cell * (self.reach[1] - self.reach[0])

    @property
    def n_fine(self) -> int:
        return self.before + REFINEMENT * (len(self.edges) - 1) + self.after

    @property
    def bins(self) -> slice:
        """The cells of the bins."""
        return slice(self.before, self.n_fine - self.after)

    @property
    def fine_edges(self) -> FloatArray:
        low, high = self.edges[0] - self.before * self.cell, self.edges[-1] + self.after * self.cell
        return np.linspace(low, high, self.n_fine + 1)

    def multiplier(self, bandwidth: float) -> FloatArray:
        """Of the series' coefficients; the bandwidth is a fraction of the axis."""
        if self.periodic:
            strength = (2 * np.pi * bandwidth) ** -2.0
            return np.asarray(ive(np.arange(self.n_fine // 2 + 1), strength) / ive(0, strength))
        return np.asarray(np.exp(-0.5 * (np.pi * np.arange(self.reach[1] - self.reach[0]) * bandwidth) ** 2))

    @property
    def walls(self) -> tuple[bool, bool]:
        """Whether bins end where samples do, enough of them in the last fine cell: at a wall, not in a tail."""
        return self.before == 0 == self.reach[0], self.after == 0 and self.reach[1] == self.n_fine

    def _without_slope(self, smoothed: FloatArray, bandwidth: float, low: bool) -> FloatArray:
        """Give back what a density with a slope at a wall loses to the reflected kernel, to first order.

        With h the bandwidth and u the distance from the wall over h that is 2 h f' (phi(u) - u Phi(-u)); the slope f'
        is that between 1.5 and 3.5 h (Jones 1993, doi 10.1007/BF00147776, on such corrections).
        """
        n = smoothed.shape[-1]
        h = bandwidth * n
        near, far = (min(int(factor * h), n // 2) for factor in (1.5, 3.5))
        if far <= near:
            return smoothed
        outward = smoothed if low else smoothed[..., ::-1]
        slope = (outward[..., far] - outward[..., near]) / (far - near)
        u = (np.arange(n) + 0.5) / h
        loss = 2 * h * (np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi) - u * ndtr(-u))
        return np.asarray(smoothed - slope[..., None] * (loss if low else loss[::-1]))

    def smooth(self, fields: FloatArray, axis: int, bandwidth: float, sloped: bool = False) -> FloatArray:
        if bandwidth == 0.0:
            return fields
        shape = [1] * fields.ndim
        multiplier = self.multiplier(bandwidth)
        shape[axis] = len(multiplier)
        if self.periodic:
            return np.asarray(irfft(rfft(fields, axis=axis) * multiplier.reshape(shape), self.n_fine, axis=axis))
        where = (*[slice(None)] * axis, slice(*self.reach))
        smoothed = idct(dct(fields[where], axis=axis) * multiplier.reshape(shape), axis=axis)
        if sloped and any(self.walls):
            smoothed = np.moveaxis(smoothed, axis, -1)
            for low in (low for low, wall in zip((True, False), self.walls, strict=True) if wall):
                smoothed = self._without_slope(smoothed, bandwidth, low)
            smoothed = np.moveaxis(smoothed, -1, axis)
        if self.reach == (0, self.n_fine):
            return np.asarray(smoothed)
        whole = np.zeros(fields.shape)
        whole[where] = smoothed
        return whole


def open_edges(low: float, high: float, span: FloatArray, bins: int) -> FloatArray:
    """Edges of bins over about an interval, moved a little so that whole fine cells lead to where the samples end.

    Args:
        low: where the bins begin, about.
        high: where they end.
        span: shape=(2,), of the samples, around this interval.
        bins: how many.
    """
    n = REFINEMENT * bins
    cell, most = (high - low) / n, n // 4
    before, after = (min(int(part / cell), most) for part in (low - span[0], span[1] - high))
    low, high = max(float(span[0]), low - before * cell), min(float(span[1]), high + after * cell)
    cell = (high - low) / (before + n + after)
    return np.linspace(low + before * cell, high - after * cell, bins + 1)


class FineGrid:
    """A grid finer than the result's: counting, smoothing, adding up to the bins of the result.

    Args:
        edges: bin edges of the result, one array a coordinate.
        periods: shape=(d,), ``inf`` where there is none.
        spans: shape=(d, 2), of the samples; that of the edges by default. Where samples lie beyond the bins the grid
            goes on, so that the outermost bins are no ends to a kernel; where they end the kernel is reflected.
    """

    def __init__(self, edges: Sequence[FloatArray], periods: FloatArray, spans: FloatArray | None = None):
        if spans is None:
            spans = np.array([axis[[0, -1]] for axis in edges])
        self.axes = [
            _Axis.of(axis, bool(np.isfinite(period)), span)
            for axis, period, span in zip(edges, periods, spans, strict=True)
        ]
        self.periods = periods
        self.edges = [axis.fine_edges for axis in self.axes]
        self.shape = tuple(axis.n_fine for axis in self.axes)
        self.size = int(np.prod(self.shape))

    @property
    def lengths(self) -> FloatArray:
        """Of what samples lie in along the axes, shape=(d,)."""
        return np.array([axis.length for axis in self.axes])

    def reached(self) -> FloatArray:
        """1 for the cells that samples lie in, between the ends that reflect, 0 for the others; shape=(size,)."""
        field = np.ones(1)
        for axis in self.axes:
            inside = np.zeros(axis.n_fine)
            inside[slice(*axis.reach)] = 1.0
            field = np.multiply.outer(field, inside)
        return field.ravel()

    def index(self, values: FloatArray) -> IntArray:
        """Flat fine bin of each row, -1 outside."""
        return bin_indices(values, self.edges, self.periods)

    def smooth(self, fields: FloatArray, bandwidths: FloatArray, sloped: bool = False) -> FloatArray:
        """Fields, shape=(n, size), under the kernel; a linear map, which may leave tiny negative values.

        Args:
            fields: shape=(n, size).
            bandwidths: shape=(d,), fractions of the axes.
            sloped: keep the slope that densities have at a wall, which the reflected kernel takes from them.
        """
        shaped = fields.reshape(-1, *self.shape)
        for i, (axis, bandwidth) in enumerate(zip(self.axes, bandwidths, strict=True)):
            shaped = axis.smooth(shaped, i + 1, float(bandwidth), sloped)
        return np.asarray(shaped.reshape(len(fields), -1))

    def coarse(self, fields: FloatArray) -> FloatArray:
        """Fields, shape=(n, size), added up to bins of the result, shape=(n, n_0, ...)."""
        shaped = fields.reshape(-1, *self.shape)[(slice(None), *(axis.bins for axis in self.axes))]
        pairs = [part for axis in self.axes for part in (len(axis.edges) - 1, REFINEMENT)]
        return np.asarray(shaped.reshape(-1, *pairs).sum(axis=tuple(range(2, 2 * len(self.shape) + 1, 2))))

    def fine(self, field: FloatArray) -> FloatArray:
        """A field on the result's bins, shape=(n_0, ...), repeated on the fine ones, shape=(size,); zero beyond."""
        for axis in range(field.ndim):
            field = field.repeat(REFINEMENT, axis=axis)
        return np.pad(field, [(axis.before, axis.after) for axis in self.axes]).ravel()

    def kernel_volume(self, bandwidths: FloatArray) -> float:
        """Fine bins under a kernel of height one."""
        delta = np.zeros((1, self.size))
        middle = np.ravel_multi_index([sum(axis.reach) // 2 for axis in self.axes], self.shape)
        delta[0, middle] = 1.0
        return 1.0 / float(self.smooth(delta, bandwidths)[0, middle])
