"""Leading eigenvectors of a diffusion, whose eigenvalues crowd at one.

Lanczos' method is slow there, so it gets a polynomial of the matrix instead: a Chebyshev polynomial that is small over
the bulk of the spectrum and grows above it (Saad 1984, doi 10.1090/S0025-5718-1984-0736453-8; Zhou, Saad, Tiago &
Chelikowsky 2006, doi 10.1016/j.jcp.2006.03.017). The eigenvectors stay the same.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import eigh, eigh_tridiagonal
from scipy.sparse import csr_array
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from ..engine.random_numbers import named_rng
from ..engine.tasks import available_workers
from ..errors import InputError
from ..units import FloatArray

MAX_DENSE_ROWS = 400
"""Rows of a matrix that is diagonalised whole."""

N_PROBE_STEPS, SPECTRUM_MARGIN = 30, 0.01
"""Lanczos steps that estimate the ends of the spectrum; how far the lowest eigenvalue may lie below the estimate."""

FILTER_GROWTH, MAX_FILTER_DEGREE = 2.0, 50
"""Logarithm by which the polynomial lifts the eigenvalue one above the bulk; its degree, at most."""

MAX_STEPS, CHECK_EVERY, N_SEARCH_STEPS = 200, 8, 16
"""Lanczos steps of a pass; steps from check to check; steps that search for an eigenvector that was missed."""

TOLERANCE, RESIDUAL_TOLERANCE, MAX_PASSES = 1e-3, 3e-3, 8
"""Of a pass, relative to the spread of the eigenvalues requested; of residuals, relative to one minus the last
eigenvalue; passes until they are met."""

FILTER_THRESHOLD = 0.3
"""An eigenvalue below it is far enough from one for Lanczos' method as it is."""

MAX_THREADS = 4
"""Of a product, which the memory limits."""

CANCELLATION_THRESHOLD = 0.1
"""Of a vector's norm that orthogonalising leaves: below it is done once more."""

REMEDY = "choose fewer coordinates, or raise n_neighbors or the bandwidth"


class _Product:
    """Products with a matrix in single precision: less to read, and its rows shared out among threads."""

    dtype = np.float32

    def __init__(self, matrix: csr_array):
        n_parts = min(available_workers(), MAX_THREADS)
        cuts = np.searchsorted(matrix.indptr, np.linspace(0, matrix.nnz, n_parts + 1)[1:-1])
        data, self.parts = matrix.data.astype(np.float32), []
        for low, high in pairwise([0, *cuts.tolist(), matrix.shape[0]]):
            ends = matrix.indptr[low : high + 1]
            rows = slice(ends[0], ends[-1])
            part = (data[rows], matrix.indices[rows], ends - ends[0])
            self.parts.append(csr_array(part, shape=(high - low, matrix.shape[1])))
        self.threads = ThreadPoolExecutor(n_parts)

    def __matmul__(self, vector: Any) -> Any:
        others = [self.threads.submit(part.__matmul__, vector) for part in self.parts[1:]]
        return np.concatenate([self.parts[0] @ vector, *(other.result() for other in others)])


def _chebyshev(matrix: Any, lowest: float, bulk: float) -> Callable[[Any], Any]:
    """Multiplies with the Chebyshev polynomial of the matrix that stays within one from ``lowest`` to ``bulk``."""
    bulk = min(max(bulk, lowest + SPECTRUM_MARGIN), 1.0 - 1e-6)
    centre, half = 0.5 * (lowest + bulk), 0.5 * (bulk - lowest)
    degree = min(max(round(FILTER_GROWTH / float(np.arccosh((1.0 - centre) / half))), 1), MAX_FILTER_DEGREE)

    def multiply(vector: Any) -> Any:
        before, now = vector, (matrix @ vector - centre * vector) / half
        for _ in range(degree - 1):
            before, now = now, (matrix @ now - centre * now) * (2.0 / half) - before
        return now

    return multiply


def _without(known: FloatArray, multiply: Callable[[Any], Any], dtype: Any) -> Callable[[Any], Any]:
    """A product whose image has no part along orthonormal vectors, shape=(n_rows, n_known)."""
    if not known.shape[1]:
        return multiply
    rounded = known.astype(dtype)

    def projected(vector: Any) -> Any:
        image = multiply(vector)
        return image - rounded @ (rounded.T @ image)

    return projected


