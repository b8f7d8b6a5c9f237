"""The multistate Bennett acceptance ratio for many windows that see only their neighbours.

Shirts & Chodera 2008, doi 10.1063/1.2978177. The reduced biases are kept as a sparse matrix: a window that lies far
above another one at a frame adds nothing there. The likelihood is convex, and Newton's method with a line search
converges from anywhere in a few steps, each as cheap as the windows' overlap.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, vstack
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from ..errors import InputError
from ..units import FloatArray, IntArray

BIAS_CUTOFF, SHIFTED_BIAS_CUTOFF = 100.0, 25.0
"""kT above a frame's lowest bias beyond which a window's bias is left out: of plain biases, and of biases shifted by
free energies."""

MIN_RESPONSIBILITY = 1e-6
"""Responsibility below which a window does not enter the curvature and the overlap."""

ROWS_AT_ONCE = 1000
"""Frames whose responsibilities are multiplied at once."""

MIN_OVERLAP = 1e-3
"""Fraction of one window's frames that another one must explain, for the two to count as neighbours."""

TOLERANCE = 1e-8
"""Of a window's frames, that its responsibilities may differ from their number."""

MAX_ITERATIONS = 100

MIN_STEP_FRACTION = 0.1
"""Of Newton's step; where less of it is taken, the self-consistent one is tried too."""


@dataclass(frozen=True)
class MBAR:
    """The solution.

    Attributes:
        free_energies: shape=(n_windows,), reduced (kT), of each window; the first is zero.
        log_weights: shape=(n_frames,), that undo the mixture of all windows, up to one constant.
        responsibilities: shape=(n_frames, n_windows), sparse; each row sums to one.
        products: shape=(n_windows, n_windows), of the responsibilities of two windows, summed over the frames.
        counts: shape=(n_windows,), frames of each window.
        steps: of Newton's method.
    """

    free_energies: FloatArray
    log_weights: FloatArray
    responsibilities: csr_array
    products: FloatArray
    counts: IntArray
    steps: int

    @property
    def overlap(self) -> FloatArray:
        """Overlap matrix, shape=(n_windows, n_windows): rows sum to one (Klimovich, Shirts, Mobley 2015).

        Entry (i, j) is the chance that a frame of window i might as well be one of window j; doi
        10.1007/s10822-015-9840-9.
        """
        return self.products / self.counts[:, None]

    def groups(self) -> IntArray:
        """Connected components of the windows by their overlap, shape=(n_windows,): the group of each."""
        return np.asarray(connected_components(self.overlap > MIN_OVERLAP, directed=False)[1])

    def weakest_link(self) -> tuple[int, int, float]:
        """Two windows and their overlap: the least of the spanning tree of largest overlaps."""
        overlap = np.minimum(self.overlap, self.overlap.T)
        tree = minimum_spanning_tree(-np.log(overlap.clip(min=1e-300)) + 1e-12).tocoo()
        worst = int(tree.data.argmax())
        first, second = sorted((int(tree.row[worst]), int(tree.col[worst])))
        return first, second, float(overlap[first, second])

    def influence(self, block_sums: FloatArray) -> FloatArray:
        """What each block of frames does to the free energies, to first order, shape=(n_blocks, n_windows).

        Args:
            block_sums: shape=(n_blocks, n_windows), responsibilities of each block's frames, less its frames in each
                window; a block that counts twice adds its row to the gradient of the likelihood.
        """
        curvature = _curvature(self.products, self.counts)
        moved = np.zeros(block_sums.shape)
        moved[:, 1:] = -cho_solve(cho_factor(curvature[1:, 1:]), block_sums[:, 1:].T).T
        return moved


@dataclass(frozen=True)
class _Point:
    """The likelihood at one set of free energies; log_sums: log sum_k N_k exp(f_k - u_kn), shape=(n,)."""

    value: float
    log_sums: FloatArray
    terms: FloatArray


class _Likelihood:
    """Of window free energies f, given sparse biases; terms of a frame relative to its own largest."""

    def __init__(self, biases: csr_array, counts: IntArray):
        self.biases, self.counts = biases, counts
        self.rows = np.repeat(np.arange(biases.shape[0], dtype=np.int32), np.diff(biases.indptr))

    def at(self, f: FloatArray) -> _Point:
        terms = (f + np.log(self.counts))[self.biases.indices] - self.biases.data
        highest = np.maximum.reduceat(terms, self.biases.indptr[:-1])
        sums = np.add.reduceat(np.exp(terms - highest[self.rows]), self.biases.indptr[:-1])
        log_sums = highest + np.log(sums)
        return _Point(float(log_sums.sum() - self.counts @ f), log_sums, terms)

    def responsibilities(self, point: _Point) -> csr_array:
        shares = np.exp(point.terms - point.log_sums[self.rows])
        return csr_array((shares, self.biases.indices, self.biases.indptr), shape=self.biases.shape)


