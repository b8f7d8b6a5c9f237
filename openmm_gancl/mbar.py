"""The multistate Bennett acceptance ratio for many windows that see only their neighbours.

Shirts & Chodera 2008, doi 10.1063/1.2978177. The reduced biases are kept as a sparse matrix: a window that lies far
above another one at a frame adds nothing there. The likelihood is convex, and Newton's method with a line search
converges from anywhere in a few steps, each as cheap as the windows' overlap.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from .errors import InputError
from .units import FloatArray, IntArray

REACH = 100.0
"""kT above a frame's lowest bias at which a window is taken not to see the frame."""

NEGLIGIBLE = 1e-9
"""Responsibility below which a window does not enter the curvature."""

LEAST_OVERLAP = 1e-3
"""Fraction of one window's frames that another one must explain, for the two to count as neighbours."""

TOLERANCE = 1e-8
MOST_STEPS = 100


@dataclass(frozen=True)
class MBAR:
    """The solution.

    Attributes:
        free_energies: shape=(n_windows,), reduced (kT), of each window; the first is zero.
        log_weights: shape=(n_frames,), that undo the mixture of all windows, up to one constant.
        responsibilities: shape=(n_frames, n_windows), sparse; each row sums to one.
        counts: shape=(n_windows,), frames of each window.
        steps: of Newton's method.
    """

    free_energies: FloatArray
    log_weights: FloatArray
    responsibilities: csr_array
    counts: IntArray
    steps: int

    @property
    def overlap(self) -> FloatArray:
        """Overlap matrix, shape=(n_windows, n_windows): rows sum to one (Klimovich, Shirts, Mobley 2015).

        Entry (i, j) is the chance that a frame of window i might as well be one of window j; doi
        10.1007/s10822-015-9840-9.
        """
        return np.asarray((self.responsibilities.T @ self.responsibilities).toarray() / self.counts[:, None])

    def groups(self) -> IntArray:
        """Windows that hang together by their overlap, shape=(n_windows,): the group of each."""
        return np.asarray(connected_components(self.overlap > LEAST_OVERLAP, directed=False)[1])


class _Likelihood:
    """Of window free energies f, given sparse biases; terms of a frame relative to its own largest."""

    def __init__(self, biases: FloatArray, counts: IntArray):
        lowest = biases.min(axis=1, keepdims=True)
        keep = biases - lowest < REACH
        rows, self.columns = np.nonzero(keep)
        self.log_terms = -biases[keep]
        self.pointer = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
        self.shape, self.counts, self.rows = biases.shape, counts, rows

    def log_sums(self, f: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log sum_k N_k exp(f_k - u_kn), shape=(n,), and the logarithms of its terms."""
        terms = self.log_terms + (f + np.log(self.counts))[self.columns]
        highest = np.maximum.reduceat(terms, self.pointer[:-1])
        sums = np.add.reduceat(np.exp(terms - highest[self.rows]), self.pointer[:-1])
        return np.asarray(highest + np.log(sums)), np.asarray(terms, dtype=float)

    def value(self, f: FloatArray) -> float:
        """-log likelihood."""
        return float(self.log_sums(f)[0].sum() - self.counts @ f)

    def responsibilities(self, f: FloatArray) -> csr_array:
        log_sums, terms = self.log_sums(f)
        return csr_array((np.exp(terms - log_sums[self.rows]), self.columns, self.pointer), shape=self.shape)


def _step(responsibilities: csr_array, counts: IntArray) -> tuple[FloatArray, FloatArray]:
    """Newton's step and the gradient; the first window stays where it is."""
    total = np.asarray(responsibilities.sum(axis=0)).ravel()
    gradient = np.asarray(total - counts, dtype=float)
    near = responsibilities.copy()
    near.data[near.data < NEGLIGIBLE] = 0.0
    near.eliminate_zeros()
    curvature = np.diag(total) - (near.T @ near).toarray()
    # windows that nothing connects leave their offset free
    curvature[np.diag_indices_from(curvature)] += 1e-10 * counts.mean()
    step = np.zeros(len(counts))
    step[1:] = -cho_solve(cho_factor(curvature[1:, 1:]), gradient[1:])
    return step, gradient


def solve_mbar(biases: FloatArray, counts: IntArray) -> MBAR:
    """Free energies of windows from frames of all of them.

    Args:
        biases: shape=(n_frames, n_windows), reduced bias (kT) of every window at every frame.
        counts: shape=(n_windows,), frames that each window was sampled with, at least one.

    Raises:
        InputError: a window without frames, or a bias that is not a number.
    """
    biases, counts = np.asarray(biases, dtype=float), np.asarray(counts, dtype=np.int64)
    if biases.shape != (counts.sum(), len(counts)):
        raise InputError(f"biases of shape {biases.shape} for {counts.sum()} frames in {len(counts)} windows")
    if (counts < 1).any():
        raise InputError(f"window {int(counts.argmin())} holds no frame: leave it out, or sample it")
    if not np.isfinite(biases).all():
        row, column = np.argwhere(~np.isfinite(biases))[0]
        raise InputError(f"the bias of window {column} at frame {row} is not a finite number: remove the frame")
    likelihood = _Likelihood(biases, counts)
    f = np.zeros(len(counts))
    value = likelihood.value(f)
    for steps in range(MOST_STEPS):  # noqa: B007  # the count is part of the result
        step, gradient = _step(likelihood.responsibilities(f), counts)
        if np.abs(gradient).max() < TOLERANCE * counts.sum() and np.abs(step).max() < 1e-6:
            break
        size = 1.0
        while (trial := likelihood.value(f + size * step)) > value + 1e-4 * size * (gradient @ step) + 1e-9 * abs(
            value
        ):
            size *= 0.5
            if size < 1e-8:
                break
        f, value = f + size * step, trial
    log_sums, _ = likelihood.log_sums(f)
    return MBAR(f - f[0], -log_sums, likelihood.responsibilities(f), counts, steps)
