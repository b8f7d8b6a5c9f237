"""Diffusion maps: slow coordinates as eigenvectors of a diffusion among neighbours.

Coifman & Lafon 2006, doi 10.1016/j.acha.2006.04.006. The kernel is exp(-d^2 / (4 eps)), so that the matrix P tends to
exp(eps L). What L is depends on ``alpha``, which says how much of the density q of the frames is divided out:

    alpha  L in a density q = exp(-U / kT)                           use
    0      graph Laplacian, drift -2 grad U / kT                     clusters
    1/2    Fokker-Planck, drift -grad U / kT                         kinetics of overdamped dynamics
    1      Laplace-Beltrami, no drift                                geometry, whatever the sampling
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..units import FloatArray, IntArray
from .eigenvectors import leading_eigenpairs
from .neighbours import NeighbourIndex, mahalanobis_neighbours, symmetric_graph

LOCAL_NEIGHBOUR = 8
"""The neighbour whose distance is a point's own scale in the self-tuning kernel (Zelnik-Manor & Perona 2004)."""

MIN_NEIGHBOURS = 12.0
"""Mean row sum of the kernel, at least; with fewer neighbours the coordinates are noise."""

MAX_BANDWIDTH_POINTS, MAX_BANDWIDTH_PAIRS = 2000, 2_000_000
"""Points, at most, that the bandwidth is chosen on, and pairs of them with their neighbours."""

MAX_DENSE_POINTS = 4000
"""Training points to all of which a new one is compared; among more, only to its neighbours."""

MAX_PAIRS = 20_000_000
"""New points times landmarks in one batch."""

MIN_KERNEL_VALUE = 1e-12
"""Kernel values below it do not connect, and count as zero."""

Bandwidth = float | Literal["auto", "self-tuning"]


@dataclass(frozen=True)
class BandwidthCurve:
    """How the kernel's sum grows with the bandwidth (Berry, Giannakis, Harlim 2015, doi 10.1103/PhysRevE.91.032915).

    Attributes:
        bandwidths: shape=(n,), eps.
        slopes: shape=(n,), d log S / d log eps; half the dimension where the kernel resolves it.
        sums: shape=(n,), mean row sum of the kernel: the neighbours that matter, the point itself included.
    """

    bandwidths: FloatArray
    slopes: FloatArray
    sums: FloatArray

    @property
    def choice(self) -> int:
        """Where the slope is greatest, among bandwidths under which enough neighbours matter."""
        enough = self.sums >= min(MIN_NEIGHBOURS, 0.5 * self.sums[-1])
        return int(np.where(enough, self.slopes, -np.inf).argmax())

    @property
    def best(self) -> float:
        """The bandwidth there."""
        return float(self.bandwidths[self.choice])

    @property
    def dimension(self) -> float:
        """Twice the slope there."""
        return float(2.0 * self.slopes[self.choice])


