"""A smooth first estimate of a density: what a kernel then smooths is the ratio of counts to it.

A kernel alone is narrow, for its bias grows with the curvature of the density, and a narrow one leaves the noise. Where
a smooth estimate comes first, the ratio of the counts to it is nearly even and bears a broad kernel (Hjort and Glad
1995, doi 10.1214/aos/1176324627). Here it is a log-Gaussian Cox process whose length the evidence chooses; for other
counts (held-out data, a bootstrap replicate) it moves by one Newton step, so that its own noise is in the error bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve
from scipy.sparse import csr_array

from ..units import FloatArray, IntArray
from .block_counts import BlockCounts
from .cox_process import MAX_ORDER, Basis, CoxFit, axis_functions, basis_of_factors, fit_cox_process
from .grid import FineGrid

MOST_BINS = {1: 480, 2: 72}
"""Along an axis, that the process is fitted to."""

BINS_OF_CLUMPS = 12
"""Along an axis, in which the scatter of blocks says how many frames count as one."""

PRIOR_STDS = (0.5, 2.0, 10.0)
"""Prior standard deviations of the log-density; the evidence chooses."""

SHORTER = 0.5
"""Times the length of most evidence, so that the bias of the estimate stays below its noise."""

LARGEST_LOG = 600.0


def _pooled(fields: FloatArray, grid: FineGrid, shape: Sequence[int]) -> FloatArray:
    """Fields, shape=(n, size), added up to fewer cells, shape=(n, n_cells)."""
    shaped = fields.reshape(-1, *grid.shape)
    for axis, (fine, coarse) in enumerate(zip(grid.shape, shape, strict=True)):
        shaped = np.add.reduceat(shaped, _first_cells(fine, coarse), axis=axis + 1)
    return np.asarray(shaped.reshape(len(fields), -1))


def _first_cells(fine: int, coarse: int) -> IntArray:
    return -(np.arange(coarse) * fine // -coarse)


def _frames_to_one(counts: BlockCounts) -> float:
    """How many counts are as good as one independent: the variance of the sums of blocks over their mean.

    Blocks are independent of each other; that their frames are not, and that some weigh more, is in their scatter.
    """
    grid = counts.grid
    axes = [np.arange(n) * BINS_OF_CLUMPS // n for n in grid.shape]
    bins = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), [BINS_OF_CLUMPS] * len(axes)).ravel()
    pool = csr_array((np.ones(grid.size), (np.arange(grid.size), bins)), shape=(grid.size, BINS_OF_CLUMPS ** len(axes)))
    sums = csr_array(counts.cells.blocks @ pool).toarray()
    variance, total = 0.0, float(sums.sum())
    for s in range(len(counts.correlation)):
        mine = sums[counts.stratum == s]
        variance += float(((mine - mine.mean(axis=0)) ** 2).sum()) * len(mine) / max(len(mine) - 1, 1)
    return max(variance / total, 1.0)


@dataclass(frozen=True)
class FirstEstimate:
    """A smooth density, up to a factor, of some counts.

    Attributes:
        grid: the fine grid.
        counts: shape=(n_cells,), of the fit.
        clump: how many of them are as good as one independent.
        fit: to these cells.
        fine: the functions of the fit on the fine grid.
    """

    grid: FineGrid
    counts: FloatArray
    clump: float
    fit: CoxFit
    fine: Basis

    @classmethod
    def of(cls, counts: BlockCounts) -> "FirstEstimate":
        """Fitted to all counts."""
        grid, d = counts.grid, len(counts.grid.shape)
        shape = tuple(min(MOST_BINS[d], n) for n in grid.shape)
        axes = [axis_functions(n, float(p), MAX_ORDER[d]) for n, p in zip(grid.shape, grid.periods, strict=True)]
        functions, waves = zip(*axes, strict=True)
        means = []
        for axis, coarse in zip(functions, shape, strict=True):
            first = _first_cells(len(axis), coarse)
            means.append(np.add.reduceat(axis, first) / np.diff(first, append=len(axis))[:, None])
        basis = basis_of_factors(means, waves, grid.periods)
        cells = counts.cells.combine(np.ones((1, len(counts.stratum)))).clip(min=0.0)
        clump, (found,) = _frames_to_one(counts), _pooled(cells, grid, shape)
        with np.errstate(divide="ignore"):
            data = basis, found, clump * found, np.log(_pooled(grid.reached()[None], grid, shape)[0])
        fits = {std: fit_cox_process(*data, prior_std=std) for std in PRIOR_STDS}
        std = max(PRIOR_STDS, key=lambda one: fits[one].evidence)
        fit = fit_cox_process(*data, lengths=(SHORTER * fits[std].length,), prior_std=std)
        return cls(grid, found, clump, fit, basis_of_factors(functions, waves, grid.periods))

    def densities(self, cells: FloatArray) -> FloatArray:
        """Of other counts on the fine grid, shape=(n, size), each moved by one Newton step and scaled to its total."""
        found = _pooled(cells, self.grid, self.fit.basis.shape)
        scales = found.sum(axis=1, keepdims=True) / self.counts.sum()
        slopes = self.fit.basis.projections(found / scales - self.counts) / self.clump
        coefficients = self.fit.coefficients + cho_solve((self.fit.factor, True), slopes.T).T
        return np.asarray(np.exp(self.fine.sums(coefficients).clip(max=LARGEST_LOG)))