def _products(responsibilities: csr_array) -> FloatArray:
    """Dense over the few windows that a batch of frames sees: its frames are most often of one window."""
    n_frames, n_windows = responsibilities.shape
    total, starts = np.zeros((n_windows, n_windows)), responsibilities.indptr
    for first in range(0, n_frames, ROWS_AT_ONCE):
        starts_here = starts[first : first + ROWS_AT_ONCE + 1]
        part, sizes = slice(starts_here[0], starts_here[-1]), np.diff(starts_here)
        near = responsibilities.data[part] >= MIN_RESPONSIBILITY
        windows = responsibilities.indices[part][near]
        seen = np.bincount(windows, minlength=n_windows) > 0
        columns, places = np.flatnonzero(seen), np.cumsum(seen) - 1
        dense = np.zeros((len(sizes), len(columns)))
        dense[np.repeat(np.arange(len(sizes)), sizes)[near], places[windows]] = responsibilities.data[part][near]
        total[np.ix_(columns, columns)] += dense.T @ dense
    return total


def _curvature(products: FloatArray, counts: IntArray) -> FloatArray:
    """Second derivatives of the likelihood at its maximum, where responsibilities add up to the counts."""
    curvature = np.diag(products.sum(axis=1)) - products
    # windows that nothing connects leave their offset free
    curvature[np.diag_indices_from(curvature)] += 1e-10 * counts.mean()
    return curvature


def _step(responsibilities: csr_array, counts: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Newton's step, the gradient and the products; the first window stays where it is."""
    gradient = np.asarray(responsibilities.sum(axis=0)).ravel() - counts.astype(float)
    step, products = np.zeros(len(counts)), _products(responsibilities)
    step[1:] = -cho_solve(cho_factor(_curvature(products, counts)[1:, 1:]), gradient[1:])
    return step, gradient, products


def sparse_biases(chunks: Iterable[FloatArray], near: FloatArray | None = None) -> csr_array:
    """Reduced biases (kT) of windows, kept only where they are not far above a frame's lowest one.

    Args:
        chunks: of consecutive frames, each of shape=(n, n_windows).
        near: shape=(n_windows,), free energies that are about right, which make the choice narrower.

    Raises:
        InputError: a bias that is not a finite number.
    """
    parts, begun = [], 0
    for chunk in chunks:
        biases = np.asarray(chunk, dtype=float)
        if not np.isfinite(biases).all():
            row, column = np.argwhere(~np.isfinite(biases))[0]
            raise InputError(
                f"the bias of window {column} at frame {begun + row} is not a finite number: remove the frame"
            )
        above = biases if near is None else biases - near
        keep = above - above.min(axis=1, keepdims=True) < (BIAS_CUTOFF if near is None else SHIFTED_BIAS_CUTOFF)
        pointer = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
        columns = np.nonzero(keep)[1].astype(np.int32)
        parts.append(csr_array((biases[keep], columns, pointer), shape=biases.shape))
        begun += len(biases)
    return csr_array(vstack(parts, format="csr"))


def solve_mbar(biases: FloatArray | csr_array, counts: IntArray, start: FloatArray | None = None) -> MBAR:
    """Free energies of windows from frames of all of them.

    Args:
        biases: shape=(n_frames, n_windows), reduced bias (kT) of every window at every frame; or `sparse_biases`.
        counts: shape=(n_windows,), frames that each window was sampled with, at least one.
        start: shape=(n_windows,), free energies to start from; zero by default, from where it converges as well.

    Raises:
        InputError: a window without frames, a bias that is not a number, or no convergence.
    """
    counts = np.asarray(counts, dtype=np.int64)
    if biases.shape != (counts.sum(), len(counts)):
        raise InputError(f"biases of shape {biases.shape} for {counts.sum()} frames in {len(counts)} windows")
    if (counts < 1).any():
        raise InputError(f"window {int(counts.argmin())} holds no frame: leave it out, or sample it")
    if not isinstance(biases, csr_array):
        biases = sparse_biases([biases])
    likelihood = _Likelihood(biases, counts)
    f = np.zeros(len(counts)) if start is None else np.asarray(start, dtype=float)
    point = likelihood.at(f)
    for steps in range(MAX_ITERATIONS):
        responsibilities = likelihood.responsibilities(point)
        step, gradient, products = _step(responsibilities, counts)
        if (np.abs(gradient) < TOLERANCE * counts).all():
            return MBAR(f - f[0], -point.log_sums, responsibilities, products, counts, steps)
        size, slope = 1.0, float(gradient @ step)
        trial = likelihood.at(f + step)
        while trial.value > point.value + 1e-4 * size * slope + 1e-9 * abs(point.value) and size > 1e-8:
            size *= 0.5
            trial = likelihood.at(f + size * step)
        step = size * step
        if size < MIN_STEP_FRACTION:
            # far away the curvature says little: the self-consistent step goes on
            consistent = np.log(counts / np.asarray(responsibilities.sum(axis=0)).ravel().clip(min=1e-300))
            other = likelihood.at(f + consistent)
            if other.value < trial.value:
                step, trial = consistent, other
        f, point = f + step, trial
    raise InputError(
        f"the free energies of {len(counts)} windows did not converge in {MAX_ITERATIONS} steps: "
        "check the centres and force constants of the windows, and their units"
    )