def bandwidth_curve(squared: FloatArray) -> BandwidthCurve:
    """Slopes over a range of bandwidths, from squared distances to neighbours, shape=(n, k), nearest first."""
    most = min(MAX_BANDWIDTH_POINTS, max(MAX_BANDWIDTH_PAIRS // squared.shape[1], 1))
    rows = squared[:: max(len(squared) // most, 1)]
    positive = rows[(rows > 0.0) & np.isfinite(rows)]
    if not len(positive):
        raise InputError("all frames are duplicates: sample frames that differ")
    farthest = float(np.median(np.where(np.isfinite(rows), rows, 0.0).max(axis=1)))
    bandwidths = np.geomspace(max(np.quantile(positive, 0.01), 1e-9 * farthest) / 8.0, farthest, 60)
    distances, slopes, sums = rows.astype(np.float32), np.empty_like(bandwidths), np.empty_like(bandwidths)
    for i, bandwidth in enumerate(bandwidths):
        # where there is no neighbour, infinity times a kernel of zero would be NaN
        scaled = np.minimum(distances * np.float32(0.25 / bandwidth), np.float32(1e4))
        kernel = np.exp(-scaled)
        sums[i] = kernel.sum(dtype=float)
        slopes[i] = (kernel * scaled).sum(dtype=float) / sums[i]
    return BandwidthCurve(bandwidths, slopes, sums / len(rows))


def checked_points(X: Any, least: int) -> FloatArray:
    """Points as a finite array, shape=(n, d), of which no feature is constant."""
    points = np.asarray(X, dtype=float)
    if points.ndim != 2:
        raise InputError(f"points of shape {points.shape}: give one row of features a frame")
    if len(points) < least:
        raise InputError(f"{len(points)} frames are too few for this map: give at least {least}")
    if not np.isfinite(points).all():
        raise InputError(f"frame {int((~np.isfinite(points)).any(axis=1).argmax())} holds NaN or infinity: remove it")
    if (points == points[0]).all():
        raise InputError("all frames are duplicates: sample frames that differ")
    constant = np.flatnonzero(np.ptp(points, axis=0) == 0.0)
    if len(constant):
        raise InputError(
            f"{len(constant)} of {points.shape[1]} features are constant, number {constant[0]} first: leave them out"
        )
    return points


def checked_weights(weights: Any, n: int) -> FloatArray:
    """Frame weights of mean one, shape=(n,)."""
    if weights is None:
        return np.ones(n)
    values = np.asarray(weights, dtype=float)
    if values.shape != (n,):
        raise InputError(f"weights of shape {values.shape} for {n} frames: give one a frame")
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError("weights are negative, not finite, or all zero: give exp(log-weights) of the frames")
    return values / values.mean()


def distinct(points: FloatArray) -> tuple[IntArray, IntArray]:
    """Which points differ, in their order, shape=(m,), and which of these each point is, shape=(n,)."""
    if len(np.unique(points[:, 0])) == len(points):
        return np.arange(len(points)), np.arange(len(points))
    _, first, index = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[index.ravel()]


class DiffusionMap:
    """A diffusion map of points, in the manner of scikit-learn.

    Args:
        n_coordinates: how many coordinates, the constant one not counted.
        alpha: 0, 1/2 or 1: how much of the density of points is taken out (all of it at 1).
        bandwidth: eps; ``auto`` where log S grows fastest; ``self-tuning`` with a scale of its own for each point.
        n_neighbors: neighbours of each point in the graph.
        n_landmarks: fit on so many of the points, each representing those next to it; all of them by default.
        seed: of the landmarks.

    Attributes:
        eigenvalues_: shape=(n_coordinates,), of P, decreasing, the trivial one left out.
        rates_: shape=(n_coordinates,), -log(eigenvalues) / eps: eigenvalues of -L.
        coordinates_: shape=(n, n_coordinates), of mean square one; the largest entry of each is positive.
        bandwidth_: eps.
        dimension_: that the bandwidth implies.
        curve_: of the choice of bandwidth.
        landmarks_: shape=(n_landmarks,), which points they are.
    """

    eigenvalues_: FloatArray
    rates_: FloatArray
    coordinates_: FloatArray
    bandwidth_: float
    dimension_: float
    curve_: BandwidthCurve
    landmarks_: IntArray

    def __init__(
        self,
        n_coordinates: int = 10,
        *,
        alpha: float = 1.0,
        bandwidth: Bandwidth = "auto",
        n_neighbors: int = 64,
        n_landmarks: int | None = None,
        seed: int = 0,
    ):
        self.n_coordinates = n_coordinates
        self.alpha = alpha
        self.bandwidth = bandwidth
        self.n_neighbors = n_neighbors
        self.n_landmarks = n_landmarks
        self.seed = seed

    def fit(self, X: Any, *, weights: Any = None, covariances: Any = None) -> "DiffusionMap":
        """Fit the map. Frames that are the same are one, with the sum of their weights.

        Args:
            X: shape=(n, d), features of frames.
            weights: shape=(n,), of frames from a biased run, up to a factor.
            covariances: shape=(n, d, d), of short bursts from each point, for the Mahalanobis metric.

        Raises:
            InputError: too few points, duplicates, constant features, impossible weights, or a graph in pieces.
        """
        points = checked_points(X, self.n_coordinates + 3)
        frame_weights = checked_weights(weights, len(points))
        if self.alpha not in (0.0, 0.5, 1.0):
            raise InputError(f"alpha is {self.alpha}: choose 0, 1/2 or 1")
        if covariances is not None and np.shape(covariances) != (*points.shape, points.shape[1]):
            raise InputError(f"covariances of shape {np.shape(covariances)} for points of {points.shape}: one a point")
        self._metric = None if covariances is None else np.asarray(covariances, dtype=float)
        kept = same = np.arange(len(points))
        if self._metric is None:
            kept, same = distinct(points)
            points = checked_points(points[kept], self.n_coordinates + 3)
            frame_weights = np.bincount(same, weights=frame_weights).astype(float)
        self.landmarks_, self._mass = self._landmarks(points, frame_weights)
        self._points = points[self.landmarks_]
        if self._metric is not None:
            self._metric = self._metric[self.landmarks_]
        self._solve()
        if len(self.landmarks_) < len(points):
            self.coordinates_ = self.transform(points)
        else:
            self.coordinates_ = np.empty_like(self._vectors)
            self.coordinates_[self.landmarks_] = self._vectors
        self.coordinates_, self.landmarks_ = self.coordinates_[same], kept[self.landmarks_]
        return self

    def _landmarks(self, points: FloatArray, weights: FloatArray) -> tuple[IntArray, FloatArray]:
        """Which points, and the weight of those that each represents."""
        n = len(points)
        if self.n_landmarks is None or self.n_landmarks >= n:
            return np.arange(n), weights
        if self.n_landmarks < self.n_coordinates + 3:
            raise InputError(f"{self.n_landmarks} landmarks are too few: give at least {self.n_coordinates + 3}")
        chosen = np.sort(named_rng(self.seed, "landmarks").choice(n, self.n_landmarks, replace=False))
        nearest = NeighbourIndex(points[chosen]).nearest(points, 1)[1][:, 0]
        mass = np.bincount(nearest, weights, minlength=len(chosen))
        return chosen, mass / mass.mean()

    def _solve(self) -> None:
        n = len(self._points)
        # few points are compared with all others, as `transform` does with new ones
        k = n if self._compares_all else min(self.n_neighbors, n - 1) + 1
        if self._metric is None:
            neighbours = NeighbourIndex(self._points)
            order = neighbours.order()
            self._points, self._mass = self._points[order], self._mass[order]
            self.landmarks_ = self.landmarks_[order]
            squared, index = neighbours.nearest(self._points, k)
            place = np.empty(n, dtype=np.int64)
            place[order] = np.arange(n)
            index = place[index]
        else:
            squared, index = mahalanobis_neighbours(self._points, self._metric, k)
        self._scales = np.ones(n)
        if self.bandwidth == "self-tuning":
            self._scales = np.sqrt(squared[:, min(LOCAL_NEIGHBOUR, k - 1)])
            if not self._scales.all():
                raise InputError("some frames have more duplicates than neighbours: remove the duplicates")
            squared = squared / (self._scales[:, None] * self._scales[index])
        graph = symmetric_graph(squared, index)
        self.curve_ = bandwidth_curve(squared)
        given = not isinstance(self.bandwidth, str)
        self.bandwidth_ = float(self.bandwidth) if given else self.curve_.best
        if not self.bandwidth_ > 0.0:
            raise InputError(f"the bandwidth is {self.bandwidth_:g}: give a positive one")
        self.dimension_ = self.curve_.dimension
        graph.data = np.exp(-graph.data / (4.0 * self.bandwidth_))
        graph.data *= graph.data > MIN_KERNEL_VALUE
        graph.eliminate_zeros()
        _check_connected(graph)
        matter = float(graph.sum() / n)
        if given and matter < min(MIN_NEIGHBOURS, 0.5 * n):
            warnings.warn(
                f"not to be trusted: at a bandwidth of {self.bandwidth_:.3g} only {matter:.1f} neighbours of a frame "
                f"matter, so that rates and coordinates depend on which frames there are: give auto (here "
                f"{self.curve_.best:.3g}), or so much that {MIN_NEIGHBOURS:g} matter",
                stacklevel=3,
            )
        self._density = np.asarray(graph @ self._mass)
        self._eigenvectors(graph)

    def _eigenvectors(self, kernel: csr_array) -> None:
        """Of P, by a similar symmetric matrix; the constant one removed."""
        rows = np.repeat(np.arange(kernel.shape[0]), np.diff(kernel.indptr))
        thinned = self._density**-self.alpha
        kernel.data *= thinned[rows] * thinned[kernel.indices]
        degree = np.asarray(kernel @ self._mass)
        root = np.sqrt(self._mass / degree)
        kernel.data *= root[rows] * root[kernel.indices]
        values, vectors = leading_eigenpairs(kernel, self.n_coordinates + 1)
        scaled = vectors[:, 1:] / np.sqrt(self._mass * degree).clip(min=1e-300)[:, None]
        scaled[self._mass == 0.0] = 0.0
        scaled /= np.sqrt(np.average(scaled**2, axis=0, weights=self._mass))
        largest = scaled[np.abs(scaled).argmax(axis=0), np.arange(scaled.shape[1])]
        self._vectors = scaled * np.sign(largest)
        self.eigenvalues_ = values[1:]
        self.rates_ = -np.log(self.eigenvalues_.clip(min=1e-300)) / self.bandwidth_

    def nystroem_parts(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Points, weights and values, so that a new point x has the coordinates sum_j k_j values_j / sum_j k_j.

        ``k_j = weights_j exp(-|x - points_j|^2 / (4 eps))``; shapes (m, d), (m,) and (m, n_coordinates).

        Raises:
            InputError: the map has another metric than the Euclidean one, or a scale for each point.
        """
        if self._metric is not None:
            raise InputError("a map with the Mahalanobis metric has no metric for new points: fit it on all of them")
        if self.bandwidth == "self-tuning":
            raise InputError("a self-tuning map has no scale for new points: give a bandwidth, or auto")
        there = self._mass > 0.0
        weights = self._mass * self._density**-self.alpha
        return self._points[there], (weights / weights.mean())[there], (self._vectors / self.eigenvalues_)[there]

    def transform(self, X: Any) -> FloatArray:
        """Coordinates of new points by Nystroem's formula, shape=(n, n_coordinates); Euclidean metric only.

        Args:
            X: shape=(n, d).
        """
        near, weights, values = self.nystroem_parts()
        points = np.asarray(X, dtype=float)
        if points.ndim != 2 or points.shape[1] != self._points.shape[1]:
            raise InputError(f"points of shape {points.shape} for a map of {self._points.shape[1]} features")
        columns = weights[:, None] * np.column_stack([values, np.ones(len(values))])
        if self._compares_all:
            origin = near.mean(axis=0)
            return _from_all(points - origin, near - origin, columns, self.bandwidth_)
        index = NeighbourIndex(near)
        step, parts = max(MAX_PAIRS // self.n_neighbors, 1), []
        for i in range(0, len(points), step):
            squared, neighbours = index.nearest(points[i : i + step], self.n_neighbors + 1)
            sums = np.einsum("nk,nkc->nc", np.exp(-squared / (4.0 * self.bandwidth_)), columns[neighbours])
            parts.append(sums[:, :-1] / sums[:, -1:])
        return np.concatenate(parts)

    @property
    def _compares_all(self) -> bool:
        """Whether a point is compared with all landmarks, not only with its neighbours."""
        return self.n_landmarks is not None and len(self._points) <= MAX_DENSE_POINTS


def _from_all(points: FloatArray, near: FloatArray, columns: FloatArray, bandwidth: float) -> FloatArray:
    """Normalised sums over all landmarks, in single precision."""
    singles, step, parts = near.astype(np.float32), max(MAX_PAIRS // len(near), 1), []
    sizes, single_columns = (singles**2).sum(axis=1), columns.astype(np.float32)
    for i in range(0, len(points), step):
        new = points[i : i + step].astype(np.float32)
        squared = sizes + (new**2).sum(axis=1)[:, None] - 2.0 * new @ singles.T
        # relative to the nearest, which may be far
        squared -= squared.min(axis=1, keepdims=True)
        sums = np.exp(squared / np.float32(-4.0 * bandwidth)) @ single_columns
        parts.append(sums[:, :-1] / sums[:, -1:])
    return np.concatenate(parts).astype(float)


def _check_connected(graph: csr_array) -> None:
    # much faster than to label components, of which there is nearly always one
    if len(breadth_first_order(graph, 0, return_predecessors=False)) == graph.shape[0]:
        return
    n, label = connected_components(graph, directed=False)
    share = 100.0 * np.bincount(label).max() / len(label)
    raise InputError(
        f"the neighbour graph falls into {n} components, the largest with {share:.1f} % of the points: raise "
        "n_neighbors or the bandwidth, or remove what lies apart"
    )
