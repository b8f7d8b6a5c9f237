"""Nearest neighbours of many points, and the sparse graph that they make."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ..units import FloatArray, IntArray

MAX_EXACT_POINTS = 5_000
"""Points; among more, neighbours are searched in the nearest cells of a partition (about 1 in 1,000 is missed, of
200,000 points in 45 dimensions 5 in 1,000)."""

POINTS_PER_CELL, N_PASSES, SAMPLES_PER_CELL = 100, 4, 30
"""Points in a cell of the partition; k-means passes that place the cells, and points a cell that these use."""

N_PROBED_CELLS, PROBED_CELLS_PER_DECADE = 9, 8
"""Cells that are searched among 10,000 points; and more for each tenfold, since in small cells the data have more
dimensions."""

MIN_THREADED_POINTS = 50_000
"""Points; with fewer, steps are so short that threads would only wait for one another."""

MAHALANOBIS_CHUNK = 2_000_000
"""Pairs of the Mahalanobis metric in one batch."""


class NeighbourIndex:
    """Points, indexed for searches of the nearest of them.

    Args:
        points: shape=(n, d).
    """

    def __init__(self, points: FloatArray):
        import faiss

        self.origin = points.mean(axis=0)
        centred = self._single(points)
        n, d = centred.shape
        self.index: Any = faiss.IndexFlatL2(d)
        threads = faiss.omp_get_max_threads()
        if n < MIN_THREADED_POINTS:
            faiss.omp_set_num_threads(1)
        if n > MAX_EXACT_POINTS:
            self.index = faiss.IndexIVFFlat(self.index, d, n // POINTS_PER_CELL)
            self.index.nprobe = round(N_PROBED_CELLS + PROBED_CELLS_PER_DECADE * np.log10(n / 10_000))
            self.index.cp.niter, self.index.cp.min_points_per_centroid = N_PASSES, 1
            self.index.train(centred[:: max(n // (SAMPLES_PER_CELL * (n // POINTS_PER_CELL)), 1)])
        self.index.add(centred)
        faiss.omp_set_num_threads(threads)
        self.n = n

    def _single(self, points: FloatArray) -> Any:
        return np.ascontiguousarray(points - self.origin, dtype=np.float32)

    def order(self) -> IntArray:
        """An order in which near points are next to each other, shape=(n,), for locality in memory."""
        if not hasattr(self.index, "quantizer"):
            return np.arange(self.n)
        lists = self.index.invlists
        import faiss

        cells = [faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(self.index.nlist)]
        return np.concatenate(cells)

    def nearest(self, points: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Squared distances and indices of the nearest, shape=(n, k) each, nearest first."""
        squared, index = self.index.search(self._single(points), min(k, self.n))
        # a partition whose cells hold too few leaves places open: they repeat the nearest, infinitely far
        return np.where(index < 0, np.inf, squared.clip(min=0.0)).astype(float), np.where(
            index < 0, index[:, :1], index
        )


def mahalanobis_neighbours(points: FloatArray, covariances: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """Neighbours by local covariances (Singer et al. 2009, doi 10.1073/pnas.0905547106).

    d_ij^2 = (x_i - x_j)^T (C_i^+ + C_j^+) (x_i - x_j) / 2; every pair is computed.

    Args:
        points: shape=(n, d).
        covariances: shape=(n, d, d), of short bursts from each point.
        k: neighbours of each.
    """
    n, _ = points.shape
    inverses = np.linalg.pinv(covariances, hermitian=True)
    squared, index = np.empty((n, min(k, n))), np.empty((n, min(k, n)), dtype=np.int64)
    own = np.einsum("na,nab,nb->n", points, inverses, points)
    transformed = np.einsum("nab,nb->na", inverses, points)
    step = max(MAHALANOBIS_CHUNK // n, 1)
    for i in range(0, n, step):
        part = points[i : i + step]
        # (x - y)^T A (x - y) for the metric at either end
        here = np.einsum("jb,iab,ja->ij", points, inverses[i : i + step], points, optimize=True)
        here += own[i : i + step, None] - 2.0 * transformed[i : i + step] @ points.T
        there = np.einsum("ia,jab,ib->ij", part, inverses, part, optimize=True) + own - 2.0 * part @ transformed.T
        distances = (0.5 * (here + there)).clip(min=0.0)
        chosen = np.argpartition(distances, min(k, n) - 1, axis=1)[:, : min(k, n)]
        found = np.take_along_axis(distances, chosen, axis=1)
        order = found.argsort(axis=1)
        squared[i : i + step], index[i : i + step] = (np.take_along_axis(a, order, axis=1) for a in (found, chosen))
    return squared, index


def symmetric_graph(squared: FloatArray, index: IntArray) -> csr_array:
    """Squared distances of pairs of which one is among the other's neighbours; explicit zeros on the diagonal.

    Args:
        squared: shape=(n, k), infinite where there is no neighbour.
        index: shape=(n, k).
    """
    n = len(index)
    own = np.arange(n, dtype=np.int32)
    # itself first, whether or not it was found; a stored value is one higher, so that a distance of zero is an entry
    there = np.column_stack([np.ones(n, dtype=bool), np.isfinite(squared) & (index != own[:, None])])
    columns = np.column_stack([own, index.astype(np.int32)])[there]
    values = np.column_stack([np.ones(n), squared + 1.0])[there]
    ends = np.concatenate([[0], there.sum(axis=1).cumsum()]).astype(np.int32)
    graph = csr_array((values, columns, ends), shape=(n, n))
    graph = csr_array(graph.maximum(graph.T.tocsr()))
    graph.data -= 1.0
    return graph
