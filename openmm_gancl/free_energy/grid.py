"""Grids over one or two coordinates: which bin a value lies in, and kernels as multipliers of a series on a finer grid.

A kernel is a multiplier of the Fourier series (von Mises, periodic axes) or of the cosine series (Gaussian that the
ends reflect), so that smoothing costs one transform, whatever the number of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import dct, idct, irfft, rfft
from scipy.special import ive

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
        bins = np.floor((column - axis[0]) / (axis[-1] - axis[0]) * n).astype(np.int64)
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


class FineGrid:
    """A grid finer than the result's: counting, smoothing, adding up to the bins of the result.

    Args:
        edges: bin edges of the result, one array a coordinate.
        periods: shape=(d,), ``inf`` where there is none.
    """

    def __init__(self, edges: Sequence[FloatArray], periods: FloatArray):
        self.axes = [_Axis(axis, bool(np.isfinite(period))) for axis, period in zip(edges, periods, strict=True)]
        self.periods = periods
        self.edges = [np.linspace(axis.edges[0], axis.edges[-1], axis.n_fine + 1) for axis in self.axes]
        self.shape = tuple(axis.n_fine for axis in self.axes)
        self.size = int(np.prod(self.shape))

    @property
    def lengths(self) -> FloatArray:
        """Of the axes, shape=(d,)."""
        return np.array([axis.length for axis in self.axes])

    def index(self, values: FloatArray) -> IntArray:
        """Flat fine bin of each row, -1 outside."""
        return bin_indices(values, self.edges, self.periods)

    def smooth(self, fields: FloatArray, bandwidths: FloatArray) -> FloatArray:
        """Fields, shape=(n, size), under the kernel; a linear map, which may leave tiny negative values."""
        shaped = fields.reshape(-1, *self.shape)
        for i, (axis, bandwidth) in enumerate(zip(self.axes, bandwidths, strict=True)):
            shaped = axis.smooth(shaped, i + 1, float(bandwidth))
        return np.asarray(shaped.reshape(len(fields), -1))

    def coarse(self, fields: FloatArray) -> FloatArray:
        """Fields, shape=(n, size), added up to bins of the result, shape=(n, n_0, ...)."""
        pairs = [part for n in self.shape for part in (n // REFINEMENT, REFINEMENT)]
        return np.asarray(fields.reshape(-1, *pairs).sum(axis=tuple(range(2, 2 * len(self.shape) + 1, 2))))

    def fine(self, field: FloatArray) -> FloatArray:
        """A field on the result's bins, shape=(n_0, ...), repeated on the fine ones, shape=(size,)."""
        for axis in range(field.ndim):
            field = field.repeat(REFINEMENT, axis=axis)
        return field.ravel()

    def kernel_volume(self, bandwidths: FloatArray) -> float:
        """Fine bins under a kernel of height one."""
        delta = np.zeros((1, self.size))
        middle = np.ravel_multi_index([n // 2 for n in self.shape], self.shape)
        delta[0, middle] = 1.0
        return 1.0 / float(self.smooth(delta, bandwidths)[0, middle])