def _lanczos(
    multiply: Callable[[Any], Any], start: Any, n: int, steps: int, tolerance: float
) -> tuple[FloatArray, Any]:
    """All eigenvalues in the Krylov space, increasing, and the vectors of the n greatest, shape=(n_rows, n)."""
    basis, diagonal, off_diagonal = np.empty((steps, len(start)), start.dtype), np.empty(steps), np.empty(steps)
    vector = start / np.linalg.norm(start)
    for j in range(steps):
        basis[j] = vector
        vector = multiply(vector)
        diagonal[j], before = basis[j] @ vector, np.linalg.norm(vector)
        vector -= (basis[: j + 1] @ vector) @ basis[: j + 1]
        if np.linalg.norm(vector) < CANCELLATION_THRESHOLD * before:
            # what is left may be rounding alone: twice is enough (Giraud, Langou, Rozloznik 2005)
            vector -= (basis[: j + 1] @ vector) @ basis[: j + 1]
        off_diagonal[j] = np.linalg.norm(vector)
        vector /= max(off_diagonal[j], 1e-30)
        last = j == steps - 1
        if last or (j >= 2 * n and j % CHECK_EVERY == 0):
            values, ritz = eigh_tridiagonal(diagonal[: j + 1], off_diagonal[:j])
            residuals = np.abs(off_diagonal[j] * ritz[-1, -n:])
            if last or residuals.max() <= tolerance * (values[-1] - values[-n]):
                break
    return values, (ritz[:, -n:].T.astype(start.dtype) @ basis[: j + 1]).T


def _rayleigh_ritz(matrix: csr_array, vectors: Any, n: int) -> tuple[FloatArray, FloatArray, float]:
    """The n best eigenpairs in the span of the vectors, and the greatest norm of a residual."""
    vectors = np.linalg.qr(vectors.astype(float))[0]
    image = matrix @ vectors
    values, mixing = np.linalg.eigh(vectors.T @ image)
    values, mixing = values[: -n - 1 : -1], mixing[:, : -n - 1 : -1]
    vectors, image = vectors @ mixing, image @ mixing
    return values, vectors, float(np.linalg.norm(image - vectors * values, axis=0).max())


def _by_restarts(matrix: csr_array, n: int, start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where the last eigenvalues are so low that a Krylov space may be exhausted before it holds them."""
    try:
        values, vectors = eigsh(matrix, k=n, which="LA", v0=start, tol=1e-6)
    except ArithmeticError as error:
        raise InputError(f"the eigenvectors did not converge ({error}): {REMEDY}") from None
    return values[::-1], vectors[:, ::-1]


def _in_passes(matrix: csr_array, n: int, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    # the next pass corrects what single precision left
    products: Any = _Product(matrix)
    start = generator.normal(size=matrix.shape[0])
    ends, vectors = _lanczos(products.__matmul__, start.astype(np.float32), n, max(N_PROBE_STEPS, 2 * n), 0.0)
    if ends[-n] < FILTER_THRESHOLD:
        return _by_restarts(matrix, n, start)
    # by interlacing, the n-th eigenvalue in a subspace is never above the n-th of the matrix; were it equal, its
    # polynomial would not exceed the bulk's
    lowest, bulk = float(ends[0]) - SPECTRUM_MARGIN, float(ends[-n]) - 0.1 * (1.0 - float(ends[-n]))
    known, start = np.empty((len(start), 0)), vectors.sum(axis=1)
    for attempt in range(MAX_PASSES):
        polynomial, steps = _chebyshev(products, lowest, bulk), max(MAX_STEPS, 8 * n)
        multiply = _without(known, polynomial, products.dtype)
        _, vectors = _lanczos(multiply, start.astype(products.dtype), n, steps, TOLERANCE * 0.1**attempt)
        values, vectors, residual = _rayleigh_ritz(matrix, np.hstack([known, vectors]), n)
        if residual > RESIDUAL_TOLERANCE * max(1.0 - values[-1], 1e-8):
            # so near to one that the polynomial was too flat to separate them: now it grows just below the last
            products, bulk, known, start = matrix, 2.0 * values[-1] - 1.0, known[:, :0], vectors.sum(axis=1)
            continue
        multiply, start = _without(vectors, polynomial, products.dtype), generator.normal(size=len(start))
        _, found = _lanczos(multiply, multiply(start.astype(products.dtype)), 1, N_SEARCH_STEPS, 0.0)
        start = found[:, 0].astype(float)
        if start @ (matrix @ start) <= values[-1] * (start @ start):
            return values, vectors
        # of a degenerate eigenvalue, a Krylov space holds one vector: the next pass searches where there was none yet
        known = vectors
    raise InputError(f"the eigenvectors did not converge (residual {residual:.0e}): {REMEDY}")


def leading_eigenpairs(matrix: csr_array, n: int) -> tuple[FloatArray, FloatArray]:
    """The greatest eigenvalues, decreasing, shape=(n,), and orthonormal eigenvectors, shape=(n_rows, n).

    Args:
        matrix: symmetric, shape=(n_rows, n_rows), of eigenvalues between -1 and 1, the greatest of them one.
        n: how many.

    Raises:
        InputError: the eigenvectors did not converge.
    """
    n_rows = matrix.shape[0]
    if n_rows <= max(MAX_DENSE_ROWS, 8 * n):
        values, vectors = eigh(matrix.toarray(), subset_by_index=[n_rows - n, n_rows - 1])
        return values[::-1], vectors[:, ::-1]
    # threads of the short dense products would only wait for one another, and take the cores of the sparse ones
    with threadpool_limits(1, user_api="blas"):
        return _in_passes(matrix, n, named_rng(0, "fixed", "start vectors"))
